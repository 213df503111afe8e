"""python-pytun, or its fork, from PyPI: ``echo_pytun pytun|pytun_pmd3 NETNS``."""

import importlib
import sys
from typing import Any

from benchmarks.programs.answer import answer
from benchmarks.programs.process import IFF_NO_PI, IFF_TUN, NAME, run
from ringtun.host.namespace import Namespace


def open_pytun(package: str, netns: str) -> Any:
    """A device of python-pytun's in a namespace, or of another package with its interface."""
    pytun = importlib.import_module(package)
    with Namespace.named(netns) as namespace:
        return namespace.run(lambda: pytun.TunTapDevice(NAME, IFF_TUN | IFF_NO_PI))


def main(package: str, netns: str) -> None:
    tun = open_pytun(package, netns)

    def serve() -> None:
        while True:
            reply = answer(tun.read(65536))
            if reply is not None:
                tun.write(reply)

    run(serve)


if __name__ == "__main__":
    main(*sys.argv[1:])
