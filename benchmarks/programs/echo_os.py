"""Python's own ``os.read`` and ``os.write``: ``echo_os NETNS``."""

import os
import sys

from benchmarks.programs.answer import answer
from benchmarks.programs.process import open_tun, run


def main(netns: str) -> None:
    tun = open_tun(netns)

    def serve() -> None:
        while True:
            reply = answer(os.read(tun, 65536))
            if reply is not None:
                os.write(tun, reply)

    run(serve)


if __name__ == "__main__":
    main(*sys.argv[1:])
