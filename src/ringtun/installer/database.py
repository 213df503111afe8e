"""Databases: tables, streams and a summary, in a compound file."""

from __future__ import annotations

import os
import stat
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ringtun.installer.compound import HEADER_SIZE, extent, read_compound, write_compound
from ringtun.installer.errors import FileDamaged, InstallerError
from ringtun.installer.names import pack, unpack
from ringtun.installer.output import write_whole
from ringtun.installer.strings import StringPool
from ringtun.installer.summary import SUMMARY, PropertyValue, read_summary, summary_stream
from ringtun.installer.tables import Column, Row, Table, Value

__all__ = ["Database"]

_CLASS_ID: Final = uuid.UUID("000c1084-0000-0000-c000-000000000046")
_OTHERS: Final = {
    uuid.UUID("000c1082-0000-0000-c000-000000000046"): "a transform",
    uuid.UUID("000c1086-0000-0000-c000-000000000046"): "a patch",
}
_SIGNATURES: Final = ("\5DigitalSignature", "\5MsiDigitalSignatureEx")
# What a database says of itself; not among its tables.
_TABLES, _COLUMNS, _POOL, _DATA = "_Tables", "_Columns", "_StringPool", "_StringData"


class Database:
    """A database of Windows Installer: an installation (``.msi``) or a merge module (``.msm``).

    ``tables`` are `Table` objects by name; ``streams`` are the bytes that no table holds, such as
    cabinets, by name; ``summary`` has the properties of the summary by number, see
    `ringtun.installer.Property`; ``code_page`` is that of the text in tables, 0 for ASCII and
    65001 for UTF-8. ``signed`` says whether the file that was read had a signature. It is not
    written: it would be none of what is.

    Two databases are equal if tables, streams, summary and code page are.
    """

    def __init__(self, code_page: int = 0) -> None:
        self.code_page = code_page
        self.tables: dict[str, Table] = {}
        self.streams: dict[str, bytes] = {}
        self.summary: dict[int, PropertyValue] = {}
        self.signed = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Database):
            return NotImplemented
        return (self.code_page, self.tables, self.streams, self.summary) == (
            *(other.code_page, other.tables, other.streams, other.summary),
        )

    __hash__ = None  # type: ignore[assignment]

    def create(self, name: str, columns: str | Sequence[Column]) -> Table:
        """Make a table; columns as `Table` takes them. `InstallerError` if it is there already."""
        if name in self.tables:
            raise InstallerError(f"there is a table {name} already")
        table = self.tables[name] = Table(name, columns)
        return table

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table, as `Table.named` gives them; none where there is no such table."""
        table = self.tables.get(name)
        return [] if table is None else [*map(table.named, table)]

    def copy(self) -> Database:
        """Another database that is equal to this one."""
        found = Database(self.code_page)
        found.tables = {name: table.copy() for name, table in self.tables.items()}
        found.streams, found.summary = self.streams.copy(), self.summary.copy()
        found.signed = self.signed
        return found

    # ---- reading --------------------------------------------------------------------------------

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Database:
        """Read a file.

        `InstallerError` names it and says what is wrong with it: `FileDamaged` for what is no
        database, or not a whole one, whatever its bytes are. ``OSError`` where the file cannot be
        read. Memory is a small multiple of the file's size, whatever it claims to be.
        """
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise InstallerError("it is no regular file")
                header = file.read(HEADER_SIZE)
                size = min(status.st_size, extent(header))
                data = header + file.read(max(0, size - len(header)))
            return cls.from_bytes(data)
        except InstallerError as error:
            error.file = os.fspath(path)
            raise

    @classmethod
    def from_bytes(cls, data: bytes) -> Database:
        """Read a file's bytes. Errors as of `read`."""
        packed, class_id = read_compound(data)
        if class_id in _OTHERS:
            raise InstallerError(f"it is {_OTHERS[class_id]}, and no database of its own")
        named: dict[str, bytes] = {}
        streams: dict[str, bytes] = {}
        for raw, content in packed.items():
            name, of_table = unpack(raw)
            where = named if of_table else streams
            if name in where:
                raise FileDamaged(f"it has two streams {name!r}")
            where[name] = content
        if _POOL not in named:
            raise FileDamaged("it is a compound file, but no database: it has no strings")
        pool = StringPool.from_streams(named.pop(_POOL), named.pop(_DATA, b""))

        found = cls(pool.code_page)
        for name in _SIGNATURES:
            found.signed |= streams.pop(name, None) is not None
        found.summary = read_summary(streams.pop(SUMMARY)) if SUMMARY in streams else {}
        found.tables = _schema(named.pop(_TABLES, b""), named.pop(_COLUMNS, b""), pool)
        taken = set[str]()
        for name, table in found.tables.items():
            for row in _rows(table, named.pop(name, b""), pool):
                table.load(_with_streams(table, row, streams, taken))
        if named:
            raise FileDamaged(f"it has rows of the table {min(named)!r}, and no such table")
        found.streams = {name: streams[name] for name in sorted(streams.keys() - taken)}
        return found

    # ---- writing --------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The file. Equal databases give the same bytes.

        `InstallerError` for what no file can hold: text outside the code page, names of streams
        that are too long or the same, too much of anything.
        """
        pool = StringPool(self.code_page)
        names = sorted(self.tables)
        for name in names:
            if name != self.tables[name].name or name in (_TABLES, _COLUMNS, _POOL, _DATA):
                raise InstallerError(f"a table cannot be kept as {name!r}")
        schema = [
            (pool.use(name), number, pool.use(column.name), column.type ^ 0x8000)
            for name in names
            for number, column in enumerate(self.tables[name].columns, 1)
        ]
        listed = sorted(pool.use(name) for name in names)
        streams = dict(self.streams)
        stored = {name: _stored(self.tables[name], pool, streams) for name in names}

        width = pool.width  # from here on there are no more strings
        columns = sorted((table, number ^ 0x8000, *rest) for table, number, *rest in schema)
        named = {
            _TABLES: _joined([(number,) for number in listed], [width]),
            _COLUMNS: _joined(columns, [width, 2, width, 2]),
        }
        named[_POOL], named[_DATA] = pool.to_streams()
        for name, rows in stored.items():
            if rows:
                named[name] = _joined(rows, _widths(self.tables[name], width))

        packed = {SUMMARY: summary_stream(self.summary)} if self.summary else {}
        for of_table, group in ((True, named), (False, streams)):
            for name, content in group.items():
                raw = pack(name, table=of_table)
                if raw in packed or name in _SIGNATURES:
                    raise InstallerError(f"a stream cannot be kept as {name!r}")
                packed[raw] = content
        return write_compound(packed, _CLASS_ID)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write a file, in the place of one that may be there.

        Errors as of `to_bytes`, and ``OSError``. After one, the file is what it was before, and
        nothing else is left.
        """
        try:
            data = self.to_bytes()
        except InstallerError as error:
            error.file = os.fspath(path)
            raise
        write_whole(path, data)


