"""Python's own ``os.readv`` and ``os.write``, a packet each: ``forward_os NETNS NETNS``."""

import os
import sys
from functools import partial

from benchmarks.programs.process import open_tun, run


def forward(source: int, destination: int) -> None:
    buffer = bytearray(65536)
    view = memoryview(buffer)
    pieces = [buffer]
    while True:
        size = os.readv(source, pieces)
        try:  # noqa: SIM105 - costs less than suppress()
            os.write(destination, view[:size])
        except OSError:
            pass  # down, or it does not like the packet: dropped


def main(left: str, right: str) -> None:
    a, b = open_tun(left), open_tun(right)
    run(partial(forward, a, b), partial(forward, b, a))


if __name__ == "__main__":
    main(*sys.argv[1:])
