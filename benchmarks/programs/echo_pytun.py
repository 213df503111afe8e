"""python-pytun, from PyPI: ``echo_pytun NETNS``."""

import importlib
import sys
from typing import Any

from benchmarks.programs.answer import answer
from benchmarks.programs.process import NAME, run
from ringtun.host.namespace import Namespace


def open_pytun(netns: str) -> Any:
    """A device of python-pytun's in a namespace."""
    pytun = importlib.import_module("pytun")
    with Namespace.named(netns) as namespace:
        return namespace.run(lambda: pytun.TunTapDevice(NAME, pytun.IFF_TUN | pytun.IFF_NO_PI))


def main(netns: str) -> None:
    tun = open_pytun(netns)

    def serve() -> None:
        while True:
            reply = answer(tun.read(65536))
            if reply is not None:
                tun.write(reply)

    run(serve)


if __name__ == "__main__":
    main(*sys.argv[1:])
