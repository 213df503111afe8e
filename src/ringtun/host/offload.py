"""What a TUN device gives and takes in large packets: asked of the kernel, and probed.

Each queue is made with a header before every packet (``native/vnet.h``); what may stand in it is
agreed on per device. A kernel says what it gives by its answer to TUNSETOFFLOAD, and what it takes
by how it answers a large packet.
"""

from __future__ import annotations

import enum
import errno
import os
import struct
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ringtun.host.namespace import Namespace

__all__ = [
    *("NO_OFFLOAD", "VNET_HEADER_SIZE", "Coalesces", "Offload", "large_packet", "offload_of"),
    "probe",
]

VNET_HEADER_SIZE: Final = 12
NO_OFFLOAD: Final = bytes(VNET_HEADER_SIZE)

# linux/virtio_net.h
_VNET: Final = struct.Struct("=BBHHHHH")
_NEEDS_CSUM: Final = 1
_GSO_TCPV4: Final = 1
_GSO_TCPV6: Final = 4
_GSO_UDP_L4: Final = 5

_SEGMENT: Final = 100  # bytes of payload of each of a probe's two segments


class Coalesces(enum.IntFlag):
    """Which packets the kernel takes merged; ``enum coalesce_kinds`` of the native core."""

    TCP4 = 1
    TCP6 = 2
    UDP4 = 4
    UDP6 = 8

    TCP = 3
    UDP = 12
    ALL = 15


@dataclass(frozen=True, slots=True)
class Offload:
    """What the kernel leaves to the program that reads an interface's packets, at one moment.

    It is agreed on when a session starts, and over with its end.
    """

    checksum: bool
    """Checksums of TCP and UDP."""
    tcp: bool
    """Cutting up TCP, of both IP versions."""
    udp: bool
    """Cutting up UDP."""

    def as_dict(self) -> dict[str, bool]:
        """For JSON; the names are promised."""
        return asdict(self)


def offload_of(namespace: Namespace, name: str) -> Offload:
    """The same of the interface ``name``, as ``ethtool -k`` has it. It takes no rights.

    Raises ``OSError`` where the kernel does not say, or the interface is gone.
    """

    def ask() -> Offload:
        from pyroute2.ethtool.ioctl import EthtoolError, IoctlEthtool

        try:
            with closing(IoctlEthtool()) as ethtool:
                ethtool.change_ifname(name)
                found = ethtool.get_features()
        except (EthtoolError, OSError, UnicodeEncodeError) as error:
            code = getattr(error, "errno", errno.EOPNOTSUPP)
            raise OSError(code, f"the kernel says no features of {name}") from error

        def on(*features: str) -> bool:
            return all(feature in found and found[feature] for feature in features)

        return Offload(
            checksum=on("tx-checksum-ip-generic"),
            tcp=on("tx-tcp-segmentation", "tx-tcp6-segmentation"),
            udp=on("tx-udp-segmentation"),
        )

    return namespace.run(ask)


def probe(fd: int) -> Coalesces:
    """What the device of this queue takes merged. It has to be down: so nothing is sent.

    A kernel that takes a packet's header then says that the interface is down (EIO), and another
    that the header is none (EINVAL).
    """
    taken = Coalesces(0)
    for kind in Coalesces.ALL:
        try:
            os.writev(fd, large_packet(kind))
        except OSError as error:
            if error.errno == errno.EIO:
                taken |= kind
        else:
            taken |= kind  # it was up already
    return taken


def large_packet(kind: Coalesces) -> tuple[bytes, bytes]:
    """Header and packet of two segments from nowhere to nowhere; of one kind."""
    tcp = kind in Coalesces.TCP
    protocol, headers = (6, 20) if tcp else (17, 8)
    content = headers + 2 * _SEGMENT
    # The checksum is left to be done: the field holds the sum of the pseudo-header, which here has
    # no addresses.
    checksum = protocol + content
    if tcp:
        transport = struct.pack("!HHIIBBHHH", 9, 9, 0, 0, 5 << 4, 0x10, 0, checksum, 0)
    else:
        transport = struct.pack("!HHHH", 9, 9, content, checksum)
    if kind in (Coalesces.TCP4, Coalesces.UDP4):
        ip = struct.pack("!BBHIBBH8x", 0x45, 0, 20 + content, 0, 1, protocol, 0)
    else:
        ip = struct.pack("!IHBB32x", 6 << 28, content, protocol, 1)
    gso = (_GSO_TCPV4 if kind is Coalesces.TCP4 else _GSO_TCPV6) if tcp else _GSO_UDP_L4
    vnet = _VNET.pack(
        *(_NEEDS_CSUM, gso, len(ip) + headers, _SEGMENT, len(ip), 16 if tcp else 6, 0),
    )
    return vnet, ip + transport + bytes(2 * _SEGMENT)
