"""What the programs of these tests do with packets, without a network stack of their own."""

from __future__ import annotations

import struct

__all__ = ["ICMPV6", "echo_reply", "is_noise", "protocol_of", "udp_echo", "udp_payload"]

ICMP, UDP, ICMPV6 = 1, 17, 58
HOP_BY_HOP = 0


def _upper(packet: bytes) -> tuple[int, int, slice, slice]:
    """The protocol above IP, where it starts, where source and destination stand."""
    if packet[0] >> 4 == 4:
        return packet[9], (packet[0] & 15) * 4, slice(12, 16), slice(16, 20)
    return packet[6], 40, slice(8, 24), slice(24, 40)


def _turned(packet: bytes) -> bytearray:
    """The packet on its way back: no checksum changes."""
    *_, source, destination = _upper(packet)
    turned = bytearray(packet)
    turned[source], turned[destination] = packet[destination], packet[source]
    return turned


def is_noise(packet: bytes) -> bool:
    """Whether the kernel says this on its own account: which IPv6 groups it listens to."""
    return packet[0] >> 4 == 6 and packet[6] == HOP_BY_HOP


def echo_reply(packet: bytes) -> bytes | None:
    """The answer to a ping; None for what is none."""
    protocol, start, *_ = _upper(packet)
    kinds = {ICMP: (8, 0), ICMPV6: (128, 129)}
    if protocol not in kinds or packet[start] != kinds[protocol][0]:
        return None
    request, reply = kinds[protocol]
    answer = _turned(packet)
    answer[start] = reply
    (checksum,) = struct.unpack_from("!H", packet, start + 2)
    checksum += (request - reply) * 0x100  # ones' complement: what goes from the data comes here
    struct.pack_into("!H", answer, start + 2, checksum % 0xFFFF)
    return bytes(answer)


def protocol_of(packet: bytes) -> int:
    """What stands directly above IP."""
    return _upper(packet)[0]


def udp_echo(packet: bytes) -> bytes | None:
    """The datagram, back to its sender; None for what is none."""
    protocol, start, *_ = _upper(packet)
    if protocol != UDP:
        return None
    answer = _turned(packet)
    ports = slice(start, start + 2), slice(start + 2, start + 4)
    answer[ports[0]], answer[ports[1]] = packet[ports[1]], packet[ports[0]]
    return bytes(answer)


def udp_payload(packet: bytes) -> bytes:
    """What the datagram in an unfragmented packet carries."""
    protocol, start, *_ = _upper(packet)
    assert protocol == UDP, packet[:48].hex()
    return packet[start + 8 :]
