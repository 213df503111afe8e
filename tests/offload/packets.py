"""Packets as the host hands them to a device with offload: large, a checksum to be done."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tests.offload.model_segment import (
    NEEDS_CSUM,
    TCP,
    TCPV4,
    TCPV6,
    UDP,
    UDP_L4,
    VnetHeader,
    fold,
    summed,
)

ACK = 0x10
DONT_FRAGMENT = 0x4000
NOP = b"\x01"
TIMESTAMPS = NOP * 2 + struct.pack("!BBII", 8, 10, 0x01020304, 0x0A0B0C0D)
PAD_6 = bytes((1, 4, 0, 0, 0, 0))  # an IPv6 option that fills an extension header of 8 bytes
HOP_BY_HOP, ROUTING, DESTINATION = 0, 43, 60

ADDRESSES = {
    4: (IPv4Address("10.1.0.2").packed, IPv4Address("10.2.0.2").packed),
    6: (IPv6Address("fd01::2").packed, IPv6Address("fd02::2").packed),
}


@dataclass(frozen=True)
class Large:
    """A large packet; ``packet`` and ``vnet`` are its bytes and the header before it."""

    version: int = 4
    protocol: int = TCP
    payload_size: int = 4000
    gso_size: int = 1400
    flags: int = ACK  # of TCP
    options: bytes = b""  # of TCP: a multiple of 4, at most 40
    ip_options: bytes = b""  # of IPv4: likewise
    extensions: tuple[tuple[int, bytes], ...] = ()  # of IPv6: kind, and bytes behind its first two
    sequence: int = 0x10203040
    identification: int = 0x1234
    fragment: int = DONT_FRAGMENT
    traffic_class: int = 0
    ttl: int = 64
    seed: int = 0  # of the payload

    @property
    def transport(self) -> int:
        """Where the transport header starts."""
        if self.version == 4:
            return 20 + len(self.ip_options)
        return 40 + sum(2 + len(body) for _, body in self.extensions)

    @property
    def payload(self) -> bytes:
        return random.Random(self.seed).randbytes(self.payload_size)

    @property
    def pseudo_header(self) -> bytes:
        length = (20 + len(self.options) if self.protocol == TCP else 8) + self.payload_size
        source, target = ADDRESSES[self.version]
        return source + target + struct.pack("!II", length, self.protocol)

    @property
    def transport_header(self) -> bytes:
        left = summed(self.pseudo_header)
        if self.protocol == UDP:
            return struct.pack("!HHHH", 1000, 2000, 8 + self.payload_size, left)
        data_offset = (20 + len(self.options)) // 4 << 4
        ports_and_numbers = struct.pack("!HHII", 1000, 2000, self.sequence, 0x50607080)
        rest = struct.pack("!BBHHH", data_offset, self.flags, 4096, left, 0)
        return ports_and_numbers + rest + self.options

    @property
    def packet(self) -> bytes:
        behind = self.transport_header + self.payload
        source, target = ADDRESSES[self.version]
        if self.version == 6:
            kinds = [*(kind for kind, _ in self.extensions), self.protocol]
            chain = b"".join(
                bytes((following, (2 + len(body)) // 8 - 1)) + body
                for following, (_, body) in zip(kinds[1:], self.extensions, strict=True)
            )
            first = 6 << 28 | self.traffic_class << 20 | 0x12345
            header = struct.pack("!IHBB", first, len(chain + behind), kinds[0], self.ttl)
            return header + source + target + chain + behind
        header = struct.pack(
            "!BBHHHBBH",
            0x40 | self.transport // 4,
            self.traffic_class,
            self.transport + len(behind),
            self.identification,
            self.fragment,
            self.ttl,
            self.protocol,
            0,
        )
        header += source + target + self.ip_options
        return header[:10] + struct.pack("!H", 0xFFFF - summed(header)) + header[12:] + behind

    @property
    def vnet(self) -> VnetHeader:
        tcp = self.protocol == TCP
        return VnetHeader(
            NEEDS_CSUM,
            (TCPV4 if self.version == 4 else TCPV6) if tcp else UDP_L4,
            self.transport + len(self.transport_header),
            self.gso_size,
            self.transport,
            16 if tcp else 6,
        )


def checksums_right(packet: bytes, start: int) -> bool:
    """Whether a packet that is whole, its transport header at ``start``, carries right checksums.

    From the addresses of its IP header: not for routing headers.
    """
    if packet[0] >> 4 == 4:
        protocol, addresses = packet[9], packet[12:20]
        if summed(packet[: packet[0] % 16 * 4]) != 0xFFFF:
            return False
    else:
        addresses, at, protocol = packet[8:40], 40, packet[6]
        while at < start:
            at, protocol = at + 8 + packet[at + 1] * 8, packet[at]
    pseudo_header = addresses + struct.pack("!II", len(packet) - start, protocol)
    return fold(summed(pseudo_header) + summed(packet[start:])) == 0xFFFF
