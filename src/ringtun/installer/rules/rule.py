"""What a rule is: a question to a database, whose answers are findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ringtun.installer.database import Database
from ringtun.installer.describe import is_module
from ringtun.installer.tables import Value

__all__ = ["Finding", "Problem", "Record", "Rule", "records", "rule"]

Severity: TypeAlias = Literal["error", "warning"]
Kind: TypeAlias = Literal["module", "installation"]
# The row or the table that it is about, None for the whole file, and what is wrong there.
Problem: TypeAlias = "tuple[Record | str | None, str]"


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a database.

    ``rule`` is the name of the rule, ``ice`` that of Microsoft's check which asks the same, where
    there is one; ``table`` and ``row`` say where, the row by its key with ``;`` between the parts.
    An error keeps the file from working as it should, somewhere; a warning need not.
    """

    rule: str
    ice: str | None
    severity: Severity
    table: str | None
    row: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, by its name and its question; ``about`` is the kind of database, None for both."""

    name: str
    ice: str | None
    severity: Severity
    about: Kind | None
    question: Callable[[Database], Iterator[Problem]]

    @property
    def text(self) -> str:
        """What the rule asks for."""
        return " ".join((self.question.__doc__ or "").split())

    def applies(self, database: Database) -> bool:
        """Whether it is a rule for this kind of database."""
        return self.about in (None, "module" if is_module(database) else "installation")

    def findings(self, database: Database) -> Iterator[Finding]:
        """What it finds."""
        for place, message in self.question(database):
            table, row = place if isinstance(place, str) else None, None
            if isinstance(place, Record):
                table, row = place.table, place.key
            yield Finding(self.name, self.ice, self.severity, table, row, message)


def rule(
    name: str,
    ice: str | None = None,
    *,
    about: Kind | None = None,
    severity: Severity = "error",
) -> Callable[[Callable[[Database], Iterator[Problem]]], Rule]:
    """Make a rule of a function that yields problems, and says in its docstring what it asks."""
    return lambda question: Rule(name, ice, severity, about, question)


class Record:
    """A row by the names of its columns, whatever kinds of columns a file has."""

    __slots__ = ("_values", "key", "table")

    def __init__(self, table: str, key: str, values: dict[str, Value]) -> None:
        self.table: Final = table
        self.key: Final = key
        self._values = values

    def text(self, column: str) -> str:
        """The text there; empty where there is none."""
        value = self._values.get(column)
        return value if isinstance(value, str) else ""

    def number(self, column: str) -> int | None:
        """The number there."""
        value = self._values.get(column)
        return value if isinstance(value, int) else None

    def bits(self, column: str) -> int:
        """The number there as bits; none set where there is no number."""
        return self.number(column) or 0

    def value(self, column: str) -> Value:
        """Whatever is there."""
        return self._values.get(column)


def records(database: Database, name: str) -> list[Record]:
    """The rows of a table; none where there is no such table."""
    table = database.tables.get(name)
    if table is None:
        return []
    names = [column.name for column in table.columns]
    return [
        Record(
            name,
            ";".join("" if part is None else str(part) for part in table.key_of(row)),
            dict(zip(names, row, strict=True)),
        )
        for row in table
    ]
