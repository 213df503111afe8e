"""A tunnel: IP packets as UDP datagrams. Nothing is encrypted, and who knows the addresses gets in.

Arguments: from where to where UDP goes, then the addresses in the tunnel. Here over forward.py:

    unshare -rnm
    mount -t tmpfs none /run && ip netns add left && ip netns add right
    python examples/forward.py left right &
    nsenter --net=/run/netns/left python examples/udp_tunnel.py 10.8.0.1 10.8.0.2 10.9.0.1/24 &
    nsenter --net=/run/netns/right python examples/udp_tunnel.py 10.8.0.2 10.8.0.1 10.9.0.2/24 &
    nsenter --net=/run/netns/left ping -c 3 10.9.0.2
"""

import asyncio
import socket
import sys
from contextlib import suppress

import ringtun

PORT, OVERHEAD, IP_MTU = 7007, 20 + 8, 14  # linux/in.h has IP_MTU


async def to_peer(session: ringtun.AsyncSession, path: socket.socket) -> None:
    async for packet in session:
        with suppress(OSError):  # nobody there, or no room: it is lost, as datagrams are
            path.send(packet)


async def from_peer(path: socket.socket, session: ringtun.AsyncSession) -> None:
    while True:
        with suppress(OSError, ValueError):  # nobody there; a datagram that is no IP packet
            await session.send(await asyncio.get_running_loop().sock_recv(path, 65535))


async def main(local: str, remote: str, *addresses: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as path:
        path.setblocking(False)
        path.bind((local, PORT))
        path.connect((remote, PORT))  # the kernel drops what strangers send, and knows the MTU
        mtu = path.getsockopt(socket.IPPROTO_IP, IP_MTU) - OVERHEAD
        with ringtun.create_adapter("tunnel0", addresses=addresses, mtu=mtu) as adapter:
            async with adapter.start_async_session() as session, asyncio.TaskGroup() as tasks:
                tasks.create_task(to_peer(session, path))
                tasks.create_task(from_peer(path, session))
                print(f"the tunnel is up, with an MTU of {mtu}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
