"""IP packets as clients of a ring send them: no larger than the MTU, all checksums done."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from tests.offload.model_segment import TCP, UDP, summed

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
DONT_FRAGMENT = 0x4000


def checksum(data: bytes) -> int:
    return 0xFFFF - summed(data)


def start_of_transport(packet: bytes) -> int:
    return 20 if packet[0] >> 4 == 4 else 40


def protocol_of(packet: bytes) -> int:
    return packet[9] if packet[0] >> 4 == 4 else packet[6]


def pseudo_header(packet: bytes) -> bytes:
    start = start_of_transport(packet)
    addresses = packet[12:20] if start == 20 else packet[8:40]
    return addresses + struct.pack("!II", len(packet) - start, protocol_of(packet))


def complete(packet: bytes) -> bytes:
    """The packet with all its lengths and checksums made right; it has no IP options."""
    done = bytearray(packet)
    start = start_of_transport(packet)
    if start == 20:
        struct.pack_into("!H", done, 2, len(done))
        struct.pack_into("!H", done, 10, 0)
        struct.pack_into("!H", done, 10, checksum(bytes(done[:20])))
    else:
        struct.pack_into("!H", done, 4, len(done) - 40)
    is_tcp = protocol_of(packet) == TCP
    if not is_tcp:
        struct.pack_into("!H", done, start + 4, len(done) - start)
    at = start + (16 if is_tcp else 6)
    struct.pack_into("!H", done, at, 0)
    value = checksum(pseudo_header(bytes(done)) + done[start:])
    struct.pack_into("!H", done, at, value if is_tcp or value else 0xFFFF)
    return bytes(done)


def ip(
    protocol: int,
    transport: bytes,
    *,
    source: str = "10.0.0.1",
    target: str = "10.0.0.2",
    tos: int = 0,
    ttl: int = 64,
    identifier: int = 0,
    fragment: int = DONT_FRAGMENT,
    label: int = 0,
) -> bytes:
    """A packet around a transport header and payload, complete."""
    addresses = ip_address(source).packed + ip_address(target).packed
    if len(addresses) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, tos, 0, identifier, fragment, ttl, protocol, 0)
    else:
        header = struct.pack("!IHBB", 6 << 28 | tos << 20 | label, 0, protocol, ttl)
    return complete(header + addresses + transport)


def tcp(
    payload: bytes,
    *,
    ports: tuple[int, int] = (1000, 2000),
    seq: int = 0,
    ack: int = 0,
    flags: int = ACK,
    reserved: int = 0,
    window: int = 500,
    urgent: int = 0,
    options: bytes = b"",
    **fields: int | str,
) -> bytes:
    """A TCP segment in IP; ``options`` in multiples of 4 bytes; ``fields`` are those of `ip`."""
    size = 5 + len(options) // 4
    header = struct.pack(
        "!HHIIBBHHH", *ports, seq % 2**32, ack, size << 4 | reserved, flags, window, 0, urgent
    )
    return ip(TCP, header + options + payload, **fields)  # type: ignore[arg-type]


def udp(payload: bytes, *, ports: tuple[int, int] = (1000, 2000), **fields: int | str) -> bytes:
    """A UDP datagram in IP."""
    header = struct.pack("!HHHH", *ports, 0, 0)
    return ip(UDP, header + payload, **fields)  # type: ignore[arg-type]


def series(
    version: int,
    protocol: str,
    sizes: Sequence[int],
    *,
    addresses: tuple[dict[int, str], dict[int, str]],
    seq: int = 2**32 - 5000,
    identifier: int = 0xFFF0,
    **fields: Any,
) -> list[bytes]:
    """Packets of one flow with payloads of these sizes, one behind the other.

    ``addresses`` are source and target by IP version; the rest are fields of `tcp`, `udp`, `ip`.
    """
    source, target = (choice[version] for choice in addresses)
    fields = {"source": source, "target": target} | fields
    fill = random.Random(len(sizes))
    made = []
    for number, size in enumerate(sizes):
        payload = fill.randbytes(size)
        if version == 4:
            fields["identifier"] = (identifier + number) % 2**16
        made.append(
            tcp(payload, seq=seq, **fields) if protocol == "TCP" else udp(payload, **fields)
        )
        seq += size
    return made