# ---- rows as they are stored: numbers, of which a string is one ---------------------------------


def _widths(table: Table, width: int) -> list[int]:
    """The bytes of each column's values, where those of a string's number are ``width``."""
    sizes = {"s": width, "l": width, "v": 2}
    return [sizes.get(column.kind, 4 if column.size == 4 else 2) for column in table.columns]


def _joined(rows: Sequence[tuple[int, ...]], widths: Sequence[int]) -> bytes:
    """Rows of numbers as they are stored: column after column."""
    return b"".join(
        number.to_bytes(width, "little")
        for column, width in zip(zip(*rows, strict=True), widths, strict=False)
        for number in column
    )


def _offset(column: Column) -> int:
    """What is added to a number, so that 0 can stand for none."""
    return 1 << (31 if column.size == 4 else 15)


def _stored(table: Table, pool: StringPool, streams: dict[str, bytes]) -> list[tuple[int, ...]]:
    """The rows, in the order that a file has: of their keys as numbers. Bytes go to ``streams``."""

    def order(row: Row) -> list[tuple[bool, str | int]]:
        return [(part is not None, part or 0) for part in table.key_of(row)]

    def stored(row: Row, column: Column, value: Value) -> int:
        if isinstance(value, bytes):
            name = _stream_name(table, row)
            if name in streams:
                raise InstallerError(f"a stream and {table.name}.{column.name} are both {name!r}")
            streams[name] = value
            return 1
        if value is None:
            return 0
        return pool.use(value) if isinstance(value, str) else value + _offset(column)

    # The strings get their numbers in an order that depends on nothing but the content.
    rows = [
        tuple(stored(row, *pair) for pair in zip(table.columns, row, strict=True))
        for row in sorted(table.rows, key=order)
    ]
    keys = [at for at, column in enumerate(table.columns) if column.key]
    return sorted(rows, key=lambda row: [row[at] for at in keys])


