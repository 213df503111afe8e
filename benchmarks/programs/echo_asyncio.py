"""ringtun in asyncio, a packet at a time: ``echo_asyncio asyncio|uvloop NETNS``."""

import sys

from benchmarks.programs.answer import answer
from benchmarks.programs.process import async_session, run_loop


def main(loop: str, netns: str) -> None:
    packets = async_session(netns)

    async def serve() -> None:
        async for packet in packets:
            reply = answer(packet)
            if reply is not None:
                await packets.send(reply)

    run_loop(loop, serve())


if __name__ == "__main__":
    main(*sys.argv[1:])
