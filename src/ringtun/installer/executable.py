"""Executables (PE), as far as a package speaks of them: for which machine, and which version."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

__all__ = ["Executable"]

_MACHINES: Final = {0x014C: "x86", 0x8664: "x64", 0x01C4: "arm", 0xAA64: "arm64"}
_FILE_HEADER: Final = struct.Struct("<HH12xHH")  # machine, sections, optional header, flags
_SECTION: Final = struct.Struct("<8x4I16x")  # size, address, size in the file, place in the file
_DLL: Final = 0x2000
# By the magic number of the optional header: where its list of directories begins.
_DIRECTORIES: Final = {0x10B: 96, 0x20B: 112}
_RESOURCES: Final = 2  # of the directories
_VERSION: Final = 16  # a type of resource
_SUBTREE: Final = 1 << 31
_FIXED: Final = struct.Struct("<IxxxxHHHH")  # signature, and the version, its halves swapped
_FIXED_SIGNATURE: Final = 0xFEEF04BD
_FIXED_AT: Final = 40  # in a version resource: behind its header and its name


@dataclass(frozen=True, slots=True)
class Executable:
    """A program or a library of Windows.

    ``machine`` is ``"x86"``, ``"x64"``, ``"arm64"``, or another as a number; ``version`` that of
    the file, such as ``"0.14.1.0"``, or None.
    """

    machine: str
    dll: bool
    version: str | None

    @classmethod
    def of(cls, data: bytes) -> Executable | None:
        """What these bytes are; None if they are no executable, whatever else they are."""
        try:
            (start,) = struct.unpack_from("<I", data, 0x3C)
            if data[:2] != b"MZ" or data[start : start + 4] != b"PE\0\0":
                return None
            start += 4
            machine, sections, optional, flags = _FILE_HEADER.unpack_from(data, start)
            start += _FILE_HEADER.size
        except struct.error:
            return None
        known = _MACHINES.get(machine, f"{machine:#06x}")
        return cls(known, bool(flags & _DLL), _version(data, start, start + optional, sections))


def _version(data: bytes, optional: int, sections: int, count: int) -> str | None:
    """The version, where there is a resource of it; a damaged one is none."""
    try:
        (magic,) = struct.unpack_from("<H", data, optional)
        directories = optional + _DIRECTORIES[magic]
        (known,) = struct.unpack_from("<I", data, directories - 4)
        if known <= _RESOURCES:
            return None
        (address,) = struct.unpack_from("<I", data, directories + 8 * _RESOURCES)
        table = [_SECTION.unpack_from(data, sections + _SECTION.size * n) for n in range(count)]
        root = _place(table, address)
        # Types, of which one is the version; names of it; languages: the first there is.
        at = root + next(place for kind, place in _entries(data, root) if kind == _VERSION)
        for _ in range(2):
            at = root + next(_entries(data, at & ~_SUBTREE))[1]
        (address,) = struct.unpack_from("<I", data, at)
        fixed = _FIXED.unpack_from(data, _place(table, address) + _FIXED_AT)
    except (struct.error, KeyError, StopIteration):
        return None
    signature, second, first, fourth, third = fixed
    return f"{first}.{second}.{third}.{fourth}" if signature == _FIXED_SIGNATURE else None


def _entries(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """What a directory of resources has: of each what it is, and where it goes on."""
    named, numbered = struct.unpack_from("<HH", data, at + 12)
    for n in range(named + numbered):
        yield struct.unpack_from("<II", data, at + 16 + 8 * n)


def _place(sections: list[tuple[int, ...]], address: int) -> int:
    """Where in the file an address of memory is; `KeyError` if in no section of it."""
    for _, start, size, place in sections:
        if start <= address < start + size:
            return place + address - start
    raise KeyError(address)
