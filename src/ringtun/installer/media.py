"""Media: the disks of a package, and the cabinets that hold the files of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ringtun.installer.cabinet import CabinetFile, read_cabinet, write_cabinet
from ringtun.installer.database import Database
from ringtun.installer.errors import FileDamaged, InstallerError
from ringtun.installer.schema import ensure
from ringtun.installer.summary import Property

__all__ = ["COMPRESSION_BITS", "add_files"]

_NOT_COMPRESSED, _COMPRESSED = 0x2000, 0x4000
COMPRESSION_BITS: Final = _NOT_COMPRESSED | _COMPRESSED  # of a file's attributes
_ALL_COMPRESSED: Final = 2  # a bit of the summary's words
_EMBEDDED: Final = "#"  # begins the name of a cabinet that is a stream


def add_files(database: Database, disk: int, files: Sequence[CabinetFile]) -> None:
    """Put files into the cabinet of a disk, behind those that are there.

    Each is named by the key of its row in the table File. A disk that is not there yet gets a
    cabinet in the package, and has to come after all others. `InstallerError` for a disk whose
    files are not in a cabinet within the package, or in one that cannot be read.
    """
    media, rows = ensure(database, "Media"), ensure(database, "File")
    last, stream, former = _open(database, disk)
    added = {file.name: number for number, file in enumerate(files, last + 1)}
    words = database.summary.get(Property.WORDS)
    compressed = 0 if isinstance(words, int) and words & _ALL_COMPRESSED else _COMPRESSED
    for row in database.rows("File"):
        key, number = row["File"], row["Sequence"] or 0
        if key in added:
            bits = (row["Attributes"] or 0) & ~COMPRESSION_BITS | compressed
            rows.change(key, Sequence=added[key], Attributes=bits)
        elif number > last:
            rows.change(key, Sequence=number + len(files))
    for number, disk_id in _disks(database):
        if (number, disk_id) >= (last, disk):
            media.change(disk_id, LastSequence=number + len(files))
    media.change(disk, Cabinet=_EMBEDDED + stream)
    database.streams[stream] = write_cabinet([*former, *files])


def _disks(database: Database) -> list[tuple[int, int]]:
    """The last file's number and the number of each disk, in their order."""
    return sorted((row["LastSequence"] or 0, row["DiskId"] or 0) for row in database.rows("Media"))


def _open(database: Database, disk: int) -> tuple[int, str, list[CabinetFile]]:
    """Of a disk, which is made if need be: its last file's number, its cabinet, what is in it."""
    media = database.tables["Media"]
    disks = _disks(database)
    row = media.get(disk)
    if row is None:
        if disk < 1:
            raise InstallerError(f"there is no disk {disk}: they are counted from 1")
        if any(other > disk for _, other in disks):
            numbers = ", ".join(str(other) for _, other in disks)
            raise InstallerError(
                f"a disk {disk} would come between others: there are {numbers}; "
                "take one of them, or the next number"
            )
        last = max((number for number, _ in disks), default=0)
        media.add(DiskId=disk, LastSequence=last)
        return last, _free(database, disk), []

    named = media.named(row)
    last, cabinet = named["LastSequence"] or 0, named["Cabinet"]
    at = disks.index((last, disk))
    empty = last == (disks[at - 1][0] if at else 0)
    another = f"take another, such as {max(other for _, other in disks) + 1}"
    if cabinet is None and empty:
        return last, _free(database, disk), []
    if cabinet is None or not cabinet.startswith(_EMBEDDED):
        where = f"in {cabinet}, beside the package" if cabinet else "not in a cabinet"
        raise InstallerError(f"the files of disk {disk} are {where}: {another}")
    stream = cabinet.removeprefix(_EMBEDDED)
    data = database.streams.get(stream)
    if data is None:
        if empty:
            return last, stream, []
        raise FileDamaged(f"the package does not have the cabinet {stream!r} of its disk {disk}")
    try:
        return last, stream, read_cabinet(data)
    except InstallerError as error:
        raise type(error)(f"the cabinet of disk {disk}: {error}; {another}") from None


def _free(database: Database, disk: int) -> str:
    name = f"disk{disk}.cab"
    while name in database.streams:
        name = f"x{name}"
    return name
