"""A module and a product made by hand, of tables alone, which keep to all rules."""

from __future__ import annotations

import hashlib
import struct
import uuid
from collections.abc import Sequence

from ringtun.installer import CabinetFile, Database, Property, write_cabinet
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
    *("ProcessComponents", "UnpublishFeatures", "RemoveRegistryValues"),
    *("RemoveFiles", "InstallFiles", "WriteRegistryValues", "RegisterUser", "RegisterProduct"),
    *("PublishFeatures", "PublishProduct", "InstallExecute", "RemoveExistingProducts"),
    "InstallFinalize",
)


def code(seed: str) -> str:
    """A GUID, the same for the same text."""
    return f"{{{uuid.uuid5(uuid.NAMESPACE_URL, seed)}}}".upper()


def add_files(
    database: Database,
    suffix: str,
    directory: str,
    component: str,
    guid: str,
    files: Sequence[CabinetFile] = FILES,
) -> None:
    """Both files, in a component of their own."""
    ensure(database, "File", "MsiFileHash", "Component")
    tables = database.tables
    key = f"{FILES[0].name}{suffix}"
    tables["Component"].add(component, guid, directory, 256, None, key)
    names = ("tool.dll", "README~1.TXT|Read me first.txt")
    for number, (file, name) in enumerate(zip(files, names, strict=True), 1):
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
    directories.add(f"Own{SUFFIX}", "TARGETDIR", "Module")
    files, anchor = f"Files{SUFFIX}", f"Anchor{SUFFIX}"
    add_files(database, SUFFIX, f"Own{SUFFIX}", files, code(files))
    change(database, "Component", files, Attributes=of_64_bit)
    database.tables["Component"].add(
        *(anchor, code(anchor), "TARGETDIR", 4 | of_64_bit, None, f"Value{SUFFIX}")
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


def product(
    name: str = "Example",
    version: str = "1.2.3",
    files: Sequence[CabinetFile] = FILES,
) -> Database:
    """Two files, a registry value, an upgrade, a refused downgrade, a deferred action.

    Of one name all versions are one product; a name has at most 8 letters.
    """
    database = Database(1252)
    upgrade_code = code(name)
    properties = ensure(database, "Property")
    for key, value in {
        "Manufacturer": "Acme",
        "ProductCode": code(f"{name} {version}"),
        "ProductLanguage": "1033",
        "ProductName": name,
        "ProductVersion": version,
        "UpgradeCode": upgrade_code,
        "SecureCustomProperties": "NEWER_FOUND;OLDER_FOUND",
    }.items():
        properties.add(key, value)
    directories = ensure(database, "Directory")
    directories.add("TARGETDIR", None, "SourceDir")
    directories.add("ProgramFiles64Folder", "TARGETDIR", ".")
    directories.add("INSTALLFOLDER", "ProgramFiles64Folder", name)
    add_files(database, "", "INSTALLFOLDER", "Main", code(f"{name} Main"), files)
    key = rf"SOFTWARE\{name}"
    ensure(database, "Registry").add("Where", 2, key, "Where", "[INSTALLFOLDER]", "Main")
    ensure(database, "Feature").add("All", None, "All of it", None, 2, 1, "INSTALLFOLDER", 0)
    ensure(database, "FeatureComponents").add("All", "Main")
    ensure(database, "Media").add(1, 2, None, f"#{CABINET}", None, None)
    database.streams[CABINET] = write_cabinet(files)
    upgrade = ensure(database, "Upgrade")
    upgrade.add(upgrade_code, None, version, None, 1, None, "OLDER_FOUND")
    upgrade.add(upgrade_code, version, None, None, 2, None, "NEWER_FOUND")
    ensure(database, "LaunchCondition").add("NOT NEWER_FOUND", "A newer version is there.")
    ensure(database, *SEQUENCES)
    steps = database.tables["InstallExecuteSequence"]
    for action in _EXECUTE:
        steps.add(action, None, ACTIONS[action])
    title = "Installation Database"
    summarize(database, title, "x64;1033", code(f"{name} {version} package"))
    validate(database)
    return database


def with_action(condition: str = "NOT Installed", target: str = "Act") -> Database:
    """The product with a deferred action, a function of a library that is none."""
    database = product()
    ensure(database, "CustomAction").add("Act", 3073, "Action", target, None)
    ensure(database, "Binary").add("Action", b"MZ")
    database.tables["InstallExecuteSequence"].add("Act", condition, 4001)
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
