"""Several adapters in one asyncio loop; on each, every packet goes back with its addresses turned.

unshare -rn
python examples/asyncio_echo.py &
ping -c 3 10.7.1.9
ping -c 3 10.7.3.9
"""

import asyncio
from contextlib import suppress

import ringtun


def turned(packet: bytes) -> bytes:
    """An IPv4 packet on its way back. Its checksums hold: they are sums over the same words."""
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:]


async def echo(number: int) -> None:
    """An adapter's whole life; cancelled, it takes the adapter away."""
    network = f"10.7.{number}.1/24"
    with ringtun.create_adapter(f"echo{number}", addresses=[network]) as adapter:
        async with adapter.start_async_session() as session:
            print(f"echo{number} answers for {network}", flush=True)
            async for packet in session:
                if packet[0] >> 4 == 4:
                    await session.send(turned(packet))


async def main() -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in (1, 2, 3):
            tasks.create_task(echo(number))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
