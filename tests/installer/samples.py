"""A module and a product made by hand, of tables alone, which keep to all rules."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from ringtun.installer import CabinetFile, Database, Property, Table, write_cabinet
from ringtun.installer.schema import ACTIONS, SEQUENCES, ensure, validate
from ringtun.installer.tables import Value

MODULE_CODE = "{7E0C2A55-52C4-4B3C-9F0E-6F4C0D1B9A01}"
SUFFIX = f".{MODULE_CODE.strip('{}').replace('-', '_')}"
MODULE_ID = f"Example{SUFFIX}"
CABINET = "product.cab"
FILES = (CabinetFile("Tool", b"MZ, so to speak" * 500), CabinetFile("Readme", b"Read me.\r\n" * 9))

_EXECUTE = (
    *("FindRelatedProducts", "LaunchConditions", "ValidateProductID", "CostInitialize"),
    *("FileCost", "CostFinalize", "MigrateFeatureStates", "InstallValidate", "InstallInitialize"),
    *("RemoveExistingProducts", "ProcessComponents", "UnpublishFeatures", "RemoveRegistryValues"),
    *("RemoveFiles", "InstallFiles", "WriteRegistryValues", "RegisterUser", "RegisterProduct"),
    *("PublishFeatures", "PublishProduct", "InstallFinalize"),
)


def component_code(number: int) -> str:
    """A GUID for a component."""
    return f"{{5C0A1B2C-0000-4000-8000-{number:012X}}}"


def add_files(database: Database, suffix: str, directory: str, component: str, code: int) -> None:
    """Both files, in a component of their own."""
    ensure(database, "File", "MsiFileHash", "Component")
    tables = database.tables
    key = f"{FILES[0].name}{suffix}"
    tables["Component"].add(component, component_code(code), directory, 256, None, key)
    names = ("tool.dll", "README~1.TXT|Read me first.txt")
    for number, (file, name) in enumerate(zip(FILES, names, strict=True), 1):
        key = f"{file.name}{suffix}"
        version = "1.2.3.4" if number == 1 else None
        language = "1033" if version else None
        size = len(file.data)
        tables["File"].add(key, component, name, size, version, language, 512, number)
        if version is None:
            digest = hashlib.md5(file.data, usedforsecurity=False).digest()
            tables["MsiFileHash"].add(key, 0, *struct.unpack("<4i", digest))


def cabinet(suffix: str, order: Sequence[int] = (0, 1)) -> bytes:
    """The cabinet of both."""
    return write_cabinet(CabinetFile(f"{FILES[at].name}{suffix}", FILES[at].data) for at in order)


def module(arch: str = "x64") -> Database:
    """Two files, a registry value as the anchor of a component, a deferred action, a dependency."""
    database = Database(1252)
    of_64_bit = 256 if arch == "x64" else 0
    ensure(database, "Directory", "FeatureComponents", "ModuleComponents", "ModuleExclusion")
    ensure(database, "ModuleSignature").add(MODULE_ID, 0, "1.2.3")
    directories = database.tables["Directory"]
    directories.add("TARGETDIR", None, "SourceDir")
    directories.add(f"Own{SUFFIX}", "TARGETDIR", ".")
    files, anchor = f"Files{SUFFIX}", f"Anchor{SUFFIX}"
    add_files(database, SUFFIX, f"Own{SUFFIX}", files, 1)
    change(database, "Component", files, Attributes=of_64_bit)
    database.tables["Component"].add(
        *(anchor, component_code(2), "TARGETDIR", 4 | of_64_bit, None, f"Value{SUFFIX}")
    )
    ensure(database, "Registry").add(
        *(f"Value{SUFFIX}", 2, r"SOFTWARE\Example", "Module", "#1", anchor)
    )
    for component in (files, anchor):
        database.tables["ModuleComponents"].add(component, MODULE_ID, 0)
    other = f"Other{SUFFIX}"
    ensure(database, "ModuleDependency").add(MODULE_ID, 0, other, 0, None)
    ensure(database, "Binary").add(f"Action{SUFFIX}", b"MZ")
    ensure(database, "CustomAction").add(f"Act{SUFFIX}", 3073, f"Action{SUFFIX}", "Act", None)
    ensure(database, "CustomAction").add(f"Look{SUFFIX}", 1, f"Action{SUFFIX}", "Look", None)
    ensure(database, "InstallExecuteSequence")
    steps = ensure(database, "ModuleInstallExecuteSequence")
    for action in ("InstallFiles", "RemoveFiles", "WriteRegistryValues", "RemoveRegistryValues"):
        steps.add(action, ACTIONS[action], None, None, None)
    steps.add(f"Act{SUFFIX}", None, "InstallFiles", 1, "NOT REMOVE")
    steps.add(f"Look{SUFFIX}", None, f"Act{SUFFIX}", 0, None)
    ensure(database, "AdvtExecuteSequence", "ModuleAdvtExecuteSequence")
    ensure(database, "Shortcut", "ModuleConfiguration", "ModuleSubstitution", "MsiAssemblyName")
    database.streams["MergeModule.CABinet"] = cabinet(SUFFIX)
    summarize(database, "Merge Module", f"{arch};0", MODULE_CODE)
    validate(database)
    return database


def product() -> Database:
    """Two files, a registry value, an upgrade, a refused downgrade, a deferred action."""
    database = Database(1252)
    properties = ensure(database, "Property")
    for name, value in {
        "Manufacturer": "Acme",
        "ProductCode": "{0A0A0A0A-0000-4000-8000-000000000001}",
        "ProductLanguage": "1033",
        "ProductName": "Example",
        "ProductVersion": "1.2.3",
        "UpgradeCode": "{0B0B0B0B-0000-4000-8000-000000000001}",
        "SecureCustomProperties": "NEWER_FOUND;OLDER_FOUND",
    }.items():
        properties.add(name, value)
    directories = ensure(database, "Directory")
    directories.add("TARGETDIR", None, "SourceDir")
    directories.add("ProgramFiles64Folder", "TARGETDIR", ".")
    directories.add("INSTALLFOLDER", "ProgramFiles64Folder", "Example")
    add_files(database, "", "INSTALLFOLDER", "Main", 3)
    ensure(database, "Registry").add(
        "Where", 2, r"SOFTWARE\Example", "Where", "[TARGETDIR]", "Main"
    )
    ensure(database, "Feature").add("All", None, "All of it", None, 2, 1, "INSTALLFOLDER", 0)
    ensure(database, "FeatureComponents").add("All", "Main")
    ensure(database, "Media").add(1, 2, None, f"#{CABINET}", None, None)
    database.streams[CABINET] = cabinet("")
    code = properties.rows[5][1]
    upgrade = ensure(database, "Upgrade")
    upgrade.add(code, None, "1.2.3", None, 1, None, "OLDER_FOUND")
    upgrade.add(code, "1.2.3", None, None, 2, None, "NEWER_FOUND")
    ensure(database, "LaunchCondition").add("NOT NEWER_FOUND", "A newer version is there.")
    ensure(database, "CustomAction").add("Act", 3073, "Action", "Act", None)
    ensure(database, "Binary").add("Action", b"MZ")
    ensure(database, *SEQUENCES)
    steps = database.tables["InstallExecuteSequence"]
    for action in _EXECUTE:
        number = 1501 if action == "RemoveExistingProducts" else ACTIONS[action]
        steps.add(action, None, number)
    steps.add("Act", "NOT Installed", 4001)
    summarize(
        database, "Installation Database", "x64;1033", "{0C0C0C0C-0000-4000-8000-000000000001}"
    )
    validate(database)
    return database


def summarize(database: Database, title: str, template: str, code: str) -> None:
    """Say what the summary has to."""
    database.summary = {
        Property.CODE_PAGE: 1252,
        Property.TITLE: title,
        Property.SUBJECT: "Example",
        Property.AUTHOR: "Acme",
        Property.TEMPLATE: template,
        Property.REVISION: code,
        Property.PAGES: 200,
        Property.WORDS: 2,
        Property.SECURITY: 2,
    }


def change(database: Database, table: str, *key: str | int | None, **values: Value) -> None:
    """Give a row other values, whatever they are; its key may be among them."""
    rows = database.tables[table]
    names = [column.name for column in rows.columns]
    row = dict(zip(names, rows.remove(*key), strict=True))
    assert values.keys() <= row.keys()
    rows.load(tuple({**row, **values}.values()))


def without(database: Database, table: str, column: str) -> Table:
    """The table again, without a column, and without rows."""
    former = database.tables[table]
    database.tables[table] = Table(table, [c for c in former.columns if c.name != column])
    return database.tables[table]
