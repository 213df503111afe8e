"""OLE compound files: a small file system in a file, of which a database uses one directory.

Written is version 3, with sectors of 512 bytes; the same streams give the same bytes. Read are
versions 3 and 4. A reader takes each sector at most once, so that no file, whatever it claims,
costs more than a small multiple of its size; everything wrong with one is `FileDamaged`.

A stream under 4096 bytes lies in mini sectors of 64 bytes, which are themselves the stream of the
root entry. The FAT has for each sector the one that follows it; the DIFAT lists the FAT's sectors,
the first 109 of them in the header. Names are UTF-16, at most 31 units, in a balanced tree.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from ringtun.installer.errors import FileDamaged, InstallerError

__all__ = ["HEADER_SIZE", "LONGEST_NAME", "extent", "read_compound", "write_compound"]

LONGEST_NAME: Final = 31  # UTF-16 units
HEADER_SIZE: Final = 512

_MAGIC: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_SECTOR: Final = 512
_MINI_SECTOR: Final = 64
_CUTOFF: Final = 4096  # a stream of so many bytes lies in sectors of its own
_IN_HEADER: Final = 109  # FAT sectors that the header lists
_ENTRIES: Final = _SECTOR // 4  # of a FAT sector
_MOST_SECTORS: Final = (2**31 - 1) // _SECTOR  # a file of version 3 has under 2 GB
_FORBIDDEN: Final = frozenset("/\\:!\0")

_FREE: Final = 0xFFFFFFFF
_END: Final = 0xFFFFFFFE
_FAT_SECTOR: Final = 0xFFFFFFFD
_DIFAT_SECTOR: Final = 0xFFFFFFFC
_NOBODY: Final = 0xFFFFFFFF  # no entry of the directory

_UNUSED, _STORAGE, _STREAM, _ROOT = 0, 1, 2, 5
_RED, _BLACK = 0, 1

_HEADER: Final = struct.Struct("<8s16s5H6x9I")  # then the DIFAT's beginning
_ENTRY: Final = struct.Struct("<64sHBB3I16sI16sIQ")


class _Header(NamedTuple):
    magic: bytes
    class_id: bytes
    minor: int
    version: int
    byte_order: int
    shift: int
    mini_shift: int
    directory_sectors: int
    fat_sectors: int
    directory: int
    transaction: int
    cutoff: int
    mini_fat: int
    mini_fat_sectors: int
    difat: int
    difat_sectors: int


class _Entry(NamedTuple):
    """An entry of the directory; ``left``, ``right`` and ``child`` are others."""

    name: bytes
    name_size: int
    kind: int
    colour: int = _BLACK
    left: int = _NOBODY
    right: int = _NOBODY
    child: int = _NOBODY
    class_id: bytes = bytes(16)
    flags: int = 0
    times: bytes = bytes(16)
    start: int = 0
    size: int = 0


# ---- writing ------------------------------------------------------------------------------------


def write_compound(streams: Mapping[str, bytes], class_id: uuid.UUID) -> bytes:
    """The compound file with these streams, whose root has this class id.

    `InstallerError` for a name that a compound file cannot have, for two that differ in case
    alone, and for more than 2 GB.
    """
    names = sorted(streams, key=_order)
    for name in names:
        _check_name(name)
    for one, other in pairwise(names):
        if _order(one) == _order(other):
            raise InstallerError(f"the streams {one!r} and {other!r} would have the same name")

    body = _Body()
    mini = bytearray()
    mini_fat: list[int] = []
    starts = []
    for name in names:
        data = streams[name]
        if len(data) >= _CUTOFF:
            starts.append(body.put(data))
        elif data:
            starts.append(len(mini_fat))
            _chain_up(mini_fat, -(-len(data) // _MINI_SECTOR))
            mini += data
            mini += bytes(-len(mini) % _MINI_SECTOR)
        else:
            starts.append(_END)
    mini_start = body.put(mini)
    mini_fat += [_FREE] * (-len(mini_fat) % _ENTRIES)
    mini_fat_start = body.put(_words(mini_fat))

    left, right, red = _balanced(len(names))
    child = len(names) // 2 + 1 if names else _NOBODY
    entries = [
        _named("Root Entry", _ROOT)._replace(
            child=child, class_id=class_id.bytes_le, start=mini_start, size=len(mini)
        )
    ]
    for at, (name, start) in enumerate(zip(names, starts, strict=True)):
        entries.append(
            _named(name, _STREAM)._replace(
                colour=_RED if red[at] else _BLACK,
                left=left[at],
                right=right[at],
                start=start,
                size=len(streams[name]),
            )
        )
    unused = _Entry(b"", 0, _UNUSED, _RED)
    entries += [unused] * (-len(entries) % (_SECTOR // _ENTRY.size))
    directory = body.put(b"".join(_ENTRY.pack(*entry) for entry in entries))
    return body.finish(directory, mini_fat_start, len(mini_fat) // _ENTRIES)


class _Body:
    """The sectors after the header, and the FAT, which grows with them."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fat: list[int] = []

    def put(self, data: bytes | bytearray) -> int:
        """Append a chain of sectors; where it starts."""
        if not data:
            return _END
        start = len(self._fat)
        sectors = -(-len(data) // _SECTOR)
        if start + sectors > _MOST_SECTORS:
            raise InstallerError("the streams together have over 2 GB, which no such file can hold")
        _chain_up(self._fat, sectors)
        self._data += data
        self._data += bytes(-len(self._data) % _SECTOR)
        return start

    def finish(self, directory: int, mini_fat: int, mini_fat_sectors: int) -> bytes:
        """The whole file: FAT and DIFAT describe themselves too."""
        used = len(self._fat)
        fat_sectors = difat_sectors = 0
        while True:
            fat = -(-(used + fat_sectors + difat_sectors) // _ENTRIES)
            difat = max(0, -(-(fat - _IN_HEADER) // (_ENTRIES - 1)))
            if (fat, difat) == (fat_sectors, difat_sectors):
                break
            fat_sectors, difat_sectors = fat, difat
        self._fat += [_FAT_SECTOR] * fat_sectors + [_DIFAT_SECTOR] * difat_sectors
        self._fat += [_FREE] * (-len(self._fat) % _ENTRIES)

        where = list(range(used, used + fat_sectors))
        beyond = where[_IN_HEADER:]
        difat_start = used + fat_sectors
        more = bytearray()
        for at in range(difat_sectors):
            part = beyond[at * (_ENTRIES - 1) : (at + 1) * (_ENTRIES - 1)]
            part += [_FREE] * (_ENTRIES - 1 - len(part))
            following = difat_start + at + 1 if at + 1 < difat_sectors else _END
            more += _words([*part, following])
        header = _HEADER.pack(
            *(_MAGIC, bytes(16), 0x3E, 3, 0xFFFE, 9, 6, 0, fat_sectors, directory, 0, _CUTOFF),
            *(mini_fat, mini_fat_sectors, difat_start if difat_sectors else _END, difat_sectors),
        )
        here = where[:_IN_HEADER]
        here += [_FREE] * (_IN_HEADER - len(here))
        return b"".join((header, _words(here), self._data, _words(self._fat), more))


def _chain_up(fat: list[int], sectors: int) -> None:
    start = len(fat)
    fat.extend(range(start + 1, start + sectors))
    fat.append(_END)


def _words(numbers: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _order(name: str) -> tuple[int, list[str]]:
    """Names compare by length first, then unit by unit, without case."""
    raw = name.encode("utf-16-le", "surrogatepass")
    units = [chr(unit) for (unit,) in struct.iter_unpack("<H", raw)]
    return len(units), [up if len(up := unit.upper()) == 1 else unit for unit in units]


def _check_name(name: str) -> None:
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError:
        raise InstallerError(f"the stream name {name!r} is not UTF-16") from None
    if not 0 < units <= LONGEST_NAME:
        raise InstallerError(
            f"the stream name {name!r} has {units} units; it may have 1 to {LONGEST_NAME}"
        )
    if _FORBIDDEN & set(name):
        raise InstallerError(f"the stream name {name!r} has a character that none may have")


def _balanced(count: int) -> tuple[list[int], list[int], list[bool]]:
    """Left and right entry of each in a balanced tree, and which are red.

    Entries are counted from 1. The deepest level, where it is not full, is red, all else black:
    then each way down has as many black ones.
    """
    left, right = [_NOBODY] * count, [_NOBODY] * count
    depths = [0] * count
    ranges = [(0, count, 0)] if count else []
    while ranges:
        low, high, depth = ranges.pop()
        middle = (low + high) // 2
        depths[middle] = depth
        if low < middle:
            left[middle] = (low + middle) // 2 + 1
            ranges.append((low, middle, depth + 1))
        if middle + 1 < high:
            right[middle] = (middle + 1 + high) // 2 + 1
            ranges.append((middle + 1, high, depth + 1))
    deepest = max(depths, default=0)
    full = count == (1 << (deepest + 1)) - 1
    return left, right, [depth == deepest and not full for depth in depths]


def _named(name: str, kind: int) -> _Entry:
    raw = name.encode("utf-16-le") + b"\0\0"
    return _Entry(raw, len(raw), kind)


# ---- reading ------------------------------------------------------------------------------------


def extent(header: bytes) -> int:
    """At most how many bytes of a file its header makes use of; `FileDamaged` if it is none.

    So that of a file which only looks like a compound file not all has to be read.
    """
    fields = _header(header)
    sector = 1 << fields.shift
    return (fields.fat_sectors * (sector // 4) + 1) * sector


def read_compound(data: bytes) -> tuple[dict[str, bytes], uuid.UUID]:
    """The streams of a compound file's root, and its class id; `FileDamaged` if it is none.

    `InstallerError` if it has directories beside: those are not read.
    """
    return _Reader(data).read()


def _header(data: bytes) -> _Header:
    if not data:
        raise FileDamaged("it is empty")
    if data[:8] != _MAGIC[: len(data)]:
        raise FileDamaged("it is not a compound file, as databases of Windows Installer are")
    if len(data) < HEADER_SIZE:
        raise FileDamaged(f"it ends after {len(data)} bytes, within its header")
    header = _Header._make(_HEADER.unpack_from(data))
    if header.byte_order != 0xFFFE or (header.version, header.shift) not in ((3, 9), (4, 12)):
        raise FileDamaged(
            f"its header names version {header.version}, with sectors of 2**{header.shift} bytes"
        )
    if header.mini_shift != 6 or header.cutoff != _CUTOFF:
        raise FileDamaged("its header names mini sectors of another kind than there is")
    return header


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._header = _header(data)
        self._data = memoryview(data)
        self._sector = 1 << self._header.shift
        self._sectors = max(0, -(-len(data) // self._sector) - 1)
        self._taken = bytearray(self._sectors)

    def read(self) -> tuple[dict[str, bytes], uuid.UUID]:
        """All streams of the root, and its class id."""
        fat = self._read_fat()
        raw = b"".join(self._chain(self._header.directory, fat, "the directory"))
        raw = raw[: len(raw) // _ENTRY.size * _ENTRY.size]
        entries = [_Entry._make(fields) for fields in _ENTRY.iter_unpack(raw)]
        if not entries or entries[0].kind != _ROOT:
            raise FileDamaged("its directory has no root")
        root = entries[0]
        mini = self._stream(root.start, self._size(root), fat, "the mini stream")
        mini_fat: Sequence[int] = ()
        if self._header.mini_fat != _END:
            chain = self._chain(self._header.mini_fat, fat, "the mini FAT")
            mini_fat = _numbers(b"".join(chain))
        mini_taken = bytearray(len(mini_fat))

        streams: dict[str, bytes] = {}
        for entry in _walk(entries):
            name = _name(entry)
            if entry.kind == _STORAGE:
                raise InstallerError(
                    f"it holds the directory {name!r}, such as an embedded transform: "
                    "files with directories are not read"
                )
            if name in streams:
                raise FileDamaged(f"it has two streams {name!r}")
            size = self._size(entry)
            what = f"the stream {name!r}"
            if size >= _CUTOFF:
                streams[name] = self._stream(entry.start, size, fat, what)
            else:
                streams[name] = _mini_stream(entry.start, size, mini, mini_fat, mini_taken, what)
        return streams, uuid.UUID(bytes_le=root.class_id)

    def _read_fat(self) -> Sequence[int]:
        header = self._header
        if not 0 < header.fat_sectors <= self._sectors or header.difat_sectors > self._sectors:
            raise FileDamaged(
                f"its header claims {header.fat_sectors} sectors of FAT and "
                f"{header.difat_sectors} of DIFAT, and the file has {self._sectors}: "
                "it is damaged, or cut short"
            )
        where = list(struct.unpack_from(f"<{_IN_HEADER}I", self._data, _HEADER.size))
        following = header.difat
        for _ in range(header.difat_sectors):
            sector = _numbers(self._take(following, "the DIFAT"))
            if not sector:
                raise FileDamaged("the DIFAT is cut short")
            *more, following = sector
            where += more
        where = [sector for sector in where if sector != _FREE][: header.fat_sectors]
        if len(where) < header.fat_sectors:
            raise FileDamaged(
                f"its FAT has {len(where)} sectors, where the header claims {header.fat_sectors}"
            )
        return _numbers(b"".join(self._take(sector, "the FAT") for sector in where))

    def _take(self, sector: int, what: str) -> memoryview:
        """A sector, of which the file's last may be short; each once."""
        if sector >= self._sectors:
            raise FileDamaged(f"{what} goes on beyond the end of the file: it is cut short")
        if self._taken[sector]:
            raise FileDamaged(f"{what} has a sector that something else has too")
        self._taken[sector] = True
        start = (sector + 1) * self._sector
        return self._data[start : start + self._sector]

    def _chain(self, sector: int, fat: Sequence[int], what: str) -> Iterator[memoryview]:
        while sector != _END:
            yield self._take(sector, what)
            if sector >= len(fat):
                raise FileDamaged(f"{what} lies in sectors that the FAT does not have")
            sector = fat[sector]

    def _stream(self, start: int, size: int, fat: Sequence[int], what: str) -> bytes:
        found = bytearray()
        if size:
            for part in self._chain(start, fat, what):
                found += part
                if len(found) >= size:
                    return bytes(found[:size])
        if len(found) < size:
            raise FileDamaged(f"{what} has {len(found)} bytes of the {size} that it should have")
        return b""

    def _size(self, entry: _Entry) -> int:
        """Its size; version 3 leaves rubbish in the upper half."""
        return entry.size & 0xFFFFFFFF if self._header.version == 3 else entry.size


def _walk(entries: Sequence[_Entry]) -> Iterator[_Entry]:
    """The entries of the root's tree, in their order."""
    seen: set[int] = set()
    todo: list[int] = []
    at = entries[0].child
    while at != _NOBODY or todo:
        while at != _NOBODY:
            if at >= len(entries) or at in seen:
                raise FileDamaged("the tree of its directory leads astray")
            seen.add(at)
            todo.append(at)
            at = entries[at].left
        entry = entries[todo.pop()]
        if entry.kind not in (_STORAGE, _STREAM):
            raise FileDamaged("its directory has an entry that is no stream")
        yield entry
        at = entry.right


def _mini_stream(
    at: int, size: int, mini: bytes, mini_fat: Sequence[int], taken: bytearray, what: str
) -> bytes:
    found = bytearray()
    while len(found) < size and at != _END:
        if at >= len(mini_fat) or taken[at]:
            raise FileDamaged(f"{what} leads astray among the mini sectors")
        taken[at] = True
        part = mini[at * _MINI_SECTOR : (at + 1) * _MINI_SECTOR]
        found += part
        at = mini_fat[at]
    if len(found) < size:
        raise FileDamaged(f"{what} has {len(found)} bytes of the {size} that it should have")
    return bytes(found[:size])


def _numbers(data: bytes | memoryview) -> Sequence[int]:
    return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])


def _name(entry: _Entry) -> str:
    if not 2 < entry.name_size <= 64 or entry.name_size % 2:
        raise FileDamaged("its directory has a name without an end")
    return entry.name[: entry.name_size - 2].decode("utf-16-le", "surrogatepass")
