"""A database as people and scripts ask for it: its files by where they go, its actions by when."""

from __future__ import annotations

import datetime as dt
import hashlib
from dataclasses import dataclass
from typing import Any

from ringtun.installer.database import Database
from ringtun.installer.schema import FOLDERS
from ringtun.installer.summary import Property
from ringtun.installer.tables import Table

__all__ = ["Action", "File", "describe", "files", "is_module", "sequences"]


@dataclass(frozen=True, slots=True)
class File:
    """A file that is installed. ``path`` begins with the folder's property, in brackets."""

    key: object
    path: str
    size: object
    version: object
    component: object
    sequence: object


@dataclass(frozen=True, slots=True)
class Action:
    """An action of a sequence, at a number, or in a module before or after ``base``."""

    action: object
    sequence: object
    condition: object
    base: object
    after: object


def is_module(database: Database) -> bool:
    """Whether it is a merge module. A product has the signatures of those merged into it, too."""
    if any(row.get("Property") == "ProductCode" for row in database.rows("Property")):
        return False
    return "ModuleSignature" in database.tables or "ModuleComponents" in database.tables


def files(database: Database) -> list[File]:
    """The files, in the order of their cabinet. What a row does not have is None."""
    folders = {row.get("Component"): row.get("Directory_") for row in database.rows("Component")}
    parents = {row.get("Directory"): row for row in database.rows("Directory")}
    found = []
    for row in database.rows("File"):
        where = _folder(folders.get(row.get("Component_")), parents)
        found.append(
            File(
                row.get("File"),
                f"{where}/{_long_name(row.get('FileName'))}",
                row.get("FileSize"),
                row.get("Version"),
                row.get("Component_"),
                row.get("Sequence"),
            )
        )
    return sorted(found, key=lambda file: _number(file.sequence))


def sequences(database: Database) -> dict[str, list[Action]]:
    """The actions of each sequence, in their order; in a module those with a number come first."""
    found = {}
    for name, table in sorted(database.tables.items()):
        if name.endswith("Sequence") and any(column.name == "Action" for column in table.columns):
            actions = [
                Action(
                    *(row.get("Action"), row.get("Sequence"), row.get("Condition")),
                    *(row.get("BaseAction"), row.get("After")),
                )
                for row in database.rows(name)
            ]
            found[name] = sorted(actions, key=lambda action: _number(action.sequence))
    return found


def describe(database: Database) -> dict[str, Any]:
    """All of it, for JSON; of bytes the size and the SHA-256."""
    return {
        "kind": "module" if is_module(database) else "installation",
        "signed": database.signed,
        "code_page": database.code_page,
        "summary": {_property(number): _plain(v) for number, v in database.summary.items()},
        "tables": {name: _table(table) for name, table in sorted(database.tables.items())},
        "files": [_named(file) for file in files(database)],
        "sequences": {
            name: [_named(action) for action in actions]
            for name, actions in sequences(database).items()
        },
        "streams": {name: _plain(data) for name, data in sorted(database.streams.items())},
    }


def _table(table: Table) -> dict[str, Any]:
    return {
        "columns": [{"name": column.name, "type": column.spec} for column in table.columns],
        "rows": [[_plain(value) for value in row] for row in table],
    }


def _named(record: File | Action) -> dict[str, Any]:
    return {name: _plain(getattr(record, name)) for name in record.__slots__}


def _plain(value: object) -> Any:
    if isinstance(value, bytes):
        return {"size": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    return value.isoformat() if isinstance(value, dt.datetime) else value


def _property(number: int) -> str:
    try:
        return Property(number).name.lower()
    except ValueError:
        return str(number)


def _folder(key: object, parents: dict[object, dict[str, object]]) -> str:
    """Where a directory is: a property in brackets, and the names below it."""
    below: list[str] = []
    seen = set()
    while True:
        row = parents.get(key, {})
        parent = row.get("Directory_Parent")
        known = isinstance(key, str) and key.partition(".")[0] in FOLDERS
        if known or parent is None or parent in seen or parent == key:
            return "/".join([f"[{key}]", *reversed(below)])
        seen.add(key)
        target = str(row.get("DefaultDir")).partition(":")[0]
        if target != ".":
            below.append(_long_name(target))
        key = parent


def _long_name(name: object) -> str:
    """Of ``short|long`` the long one."""
    return str(name).rpartition("|")[2]


def _number(value: object) -> tuple[bool, int]:
    """By which what has no number comes last."""
    return (False, value) if isinstance(value, int) else (True, 0)
