"""Merging: what a merge module has becomes a part of a package.

The rules are those of Microsoft's own merging (mergemod.dll), and where that lets an error pass,
such as a feature that does not exist, it is one here. A module that can be configured gets its
defaults, which are what stands in its tables.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from ringtun.installer.cabinet import CabinetFile, read_cabinet
from ringtun.installer.codes import give_package_code
from ringtun.installer.database import Database
from ringtun.installer.errors import FileDamaged, InstallerError
from ringtun.installer.fitting import (
    check_dependencies,
    check_module,
    check_package,
    check_place,
    check_together,
)
from ringtun.installer.media import COMPRESSION_BITS, add_files
from ringtun.installer.schema import FOLDERS, SEQUENCES, ensure, validate
from ringtun.installer.sequences import add_first, merge_sequences
from ringtun.installer.tables import Table, Value

__all__ = ["CABINET", "Inclusion", "merge"]

CABINET: Final = "MergeModule.CABinet"  # the stream of a module that holds its files

_ROOT: Final = "TARGETDIR"
_ANY_FEATURE: Final = "{00000000-0000-0000-0000-000000000000}"  # stands for the one it goes to
_SET_DIRECTORY: Final = 51  # a custom action that sets a property to text
_LISTS: Final = ("AdminProperties", "MsiHiddenProperties", "SecureCustomProperties")

# Tables that say how to merge, and are not merged.
_NOT_MERGED: Final = {
    *("_Validation", "FeatureComponents", "ModuleIgnoreTable", "ModuleConfiguration"),
    *("ModuleSubstitution", *SEQUENCES, *(f"Module{name}" for name in SEQUENCES)),
}


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A module, and where in a package it goes.

    ``features`` are those that install it, at least one. ``directory`` is the one that the module's
    own directories come into. ``language`` is the one that is asked for, 0 for a module of none;
    ``disk`` the number of the disk whose cabinet gets its files. ``name`` stands in errors.
    """

    module: Database
    features: Sequence[str]
    directory: str = _ROOT
    language: int = 0
    disk: int = 1
    name: str = "the module"


