"""The summary of a database: a property set, which Explorer shows too.

A property is a number, with 16 or 32 bits, text in the summary's own code page, or a time.
"""

from __future__ import annotations

import enum
import struct
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from ringtun.installer.errors import FileDamaged, InstallerError
from ringtun.installer.strings import check_code_page

__all__ = ["SUMMARY", "Property", "PropertyValue", "read_summary", "summary_stream"]

SUMMARY: Final = "\5SummaryInformation"
PropertyValue: TypeAlias = int | str | datetime


class Property(enum.IntEnum):
    """The numbers of the properties."""

    CODE_PAGE = 1
    TITLE = 2
    SUBJECT = 3
    AUTHOR = 4
    KEYWORDS = 5
    COMMENTS = 6
    TEMPLATE = 7
    LAST_SAVED_BY = 8
    REVISION = 9
    LAST_PRINTED = 11
    CREATED = 12
    LAST_SAVED = 13
    PAGES = 14
    WORDS = 15
    CHARACTERS = 16
    APPLICATION = 18
    SECURITY = 19


_FORMAT: Final = uuid.UUID("f29f85e0-4ff9-1068-ab91-08002b27b3d9")
_EPOCH: Final = datetime(1601, 1, 1, tzinfo=UTC)
_EMPTY, _SHORT, _LONG, _TEXT, _TIME = 0, 2, 3, 30, 64
_DEFAULT_CODE_PAGE: Final = 1252
_MOST: Final = 64  # properties; there are 19, and each may be as long as all of the stream
# Byte order, version, system, class id, sets; then of the one set its format and where it begins.
_HEADER: Final = struct.Struct("<HHI16sI16sI")


def summary_stream(properties: Mapping[int, PropertyValue]) -> bytes:
    """The stream; `InstallerError` for a value that has no form there.

    Times without a time zone are refused; those with one have microseconds in the file.
    """
    codec = _codec(properties.get(Property.CODE_PAGE, _DEFAULT_CODE_PAGE))
    body = bytearray()
    index = bytearray()
    start = 8 + 8 * len(properties)
    for number, value in sorted(properties.items()):
        if not 0 < number < 2**31:
            raise InstallerError(f"the summary cannot have a property {number}")
        index += struct.pack("<II", number, start + len(body))
        try:
            body += _packed(number, value, codec)
        except (struct.error, OverflowError):
            raise InstallerError(f"the summary's {_name(number)} cannot be {value!r}") from None
    section = struct.pack("<II", start + len(body), len(properties)) + index + body
    header = _HEADER.pack(0xFFFE, 0, 0x20005, bytes(16), 1, _FORMAT.bytes_le, _HEADER.size)
    return header + section


def _packed(number: int, value: PropertyValue, codec: str) -> bytes:
    if number == Property.CODE_PAGE:
        return struct.pack("<IHxx", _SHORT, value)
    if isinstance(value, int):
        return struct.pack("<Ii", _LONG, value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InstallerError(f"the summary's {_name(number)} has no time zone")
        return struct.pack("<IQ", _TIME, (value - _EPOCH) // timedelta(microseconds=1) * 10)
    if not isinstance(value, str):
        raise InstallerError(f"the summary's {_name(number)} cannot be {value!r}")
    try:
        raw = value.encode(codec, "surrogateescape") + b"\0"
    except UnicodeEncodeError:
        raise InstallerError(
            f"the summary's {_name(number)}, {value[:60]!r}, is not in its code page"
        ) from None
    if b"\0" in raw[:-1]:
        raise InstallerError(f"the summary's {_name(number)} has a zero within")
    return struct.pack("<II", _TEXT, len(raw)) + raw + bytes(-len(raw) % 4)


def read_summary(data: bytes) -> dict[int, PropertyValue]:
    """The properties of a stream; `FileDamaged` where it contradicts itself."""
    try:
        order, version, _, _, sets, form, start = _HEADER.unpack_from(data)
        if order != 0xFFFE or version > 1 or sets < 1 or form != _FORMAT.bytes_le:
            raise FileDamaged("its summary is no property set")
        size, count = struct.unpack_from("<II", data, start)
        if count > _MOST or 8 + 8 * count > min(size, len(data) - start):
            raise FileDamaged(f"its summary claims {count} properties, which it has no room for")
        places = dict(struct.iter_unpack("<II", data[start + 8 : start + 8 + 8 * count]))
        codec = _codec(_DEFAULT_CODE_PAGE)
        if Property.CODE_PAGE in places:
            codec = _codec(_value(data, start + places[Property.CODE_PAGE], 1, codec))
        found = {}
        for number, place in sorted(places.items()):
            value = _value(data, start + place, number, codec)
            if value is not None:
                found[number] = value
        return found
    except struct.error:
        raise FileDamaged("its summary is cut short") from None


def _value(data: bytes, at: int, number: int, codec: str) -> PropertyValue | None:
    (kind,) = struct.unpack_from("<I", data, at)
    at += 4
    if kind == _EMPTY:
        return None
    if kind == _SHORT:
        form = "<H" if number == Property.CODE_PAGE else "<h"
        return int(struct.unpack_from(form, data, at)[0])
    if kind == _LONG:
        return int(struct.unpack_from("<i", data, at)[0])
    if kind == _TIME:
        (ticks,) = struct.unpack_from("<Q", data, at)
        try:
            return _EPOCH + timedelta(microseconds=ticks // 10)
        except OverflowError:
            raise FileDamaged(f"its summary's {_name(number)} is after the year 9999") from None
    if kind == _TEXT:
        (size,) = struct.unpack_from("<I", data, at)
        raw = data[at + 4 : at + 4 + size]
        if len(raw) < size:
            raise FileDamaged(f"its summary's {_name(number)} claims {size} bytes")
        try:
            return raw.partition(b"\0")[0].decode(codec, "surrogateescape")
        except UnicodeDecodeError:
            raise FileDamaged(
                f"its summary's {_name(number)} is no text in its code page"
            ) from None
    raise FileDamaged(f"its summary's {_name(number)} is of a kind, {kind}, that none has")


def _codec(code_page: PropertyValue | None) -> str:
    if not isinstance(code_page, int):
        raise InstallerError(f"the summary's code page is {code_page!r}")
    return check_code_page(code_page)


def _name(number: int) -> str:
    try:
        return Property(number).name.lower().replace("_", " ")
    except ValueError:
        return f"property {number}"
