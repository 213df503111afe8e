"""Cabinets: the archives that packages and modules carry their files in.

Written are cabinets of one folder, compressed by MSZIP (deflate, in blocks of 32 KiB), which takes
the package ``cabarchive``: ``pip install 'ringtun[installer]'``. Read are those and uncompressed
ones, of any number of folders, by a reader of our own: each block is bounded before it is inflated,
so that no cabinet, whatever it claims, costs more than `read_cabinet` says.
"""

from __future__ import annotations

import datetime as dt
import struct
import zlib
from collections.abc import Iterable, Sequence
from functools import reduce
from operator import xor
from typing import Final, NamedTuple

from ringtun.installer.errors import FileDamaged, InstallerError

__all__ = ["CabinetFile", "read_cabinet", "write_cabinet"]

# Signature, size, where the files begin, version, folders, files, flags, set, number in the set.
_HEADER: Final = struct.Struct("<4s4xI4xI4xBB5H")
_RESERVED: Final = struct.Struct("<HBB")  # bytes more in the header, a folder, a block
_FOLDER: Final = struct.Struct("<IHH")  # where its blocks begin, their number, compression
_FILE: Final = struct.Struct("<IIHHHH")  # size, where in the folder, folder, date, time, attributes
_BLOCK: Final = struct.Struct("<IHH")  # checksum, bytes, bytes inflated

_PREVIOUS, _NEXT, _WITH_RESERVED = 1, 2, 4
_UTF8: Final = 0x80
_METHODS: Final = {0: "none", 1: "MSZIP", 2: "Quantum", 3: "LZX"}
_STORED, _MSZIP = 0, 1
_BLOCK_SIZE: Final = 0x8000
_MOST: Final = 0xFFFF  # files, and blocks of a folder
_LONGEST_NAME: Final = 255
_ROOM: Final = 256 << 20
_TIME: Final = dt.datetime(1980, 1, 1)


class CabinetFile(NamedTuple):
    """A file of a cabinet; in a package or a module, ``name`` is the key of its row in File."""

    name: str
    data: bytes


def write_cabinet(files: Iterable[CabinetFile]) -> bytes:
    """The cabinet with these files, in this order. The same files give the same bytes.

    `InstallerError` for a name that is no name, or there twice, for more files or bytes than a
    cabinet can have (65,535, nearly 2 GiB), for no file at all, and where ``cabarchive`` is not
    installed.
    """
    try:
        from cabarchive import CabArchive, CabFile
    except ImportError:
        raise InstallerError(
            "to write a cabinet takes the package cabarchive: pip install 'ringtun[installer]'"
        ) from None
    archive = CabArchive()
    size = 0
    for name, data in files:
        if not name or "\0" in name or "/" in name or len(name.encode()) > _LONGEST_NAME:
            raise InstallerError(f"a file of a cabinet cannot be named {name!r:.300}")
        if name in archive:
            raise InstallerError(f"a cabinet cannot have two files {name!r}")
        archive[name] = CabFile(data, mtime=_TIME)
        archive[name].is_arch = True
        size += len(data)
    if not archive:
        raise InstallerError("a cabinet has to have a file")
    if len(archive) > _MOST:
        raise InstallerError(
            f"a cabinet has at most {_MOST:,} files, and there are {len(archive):,}"
        )
    if size > _MOST * _BLOCK_SIZE:
        raise InstallerError(f"a cabinet has at most 2 GiB, and its files are {size:,} bytes")
    return archive.save(compress=True, sort=False)


def read_cabinet(data: bytes) -> list[CabinetFile]:
    """The files of a cabinet, in its order, with names as they stand there.

    `FileDamaged` for what is no cabinet, or not a whole one, whatever its bytes are;
    `InstallerError` for one compressed in a way that is not read here (Quantum, LZX), for a part of
    a set, and for one whose files are both over 256 MiB and over twenty times its size. Memory is
    at most two times what its files are.
    """
    try:
        return _Reader(data).files()
    except struct.error:
        raise FileDamaged("the cabinet is cut short") from None


