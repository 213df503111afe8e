"""Rules about files: their numbers, and the cabinets that carry them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from ringtun.installer.cabinet import CabinetFile, read_cabinet
from ringtun.installer.database import Database
from ringtun.installer.describe import is_module
from ringtun.installer.errors import InstallerError
from ringtun.installer.rules.rule import Problem, Record, records, rule
from ringtun.installer.summary import Property

__all__ = ["OF_MODULE", "RULES"]

OF_MODULE: Final = "MergeModule.CABinet"
_COMPRESSED: Final = 2  # among the summary's words
_NOT_COMPRESSED, _IS_COMPRESSED = 0x2000, 0x4000  # of a file, whatever the summary says


@dataclass(frozen=True, slots=True)
class _Medium:
    """A cabinet of the file's own, and the rows of the files that it should carry, in order."""

    stream: str
    place: Record | str
    rows: list[Record]


def _media(database: Database) -> list[_Medium]:
    rows = [row for row in records(database, "File") if _compressed(database, row)]
    rows.sort(key=lambda row: row.number("Sequence") or 0)
    if is_module(database):
        return [_Medium(OF_MODULE, "File", rows)] if rows else []
    found = []
    first = 0
    for medium in _in_order(database):
        last, cabinet = medium.number("LastSequence") or 0, medium.text("Cabinet")
        if cabinet.startswith("#"):
            own = [row for row in rows if first < (row.number("Sequence") or 0) <= last]
            found.append(_Medium(cabinet[1:], medium, own))
        first = max(first, last)
    return found


def _in_order(database: Database) -> list[Record]:
    return sorted(records(database, "Media"), key=lambda row: row.number("DiskId") or 0)


def _compressed(database: Database, row: Record) -> bool:
    if row.bits("Attributes") & (_NOT_COMPRESSED | _IS_COMPRESSED):
        return bool(row.bits("Attributes") & _IS_COMPRESSED)
    words = database.summary.get(Property.WORDS)
    return is_module(database) or bool(isinstance(words, int) and words & _COMPRESSED)


def _carried(database: Database) -> Iterator[tuple[Record, bytes]]:
    """Each file of a cabinet that can be read, as its row and its bytes."""
    for medium in _media(database):
        try:
            files = {file.name: file.data for file in _read(database, medium)}
        except InstallerError:
            continue  # which is a finding of the rule `cabinet`
        for row in medium.rows:
            if row.key in files:
                yield row, files[row.key]


def _read(database: Database, medium: _Medium) -> list[CabinetFile]:
    data = database.streams.get(medium.stream)
    if data is None:
        raise InstallerError(f"there is no cabinet {medium.stream!r:.80} in it")
    return read_cabinet(data)


@rule("file-number")
def file_number(database: Database) -> Iterator[Problem]:
    """The files are numbered without a number twice."""
    owners: dict[int | None, str] = {}
    for file in records(database, "File"):
        number = file.number("Sequence")
        owner = owners.setdefault(number, file.key)
        if owner != file.key:
            yield file, f"its number {number} is that of {owner} too"


@rule("media", about="installation")
def media(database: Database) -> Iterator[Problem]:
    """The media follow one another in the numbers of the files, and the last has the last file."""
    before = 0
    for medium in _in_order(database):
        last = medium.number("LastSequence") or 0
        if last < before:
            yield medium, f"its last file is {last}, and a medium before it has that up to {before}"
        before = max(before, last)
    for file in records(database, "File"):
        number = file.number("Sequence") or 0
        if number > before:
            yield file, f"its number is {number}, and the media have files up to {before}"


@rule("cabinet", "ICEM07")
def cabinet(database: Database) -> Iterator[Problem]:
    """A cabinet has the files of its medium, under their keys, and in the order of their numbers;
    that of a module is named MergeModule.CABinet.
    """
    if is_module(database) and OF_MODULE in database.streams and not records(database, "File"):
        yield None, "there is a cabinet, and no file"
    for medium in _media(database):
        try:
            here = [file.name for file in _read(database, medium)]
        except InstallerError as error:
            yield medium.place, str(error)
            continue
        wanted = [row.key for row in medium.rows]
        for name in sorted({*wanted} - {*here}):
            yield medium.place, f"the cabinet has no file {name!r:.80}"
        for name in sorted({*here} - {*wanted}):
            yield medium.place, f"the cabinet has a file {name!r:.80}, and the medium has not"
        if sorted(here) == sorted(wanted) and here != wanted:
            at = next(
                n for n, pair in enumerate(zip(here, wanted, strict=True)) if len({*pair}) > 1
            )
            yield medium.place, f"file {at + 1} of the cabinet is {here[at]!r:.80}, and not next"


@rule("file-size")
def file_size(database: Database) -> Iterator[Problem]:
    """A file is as large in its cabinet as its row says."""
    for row, data in _carried(database):
        if row.number("FileSize") != len(data):
            yield row, f"its size is {row.number('FileSize')}, and in the cabinet {len(data)}"


@rule("file-hash", "ICE60")
def file_hash(database: Database) -> Iterator[Problem]:
    """A hash is that of the file in its cabinet, and files with a version have none."""
    versions = {row.key: row.text("Version") for row in records(database, "File")}
    hashes = {row.text("File_"): row for row in records(database, "MsiFileHash")}
    for key, row in hashes.items():
        if versions.get(key):
            yield row, "it is the hash of a file that has a version"
    for file, data in _carried(database):
        if file.key in hashes:
            row = hashes[file.key]
            said = tuple(row.number(f"HashPart{part}") for part in range(1, 5))
            if said != struct.unpack("<4i", hashlib.md5(data, usedforsecurity=False).digest()):
                yield row, "it is not the hash of the file in the cabinet"


RULES: Final = (file_number, media, cabinet, file_size, file_hash)
