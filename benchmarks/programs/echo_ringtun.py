"""ringtun, a packet at a time: ``echo_ringtun inline|thread NETNS``."""

import sys
from typing import cast

from benchmarks.programs.answer import answer
from benchmarks.programs.process import Pump, run, session


def main(pump: Pump, netns: str) -> None:
    packets = session(netns, pump)

    def serve() -> None:
        for packet in packets:
            reply = answer(packet)
            if reply is not None:
                packets.send(reply)

    run(serve)


if __name__ == "__main__":
    main(cast(Pump, sys.argv[1]), *sys.argv[2:])
