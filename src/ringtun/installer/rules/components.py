"""Rules about components, by which Windows Installer counts, and about their directories."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.rules.rule import Problem, Record, records, rule
from ringtun.installer.rules.summary import platform
from ringtun.installer.rules.tree import roots
from ringtun.installer.rules.values import long_name, short_name
from ringtun.installer.schema import FOLDERS

__all__ = ["BY_ODBC", "BY_REGISTRY", "IS_64_BIT", "RULES"]

# Bits of a component: its key path is in the registry, or a data source; it is one of 64 bits.
BY_REGISTRY, BY_ODBC, IS_64_BIT = 4, 32, 256
_FOLDERS_OF_64_BIT: Final = {"CommonFiles64Folder", "ProgramFiles64Folder", "System64Folder"}


@rule("component-code", "ICE08")
def component_code(database: Database) -> Iterator[Problem]:
    """No two components have the same code."""
    owners: dict[str, str] = {}
    for component in records(database, "Component"):
        code = component.text("ComponentId").upper()
        if not code:
            continue
        owner = owners.setdefault(code, component.key)
        if owner != component.key:
            yield component, f"its code {code} is that of {owner} too"


@rule("key-path", "ICE18")
def key_path(database: Database) -> Iterator[Problem]:
    """What a component is known to be there by is its own: a file, or a registry value.

    One without either is a directory, which has to be created, or to get a file of another.
    """
    owners = {
        name: {row.key: row.text("Component_") for row in records(database, name)}
        for name in ("File", "Registry", "ODBCDataSource")
    }
    created = {
        (row.text("Directory_"), row.text("Component_"))
        for row in records(database, "CreateFolder")
    }
    for component in records(database, "Component"):
        path, bits = component.text("KeyPath"), component.bits("Attributes")
        if not path:
            own = any(component.key in names.values() for names in owners.values())
            if not own and (component.text("Directory_"), component.key) not in created:
                yield component, "it has no key path, and its directory is not created"
            continue
        where = "Registry" if bits & BY_REGISTRY else "ODBCDataSource" if bits & BY_ODBC else "File"
        if path not in owners[where]:
            yield component, f"its key path {path!r:.80} is no row of {where}"
        elif owners[where][path] != component.key:
            yield component, f"its key path {path!r:.80} belongs to {owners[where][path]!r:.80}"


@rule("component-platform", "ICE80")
def component_platform(database: Database) -> Iterator[Problem]:
    """A package for 32 bits has no component of 64, and its like in folders of 64 bits."""
    of_32_bit = platform(database) == "Intel"
    folders = roots(
        {
            row.key: row.text("Directory_Parent")
            for row in records(database, "Directory")
            if not _is_for_64_bit(row.key)
        }
    )
    for component in records(database, "Component"):
        directory = component.text("Directory_")
        folder = folders.get(directory, directory)
        of_64_bit = component.bits("Attributes") & IS_64_BIT
        if of_32_bit and of_64_bit:
            yield component, "it is one of 64 bits, in a package for 32 bits"
        elif not of_64_bit and folder is not None and _is_for_64_bit(folder):
            yield component, f"it is one of 32 bits, in {folder}"


def _is_for_64_bit(folder: str) -> bool:
    return folder.partition(".")[0] in _FOLDERS_OF_64_BIT


@rule("directory-tree")
def directory_tree(database: Database) -> Iterator[Problem]:
    """Every directory lies in another, and at last in TARGETDIR, which is named SourceDir."""
    directories = records(database, "Directory")
    parents = {row.key: row.text("Directory_Parent") for row in directories}
    ends = roots({key: parent for key, parent in parents.items() if parent not in ("", key)})
    for directory in directories:
        if directory.key in ends:
            if ends[directory.key] is None:
                yield directory, "it lies within itself"
        elif directory.key != "TARGETDIR":
            yield directory, "it lies in no other, which TARGETDIR alone may"
        elif directory.text("DefaultDir") != "SourceDir":
            yield directory, "the source of TARGETDIR is not named SourceDir"


@rule("same-file", "ICE30")
def same_file(database: Database) -> Iterator[Problem]:
    """No two files come to have the same name in the same directory."""
    components = {row.key: row for row in records(database, "Component")}
    places = _places(database)
    owners: dict[tuple[object, str, str], Record] = {}
    for file in records(database, "File"):
        component = components.get(file.text("Component_"))
        if component is None or component.text("Condition"):
            continue  # of components with conditions one may be installed, and not the other
        directory, name = component.text("Directory_"), file.text("FileName")
        for length, one in (("short", short_name(name)), ("long", long_name(name))):
            key = (places.get(directory, directory), length, one.lower())
            owner = owners.setdefault(key, file)
            if owner is not file:
                yield file, f"its name {one!r:.80} is that of {owner.key}, in the same directory"
                break


def _places(database: Database) -> dict[str, object]:
    """Of each directory where it is: the same for two that come to be one.

    A place is the top one's key, or a number for a name within another place.
    """
    rows = {row.key: row for row in records(database, "Directory")}
    numbers: dict[tuple[object, str], int] = {}
    places: dict[str, object] = {}
    for start in rows:
        way: dict[str, None] = {}
        at = start
        while at in rows and at not in places and at not in way:
            way[at] = None
            at = rows[at].text("Directory_Parent")
        place = places.get(at)
        for key in reversed(way):
            name = long_name(rows[key].text("DefaultDir").partition(":")[0]).lower()
            if place is None or key in FOLDERS:
                place = key
            elif name != ".":
                place = numbers.setdefault((place, name), len(numbers))
            places[key] = place
    return places


RULES: Final = (component_code, key_path, component_platform, directory_tree, same_file)
