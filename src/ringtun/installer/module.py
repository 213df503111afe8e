"""Merge modules: components that any package can include, by names that clash with nobody's.

A module's own names get its GUID for a suffix, wherever they stand: ``tool.dll`` becomes
``tool.dll.C28309D9_1954_4F2D_A7D1_228850092460``, and so does the ``[#tool.dll]`` in a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from ringtun.installer.cabinet import CabinetFile, write_cabinet
from ringtun.installer.codes import as_code
from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.files import add_file, file_name
from ringtun.installer.merge import CABINET
from ringtun.installer.parts import (
    Action,
    ActionType,
    Component,
    File,
    Folder,
    Place,
    RegistryValue,
)
from ringtun.installer.schema import ACTIONS, SEQUENCES, ensure, validate
from ringtun.installer.summary import Property
from ringtun.installer.tables import Table, Value

__all__ = ["Module"]

# What the summary calls a platform, and the first version of Windows Installer that knows it.
_PLATFORMS: Final = {"x64": ("x64", 200), "x86": ("Intel", 200), "arm64": ("Arm64", 500)}
_ROOTS: Final = {"HKCR": 0, "HKCU": 1, "HKLM": 2, "HKU": 3}
_IN_REGISTRY, _64_BIT = 4, 256  # of a component's attributes
_COMPRESSED: Final = 2  # of the summary's words
_READ_ONLY: Final = 2  # of the summary's security: to open it so is recommended
_KIND: Final = 0x3F  # of an action's type

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_NOT_IN_IDENTIFIER: Final = re.compile(r"[^A-Za-z0-9_.]")
_IN_TEXT: Final = re.compile(r"(?<=\[)([#!$]?)([A-Za-z_][A-Za-z0-9_.]*)(?=\])")
_IN_CONDITION: Final = re.compile(r'"[^"]*"|([%$?&!]?)([A-Za-z_][A-Za-z0-9_.]*)')
_VERSION: Final = re.compile(r"\d{1,5}(\.\d{1,5}){1,3}")
_LONGEST_NAME: Final = 72 - 37  # the suffix is a dot and 36 characters
_LONGEST_ACTION: Final = 64 - 37
_LONGEST_BINARY: Final = 62 - 37 - len("Binary.")  # the name of a stream
_ROOT: Final = "TARGETDIR"
_ASCII, _LATIN, _UTF8 = 20127, 1252, 65001
_CODECS: Final = {_ASCII: "ascii", _LATIN: "cp1252", _UTF8: "utf-8"}
_TIME: Final = datetime(1980, 1, 1, tzinfo=UTC)

# What Windows Installer has to do for a module that has rows in a table.
_STANDARD_ACTIONS: Final = {
    "File": ("InstallFiles", "RemoveFiles"),
    "Registry": ("WriteRegistryValues", "RemoveRegistryValues"),
}


@dataclass(frozen=True, slots=True)
class Module:
    """A merge module.

    ``platform`` is ``"x64"``, ``"x86"`` or ``"arm64"``; ``language`` a number of Windows', 0 for a
    module that suits all. Names have at most 35 characters, those of actions 27, of binaries 18.
    Names in ``plain`` get no suffix: properties and actions that are known by them elsewhere, which
    therefore have to be the module's alone in all the world; they may have 37 characters more.
    """

    name: str
    guid: str
    version: str
    platform: str
    components: Sequence[Component]
    folders: Sequence[Folder] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    binaries: Mapping[str, bytes] = field(default_factory=dict)
    actions: Sequence[Action] = ()
    plain: frozenset[str] = frozenset()
    language: int = 0
    author: str = "ringtun"
    description: str = ""

    def database(self) -> Database:
        """The module as a database. Equal modules give equal ones.

        `InstallerError` for a name that is no identifier, too long or there twice, for one that
        refers to nothing, for what no registry, file or version of Windows can be, and as of
        `write_cabinet`.
        """
        return _Builder(self).build()


class _Builder:
    """A module on its way into a database."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.database = Database()
        self.guid = as_code(module.guid)
        self.suffix = f".{self.guid[1:-1].replace('-', '_')}"
        self.cabinet: list[CabinetFile] = []
        names = {*module.properties, *module.binaries}
        names.update(component.key for component in module.components)
        names.update(_key(file) for component in module.components for file in component.files)
        names.update(folder.key for folder in module.folders)
        names.update(action.key for action in module.actions)
        self.own = names - module.plain

    def build(self) -> Database:
        module, database = self.module, self.database
        if module.platform not in _PLATFORMS:
            known = ", ".join(_PLATFORMS)
            raise InstallerError(f"there is no platform {module.platform!r}: there are {known}")
        if not _VERSION.fullmatch(module.version):
            raise InstallerError(f"the version {module.version!r} is not like 1.2.3")
        if not module.components:
            raise InstallerError("a module has to have a component")
        ensure(database, "FeatureComponents", "ModuleComponents", "Component", "Directory")
        self.id = self._named(module.name)
        ensure(database, "ModuleSignature").add(self.id, module.language, module.version)
        self._add_folders()
        for component in module.components:
            self._add_component(component)
        for name, value in module.properties.items():
            ensure(database, "Property").add(self._named(name), value)
        for name, data in module.binaries.items():
            ensure(database, "Binary").add(self._named(name, _LONGEST_BINARY), data)
        for action in module.actions:
            self._add_action(action)
        for table, actions in _STANDARD_ACTIONS.items():
            if table in database.tables:
                for name in actions:
                    self._add_standard(name, "InstallExecuteSequence")
        if self.cabinet:
            database.streams[CABINET] = write_cabinet(self.cabinet)
        validate(database)
        self._summarize()
        return database

    def _add_folders(self) -> None:
        rows = self.database.tables["Directory"]
        rows.add(_ROOT, None, "SourceDir")
        for number, folder in enumerate(self.module.folders, 1):
            key = self._named(folder.key)
            rows.add(key, self._folder(folder.parent), file_name(folder.name, number))
            if folder.path is not None:
                # Where the folders of Windows are is known from the start, and where ours are is
                # asked at the end of the costing.
                places = [
                    Place("CostInitialize", False, sequence=f"Install{kind}Sequence")
                    for kind in ("Execute", "UI")
                ]
                path = folder.path if folder.path.endswith("\\") else f"{folder.path}\\"
                action = Action(
                    f"Set{folder.key}", ActionType.SET_PROPERTY, folder.key, path, places
                )
                self.own.add(action.key)
                self._add_action(action)

    def _add_component(self, component: Component) -> None:
        database = self.database
        key = self._named(component.key)
        if not component.files and not component.values:
            raise InstallerError(f"the component {component.key} has neither a file nor a value")
        for file in component.files:
            file_key = self._named(_key(file))
            self.cabinet.append(CabinetFile(file_key, file.data))
            add_file(database, file_key, key, file.name, file.data, len(self.cabinet))
        values = [self._add_value(value, key) for value in component.values]
        if component.files:
            key_path, attributes = self._named(_key(component.files[0])), 0
        else:
            key_path, attributes = values[0], _IN_REGISTRY
        if self.module.platform != "x86":
            attributes |= _64_BIT
        database.tables["Component"].add(
            *(key, as_code(component.guid), self._folder(component.folder), attributes),
            *(self._condition(component.condition), key_path),
        )
        database.tables["ModuleComponents"].add(key, self.id, self.module.language)

    def _add_value(self, value: RegistryValue, component: str) -> str:
        """Add a value of the registry; what is given back is its key."""
        if value.root not in _ROOTS:
            raise InstallerError(f"the registry has no root {value.root!r}: {', '.join(_ROOTS)}")
        rows = ensure(self.database, "Registry")
        key = f"value{len(rows) + 1}{self.suffix}"
        rows.add(
            *(key, _ROOTS[value.root], self._text(value.key), self._text(value.name)),
            *(self._text(_written(value.value)), component),
        )
        return key

    def _add_action(self, action: Action) -> None:
        if action.type & _KIND == ActionType.DLL and action.source not in self.module.binaries:
            raise InstallerError(
                f"the action {action.key!r} is a function of {action.source!r}, which is no binary "
                "of the module"
            )
        source = None if action.source is None else self._reference(action.source)
        key = self._named(action.key, _LONGEST_ACTION)
        ensure(self.database, "CustomAction").add(
            *(key, int(action.type), source, self._text(action.target), None)
        )
        for place in action.places:
            if place.sequence not in SEQUENCES:
                raise InstallerError(f"there is no sequence {place.sequence!r}")
            if place.base not in self.own and place.base not in self.module.plain:
                self._add_standard(place.base, place.sequence)
            self._sequence(place.sequence).add(
                *(key, None, self._reference(place.base), int(place.after)),
                self._condition(place.condition),
            )

    def _add_standard(self, action: str, sequence: str) -> None:
        """Have a standard action in a sequence, at its customary number."""
        if action not in ACTIONS:
            raise InstallerError(
                f"there is no action {action!r}, neither a standard one nor one of this module"
            )
        rows = self._sequence(sequence)
        if (action,) not in rows:
            rows.add(action, ACTIONS[action], None, None, None)

    def _sequence(self, name: str) -> Table:
        """A module's sequence; the package's own beside it is empty, and has to be there."""
        return ensure(self.database, name, f"Module{name}")

    def _named(self, name: str, longest: int = _LONGEST_NAME) -> str:
        """What one of the module's own things is called in it."""
        suffix = "" if name in self.module.plain else self.suffix
        if not suffix:
            longest += len(self.suffix)
        if not _IDENTIFIER.fullmatch(name):
            raise InstallerError(
                f"{name!r:.100} is no name for a part of a module: those are of letters, digits, "
                "dots and underscores, and begin with no digit or dot"
            )
        if len(name) > longest:
            raise InstallerError(
                f"the name {name!r:.100} has {len(name)} characters, and may have {longest}"
            )
        return name + suffix

    def _folder(self, key: str) -> str:
        if key != _ROOT and all(key != folder.key for folder in self.module.folders):
            raise InstallerError(f"there is no folder {key!r} in the module, nor is it {_ROOT}")
        return self._reference(key)

    def _reference(self, name: str) -> str:
        """A name as it is called in the module, whether it is the module's own or not."""
        return name + self.suffix if name in self.own else name

    def _text(self, text: str | None) -> str | None:
        """Text with references to what it calls by name."""
        if text is None:
            return None
        return _IN_TEXT.sub(lambda match: match[1] + self._reference(match[2]), text)

    def _condition(self, text: str | None) -> str | None:
        if text is None:
            return None
        return _IN_CONDITION.sub(
            lambda match: match[1] + self._reference(match[2]) if match[2] else match[0], text
        )

    def _summarize(self) -> None:
        module, database = self.module, self.database
        template, installer = _PLATFORMS[module.platform]
        texts = [value for table in database.tables.values() for row in table for value in row]
        code_page = _code_page([*texts, module.author, module.description])
        database.code_page = 0 if code_page == _ASCII else code_page
        database.summary = {
            Property.CODE_PAGE: _LATIN if code_page == _ASCII else code_page,
            Property.TITLE: "Merge Module",
            Property.SUBJECT: module.name,
            Property.AUTHOR: module.author,
            Property.KEYWORDS: "Installer",
            Property.COMMENTS: module.description,
            Property.TEMPLATE: f"{template};{module.language}",
            Property.REVISION: self.guid,
            Property.CREATED: _TIME,
            Property.LAST_SAVED: _TIME,
            Property.PAGES: installer,
            Property.WORDS: _COMPRESSED,
            Property.APPLICATION: "ringtun",
            Property.SECURITY: _READ_ONLY,
        }


def _key(file: File) -> str:
    """What a file is called, without the suffix."""
    if file.key is not None:
        return file.key
    key = _NOT_IN_IDENTIFIER.sub("_", file.name)
    return (key if _IDENTIFIER.fullmatch(key) else f"_{key}")[:_LONGEST_NAME]


def _written(value: str | int | bytes) -> str:
    """A value as the table Registry has it: what begins with ``#`` there is a number or bytes."""
    if isinstance(value, bytes):
        return f"#x{value.hex().upper()}"
    if isinstance(value, str):
        return f"#{value}" if value.startswith("#") else value
    if not 0 <= value < 2**32:
        raise InstallerError(
            f"a number of the registry is within 0 and 4294967295, and not {value}"
        )
    return f"#{value}"


def _code_page(values: Iterable[Value]) -> int:
    """The least code page that has all these texts."""
    text = "".join(value for value in values if isinstance(value, str))
    for code_page, codec in _CODECS.items():
        with suppress(UnicodeEncodeError):
            text.encode(codec)
            return code_page
    raise InstallerError("a text of the module is not Unicode: it has half of a pair of surrogates")
