"""ICMP echo and UDP, over IPv4 (RFC 791) and IPv6 (RFC 8200), built and checked in Python."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from ringtun.packet import require_ip

__all__ = ["ICMP", "ICMPV6", "UDP", "Packet", "echo_reply", "echo_request", "udp"]

Address: TypeAlias = IPv4Address | IPv6Address

ICMP: Final = 1
UDP: Final = 17
ICMPV6: Final = 58

_IPV4: Final = struct.Struct("!BBHHHBBH4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_UDP: Final = struct.Struct("!HHHH")
_ECHO: Final = struct.Struct("!BBHHH")
_PSEUDO_IPV4: Final = struct.Struct("!4s4sBBH")
_PSEUDO_IPV6: Final = struct.Struct("!16s16sIxxxB")
_SUM: Final = struct.Struct("!H")
_HOP_LIMIT: Final = 64
_SUM_OFFSET: Final = {ICMP: 2, ICMPV6: 2, UDP: 6}
# ICMP's numbers of echo request and reply
_REQUEST: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}


def internet_checksum(data: bytes) -> int:
    """RFC 1071: the complement of the sum, in ones' complement, of 16-bit words."""
    if len(data) % 2:
        data += b"\0"
    # 2**16 is 1 modulo 65,535, so the number that the bytes spell has the remainder of their sum
    total = int.from_bytes(data) % 0xFFFF
    return 0xFFFF - total if total or not any(data) else 0


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet without options and extension headers; ``content`` is all behind the header."""

    source: Address
    destination: Address
    protocol: int
    content: bytes

    def to_bytes(self) -> bytes:
        """The packet, its checksums filled in; whatever stood in their place is ignored."""
        offset = _SUM_OFFSET[self.protocol]
        blank = self.content[:offset] + b"\0\0" + self.content[offset + 2 :]
        total = internet_checksum(self._pseudo_header() + blank)
        if self.protocol == UDP and total == 0:
            total = 0xFFFF  # RFC 768: 0 would say that there is none
        return self._header() + blank[:offset] + _SUM.pack(total) + blank[offset + 2 :]

    @classmethod
    def from_bytes(cls, data: bytes) -> Packet:
        """Take a packet apart. Raises ``ValueError`` unless all lengths and checksums are right."""
        require_ip(data)
        packet = cls._of_ipv4(data) if data[0] >> 4 == 4 else cls._of_ipv6(data)
        if packet.protocol not in _SUM_OFFSET:
            raise ValueError(f"neither ICMP nor UDP: protocol {packet.protocol}")
        if internet_checksum(packet._pseudo_header() + packet.content) != 0:
            raise ValueError(f"wrong checksum, in protocol {packet.protocol}")
        return packet

    @classmethod
    def _of_ipv4(cls, data: bytes) -> Packet:
        header = data[: _IPV4.size]
        start, _, size, _, _, _, protocol, _, source, destination = _IPV4.unpack(header)
        if start != 0x45 or size != len(data):
            raise ValueError(f"not an IPv4 packet without options, of {len(data)} bytes")
        if internet_checksum(header) != 0:
            raise ValueError("wrong checksum, in the IPv4 header")
        return cls(
            IPv4Address(source), IPv4Address(destination), protocol, data[_IPV4.size :]
        )  # fmt: skip

    @classmethod
    def _of_ipv6(cls, data: bytes) -> Packet:
        start, size, protocol, _, source, destination = _IPV6.unpack_from(data)
        if start >> 28 != 6 or size != len(data) - _IPV6.size:
            raise ValueError(f"not an IPv6 packet, of {len(data)} bytes")
        return cls(IPv6Address(source), IPv6Address(destination), protocol, data[_IPV6.size :])

    def _header(self) -> bytes:
        source, destination = self.source.packed, self.destination.packed
        size = len(self.content)
        if self.source.version == 6:
            return _IPV6.pack(6 << 28, size, self.protocol, _HOP_LIMIT, source, destination)
        blank = _IPV4.pack(
            0x45, 0, _IPV4.size + size, 0, 0, _HOP_LIMIT, self.protocol, 0, source, destination
        )
        return blank[:10] + _SUM.pack(internet_checksum(blank)) + blank[12:]

    def _pseudo_header(self) -> bytes:
        """What the content's checksum covers besides it: nothing in ICMP for IPv4."""
        source, destination = self.source.packed, self.destination.packed
        if self.source.version == 6:
            return _PSEUDO_IPV6.pack(source, destination, len(self.content), self.protocol)
        if self.protocol == ICMP:
            return b""
        return _PSEUDO_IPV4.pack(source, destination, 0, self.protocol, len(self.content))


def udp(source: Address, destination: Address, ports: tuple[int, int], payload: bytes) -> Packet:
    """A UDP datagram, from the first port to the second."""
    content = _UDP.pack(*ports, _UDP.size + len(payload), 0) + payload
    return Packet(source, destination, UDP, content)


def udp_payload(packet: Packet) -> bytes:
    """What a UDP datagram carries. Raises ``ValueError`` where its length is not right."""
    if _UDP.unpack_from(packet.content)[2] != len(packet.content):
        raise ValueError("a UDP length that is not the packet's")
    return packet.content[_UDP.size :]


def echo_request(source: Address, destination: Address, sequence: int, payload: bytes) -> Packet:
    """An ICMP echo request ("ping")."""
    version = source.version
    content = _ECHO.pack(_REQUEST[version], 0, 0, 1, sequence) + payload
    return Packet(source, destination, ICMP if version == 4 else ICMPV6, content)


def echo_reply(request: Packet) -> Packet:
    """The reply to an echo request. Raises ``ValueError`` where it is none."""
    version = request.source.version
    if request.protocol == UDP or request.content[0] != _REQUEST[version]:
        raise ValueError("not an echo request")
    return replace(
        request,
        source=request.destination,
        destination=request.source,
        content=bytes([_REPLY[version]]) + request.content[1:],
    )
