"""The kernel between two TUN devices: what is written into one comes out of the other, cut."""

from __future__ import annotations

import fcntl
import os
import select
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path

from ringtun.host import linux_tun, netlink
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link
from ringtun.testing.netns import NetworkNamespace
from tests.offload.clients import udp

__all__ = ["SOURCE", "TARGET", "Router", "running_router"]

TUNSETVNETHDRSZ = 0x400454D8  # linux/if_tun.h
VNET_HEADER_SIZE = 12
SOURCE = {4: "10.1.0.2", 6: "fd01::2"}
TARGET = {4: "10.2.0.2", 6: "fd02::2"}


class Router:
    """Forwards what is written to ``into``, a header of vnet.h before it; all is cut on the way."""

    def __init__(self, into: int, out: LinuxTun) -> None:
        self.into = into
        self._out = out
        self._marks = 0

    def write(self, header: bytes, packet: bytes) -> None:
        """Hand over one packet; ``header`` is that of vnet.h, zeros behind it left out."""
        os.write(self.into, header.ljust(VNET_HEADER_SIZE, b"\0") + packet)

    def forwarded(self) -> list[bytes]:
        """All packets from `SOURCE` that came out since the last call, each one hop further."""
        self._marks += 1
        mark = struct.pack("!Q", self._marks)  # the next in line says that there is no more
        packet = udp(mark, source=SOURCE[4], target=TARGET[4], ports=(9, 9))
        self.write(b"", packet)
        packets: list[bytes] = []
        while True:
            assert select.select([self._out], [], [], 10)[0], "the kernel forwarded nothing more"
            found = self._out.read_packet()
            if found is None or not is_ours(found):
                continue
            if found[20:24] == packet[20:24] and found.endswith(mark):
                return packets
            packets.append(found)


def is_ours(packet: bytes) -> bool:
    """Not the kernel's own neighbour discovery and the like."""
    return packet[0] >> 4 == 4 or packet[8] == 0xFD


@contextmanager
def running_router() -> Iterator[Router]:
    """A namespace that forwards IPv4 and IPv6 between two TUN devices of the largest MTU."""
    with (
        NetworkNamespace("router") as network,
        Namespace.named(network.name) as namespace,
        vnet_queue("into0", namespace) as into,
        LinuxTun.create("out0", namespace=namespace) as out,
    ):
        for name, number in (("into0", 1), ("out0", 2)):
            index = netlink.find(namespace, name)
            assert index is not None
            link = Link(namespace, index)
            addresses = [ip_interface(f"10.{number}.0.1/24"), ip_interface(f"fd0{number}::1/64")]
            link.configure(
                txqueuelen=5000,
                mtu=65_535,
                addr_gen_mode_none=True,
                addresses=addresses,
                up=True,
            )
            if name == "out0":
                out.carrier(True)
            link.wait_running(10)
            link.wait_receiving(addresses, 10)

        def forward() -> None:
            for setting in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
                (Path("/proc/sys/net") / setting).write_text("1")

        namespace.run(forward)
        yield Router(into, out)


@contextmanager
def vnet_queue(name: str, namespace: Namespace) -> Iterator[int]:
    """A TUN device whose packets have a header of 12 bytes before them."""
    opening = os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK
    fd = namespace.run(lambda: os.open(linux_tun.TUN_NODE, opening))
    flags = linux_tun.IFF_TUN | linux_tun.IFF_NO_PI | linux_tun.IFF_VNET_HDR
    try:
        fcntl.ioctl(fd, linux_tun.TUNSETIFF, linux_tun.IFREQ_FLAGS.pack(name.encode(), flags))
        fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER_SIZE))
        yield fd
    finally:
        os.close(fd)
