"""What `native/coalesce.c` is to do, in plain Python, for tests to compare.

Nothing here says which fields have to be equal, or what ends an item: packets go together exactly
when the host, cutting the large packet, would get them back. What that leaves open are the rules
of `may_go_together`, and the order within flows.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from tests.offload.clients import (
    ACK,
    DONT_FRAGMENT,
    PSH,
    complete,
    protocol_of,
    pseudo_header,
    start_of_transport,
)
from tests.offload.model_segment import TCP, UDP, VnetHeader, segment, summed

__all__ = ["TCP4", "TCP6", "UDP4", "UDP6", "Coalescer", "Item", "comparable", "split"]

TCP4, TCP6, UDP4, UDP6 = 1, 2, 4, 8
VNET = struct.Struct("=BBHHHHH")
GSO_TYPES = {TCP4: 1, TCP6: 4, UDP4: 5, UDP6: 5}
PACKET_MAX = 65_535
# IPv6 headers behind which TCP or UDP may stand
EXTENSIONS = {0, 43, 44, 51, 60, 135, 139, 140, 253, 254}


def kind_of(packet: bytes) -> int:
    kinds = {(4, TCP): TCP4, (6, TCP): TCP6, (4, UDP): UDP4, (6, UDP): UDP6}
    return kinds[packet[0] >> 4, protocol_of(packet)]


def headers_size(packet: bytes) -> int:
    start = start_of_transport(packet)
    return start + (8 if protocol_of(packet) == UDP else (packet[start + 12] >> 4) * 4)


def split(written: bytes) -> list[bytes]:
    """What the host makes of a packet written with a header of vnet.h before it."""
    *fields, zero = VNET.unpack_from(written)
    assert zero == 0
    return segment(VnetHeader(*fields), written[VNET.size :])


def bring_together(packets: Sequence[bytes]) -> bytes:
    """The packet with its header of vnet.h that is to be written for these packets."""
    if len(packets) == 1:
        return bytes(VNET.size) + packets[0]
    kind, start, size = (
        kind_of(packets[0]),
        start_of_transport(packets[0]),
        headers_size(packets[0]),
    )
    at = 16 if kind in (TCP4, TCP6) else 6
    large = bytearray(packets[0][:size] + b"".join(packet[size:] for packet in packets))
    if kind in (TCP4, TCP6):
        large[start + 13] |= packets[-1][start + 13] & PSH
    large = bytearray(complete(bytes(large)))
    struct.pack_into("!H", large, start + at, summed(pseudo_header(bytes(large))))
    return VNET.pack(1, GSO_TYPES[kind], size, len(packets[0]) - size, start, at, 0) + bytes(large)


def comparable(packet: bytes) -> bytes:
    """The packet without an IPv4 ID that nothing depends on: where fragments are forbidden.

    One whose checksums are wrong stays as it is: the host makes none like it.
    """
    if packet[0] >> 4 == 4 and packet[6] << 8 & DONT_FRAGMENT and complete(packet) == packet:
        return complete(packet[:4] + bytes(2) + packet[6:])
    return packet


@dataclass
class Item:
    """Packets, by number, that are written as one, and what is written."""

    packets: list[int]
    written: bytes


@dataclass
class Open:
    item: Item
    contents: list[bytes]


class Coalescer:
    """The rules."""

    def __init__(self, kinds: int, verify: bool, udp_segments: int) -> None:
        self.kinds = kinds
        self.verify = verify
        self.udp_segments = udp_segments
        self.items: list[Item] = []
        self._count = 0
        self._open: dict[tuple[bytes, int, bytes], Open] = {}  # by addresses, protocol, ports

    def add(self, packet: bytes) -> None:
        number, self._count = self._count, self._count + 1
        addresses, ports = self.flow_of(packet)
        flow = (addresses, protocol_of(packet), ports)
        candidate = bool(ports) and self.may_go_together(packet)
        if candidate and flow in self._open:
            already = self._open[flow]
            if self.goes_with(already.contents, packet):
                already.item.packets.append(number)
                already.contents.append(packet)
                already.item.written = bring_together(already.contents)
                return
        for other in list(self._open):
            if addresses and other[0] == addresses and (other == flow or not ports):
                del self._open[other]
        self.items.append(Item([number], bring_together([packet])))
        if candidate:
            self._open[flow] = Open(self.items[-1], [packet])

    @staticmethod
    def flow_of(packet: bytes) -> tuple[bytes, bytes]:
        """The addresses, empty where the packet is of no flow; the ports, empty: any may be."""
        start, protocol = start_of_transport(packet), protocol_of(packet)
        if packet[0] >> 4 == 4:
            if protocol not in (TCP, UDP):
                return b"", b""
            (fragment,) = struct.unpack_from("!H", packet, 6)
            hidden = packet[0] != 0x45 or fragment & ~0xC000
            addresses = packet[12:20]
        else:
            if protocol not in (TCP, UDP) and protocol not in EXTENSIONS:
                return b"", b""
            hidden = protocol in EXTENSIONS
            addresses = packet[8:40]
        if hidden or len(packet) < start + 4:
            return addresses, b""
        return addresses, packet[start : start + 4]

    def may_go_together(self, packet: bytes) -> bool:
        start, is_tcp = start_of_transport(packet), protocol_of(packet) == TCP
        if not self.kinds & kind_of(packet) or len(packet) <= start + (20 if is_tcp else 8):
            return False
        if is_tcp:
            offset, flags = packet[start + 12 : start + 14]
            if offset & 15 or not 20 <= offset // 16 * 4 < len(packet) - start:
                return False
            if flags not in (ACK, ACK | PSH):
                return False
        elif packet[start + 6 : start + 8] == bytes(2):
            return False
        lengths = bytearray(complete(packet))  # where they are wrong already, it goes alone
        for at in (10, 11) if start == 20 else ():
            lengths[at] = packet[at]
        at = start + (16 if is_tcp else 6)
        lengths[at : at + 2] = packet[at : at + 2]
        return lengths == packet

    def goes_with(self, contents: Sequence[bytes], packet: bytes) -> bool:
        first = contents[0]
        size = headers_size(first)
        if headers_size(packet) != size:
            return False
        if kind_of(first) in (UDP4, UDP6) and len(contents) >= self.udp_segments:
            return False
        together = [*contents, packet]
        if size + sum(len(each) - size for each in together) > PACKET_MAX:
            return False
        if not self.verify:
            together = list(map(complete, together))
        again = split(bring_together(together))
        return list(map(comparable, again)) == list(map(comparable, together))
