"""Tables: columns with a type, and rows that a key tells apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from ringtun.installer.errors import InstallerError

__all__ = ["Column", "Key", "Row", "Table", "Value"]

Value: TypeAlias = str | int | bytes | None
Row: TypeAlias = tuple[Value, ...]
Key: TypeAlias = tuple[str | int | None, ...]

# Bits of a column's type; the lowest eight are its length.
_VALID, _LOCALIZABLE, _SHORT, _STRING, _NULLABLE, _KEY = (0x100 << bit for bit in range(6))
_KINDS: Final = {
    "s": _VALID | _SHORT | _STRING,
    "l": _VALID | _SHORT | _STRING | _LOCALIZABLE,
    "v": _VALID | _STRING,
    "i": _VALID,
}
_SPEC: Final = re.compile(r"([slivSLIV])(\d{1,3})(!?)")
_MOST_COLUMNS: Final = 32


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name, and its type as the bits that a database has for it."""

    name: str
    type: int

    @classmethod
    def of(cls, name: str, spec: str) -> Column:
        """A column by a spec such as ``"s72!"``.

        A letter, ``s`` for text, ``l`` for text that is translated, ``i`` for a whole number, ``v``
        for bytes; in upper case where there may be no value. Then how many characters it may have,
        0 for any number, or the bytes of a number, 2 or 4. ``!`` where it is a part of the key.
        """
        match = _SPEC.fullmatch(spec)
        if match is None or int(match[2]) > 255:
            raise InstallerError(f"the column {name} has the type {spec!r}: one is like 's72!'")
        letter, size, key = match[1], int(match[2]), match[3]
        kind = letter.lower()
        if (kind == "i" and size not in (2, 4)) or (kind == "v" and (size or key)):
            raise InstallerError(
                f"the column {name} has the type {spec!r}: numbers are i2 or i4, bytes are v0"
            )
        bits = _KINDS[kind] | size
        if kind == "i" and size == 2:
            bits |= _SHORT
        return cls(name, bits | (_NULLABLE if letter.isupper() else 0) | (_KEY if key else 0))

    @property
    def kind(self) -> str:
        """``"s"``, ``"l"``, ``"i"`` or ``"v"``."""
        if not self.type & _STRING:
            return "i"
        if self.type & ~_NULLABLE == _VALID | _STRING:
            return "v"
        return "l" if self.type & _LOCALIZABLE else "s"

    @property
    def size(self) -> int:
        """Characters that it may have, 0 for any number; or the bytes of a number."""
        return self.type & 0xFF

    @property
    def nullable(self) -> bool:
        """Whether there may be no value."""
        return bool(self.type & _NULLABLE)

    @property
    def key(self) -> bool:
        """Whether it is a part of the key."""
        return bool(self.type & _KEY)

    @property
    def spec(self) -> str:
        """The type as `of` takes it."""
        letter = self.kind.upper() if self.nullable else self.kind
        return f"{letter}{self.size}{'!' if self.key else ''}"

    def why_not(self, value: Value) -> str | None:
        """What keeps the value from being stored here: the kind of it, or its range."""
        kind = self.kind
        if value is None:
            return None
        if kind == "i":
            # The lowest number of its range stands for no value.
            most = 1 << (31 if self.size == 4 else 15)
            if not isinstance(value, int) or isinstance(value, bool):
                return "is not a number"
            return None if -most < value < most else f"is not within {1 - most} and {most - 1}"
        if kind == "v":
            return None if isinstance(value, bytes) else "is not bytes"
        return None if isinstance(value, str) else "is not text"

    def why_not_well(self, value: Value) -> str | None:
        """What keeps the value from being added: `why_not`, its length, or that there is none.

        Text of any length may be empty, which is the same as none.
        """
        why = self.why_not(value)
        if why is not None:
            return why
        if value is None or value == "":
            free = self.kind in "sl" and not self.size
            return None if self.nullable or free else "has no value, and has to have one"
        if isinstance(value, str) and 0 < self.size < len(value):
            return f"has {len(value)} characters, and may have {self.size}"
        return None


