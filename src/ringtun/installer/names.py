"""The names of a database's streams: packed, so that 62 characters fit where a file has 31.

Two characters of ``0-9A-Za-z._`` become one UTF-16 unit from U+3800 on, a single one becomes one
from U+4800 on; others stay. The name of a table's stream has U+4840 before it.
"""

from __future__ import annotations

from typing import Final

from ringtun.installer.compound import LONGEST_NAME
from ringtun.installer.errors import InstallerError

__all__ = ["pack", "unpack"]

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._"
_VALUES: Final = {character: value for value, character in enumerate(_ALPHABET)}
_PAIRS, _SINGLES, _TABLE = 0x3800, 0x4800, "\u4840"
_NOT_PACKED: Final = "\5"  # begins the names of what Windows itself understands


def pack(name: str, *, table: bool = False) -> str:
    """The name as it stands in the file; `InstallerError` where it is too long, or ambiguous."""
    if any(_PAIRS <= ord(character) <= ord(_TABLE) for character in name):
        raise InstallerError(f"the stream name {name!r} has a character that means a packed one")
    packed = [_TABLE] if table else []
    at = 0
    while at < len(name):
        first = _VALUES.get(name[at])
        second = _VALUES.get(name[at + 1]) if at + 1 < len(name) else None
        at += 1
        if first is None or name.startswith(_NOT_PACKED):
            packed.append(name[at - 1])
        elif second is None:
            packed.append(chr(_SINGLES + first))
        else:
            packed.append(chr(_PAIRS + first + (second << 6)))
            at += 1
    whole = "".join(packed)
    units = len(whole.encode("utf-16-le", "surrogatepass")) // 2
    if not name or units > LONGEST_NAME:
        raise InstallerError(
            f"the stream name {name!r} takes {units} units; it may take 1 to {LONGEST_NAME}, "
            "one for two letters, digits, dots or underscores"
        )
    return whole


def unpack(packed: str) -> tuple[str, bool]:
    """The name, and whether it is that of a table's stream."""
    table = packed.startswith(_TABLE)
    name = []
    for character in packed[1:] if table else packed:
        unit = ord(character)
        if _PAIRS <= unit < _SINGLES:
            name.append(_ALPHABET[unit - _PAIRS & 63] + _ALPHABET[unit - _PAIRS >> 6])
        elif _SINGLES <= unit < ord(_TABLE):
            name.append(_ALPHABET[unit - _SINGLES])
        else:
            name.append(character)
    return "".join(name), table
