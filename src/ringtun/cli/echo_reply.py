"""Pings turned round: the answer to an ICMP echo request, over IPv4 (RFC 792) and IPv6 (RFC 4443).

What is no request to one of the networks' addresses is ignored, and counted by its reason.
"""

from __future__ import annotations

import ipaddress
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["Ignored", "Responder"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

ICMP: Final = 1
FRAGMENT: Final = 44
ICMPV6: Final = 58
IPV4_HEADER: Final = 20
IPV6_HEADER: Final = 40
ECHO_HEADER: Final = 8
MORE_OR_OFFSET: Final = 0x3FFF  # of IPv4's flags and fragment offset
HOP_LIMIT: Final = 64
MOST_PINGERS: Final = 1000  # by source and destination; the answers to more are only counted


@dataclass(slots=True)
class Ignored:
    """Packets without an answer, by reason."""

    fragments: int = 0
    """Parts of a larger packet."""
    not_echo: int = 0
    """Whole packets that are no echo request."""
    other_address: int = 0
    """To an address outside the networks or a broadcast one, or from one that nobody has."""
    damaged: int = 0
    """With a wrong length or checksum."""


class Responder:
    """Answers the echo requests to addresses of ``networks``."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(networks)
        self.answered = 0
        self.ignored = Ignored()
        self.pingers: Counter[tuple[Address, Address]] = Counter()
        """Answers by source and destination of the requests, for the first `MOST_PINGERS`."""

    def answer(self, packet: bytes) -> bytes | None:
        """The answer to ``packet``, an IP packet; None where it gets none."""
        return self._answer_ipv4(packet) if packet[0] >> 4 == 4 else self._answer_ipv6(packet)

    def _answer_ipv4(self, packet: bytes) -> bytes | None:
        start = (packet[0] & 0xF) * 4
        size, flags = int.from_bytes(packet[2:4]), int.from_bytes(packet[6:8])
        if not IPV4_HEADER <= start <= size <= len(packet) or _sum(packet[:start]):
            self.ignored.damaged += 1
            return None
        if flags & MORE_OR_OFFSET:
            self.ignored.fragments += 1
            return None
        source, destination = packet[12:16], packet[16:20]
        content = packet[start:size]
        if packet[9] != ICMP or not content.startswith(b"\x08\0"):
            self.ignored.not_echo += 1
            return None
        if not self._accept(
            ipaddress.IPv4Address(source), ipaddress.IPv4Address(destination), content, b""
        ):
            return None
        answer = _with_sum(b"\0\0\0\0" + content[4:], b"")
        # Without the request's options: they told of its way.
        header = bytearray(
            struct.pack(
                *("!BBH2sHBBH4s4s", 0x45, packet[1], IPV4_HEADER + len(answer), packet[4:6]),
                *(0, HOP_LIMIT, ICMP, 0, destination, source),
            )
        )
        header[10:12] = _sum(header).to_bytes(2)
        return bytes(header) + answer

    def _answer_ipv6(self, packet: bytes) -> bytes | None:
        end = IPV6_HEADER + int.from_bytes(packet[4:6])
        if end > len(packet):
            self.ignored.damaged += 1
            return None
        if packet[6] == FRAGMENT:
            self.ignored.fragments += 1
            return None
        source, destination = packet[8:24], packet[24:40]
        content = packet[IPV6_HEADER:end]
        if packet[6] != ICMPV6 or not content.startswith(b"\x80\0"):
            self.ignored.not_echo += 1
            return None
        tail = struct.pack("!II", len(content), ICMPV6)
        if not self._accept(
            ipaddress.IPv6Address(source),
            ipaddress.IPv6Address(destination),
            content,
            source + destination + tail,
        ):
            return None
        answer = _with_sum(b"\x81\0\0\0" + content[4:], destination + source + tail)
        header = struct.pack("!4sHBB", packet[:4], len(answer), ICMPV6, HOP_LIMIT)
        return header + destination + source + answer

    def _accept(
        self, source: Address, destination: Address, content: bytes, pseudo_header: bytes
    ) -> bool:
        """Whether to answer an echo request; count it either way."""
        if len(content) < ECHO_HEADER or _sum(pseudo_header + content):
            self.ignored.damaged += 1
            return False
        if not self._is_ours(destination) or not _is_somebody(source):
            self.ignored.other_address += 1
            return False
        self.answered += 1
        pinger = source, destination
        if pinger in self.pingers or len(self.pingers) < MOST_PINGERS:
            self.pingers[pinger] += 1
        return True

    def _is_ours(self, address: Address) -> bool:
        return any(
            address in network and not _is_broadcast(address, network) for network in self._networks
        )


def _is_broadcast(address: Address, network: Network) -> bool:
    return (
        network.version == 4
        and network.prefixlen < 31
        and address in (network.network_address, network.broadcast_address)
    )


def _is_somebody(address: Address) -> bool:
    return not (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or address == ipaddress.IPv4Address("255.255.255.255")
    )


def _with_sum(content: bytes, pseudo_header: bytes) -> bytes:
    """ICMP content whose checksum is blank, with it."""
    return content[:2] + _sum(pseudo_header + content).to_bytes(2) + content[4:]


def _sum(data: bytes | bytearray) -> int:
    """RFC 1071's checksum; 0 over data that holds its own, where that is right."""
    if len(data) % 2:
        data = data + b"\0"
    # 2**16 is 1 modulo 65,535: the number that the bytes spell has the remainder of their sum.
    remainder = int.from_bytes(data) % 0xFFFF
    return 0xFFFF - remainder if remainder or not any(data) else 0
