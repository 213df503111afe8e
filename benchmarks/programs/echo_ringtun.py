"""ringtun, a packet at a time: ``echo_ringtun inline|thread|service NETNS``."""

import sys
from typing import cast

from benchmarks.programs.answer import answer
from benchmarks.programs.process import Pump, run, served_session, session


def main(way: str, netns: str) -> None:
    packets = served_session(netns) if way == "service" else session(netns, cast(Pump, way))

    def serve() -> None:
        for packet in packets:
            reply = answer(packet)
            if reply is not None:
                packets.send(reply)

    run(serve)


if __name__ == "__main__":
    main(*sys.argv[1:])
