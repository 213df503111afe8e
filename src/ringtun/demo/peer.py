"""The process at either end of a measurement, inside a network namespace.

``python -m ringtun.demo.peer tcp-send 10.7.0.2 5000 3.0`` and the like; it ends with its parent.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from ringtun.demo import ping, tcp, udp
from ringtun.demo.child import serve

__all__ = ["main"]


def main() -> None:
    """Do what the command line says."""
    told = threading.Event()
    threading.Thread(target=_watch_parent, args=[told], daemon=True).start()
    match sys.argv[1:]:
        case ["ping", program, address]:
            ping.run(program, address)
        case ["tcp-send", address, port, seconds]:
            tcp.send(address, int(port), float(seconds))
        case ["tcp-receive", address]:
            tcp.receive(address)
        case ["udp-send", address, port, seconds]:
            udp.send(address, int(port), float(seconds))
        case ["udp-receive", address]:
            udp.receive(address, told)
        case arguments:
            raise ValueError(f"no such measurement: {arguments}")


def _watch_parent(told: threading.Event) -> None:
    """Set ``told`` at each line from the parent; at the parent's end, end, ping included."""
    while os.read(0, 1024):
        told.set()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    serve(main)
