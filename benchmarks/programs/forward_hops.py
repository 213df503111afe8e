"""pytun-pmd3 in asyncio, each read in a thread of the loop's executor, as its own users do it:
``forward_hops pytun_pmd3 NETNS NETNS``.
"""

import asyncio
import sys
from contextlib import suppress
from typing import Any

from benchmarks.programs.echo_pytun import open_pytun
from benchmarks.programs.process import run_loop


async def forward(source: Any, destination: Any) -> None:
    loop = asyncio.get_running_loop()
    while True:
        packet = await loop.run_in_executor(None, source.read, 65536)
        with suppress(OSError):  # down, or it does not like the packet: dropped
            destination.write(packet)


def main(package: str, left: str, right: str) -> None:
    a, b = open_pytun(package, left), open_pytun(package, right)

    async def both() -> None:
        await asyncio.gather(forward(a, b), forward(b, a))

    run_loop("asyncio", both())


if __name__ == "__main__":
    main(*sys.argv[1:])
