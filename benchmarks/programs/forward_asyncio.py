"""ringtun in asyncio: ``forward_asyncio packet|gather|batch asyncio|uvloop NETNS NETNS``."""

import asyncio
import sys

from benchmarks.programs.process import async_session, run_loop
from ringtun.aio import AsyncSession


async def packet(source: AsyncSession, destination: AsyncSession) -> None:
    async for packet in source:
        await destination.send(packet)


async def gather(source: AsyncSession, destination: AsyncSession) -> None:
    async for batch in source.batches():
        async with destination.gather():
            for packet in batch:
                await destination.send(packet)


async def batch(source: AsyncSession, destination: AsyncSession) -> None:
    async for batch in source.batches():
        await destination.send_many(batch)


WAYS = {"packet": packet, "gather": gather, "batch": batch}


def main(way: str, loop: str, left: str, right: str) -> None:
    a, b = async_session(left), async_session(right)

    async def forward() -> None:
        await asyncio.gather(WAYS[way](a, b), WAYS[way](b, a))

    run_loop(loop, forward())


if __name__ == "__main__":
    main(*sys.argv[1:])
