"""The string pool: each string once, and in the tables its number.

The stream ``_StringPool`` has the code page and then of each string, from number 1 on, the length
and how often it is used, both 16 bits; ``_StringData`` has the strings one after the other. A
string of 64 kB or more has an entry before its own, with the length 0 and the length's upper half.
Numbers take two bytes in the tables, or three, which the code page's highest bit says.
"""

from __future__ import annotations

import codecs
import struct
from typing import Final

from ringtun.installer.errors import FileDamaged, InstallerError

__all__ = ["StringPool", "check_code_page"]

_WIDE: Final = 0x8000_0000
_MOST: Final = 0xFFFFFF  # strings: what three bytes count
_CODECS: Final = {0: "ascii", 20127: "ascii", 28591: "latin-1", 65001: "utf-8"}


def check_code_page(code_page: int) -> str:
    """Python's name of a code page; `InstallerError` for one that it does not know.

    0 is the neutral one, ASCII, and 65001 UTF-8.
    """
    name = _CODECS.get(code_page, f"cp{code_page}")
    try:
        return codecs.lookup(name).name
    except LookupError:
        raise InstallerError(f"the code page {code_page} is not known") from None


class StringPool:
    """The strings of a database, by number; 0 is no string, or the empty one.

    Bytes that are no text in the code page come as surrogates, and go as the bytes they were.
    """

    def __init__(self, code_page: int = 0) -> None:
        self.code_page = code_page
        self._codec = check_code_page(code_page)
        self._strings: list[str | None] = [None]
        self._uses = [0]
        self._numbers: dict[str | None, int] = {None: 0, "": 0}
        self._wide = False

    @property
    def width(self) -> int:
        """Bytes of a number in the tables."""
        return 3 if self._wide or len(self._strings) > 0xFFFF else 2

    def __getitem__(self, number: int) -> str | None:
        if number >= len(self._strings):
            raise FileDamaged(
                f"a table has the string {number}, and there are {len(self._strings) - 1}"
            )
        return self._strings[number]

    def use(self, string: str | None) -> int:
        """Its number, and one use more of it."""
        number = self._numbers.setdefault(string, len(self._strings))
        if number == len(self._strings):
            if number > _MOST:
                raise InstallerError("the tables have more strings than a database can number")
            self._strings.append(string)
            self._uses.append(0)
        self._uses[number] += 1
        return number

    def to_streams(self) -> tuple[bytes, bytes]:
        """``_StringPool`` and ``_StringData``; `InstallerError` for text of other code pages."""
        wide = _WIDE if self.width == 3 else 0
        pool = bytearray(struct.pack("<I", self.code_page | wide))
        data = bytearray()
        for string, uses in zip(self._strings[1:], self._uses[1:], strict=True):
            assert string is not None
            raw = self._encode(string)
            data += raw
            upper, lower = divmod(len(raw), 1 << 16)
            if upper:
                pool += struct.pack("<HH", 0, upper)
            pool += struct.pack("<HH", lower, min(uses, 0xFFFF))
        return bytes(pool), bytes(data)

    def _encode(self, string: str) -> bytes:
        try:
            return string.encode(self._codec, "surrogateescape")
        except UnicodeEncodeError as error:
            neutral = ", which is the neutral one: ASCII alone" if not self.code_page else ""
            raise InstallerError(
                f"{string[error.start : error.end]!r} in {string[:60]!r} is not in code page "
                f"{self.code_page}{neutral}"
            ) from None

    def _decode(self, raw: bytes) -> str:
        try:
            return raw.decode(self._codec, "surrogateescape")
        except UnicodeDecodeError:
            raise FileDamaged(
                f"its string {raw[:60]!r} is no text in code page {self.code_page}"
            ) from None

    @classmethod
    def from_streams(cls, pool: bytes, data: bytes) -> StringPool:
        """Read one; `FileDamaged` where the two streams do not fit together."""
        if len(pool) < 4 or len(pool) % 4:
            raise FileDamaged(f"its string pool has {len(pool)} bytes, which is no whole entry")
        (first,) = struct.unpack_from("<I", pool)
        found = cls(first & ~_WIDE)
        found._wide = bool(first & _WIDE)
        at = upper = 0
        for lower, uses in struct.iter_unpack("<HH", memoryview(pool)[4:]):
            if not lower and uses and not upper:
                upper = uses
                continue
            size = (upper << 16) + lower
            upper = 0
            if at + size > len(data):
                raise FileDamaged("its strings are shorter than its string pool says")
            found._strings.append(found._decode(data[at : at + size]) or None)
            found._uses.append(uses)
            at += size
        if at != len(data):
            raise FileDamaged("its strings are longer than its string pool says")
        return found