def merge(database: Database, inclusions: Iterable[Inclusion]) -> Database:
    """The package with these modules in it, as a new one; it has a package code of its own.

    The same module may come twice, for other features. `InstallerError`, which names the module,
    where something does not fit: it is no module, of another platform or language, excludes one of
    the others or lacks one; the package does not have the feature or the directory; a row of both
    differs; an action has no place; the files' cabinet is missing, or the disk's cannot be read.
    """
    merged = database.copy()
    check_package(merged)
    disks: dict[int, list[CabinetFile]] = {}
    names: dict[int, str] = {}
    for inclusion in inclusions:
        with _named(inclusion.name):
            files = _merge(merged, inclusion)
        disks.setdefault(inclusion.disk, []).extend(files)
        names.setdefault(inclusion.disk, inclusion.name)
    check_dependencies(merged)
    for disk, files in sorted(disks.items()):
        if files:
            with _named(names[disk]):
                add_files(merged, disk, files)
    give_package_code(merged)
    return merged


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors without a file get this name for one."""
    try:
        yield
    except InstallerError as error:
        if error.file is None:
            error.file = name
        raise


def _merge(database: Database, inclusion: Inclusion) -> list[CabinetFile]:
    """Put the rows of a module into a package; its files, but for those that are there."""
    module = inclusion.module
    check_module(module)
    check_together(module, inclusion.language, database)
    check_place(database, inclusion.features, inclusion.directory)

    files = {row["File"] for row in database.rows("File")}
    ignored = {row["Table"] for row in module.rows("ModuleIgnoreTable")}
    merged = sorted(module.tables.keys() - _NOT_MERGED - ignored)
    new = {name for name in merged if name not in database.tables}
    _merge_code_page(database, module)
    for name in merged:
        _merge_table(database, module.tables[name], inclusion)
    _describe(database, module, new)
    _add_to_features(database, module, inclusion.features)
    _set_folders(database, module)
    merge_sequences(database, module)
    return [file for file in _files(module) if file.name not in files]


# ---- rows ---------------------------------------------------------------------------------------


def _merge_code_page(database: Database, module: Database) -> None:
    """Text of a code page cannot go into a package of another one."""
    if module.code_page in (0, database.code_page):
        return
    cells = (cell for table in module.tables.values() for row in table for cell in row)
    if all(cell.isascii() for cell in cells if isinstance(cell, str)):
        return
    if database.code_page:
        raise InstallerError(
            f"its text is in code page {module.code_page}, and the package's in "
            f"{database.code_page}"
        )
    database.code_page = module.code_page


def _merge_table(database: Database, table: Table, inclusion: Inclusion) -> None:
    target = database.tables.get(table.name)
    if target is None:
        target = database.create(table.name, table.columns)
    keys = [[column.name for column in one.columns if column.key] for one in (table, target)]
    if keys[0] != keys[1]:
        raise InstallerError(f"its table {table.name} has another key than the package's")
    for row in map(table.named, table):
        if table.name == "Directory":
            name = row["Directory"]
            if name == _ROOT or (name in FOLDERS and (name,) in target):
                continue
            if row["Directory_Parent"] == _ROOT and name not in FOLDERS:
                row["Directory_Parent"] = inclusion.directory
        for column, value in row.items():
            if value == _ANY_FEATURE:
                row[column] = inclusion.features[0]
        _merge_row(target, row)


def _merge_row(target: Table, row: dict[str, Any]) -> None:
    """Add a row by the names of its columns; one that is there already has to be the same."""
    values = []
    for column in target.columns:
        value = row.pop(column.name, None)
        why = column.why_not(value)
        if why is not None:
            raise InstallerError(f"{target.name}.{column.name}: {value!r:.100} {why}")
        values.append(value)
    lost = [column for column, value in row.items() if value is not None]
    if lost:
        raise InstallerError(f"the package's table {target.name} has no column {lost[0]}")
    new = tuple(values)
    key = target.key_of(new)
    there = target.get(*key)
    if there is None:
        target.load(new)
        return
    if target.name == "Property" and key[0] in _LISTS:
        target.change(*key, Value=_joined(there[1], new[1]))
        return
    for column, old, value in zip(target.columns, there, new, strict=True):
        if not _same(target.name, column.name, old, value):
            where = ", ".join(map(str, key))
            raise InstallerError(
                f"its row {where} of the table {target.name} is in the package already, and "
                f"differs: {column.name} is {value!r:.100} here, and {old!r:.100} there"
            )


def _joined(one: Value, other: Value) -> str:
    """Two lists of properties as one."""
    names = [name for value in (one, other) for name in str(value or "").split(";") if name]
    return ";".join(dict.fromkeys(names))


def _same(table: str, column: str, old: Any, new: Any) -> bool:
    """Whether two values mean the same; where a file is stored is the package's to say."""
    if (table, column) == ("File", "Sequence"):
        return True
    if (table, column) == ("File", "Attributes"):
        return (old or 0) & ~COMPRESSION_BITS == (new or 0) & ~COMPRESSION_BITS
    return bool(old == new)


def _describe(database: Database, module: Database, new: Collection[str]) -> None:
    """In a package that says what may be in its tables, say it of the new ones as well."""
    if "_Validation" not in database.tables:
        return
    target = database.tables["_Validation"]
    for row in module.rows("_Validation"):
        if row["Table"] in new and (row["Table"], row["Column"]) not in target:
            _merge_row(target, row)
    validate(database)


def _add_to_features(database: Database, module: Database, features: Iterable[str]) -> None:
    table = ensure(database, "FeatureComponents")
    for feature in features:
        for row in module.rows("ModuleComponents"):
            table.put(feature, row["Component"])


def _set_folders(database: Database, module: Database) -> None:
    """A module's name for a folder of Windows, such as `SystemFolder.GUID`, gets its place.

    By an action that comes before all others, as mergemod.dll makes it.
    """
    for row in module.rows("Directory"):
        name = row["Directory"] or ""
        folder = name.partition(".")[0]
        if folder in FOLDERS and name != folder:
            actions = ensure(database, "CustomAction")
            if (name,) not in actions:
                actions.add(Action=name, Type=_SET_DIRECTORY, Source=name, Target=f"[{folder}]")
            add_first(database, name)


def _files(module: Database) -> list[CabinetFile]:
    """The files, in the order in which they are installed."""
    rows = module.rows("File")
    if not rows:
        return []
    if CABINET not in module.streams:
        raise FileDamaged(f"it has files, and no cabinet of them ({CABINET})")
    there = {file.name: file for file in read_cabinet(module.streams[CABINET])}
    found = []
    for row in sorted(rows, key=lambda row: row["Sequence"] or 0):
        file = there.get(row["File"])
        if file is None:
            raise FileDamaged(f"its cabinet does not have its file {row['File']}")
        if len(file.data) != row["FileSize"]:
            raise FileDamaged(
                f"its file {row['File']} has {len(file.data)} bytes in its cabinet, and "
                f"{row['FileSize']} by its table"
            )
        found.append(file)
    return found
