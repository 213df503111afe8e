"""Readers that others wrote, and what they say of a file beside what ours says."""

from __future__ import annotations

import hashlib
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, Final

from pymsi.msi import Msi
from pymsi.package import Package

from ringtun.installer import Database, Property, read_cabinet
from ringtun.installer.describe import is_module

__all__ = ["agree"]

# Tables that the tools make up: the code page, and the summary.
_MADE_UP: Final = {"_ForceCodepage", "_SummaryInformation"}
_OF_PYMSI: Final = {"_Columns", "_Tables"}
_SUMMARY: Final = "\5SummaryInformation"


def agree(file: Path, scratch: Path) -> None:
    """Assert that msiinfo, msidump, msiextract, cabextract, gcab and pymsi see what we see."""
    database = Database.read(file)
    _msiinfo(file, database)
    _msidump(file, database, scratch / "dumped")
    _pymsi(file, database)
    payloads = [
        hashlib.sha256(entry.data).hexdigest()
        for name, data in database.streams.items()
        if data.startswith(b"MSCF")
        for entry in _cabinet(scratch / "cabinet", name, data)
    ]
    assert len(payloads) == len(database.rows("File"))
    _msiextract(file, database, scratch / "extracted", payloads)


def _msiextract(file: Path, database: Database, folder: Path, payloads: list[str]) -> None:
    names = {str(row["FileName"]).rpartition("|")[2] for row in database.rows("File")}
    listed = _run("msiextract", "-l", file).decode().splitlines()
    assert {line.rpartition("/")[2] for line in listed if line} == names
    if not is_module(database):  # of which it asks for media
        _run("msiextract", "-C", folder, file)
        extracted = [path for path in folder.rglob("*") if path.is_file()]
        assert Counter(payloads) == Counter(map(_hash, extracted))
        assert {path.name for path in extracted} == names


def _msiinfo(file: Path, database: Database) -> None:
    tables = set(_run("msiinfo", "tables", file).decode().split()) - _MADE_UP
    assert tables == database.tables.keys()
    for name in tables:
        _is_table(database, name, _run("msiinfo", "export", file, name).decode("cp1252"))
    streams = set(_run("msiinfo", "streams", file).decode().splitlines()) - {_SUMMARY}
    assert streams == database.streams.keys() | _binaries(database).keys()
    for name, data in {**database.streams, **_binaries(database)}.items():
        assert _run("msiinfo", "extract", file, name) == data, name
    said = _run("msiinfo", "suminfo", file).decode("cp1252")
    for number in (Property.TITLE, Property.SUBJECT, Property.AUTHOR, Property.REVISION):
        assert f": {database.summary[number]}" in said
    assert str(database.summary[Property.TEMPLATE]) in said


def _msidump(file: Path, database: Database, folder: Path) -> None:
    folder.mkdir(parents=True)
    _run("msidump", "-t", "-s", file.absolute(), cwd=folder)
    for name in database.tables:
        _is_table(database, name, (folder / f"{name}.idt").read_bytes().decode("cp1252"))
    contents = {path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert contents >= {*database.streams.values(), *_binaries(database).values()}


def _is_table(database: Database, name: str, text: str) -> None:
    """The table as text: names, types and keys of its columns, then the rows."""
    table = database.tables[name]
    names, types, keys, *rows = text.split("\r\n")
    columns = table.columns
    assert names.split("\t") == [column.name for column in columns], name
    assert types.split("\t") == [column.spec.rstrip("!") for column in columns], name
    assert keys.split("\t")[-sum(c.key for c in columns) :] == [c.name for c in columns if c.key]
    kept = [at for at, column in enumerate(columns) if column.kind != "v"]
    theirs = [[row.split("\t")[at] for at in kept] for row in rows if row]
    ours = [["" if row[at] is None else str(row[at]) for at in kept] for row in table]
    assert sorted(theirs) == sorted(ours), name


def _pymsi(file: Path, database: Database) -> None:
    with Package(file) as package:
        assert {table.name for table in package} - _OF_PYMSI == database.tables.keys()
        for name, table in database.tables.items():
            found = package.get(name)
            assert found is not None
            rows: list[dict[str, Any]] = [*found.iter(False)]
            kept = [column.name for column in table.columns if column.kind != "v"]
            theirs = [[row[column] for column in kept] for row in rows]
            ours = [[table.named(row)[column] for column in kept] for row in table]
            assert sorted(theirs, key=repr) == sorted(ours, key=repr), name
            if name == "Binary":
                datas = [package.get_row_datastream_bytes(found, row) for row in rows]
                assert {*datas} == {*_binaries(database).values()}
        if not is_module(database):  # of which pymsi asks for media
            files = {
                entry.name: entry.data
                for name, data in database.streams.items()
                for entry in read_cabinet(data)
            }
            loaded = Msi(package, load_data=True).files.items()
            assert {key: bytes(row.resolve().decompress()) for key, row in loaded} == files


def _cabinet(folder: Path, name: str, data: bytes) -> list[Any]:
    """The files of a cabinet, of which cabextract and gcab say the same."""
    folder.mkdir(parents=True)
    cabinet = folder / name
    cabinet.write_bytes(data)
    entries = read_cabinet(data)
    assert _run("gcab", "-t", cabinet).decode().split() == [entry.name for entry in entries]
    _run("cabextract", "-q", "-d", folder / "files", cabinet)
    assert {path.name: path.read_bytes() for path in (folder / "files").iterdir()} == {
        entry.name: entry.data for entry in entries
    }
    return entries


def _binaries(database: Database) -> dict[str, bytes]:
    """The streams that rows have, by name."""
    return {
        f"{table.name}.{'.'.join(str(part) for part in table.key_of(row))}": value
        for table in database.tables.values()
        for row in table
        for value in row
        if isinstance(value, bytes)
    }


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(*command: str | Path, cwd: Path | None = None) -> bytes:
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert b"CRITICAL" not in done.stderr, done.stderr.decode()
    return done.stdout
