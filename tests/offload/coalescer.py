"""`native/coalesce.c` through ctypes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path

from tests.offload.library import build_library
from tests.offload.model_coalesce import Item

__all__ = ["COALESCE_PACKETS", "NativeCoalescer"]

COALESCE_PACKETS = 512
NONE = COALESCE_PACKETS
SLOT = 1 << 16  # packets of the longest size, where a ring would hold them


class CPacket(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("size", ctypes.c_uint32),
        ("next", ctypes.c_uint32),
    )


class CItem(ctypes.Structure):
    _fields_ = (
        ("first", ctypes.c_uint32),
        ("last", ctypes.c_uint32),
        ("packets", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("headers", ctypes.c_uint32),
        ("kind", ctypes.c_uint32),
        ("hash", ctypes.c_uint32),
        ("next_seq", ctypes.c_uint32),
        ("payload", ctypes.c_uint16),
        ("slot", ctypes.c_uint16),
        ("closed", ctypes.c_bool),
        ("push", ctypes.c_bool),
        ("header", ctypes.c_uint8 * 128),
    )


class CCoalescer(ctypes.Structure):
    _fields_ = (
        ("kinds", ctypes.c_uint32),
        ("verify", ctypes.c_bool),
        ("udp_segments", ctypes.c_uint32),
        ("packet_count", ctypes.c_uint32),
        ("item_count", ctypes.c_uint32),
        ("packets", CPacket * COALESCE_PACKETS),
        ("items", CItem * COALESCE_PACKETS),
        ("pairs", ctypes.c_uint32 * COALESCE_PACKETS),
        ("table", ctypes.c_uint16 * 1024),
    )


class Piece(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class NativeCoalescer:
    """A `struct coalescer`, and memory for the packets that are in it."""

    def __init__(self, directory: Path) -> None:
        library = build_library(directory, "coalesce", "checksum")
        pointer = ctypes.POINTER(CCoalescer)
        self._init, self._add = library.coalesce_init, library.coalesce_add
        self._pieces, self._reset = library.coalesce_pieces, library.coalesce_reset
        self._init.argtypes = [pointer, ctypes.c_uint32, ctypes.c_bool, ctypes.c_uint32]
        self._init.restype = None
        self._add.argtypes = [pointer, ctypes.c_void_p, ctypes.c_uint32]
        self._add.restype = ctypes.c_bool
        self._pieces.argtypes = [pointer, ctypes.c_uint32, ctypes.POINTER(Piece)]
        self._reset.argtypes = [pointer]
        self._reset.restype = None
        self.memory = ctypes.create_string_buffer(COALESCE_PACKETS * SLOT + 64)
        self.c = self._check_layout()
        self.pieces = (Piece * (COALESCE_PACKETS + 1))()
        self._used = 0

    def _check_layout(self) -> CCoalescer:
        """coalesce_init clears just as much as is described above."""
        size = ctypes.sizeof(CCoalescer)
        room = (ctypes.c_uint8 * (size + 4096))(*[0xAA] * (size + 4096))
        made = CCoalescer.from_buffer(room)
        self._init(made, 0xABCD, True, 0xEF)
        assert (made.kinds, made.verify, made.udp_segments) == (0xABCD, True, 0xEF)
        assert bytes(room)[ctypes.sizeof(ctypes.c_uint32) * 3 : size].count(0) == size - 12
        assert bytes(room)[size:] == b"\xaa" * 4096
        return made

    def begin(self, kinds: int, verify: bool, udp_segments: int) -> None:
        self._init(self.c, kinds, verify, udp_segments)
        self._used = 0

    def reset(self) -> None:
        self._reset(self.c)
        self._used = 0

    def add(self, packet: bytes) -> bool:
        """Put the packet into memory, behind the last one and aligned as in a ring, and add it."""
        at = ctypes.addressof(self.memory) + self._used
        ctypes.memmove(at, packet, len(packet))
        taken: bool = self._add(self.c, at, len(packet))
        if taken:
            self._used += (len(packet) + 3) & ~3
        return taken

    def piece_count(self, index: int) -> int:
        count: int = self._pieces(self.c, index, self.pieces)
        return count

    def items(self) -> list[Item]:
        """What is to be written, with all that the struct says of itself looked at."""
        found = []
        for index, item in enumerate(self.c.items[: self.c.item_count]):
            numbers = [item.first]
            while (following := self.c.packets[numbers[-1]].next) != NONE:
                numbers.append(following)
            assert numbers[-1] == item.last
            assert len(numbers) == item.packets
            count = self.piece_count(index)
            parts = [(piece.base, piece.size) for piece in self.pieces[:count]]
            self._check_pieces(item, numbers, parts)
            written = b"".join(ctypes.string_at(*part) for part in parts)
            assert len(written) == 12 + item.size
            found.append(Item(numbers, written))
        return found

    def _check_pieces(
        self, item: CItem, numbers: Sequence[int], parts: Sequence[tuple[int, int]]
    ) -> None:
        packets = [self.c.packets[number] for number in numbers]
        if len(packets) == 1:
            assert (item.kind, item.headers) == (0, 0)
            assert parts[1:] == [(packets[0].data, packets[0].size)]
            assert parts[0][1] == 12
        else:
            assert item.kind
            assert parts[1:] == [
                (packet.data + item.headers, packet.size - item.headers) for packet in packets
            ]
            assert parts[0][1] == 12 + item.headers

    def writev(self, fd: int, index: int) -> None:
        """Write one item to a TUN queue in a single call. Raises what the kernel says."""
        count = self.piece_count(index)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.writev.restype = ctypes.c_ssize_t
        libc.writev.argtypes = [ctypes.c_int, ctypes.POINTER(Piece), ctypes.c_int]
        written = libc.writev(fd, self.pieces, count)
        if written < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        assert written == sum(piece.size for piece in self.pieces[:count])