class _Reader:
    """A cabinet that is read. No byte is taken twice, which bounds the time and the memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.unread = len(data)  # bytes of blocks that there can still be
        self.most = max(_ROOM, 20 * len(data))
        self.room = self.most  # bytes that blocks may still inflate to

    def files(self) -> list[CabinetFile]:
        signature, size, at_files, minor, major, folders, count, flags, _, _ = _HEADER.unpack_from(
            self.data
        )
        if signature != b"MSCF" or (major, minor) != (1, 3):
            raise FileDamaged("it is no cabinet")
        if size > len(self.data):
            raise FileDamaged(f"the cabinet claims {size:,} bytes, and has {len(self.data):,}")
        if flags & (_PREVIOUS | _NEXT):
            raise InstallerError("the cabinet is a part of a set of several, which is not read")
        at = _HEADER.size
        of_folder = of_block = 0
        if flags & _WITH_RESERVED:
            of_header, of_folder, of_block = _RESERVED.unpack_from(self.data, at)
            at += _RESERVED.size + of_header
        inflated = []
        for number in range(folders):
            place = at + number * (_FOLDER.size + of_folder)
            start, blocks, method = _FOLDER.unpack_from(self.data, place)
            inflated.append(self._folder(start, blocks, method & 0xF, of_block))
        return self._files(at_files, count, inflated)

    def _folder(self, at: int, blocks: int, method: int, reserved: int) -> bytearray:
        """All that a folder holds; so many bytes are reserved in each of its blocks."""
        if method not in (_STORED, _MSZIP):
            raise InstallerError(
                f"the cabinet is compressed by {_METHODS.get(method, 'an unknown method')}, "
                "which is not read here: MSZIP is"
            )
        inflated = bytearray()
        for _ in range(blocks):
            checksum, size, full = _BLOCK.unpack_from(self.data, at)
            start = at + _BLOCK.size + reserved
            at = start + size
            self.unread -= _BLOCK.size + size
            if at > len(self.data) or self.unread < 0:
                raise FileDamaged("the cabinet is cut short, or its parts overlap")
            block = self.data[start:at]
            if checksum and checksum != _checksum(block) ^ size ^ full << 16:
                raise FileDamaged("the cabinet is damaged: a checksum is not that of its block")
            if not 0 < full <= _BLOCK_SIZE:
                raise FileDamaged(f"a block of the cabinet claims to be of {full} bytes")
            self.room -= full
            if self.room < 0:
                raise InstallerError(f"the cabinet's files are over {self.most:,} bytes")
            if method == _MSZIP:
                block = _inflated(block, full, bytes(inflated[-_BLOCK_SIZE:]))
            if len(block) != full:
                raise FileDamaged("a block of the cabinet does not have the bytes that it claims")
            inflated += block
        return inflated

    def _files(self, at: int, count: int, inflated: Sequence[bytearray]) -> list[CabinetFile]:
        """The files, by the entries that begin here, of what their folders hold."""
        unread = sum(map(len, inflated))
        found: dict[str, CabinetFile] = {}
        for _ in range(count):
            size, offset, folder, _, _, attributes = _FILE.unpack_from(self.data, at)
            at += _FILE.size
            end = self.data.find(b"\0", at, at + _LONGEST_NAME + 1)
            if end <= at:
                raise FileDamaged("a file of the cabinet has no name, or no end of it")
            try:
                name = self.data[at:end].decode("utf-8" if attributes & _UTF8 else "latin-1")
            except UnicodeDecodeError:
                raise FileDamaged("the name of a file of the cabinet is not UTF-8") from None
            at = end + 1
            if name in found:
                raise FileDamaged(f"the cabinet has two files {name!r}")
            if folder >= len(inflated) or offset + size > len(inflated[folder]):
                raise FileDamaged(f"the cabinet's file {name!r} is not all there")
            unread -= size
            if unread < 0:
                raise FileDamaged("files of the cabinet overlap")
            with memoryview(inflated[folder]) as whole:
                found[name] = CabinetFile(name, bytes(whole[offset : offset + size]))
        return [*found.values()]


def _inflated(block: bytes, full: int, before: bytes) -> bytes:
    """An MSZIP block inflated, to at most one byte more than it should have."""
    if block[:2] != b"CK":
        raise FileDamaged("a block of the cabinet is not MSZIP")
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS, before).decompress(block[2:], full + 1)
    except zlib.error:
        raise FileDamaged("a block of the cabinet cannot be inflated") from None


def _checksum(block: bytes) -> int:
    """The words of a block, by exclusive or. The bytes of the last, a part of one, are reversed."""
    whole = len(block) & ~3
    words = struct.unpack(f"<{whole // 4}I", block[:whole])
    return reduce(xor, words, int.from_bytes(block[whole:], "big"))
