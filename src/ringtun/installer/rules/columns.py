"""Rules about every column: that it is described, and holds what the description allows.

Of the tables of Windows Installer the description is the known one, of others what the database's
own ``_Validation`` says, as Microsoft's check ICE03 has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.rules.rule import Problem, Record, records, rule
from ringtun.installer.rules.values import why_not
from ringtun.installer.schema import Field, fields
from ringtun.installer.tables import Column, Value

__all__ = ["RULES"]

# A module has this in the place of a feature, which it cannot know.
NO_FEATURE: Final = "{00000000-0000-0000-0000-000000000000}"
VALIDATION: Final = "_Validation"


def described(database: Database) -> Iterator[tuple[Record, Column, Value, Field]]:
    """Each value that there is a description for, with its row and its column."""
    own = {(row.text("Table"), row.text("Column")): row for row in records(database, VALIDATION)}
    for name, table in sorted(database.tables.items()):
        known = {field.column.name: field for field in fields(name)}
        pairs = []
        for column in table.columns:
            field = known.get(column.name)
            if field is None and (name, column.name) in own:
                field = _field(column, own[name, column.name])
            if field is not None:
                pairs.append((column, field))
        for record in records(database, name):
            for column, field in pairs:
                yield record, column, record.value(column.name), field


def _field(column: Column, row: Record) -> Field:
    return Field(
        Column(column.name, column.type & ~0x1000 | (row.text("Nullable") != "N") << 12),
        row.text("Category") or None,
        row.text("KeyTable") or None,
        row.number("KeyColumn") or 1,
        row.number("MinValue"),
        row.number("MaxValue"),
        row.text("Set") or None,
    )


@rule("known-columns", "ICE03")
def known_columns(database: Database) -> Iterator[Problem]:
    """A table of Windows Installer has the columns that it looks for, and of their kinds."""
    for name, table in sorted(database.tables.items()):
        known = [field.column for field in fields(name)]
        if not known:
            continue
        here = [column.name for column in table.columns]
        wanted = [column.name for column in known]
        missing = known[len(here) :]
        if here != wanted[: len(here)] and wanted != here[: len(wanted)]:
            yield name, f"it has the columns {', '.join(here)}, for {', '.join(wanted)}"
        elif any(not column.nullable for column in missing):
            yield name, f"it has no column {missing[0].name}"
        else:
            for column, standard in zip(table.columns, known, strict=False):
                if _sort(column) != _sort(standard):
                    yield name, f"its column {column.name} is {column.spec}, for {standard.spec}"


def _sort(column: Column) -> tuple[str, bool]:
    return {"l": "s"}.get(column.kind, column.kind), column.key


@rule("validation", "ICE03", severity="warning")
def validation(database: Database) -> Iterator[Problem]:
    """The table _Validation describes every column of the database."""
    if VALIDATION not in database.tables:
        yield None, "it has no table _Validation: what its columns may hold is nowhere said"
        return
    said = {(row.text("Table"), row.text("Column")) for row in records(database, VALIDATION)}
    for name, table in sorted(database.tables.items()):
        missing = [column.name for column in table.columns if (name, column.name) not in said]
        if missing:
            yield name, f"_Validation does not describe {', '.join(missing)}"


@rule("required-value", "ICE03")
def required_value(database: Database) -> Iterator[Problem]:
    """Where there has to be a value, there is one."""
    for record, column, value, field in described(database):
        free = field.column.kind in "sl" and not field.column.size
        if value is None and not field.column.nullable and not free:
            yield record, f"{column.name} has no value"


@rule("text-length", "ICE03")
def text_length(database: Database) -> Iterator[Problem]:
    """Text is no longer than its column takes."""
    for name, table in sorted(database.tables.items()):
        limited = [column for column in table.columns if column.kind in "sl" and column.size]
        for record in records(database, name):
            for column in limited:
                size = len(record.text(column.name))
                if size > column.size:
                    yield record, f"{column.name} has {size} characters, and takes {column.size}"


@rule("number-range", "ICE03")
def number_range(database: Database) -> Iterator[Problem]:
    """Numbers are within their range."""
    for record, column, value, field in described(database):
        if not isinstance(value, int):
            continue
        if field.least is not None and value < field.least:
            yield record, f"{column.name} is {value}, and at least {field.least}"
        elif field.most is not None and value > field.most:
            yield record, f"{column.name} is {value}, and at most {field.most}"


@rule("choice", "ICE03")
def choice(database: Database) -> Iterator[Problem]:
    """Values are among those that there are."""
    for record, column, value, field in described(database):
        if field.choices and value is not None and str(value) not in field.choices.split(";"):
            yield record, f"{column.name} is {value!r:.60}, and may be {field.choices:.200}"


@rule("category", "ICE03")
def category(database: Database) -> Iterator[Problem]:
    """Text is of its category: an identifier, a GUID, a version, a file's name and so on."""
    keys = partial(_referred, database, {})
    for record, column, value, field in described(database):
        if not isinstance(value, str) or field.category is None or column.name == "KeyTable":
            continue  # of key tables there may be several
        if field.tables and (value in keys(field) or value == NO_FEATURE):
            continue  # such as File.Version, where the key of another file may stand
        root = column.name == "DefaultDir" and not record.text("Directory_Parent")
        why = None if root and value == "SourceDir" else why_not(field.category, value)
        if why is not None:
            yield record, f"{column.name} is {value!r:.80}, which {why}"


@rule("reference", "ICE03")
def reference(database: Database) -> Iterator[Problem]:
    """What names a row of another table names one that is there."""
    keys = partial(_referred, database, {})
    for record, column, value, field in described(database):
        if not field.tables or value is None or value == NO_FEATURE:
            continue
        if field.category not in (None, "Identifier", "UpperCase"):
            continue  # a key or something else, see the rule `category`
        if value not in keys(field):
            yield record, f"{column.name} is {value!r:.80}, which is not in {_tables(field)}"


def _referred(
    database: Database, seen: dict[tuple[str, int], frozenset[Value]], field: Field
) -> frozenset[Value]:
    """The values of the columns that a column refers to."""
    assert field.tables is not None
    number = field.number or 1
    if (field.tables, number) not in seen:
        found: set[Value] = set()
        for name in field.tables.split(";"):
            table = database.tables.get(name)
            if table is not None and 0 < number <= len(table.columns):
                found.update(row[number - 1] for row in table)
        seen[field.tables, number] = frozenset(found)
    return seen[field.tables, number]


def _tables(field: Field) -> str:
    return " or ".join((field.tables or "").split(";"))


RULES: Final = (
    *(known_columns, validation, required_value, text_length, number_range, choice),
    *(category, reference),
)
