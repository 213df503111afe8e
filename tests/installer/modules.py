"""Merge modules and a package, table by table: what merging is tried on."""

from __future__ import annotations

import uuid

from ringtun.installer import CabinetFile, Database, Property, write_cabinet
from ringtun.installer.schema import ACTIONS, SEQUENCES, ensure, validate

GUID = "C28309D9_1954_4F2D_A7D1_228850092461"
OTHER = "0F4B0A33_6B7C_4B52_9B5E_6E35B77C7D11"
TOOL, README = bytes(range(256)) * 40, b"Read me.\r\n"


def suffixed(name: str, guid: str = GUID) -> str:
    return f"{name}.{guid}"


def code(seed: str) -> str:
    return f"{{{uuid.uuid5(uuid.NAMESPACE_URL, seed)}}}".upper()


def module(
    *, guid: str = GUID, language: int = 0, platform: str = "x64", version: str = "1.0"
) -> Database:
    """One with nothing in it but its signature."""
    found = Database()
    ensure(found, "Component", "Directory", "FeatureComponents", "File", "ModuleComponents")
    ensure(found, "ModuleSignature").add(suffixed("example", guid), language, version)
    found.tables["Directory"].add("TARGETDIR", None, "SourceDir")
    found.summary = {
        Property.TITLE: "Merge Module",
        Property.TEMPLATE: f"{platform};{language}",
        Property.REVISION: "{" + guid.replace("_", "-") + "}",
        Property.PAGES: 200,
        Property.WORDS: 2,
    }
    return found


def add_component(found: Database, name: str, directory: str, key_path: str, bits: int) -> str:
    (signature,) = found.rows("ModuleSignature")
    key = suffixed(name, signature["ModuleID"].partition(".")[2])
    found.tables["Component"].add(key, code(key), directory, bits, None, key_path)
    found.tables["ModuleComponents"].add(key, signature["ModuleID"], signature["Language"])
    return key


def add_actions(found: Database, *rows: tuple[str, object, object, object, object]) -> None:
    """Rows of ModuleInstallExecuteSequence: action, number, base, after, condition."""
    ensure(found, "InstallExecuteSequence")
    for row in rows:
        ensure(found, "ModuleInstallExecuteSequence").add(*row)  # type: ignore[arg-type]


def with_files(guid: str = GUID, **options: object) -> Database:
    """Two files in a directory of its own and one below it, as WiX writes them."""
    found = module(guid=guid, **options)  # type: ignore[arg-type]
    folder, below = suffixed("MergeRedirectFolder", guid), suffixed("Texts", guid)
    found.tables["Directory"].add(folder, "TARGETDIR", ".")
    found.tables["Directory"].add(below, folder, "texts")
    tool, readme = suffixed("tool.dll", guid), suffixed("readme", guid)
    files = found.tables["File"]
    component = add_component(found, "Tool", folder, tool, 256)
    files.add(tool, component, "tool.dll", len(TOOL), "1.2.3.4", "0", 512, 1)
    component = add_component(found, "Readme", below, readme, 256)
    files.add(readme, component, "README~1.TXT|Read me.txt", len(README), None, None, 512, 2)
    found.streams["MergeModule.CABinet"] = write_cabinet(
        [CabinetFile(tool, TOOL), CabinetFile(readme, README)]
    )
    add_actions(
        found,
        ("InstallFiles", 4000, None, None, None),
        ("RemoveFiles", 3500, None, None, None),
    )
    validate(found)
    return found


def like_wintun(platform: str = "x64") -> Database:
    """Of the shape of Wintun 0.7's: an anchor in the registry, two actions of a DLL, no file."""
    found = module(guid=OTHER, platform=platform, version="0.7")
    anchor = suffixed("anchor", OTHER)
    component = add_component(found, "Anchor", "TARGETDIR", anchor, 260 if platform == "x64" else 4)
    ensure(found, "Registry").add(anchor, 2, r"SOFTWARE\Example", None, "#1", component)
    ensure(found, "Binary").add(suffixed("action.dll", OTHER), TOOL)
    ensure(found, "Property").add("ExampleVersion", "0.7")
    actions = ensure(found, "CustomAction")
    actions.add("Evaluate", 1, suffixed("action.dll", OTHER), "MsiEvaluate", None)
    actions.add("Process", 3073, suffixed("action.dll", OTHER), "MsiProcess", None)
    add_actions(
        found,
        ("CostFinalize", 1000, None, None, None),
        ("InstallFiles", 4000, None, None, None),
        ("WriteRegistryValues", 5000, None, None, None),
        ("RemoveRegistryValues", 2600, None, None, None),
        ("Evaluate", None, "CostFinalize", 1, None),
        ("Process", None, "InstallFiles", 1, "NOT Nothing"),
    )
    validate(found)
    return found


def package(platform: str = "x64") -> Database:
    """A package without a file, that modules can be merged into."""
    found = Database()
    ensure(found, "Component", "FeatureComponents", "File", "Media", "CustomAction")
    properties = ensure(found, "Property")
    for name, value in (
        ("Manufacturer", "Acme"),
        ("ProductCode", code("product")),
        ("ProductLanguage", "1033"),
        ("ProductName", "Example"),
        ("ProductVersion", "1.0.0"),
        ("UpgradeCode", code("upgrade")),
    ):
        properties.add(name, value)
    directories = ensure(found, "Directory")
    directories.add("TARGETDIR", None, "SourceDir")
    directories.add("ProgramFiles64Folder", "TARGETDIR", ".")
    directories.add("INSTALLFOLDER", "ProgramFiles64Folder", "Example")
    features = ensure(found, "Feature")
    for feature in ("Main", "Extra"):
        features.add(feature, None, feature, None, 1, 1, "INSTALLFOLDER", 0)
    for name in SEQUENCES:
        rows = ensure(found, name)
        for action in ("CostInitialize", "CostFinalize", "InstallFinalize"):
            rows.add(action, None, ACTIONS[action])
    found.summary = {
        Property.TITLE: "Installation Database",
        Property.TEMPLATE: f"{platform};1033",
        Property.REVISION: code("package"),
        Property.PAGES: 200,
        Property.WORDS: 2,
    }
    validate(found)
    return found


def with_own_file() -> Database:
    """A package that has a file already, and one more on a second disk."""
    found = package()
    for number, name in enumerate(("first", "second"), 1):
        found.tables["Component"].add(name, code(name), "INSTALLFOLDER", 256, None, name)
        found.tables["FeatureComponents"].add("Main", name)
        found.tables["File"].add(name, name, name, len(README), None, None, 512, number)
        found.tables["Media"].add(number, number, None, f"#{name}.cab", None, None)
        found.streams[f"{name}.cab"] = write_cabinet([CabinetFile(name, README)])
    return found
