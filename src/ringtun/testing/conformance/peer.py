"""What the suites need of a backend: an adapter, and somebody at the host's end of it."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import Protocol

from ringtun.aio import AsyncSession
from ringtun.session import Session
from ringtun.statistics import Statistics

__all__ = ["AsyncBackend", "Backend", "HostPeer", "RawBackend", "RawHandle", "packet"]


def packet(number: int, size: int = 64, version: int = 4) -> bytes:
    """An IP packet of ``size`` bytes (at least 28, or 48 for version 6) that carries ``number``.

    UDP from 10.99.0.2 to 10.99.0.1 (fd99::2 to fd99::1), its checksums right, so that a kernel
    lets it through too; the rest is filled with bytes that depend on the number. An IPv4 packet may
    be fragmented, so that its ID counts, and is kept where packets are merged.
    """
    header_size = 20 if version == 4 else 40
    payload_size = size - header_size - 8
    if payload_size < 0:
        raise ValueError(f"a UDP packet of version {version} has more than {size} bytes")
    fill = struct.pack(">I", number) + bytes((number * 31 + i) & 0xFF for i in range(251))
    payload = (fill * (payload_size // len(fill) + 1))[:payload_size]
    udp_size = 8 + payload_size
    ends = [ipaddress.ip_address(text).packed for text in _ENDS[version]]
    udp = struct.pack(">HHHH", 4000, 4001, udp_size, 0)
    pseudo = b"".join(ends) + struct.pack(">II", udp_size, 17)
    checksum = _checksum(pseudo + udp + payload) or 0xFFFF
    udp = udp[:6] + struct.pack(">H", checksum)
    if version == 6:
        return struct.pack(">IHBB", 6 << 28, udp_size, 17, 64) + b"".join(ends) + udp + payload
    header = struct.pack(">BBHHHBBH", 0x45, 0, size, number & 0xFFFF, 0, 64, 17, 0)
    header += b"".join(ends)
    header = header[:10] + struct.pack(">H", _checksum(header)) + header[12:]
    return header + udp + payload


_ENDS = {4: ("10.99.0.2", "10.99.0.1"), 6: ("fd99::2", "fd99::1")}


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class HostPeer(Protocol):
    """The host's end: what it sends the program receives, and the other way round."""

    def send(self, packet: bytes) -> None: ...
    def receive(self, timeout: float) -> bytes:
        """The next packet that the host got from the program. Raises ``TimeoutError``."""


class Backend(Protocol):
    """One adapter for one test of a session, with nothing on it."""

    host: HostPeer

    def start_session(self, *, capacity: int = ..., spin: float = ...) -> Session: ...
    def remove(self) -> None:
        """Take the interface away, as an administrator would, under a session's feet."""

    def adapter_statistics(self) -> Statistics: ...


class AsyncBackend(Protocol):
    """One adapter for one test of an asyncio session, with nothing on it."""

    host: HostPeer

    def start_session(self, *, capacity: int = ..., spin: float = ...) -> AsyncSession: ...
    def remove(self) -> None:
        """See `Backend`."""


class RawHandle(Protocol):
    """An open device, and nothing above it."""

    def register(self, code: int, payload: bytes, descriptors: Sequence[int]) -> int:
        """Returns the NTSTATUS of the answer."""

    def pump(self) -> None:
        """Where nothing runs beside the client's own calls: let the driver make its steps."""

    def statistics(self) -> Statistics: ...
    def close(self) -> None: ...


class RawBackend(Protocol):
    """One adapter for one test of raw rings."""

    host: HostPeer
    signals_each_batch: bool
    """Whether the Send event is set after each batch (an inline engine sets it at the end only)."""

    def open(self) -> RawHandle: ...
    def remove(self) -> None: ...