class Table:
    """A table: ``name``, ``columns``, and rows, of which no two have the same key.

    ``columns`` are `Column` objects, or text such as ``"Property:s72! Value:l0"``. A row is a
    tuple; text without a character is None in it, as a database does not tell the two apart.
    Two tables are equal if all of that is, whatever the order of the rows.
    """

    def __init__(self, name: str, columns: str | Sequence[Column]) -> None:
        if isinstance(columns, str):
            pairs = (word.partition(":") for word in columns.split())
            columns = [Column.of(column, spec) for column, _, spec in pairs]
        self.name = name
        self.columns = tuple(columns)
        self._rows: dict[Key, Row] = {}
        names = [column.name for column in self.columns]
        if not name or not all(names) or len(set(names)) < len(names):
            raise InstallerError(f"the table {name!r} or a column has no name, or another's")
        if len(names) > _MOST_COLUMNS:
            raise InstallerError(f"the table {name} has over {_MOST_COLUMNS} columns")
        if not any(column.key for column in self.columns):
            raise InstallerError(f"the table {name} has no column that is a part of its key")
        for column in self.columns:
            if column.type >> 16:
                raise InstallerError(f"{name}.{column.name} has a type of over 16 bits")
            if column.kind == "i" and column.size not in (1, 2, 4):
                raise InstallerError(f"{name}.{column.name} is a number of {column.size} bytes")

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order in which they came; the list is the caller's own."""
        return [*self._rows.values()]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return (self.name, self.columns, self._rows) == (other.name, other.columns, other._rows)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Table {self.name}: {len(self)} rows>"

    def get(self, *key: str | int | None) -> Row | None:
        """The row with this key, one value for each part; None if there is none."""
        return self._rows.get(key)

    def add(self, *values: Value, **named: Value) -> None:
        """Add a row: values in the order of the columns, or by their names.

        Columns that are not named have no value. `InstallerError` says what does not fit: the
        number of values, a kind, a length, a value that is missing, a key that is there already.
        """
        row = self._row(values, named)
        for column, value in zip(self.columns, row, strict=True):
            self._refuse(column, value, column.why_not_well(value))
        key = self.key_of(row)
        if key in self._rows:
            raise InstallerError(f"the table {self.name} has a row {_words(key)} already")
        self._rows[key] = row

    def put(self, *values: Value, **named: Value) -> None:
        """Add a row, in the place of the one with its key if there is one. Errors as of `add`."""
        row = self._row(values, named)
        former = self._rows.pop(self.key_of(row), None)
        try:
            self.add(*row)
        except InstallerError:
            if former is not None:
                self._rows[self.key_of(former)] = former
            raise

    def named(self, row: Row) -> dict[str, Any]:
        """A row's values by the names of their columns, each of the kind that its column has."""
        return {column.name: value for column, value in zip(self.columns, row, strict=True)}

    def change(self, *key: str | int | None, **values: Value) -> None:
        """Give other values to the row with this key, in columns that are no part of it.

        `InstallerError` if there is no such row or column, or a value is of another kind.
        """
        if key not in self._rows:
            raise InstallerError(f"the table {self.name} has no row {_words(key)}")
        row = self._row((), {**self.named(self._rows[key]), **values})
        assert self.key_of(row) == key
        self._rows[key] = row

    def copy(self) -> Table:
        """Another table of the same columns and rows."""
        found = Table(self.name, self.columns)
        found._rows = self._rows.copy()
        return found

    def remove(self, *key: str | int | None) -> Row:
        """Take the row with this key out; `InstallerError` if there is none."""
        try:
            return self._rows.pop(key)
        except KeyError:
            raise InstallerError(f"the table {self.name} has no row {_words(key)}") from None

    def key_of(self, row: Row) -> Key:
        """The parts of a row that tell it from others."""
        parts = []
        for column, value in zip(self.columns, row, strict=True):
            if column.key:
                assert not isinstance(value, bytes)
                parts.append(value)
        return tuple(parts)

    def load(self, row: Row) -> None:
        """Take a row as a file has it, of whatever length, with or without what it has to have.

        Databases do not hold to their own columns. `InstallerError` for two rows with one key.
        """
        key = self.key_of(row)
        if key in self._rows:
            raise InstallerError(f"the table {self.name} has two rows {_words(key)}")
        self._rows[key] = row

    def _row(self, values: Sequence[Value], named: dict[str, Value]) -> Row:
        names = [column.name for column in self.columns]
        if named:
            unknown = sorted(named.keys() - set(names[len(values) :]))
            if unknown:
                raise InstallerError(
                    f"the table {self.name} has no column {unknown[0]}, or it has its value already"
                )
            values = [*values, *(named.get(name) for name in names[len(values) :])]
        if len(values) != len(names):
            raise InstallerError(
                f"the table {self.name} has {len(names)} columns, and there are "
                f"{len(values)} values: {values!r:.200}"
            )
        for column, value in zip(self.columns, values, strict=True):
            self._refuse(column, value, column.why_not(value))
        return tuple(None if value == "" else value for value in values)

    def _refuse(self, column: Column, value: Value, why: str | None) -> None:
        if why is not None:
            raise InstallerError(f"{self.name}.{column.name}: {value!r:.100} {why}")


def _words(key: Key) -> str:
    return ", ".join(repr(part) for part in key)