def _stream_name(table: Table, row: Row) -> str:
    return ".".join((table.name, *("" if k is None else str(k) for k in table.key_of(row))))


def _schema(listed: bytes, columns: bytes, pool: StringPool) -> dict[str, Table]:
    """The tables, empty, by what ``_Tables`` and ``_Columns`` say."""
    width = pool.width
    names = [_string(pool, number) for (number,) in _split(listed, [width], _TABLES)]
    found: dict[str, list[tuple[int, Column]]] = {name: [] for name in names}
    if len(found) < len(names):
        raise FileDamaged("it has two tables of the same name")
    for owner, number, name, kind in _split(columns, [width, 2, width, 2], _COLUMNS):
        table = _string(pool, owner)
        if table not in found:
            raise FileDamaged(f"it has columns of the table {table!r}, and no such table")
        found[table].append((number, Column(_string(pool, name), kind ^ 0x8000)))
    tables = {}
    for table, numbered in sorted(found.items()):
        numbered.sort(key=lambda pair: pair[0])
        if [number ^ 0x8000 for number, _ in numbered] != list(range(1, len(numbered) + 1)):
            raise FileDamaged(f"columns of its table {table!r} are missing, or there twice")
        tables[table] = Table(table, [column for _, column in numbered])
    return tables


def _rows(table: Table, data: bytes, pool: StringPool) -> list[Row]:
    """The rows of a table's stream; of bytes it has whether they are there."""

    def value(column: Column, number: int) -> Value:
        if column.kind in "sl":
            return pool[number]
        if not number:
            return None
        return b"" if column.kind == "v" else number - _offset(column)

    return [
        tuple(map(value, table.columns, numbers))
        for numbers in _split(data, _widths(table, pool.width), table.name)
    ]


def _with_streams(table: Table, row: Row, streams: Mapping[str, bytes], taken: set[str]) -> Row:
    """The row with its bytes, which are the stream that has its key for a name."""
    if not any(isinstance(value, bytes) for value in row):
        return row
    name = _stream_name(table, row)
    if name not in streams:
        raise FileDamaged(f"it has no stream {name!r}, which its table {table.name} speaks of")
    taken.add(name)
    return tuple(streams[name] if isinstance(value, bytes) else value for value in row)


def _split(data: bytes, widths: Sequence[int], name: str) -> list[tuple[int, ...]]:
    """Rows of numbers, which are stored column after column."""
    count, rest = divmod(len(data), sum(widths))
    if rest:
        raise FileDamaged(f"its table {name!r} ends within a row")
    columns = []
    at = 0
    for width in widths:
        part = data[at : at + count * width]
        at += count * width
        if width == 3:
            columns.append(
                [int.from_bytes(part[n : n + 3], "little") for n in range(0, len(part), 3)]
            )
        else:
            columns.append([*struct.unpack(f"<{count}{'I' if width == 4 else 'H'}", part)])
    return [*zip(*columns, strict=True)]


def _string(pool: StringPool, number: int) -> str:
    found = pool[number]
    if not found:
        raise FileDamaged("a table or a column of it has no name")
    return found
