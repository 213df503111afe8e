"""A plain model of the splitter: what the host would have sent without offload.

Written from the rules, on bytes, without a thought for speed; `native/segment.c` is held equal
to it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

NEEDS_CSUM = 1
NONE, TCPV4, TCPV6, UDP_L4, ECN = 0, 1, 4, 5, 0x80
TCP, UDP = 6, 17
EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options: all with a length at byte 1
FIN, PSH, CWR = 0x01, 0x08, 0x80
LARGEST = 65_535


class VnetHeader(NamedTuple):
    """struct virtio_net_hdr, without num_buffers."""

    flags: int = 0
    gso_type: int = NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        """The 10 bytes that travel."""
        return struct.pack("=BBHHHH", *self)

    @classmethod
    def unpack(cls, header: bytes) -> VnetHeader:
        """The same from the bytes."""
        return cls(*struct.unpack("=BBHHHH", header))


class Malformed(Exception):
    """The header and the packet do not fit together."""


def require(condition: bool) -> None:
    if not condition:
        raise Malformed


def field(data: bytes | bytearray, at: int) -> int:
    require(at + 2 <= len(data))
    return int.from_bytes(data[at : at + 2], "big")


def put(data: bytearray, at: int, value: int, size: int = 2) -> None:
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "big")


def fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def summed(data: bytes | bytearray) -> int:
    """The sum of the 16-bit words, folded, not complemented (RFC 1071)."""
    return fold(sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2))))


def complete(packet: bytearray, start: int, offset: int, zero_means_none: bool) -> None:
    """Do the checksum whose field holds what is to be added to the sum from ``start`` on."""
    value = 0xFFFF - summed(packet[start:])
    put(packet, start + offset, 0xFFFF if value == 0 and zero_means_none else value)


def segment(vnet: VnetHeader, packet: bytes) -> list[bytes]:
    """The packets that ``packet`` stands for; raises `Malformed`."""
    require(len(packet) <= LARGEST)
    if vnet.gso_type == NONE:
        return [whole(vnet, packet)]
    start, protocol = transport(packet)
    version = packet[0] >> 4
    require(bool(vnet.flags & NEEDS_CSUM) and vnet.csum_start == start)
    if protocol == TCP:
        type_ = {4: TCPV4, 6: TCPV6}[version]
        require(vnet.gso_type in (type_, type_ | ECN) and vnet.csum_offset == 16)
        require(len(packet) >= start + 20)
        size = packet[start + 12] // 16 * 4
        require(size >= 20)
    else:
        require(protocol == UDP and vnet.gso_type == UDP_L4 and vnet.csum_offset == 6)
        require(field(packet, start + 4) == len(packet) - start)
        size = 8
    headers, payload = packet[: start + size], packet[start + size :]
    require(0 < vnet.gso_size <= len(payload))
    pseudo = field(packet, start + vnet.csum_offset) + 0xFFFF - (len(packet) - start)
    segments = []
    for index, done in enumerate(range(0, len(payload), vnet.gso_size)):
        piece = bytearray(headers + payload[done : done + vnet.gso_size])
        length = len(piece) - start
        if version == 4:
            put(piece, 2, len(piece))
            put(piece, 4, field(packet, 4) + index)
            put(piece, 10, 0)
            put(piece, 10, 0xFFFF - summed(piece[:start]))
        else:
            put(piece, 4, len(piece) - 40)
        if protocol == TCP:
            put(piece, start + 4, int.from_bytes(packet[start + 4 : start + 8], "big") + done, 4)
            if done + vnet.gso_size < len(payload):
                piece[start + 13] &= 0xFF ^ (FIN | PSH)
            if index:
                piece[start + 13] &= 0xFF ^ CWR
        else:
            put(piece, start + 4, length)
        put(piece, start + vnet.csum_offset, fold(pseudo + length))
        complete(piece, start, vnet.csum_offset, protocol == UDP)
        segments.append(bytes(piece))
    return segments


def whole(vnet: VnetHeader, packet: bytes) -> bytes:
    """The packet itself, its checksum done where that was left to the device."""
    if not vnet.flags & NEEDS_CSUM:
        return packet
    headers = packet[0] % 16 * 4 if packet[0] >> 4 == 4 else 40
    require(20 <= headers <= vnet.csum_start)
    require(vnet.csum_start + vnet.csum_offset + 2 <= len(packet))
    piece = bytearray(packet)
    complete(piece, vnet.csum_start, vnet.csum_offset, vnet.csum_offset == 6)
    return bytes(piece)


def transport(packet: bytes) -> tuple[int, int]:
    """Where the transport header starts, and its protocol, of a packet that is no fragment."""
    if packet[0] >> 4 == 4:
        headers = packet[0] % 16 * 4
        require(20 <= headers <= len(packet) == field(packet, 2))
        require(field(packet, 6) & 0x3FFF == 0)
        return headers, packet[9]
    require(field(packet, 4) == len(packet) - 40)
    at, protocol = 40, packet[6]
    while protocol in EXTENSIONS:
        require(at + 8 <= len(packet))
        at, protocol = at + 8 + packet[at + 1] * 8, packet[at]
    return at, protocol
