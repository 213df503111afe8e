"""python-pytun, or its fork, from PyPI: ``forward_pytun pytun|pytun_pmd3 NETNS NETNS``."""

import sys
from functools import partial
from typing import Any

from benchmarks.programs.echo_pytun import open_pytun
from benchmarks.programs.process import run


def forward(source: Any, destination: Any) -> None:
    read, write = source.read, destination.write
    while True:
        packet = read(65536)
        try:  # noqa: SIM105 - costs less than suppress()
            write(packet)
        except OSError:
            pass  # down, or it does not like the packet: dropped


def main(package: str, left: str, right: str) -> None:
    a, b = open_pytun(package, left), open_pytun(package, right)
    run(partial(forward, a, b), partial(forward, b, a))


if __name__ == "__main__":
    main(*sys.argv[1:])
