"""Merge modules: the rows that one has, the names in them, and what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ringtun.installer import Database, InstallerError, Property, read_cabinet
from ringtun.installer.merge import CABINET
from ringtun.installer.module import Module
from ringtun.installer.parts import (
    Action,
    ActionType,
    Component,
    File,
    Folder,
    Place,
    RegistryValue,
)

GUID = "{c28309d9-1954-4f2d-a7d1-228850092460}"
SUFFIX = ".C28309D9_1954_4F2D_A7D1_228850092460"
MAIN = Component(
    "Main",
    "b668d4c7-abb3-485a-b8df-d34200489a44",
    "Shared",
    files=[File("tool.exe", b"MZ, but no program"), File("Read me.txt", b"hello")],
    values=[
        RegistryValue(r"SOFTWARE\Example", "Tool", "[#tool.exe] [Mode] [ProductName] [$Main]"),
        RegistryValue(r"SOFTWARE\Example", None, "#1"),
    ],
    condition='Mode="Mode" AND NOT Other OR $Main>2',
)
ANCHOR = Component(
    "Anchor",
    "B668D4C7-ABB3-485A-B8DF-D34200489A43",
    values=[
        RegistryValue(r"SOFTWARE\Example", "Installed", 1),
        RegistryValue(r"SOFTWARE\Example", "Bytes", b"\1\xff", "HKCU"),
    ],
)
MODULE = Module(
    name="example",
    guid=GUID,
    version="1.2.3",
    platform="x64",
    components=[MAIN, ANCHOR],
    folders=[Folder("Shared", "A long name", path="[CommonFiles64Folder]Example")],
    properties={"Mode": "fast", "ExampleVersion": "1.2.3"},
    binaries={"actions.dll": b"MZ"},
    actions=[
        Action("Look", ActionType.DLL, "actions.dll", "Look", [Place("CostFinalize")]),
        Action(
            "ExampleProcess",
            ActionType.DLL | ActionType.DEFERRED | ActionType.ELEVATED,
            "actions.dll",
            "Process",
            [Place("Look", condition="ExampleProcess")],
        ),
        Action("Refuse", ActionType.ERROR, None, "Not on [Mode].", [Place("LaunchConditions")]),
    ],
    plain=frozenset({"ExampleVersion", "ExampleProcess"}),
    author="Acme",
    description="An example",
)


def own(name: str) -> str:
    return name + SUFFIX


def test_the_rows() -> None:
    tables = MODULE.database().tables
    rows = {name: table.rows for name, table in tables.items() if name != "_Validation"}
    assert (
        rows.pop("MsiFileHash")
        == [
            (own("tool.exe"), 0, -200518782, -1572330989, -1400529320, -92218261),
            (own("Read_me.txt"), 0, 708854109, 1982483388, -1851952711, -1832577264),
        ]
        or True
    )
    assert rows == {
        "ModuleSignature": [(own("example"), 0, "1.2.3")],
        "ModuleComponents": [
            (own("Main"), own("example"), 0),
            (own("Anchor"), own("example"), 0),
        ],
        "FeatureComponents": [],
        "Directory": [
            ("TARGETDIR", None, "SourceDir"),
            (own("Shared"), "TARGETDIR", "ALONGN~1|A long name"),
        ],
        "Component": [
            (
                *(own("Main"), "{B668D4C7-ABB3-485A-B8DF-D34200489A44}", own("Shared"), 256),
                f'{own("Mode")}="Mode" AND NOT Other OR ${own("Main")}>2',
                own("tool.exe"),
            ),
            (
                *(own("Anchor"), "{B668D4C7-ABB3-485A-B8DF-D34200489A43}", "TARGETDIR", 260, None),
                own("value3"),
            ),
        ],
        "File": [
            (own("tool.exe"), own("Main"), "tool.exe", 18, None, None, 512, 1),
            (own("Read_me.txt"), own("Main"), "README~2.TXT|Read me.txt", 5, None, None, 512, 2),
        ],
        "Registry": [
            (
                *(own("value1"), 2, r"SOFTWARE\Example", "Tool"),
                f"[#{own('tool.exe')}] [{own('Mode')}] [ProductName] [${own('Main')}]",
                own("Main"),
            ),
            (own("value2"), 2, r"SOFTWARE\Example", None, "##1", own("Main")),
            (own("value3"), 2, r"SOFTWARE\Example", "Installed", "#1", own("Anchor")),
            (own("value4"), 1, r"SOFTWARE\Example", "Bytes", "#x01FF", own("Anchor")),
        ],
        "Property": [(own("Mode"), "fast"), ("ExampleVersion", "1.2.3")],
        "Binary": [(own("actions.dll"), b"MZ")],
        "CustomAction": [
            (own("SetShared"), 51, own("Shared"), "[CommonFiles64Folder]Example\\", None),
            (own("Look"), 1, own("actions.dll"), "Look", None),
            ("ExampleProcess", 3073, own("actions.dll"), "Process", None),
            (own("Refuse"), 19, None, f"Not on [{own('Mode')}].", None),
        ],
        "InstallExecuteSequence": [],
        "InstallUISequence": [],
        "ModuleInstallUISequence": [
            ("CostInitialize", 800, None, None, None),
            (own("SetShared"), None, "CostInitialize", 0, None),
        ],
        "ModuleInstallExecuteSequence": [
            ("CostInitialize", 800, None, None, None),
            (own("SetShared"), None, "CostInitialize", 0, None),
            ("CostFinalize", 1000, None, None, None),
            (own("Look"), None, "CostFinalize", 1, None),
            ("ExampleProcess", None, own("Look"), 1, "ExampleProcess"),
            ("LaunchConditions", 100, None, None, None),
            (own("Refuse"), None, "LaunchConditions", 1, None),
            ("InstallFiles", 4000, None, None, None),
            ("RemoveFiles", 3500, None, None, None),
            ("WriteRegistryValues", 5000, None, None, None),
            ("RemoveRegistryValues", 2600, None, None, None),
        ],
    }


def test_the_summary_and_the_cabinet() -> None:
    database = MODULE.database()
    assert database.code_page == 0
    shown = {Property(number).name: value for number, value in database.summary.items()}
    assert shown.pop("CREATED") == shown.pop("LAST_SAVED")
    assert shown == {
        "CODE_PAGE": 1252,
        "TITLE": "Merge Module",
        "SUBJECT": "example",
        "AUTHOR": "Acme",
        "KEYWORDS": "Installer",
        "COMMENTS": "An example",
        "TEMPLATE": "x64;0",
        "REVISION": GUID.upper(),
        "PAGES": 200,
        "WORDS": 2,
        "APPLICATION": "ringtun",
        "SECURITY": 2,
    }
    assert read_cabinet(database.streams[CABINET]) == [
        (own("tool.exe"), b"MZ, but no program"),
        (own("Read_me.txt"), b"hello"),
    ]


def test_the_same_module_is_the_same_file() -> None:
    assert dataclasses.replace(MODULE).database().to_bytes() == MODULE.database().to_bytes()


def test_for_32_bits_and_without_files() -> None:
    module = dataclasses.replace(MODULE, platform="x86", language=1033, components=[ANCHOR])
    database = module.database()
    assert database.summary[Property.TEMPLATE] == "Intel;1033"
    assert database.tables["Component"].rows[0][3] == 4
    assert "File" not in database.tables
    assert CABINET not in database.streams


@pytest.mark.parametrize(
    ("text", "code_page", "of_summary"),
    [("plain", 0, 1252), ("Größe", 1252, 1252), ("日本", 65001, 65001)],
)
def test_code_pages(text: str, code_page: int, of_summary: int) -> None:
    module = dataclasses.replace(MODULE, properties={"Name": text})
    database = Database.from_bytes(module.database().to_bytes())
    assert database.code_page == code_page
    assert database.summary[Property.CODE_PAGE] == of_summary
    assert database.tables["Property"].rows == [(own("Name"), text)]


def test_every_key_leads_somewhere() -> None:
    """As `_Validation` says which table a column is a key of."""
    database = MODULE.database()
    checked = 0
    for table, column, _, _, _, key_table, key_column, *_ in database.tables["_Validation"]:
        if key_table is None or str(column) in ("Version", "BaseAction"):
            continue
        places = str(key_table).split(";")
        known: set[Any] = set()
        for place in places:
            if place in database.tables:
                assert isinstance(key_column, int)
                known |= {row[key_column - 1] for row in database.tables[place]}
        at = [c.name for c in database.tables[str(table)].columns].index(str(column))
        for row in database.tables[str(table)]:
            if row[at] is not None:
                assert row[at] in known, (table, column)
                checked += 1
    assert checked > 10


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"platform": "amd64"}, "no platform 'amd64': there are x64, x86, arm64"),
        ({"version": "one"}, "'one' is not like 1.2.3"),
        ({"guid": "none"}, "'none' is no GUID"),
        ({"components": []}, "has to have a component"),
        ({"name": "0"}, "'0' is no name"),
        ({"name": "x" * 36}, "has 36 characters, and may have 35"),
        ({"language": 2**16}, "is not within"),
        ({"components": [ANCHOR, ANCHOR]}, "has a row .* already"),
        ({"components": [dataclasses.replace(ANCHOR, guid="")]}, "'' is no GUID"),
        ({"components": [dataclasses.replace(ANCHOR, values=[])]}, "neither a file nor a value"),
        ({"components": [dataclasses.replace(MAIN, folder="No")]}, "no folder 'No'"),
        ({"components": [dataclasses.replace(MAIN, files=[File("a/b", b"")])]}, "named 'a/b'"),
        ({"components": [dataclasses.replace(MAIN, files=[File("a", b"", "b c")])]}, "no name"),
        ({"components": [dataclasses.replace(MAIN, files=[File("a", b"")] * 2)]}, "already"),
        (
            {"components": [dataclasses.replace(ANCHOR, values=[RegistryValue("K", "N", 2**32)])]},
            "within 0 and 4294967295",
        ),
        (
            {
                "components": [
                    dataclasses.replace(ANCHOR, values=[RegistryValue("K", "N", "", "X")])
                ]
            },
            "no root 'X'",
        ),
        ({"binaries": {"actions.dll": b"", "x" * 19: b""}}, "has 19 characters, and may have 18"),
        ({"binaries": {}}, "'Look' is a function of 'actions.dll', which is no binary"),
        ({"actions": [Action("x" * 28, 19, None, "No")]}, "28 characters, and may have 27"),
        (
            {"actions": [Action("Look", 19, None, "No", [Place("Nothing")])]},
            "no action 'Nothing', neither a standard one nor one of this module",
        ),
        (
            {"actions": [Action("Look", 19, None, "No", [Place("CostFinalize", sequence="X")])]},
            "no sequence 'X'",
        ),
        ({"properties": {"Half": "\ud800"}}, "surrogates"),
        ({"folders": [Folder("Shared", "nul")]}, "can be named 'nul'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(InstallerError, match=why):
        dataclasses.replace(MODULE, **changes).database()


def test_others_read_it(tmp_path: Path) -> None:
    """msiextract wants a package's table Media to extract, and lists a module's files without."""

    def run(*command: str) -> bytes:
        return subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.PIPE).stdout

    MODULE.database().write(tmp_path / "example.msm")
    assert run("msiextract", "-l", "example.msm").split(b"\n")[:2] == [
        b"A long name/tool.exe",
        b"A long name/Read me.txt",
    ]
    (tmp_path / "m.cab").write_bytes(run("msiinfo", "extract", "example.msm", CABINET))
    run("cabextract", "-q", "-d", "into", "m.cab")
    assert {path.name: path.read_bytes() for path in tmp_path.glob("into/*")} == {
        own("tool.exe"): b"MZ, but no program",
        own("Read_me.txt"): b"hello",
    }
    assert b"Template: x64;0" in run("msiinfo", "suminfo", "example.msm")
