"""``ringtun msi inspect``: what is in a database, for people and for scripts."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings

from ringtun.cli import main
from ringtun.installer import Database, InstallerError
from ringtun.installer.describe import describe, files, sequences
from tests.installer.databases import databases, ordinary

FILE = "File:s72! Component_:s72 FileName:l255 FileSize:i4 Version:S72 Sequence:i4"
COMPONENT = "Component:s72! Directory_:s72"
DIRECTORY = "Directory:s72! Directory_Parent:S72 DefaultDir:l255"
SEQUENCE = "Action:s72! Condition:S255 Sequence:I2"
OF_MODULE = "Action:s64! Sequence:I2 BaseAction:S64 After:I2 Condition:S255"


def product() -> Database:
    database = ordinary()
    directories = database.create("Directory", DIRECTORY)
    directories.add("TARGETDIR", None, "SourceDir")
    directories.add("ProgramFiles64Folder", "TARGETDIR", "PFiles")
    directories.add("INSTALLDIR", "ProgramFiles64Folder", "EXAMP~1|Example Tun:source")
    directories.add("SAME", "INSTALLDIR", ".")
    directories.add("Loop", "Pool", "loop")
    directories.add("Pool", "Loop", "pool")
    components = database.create("Component", COMPONENT)
    components.add("Main", "SAME")
    components.add("Lost", "Loop")
    table = database.create("File", FILE)
    table.add("readme", "Main", "README~1.TXT|Read me.txt", 9000, None, 2)
    table.add("tool", "Main", "tool.dll", 1, "1.2.3.4", 1)
    table.add("lost", "Lost", "lost", 1, None, 3)
    table.add("stray", "Nobody", "stray", 1, None, 4)
    actions = database.create("InstallExecuteSequence", SEQUENCE)
    actions.add("InstallFiles", None, 4000)
    actions.add("CostInitialize", None, 800)
    actions.add("Call", "NOT Installed", 4001)
    module = database.create("ModuleInstallExecuteSequence", OF_MODULE)
    module.add("Process", None, "InstallFiles", 1, None)
    module.add("Look", None, "Process", 0, None)
    module.add("InstallFiles", 4000, None, None, None)
    return database


def inspect(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["msi", "inspect", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_for_people(tmp_path: Path) -> None:
    product().write(tmp_path / "product.msi")
    status, said, errors = inspect(tmp_path / "product.msi")
    assert (status, errors) == (0, "")
    assert said.startswith("An installation, not signed.\n\nSummary\n  code page     1252\n")
    words = [" ".join(line.split()) for line in said.splitlines()]
    for line in (
        *("title Installation Database", "author Äcme", "created 2026-01-02 03:04:05 UTC"),
        *("package code {AAAAAAAA-0000-0000-0000-000000000100}", "installer 2.0 or later"),
        "source long names, files compressed, a package, elevated",
        *("Binary 1 row Name, Data", "FeatureComponents 0 rows Feature_, Component_"),
        *("product.cab 21 bytes", "empty 0 bytes"),
    ):
        assert line in words
    start = words.index("Files")
    assert words[start + 1 : start + 3] == [
        "[ProgramFiles64Folder]/Example Tun/tool.dll 1 byte version 1.2.3.4",
        "[ProgramFiles64Folder]/Example Tun/Read me.txt 9,000 bytes",
    ]
    start = words.index("InstallExecuteSequence")
    assert words[start + 1 : start + 4] == [
        *("800 CostInitialize", "4000 InstallFiles", "4001 Call if NOT Installed"),
    ]
    start = words.index("ModuleInstallExecuteSequence")
    assert words[start + 1 : start + 4] == [
        *("4000 InstallFiles", "before Process Look", "after InstallFiles Process"),
    ]


def test_for_scripts(tmp_path: Path) -> None:
    database = product()
    database.write(tmp_path / "product.msi")
    status, said, errors = inspect(tmp_path / "product.msi", "--json")
    assert (status, errors) == (0, "")
    found = json.loads(said)
    tool = database.tables["Binary"].rows[0][1]
    assert isinstance(tool, bytes)
    digest = {"size": len(tool), "sha256": hashlib.sha256(tool).hexdigest()}
    assert found["tables"]["Binary"] == {
        "columns": [{"name": "Name", "type": "s72!"}, {"name": "Data", "type": "v0"}],
        "rows": [["tool.dll", digest]],
    }
    assert found["summary"]["created"] == "2026-01-02T03:04:05+00:00"
    assert [file["key"] for file in found["files"]] == ["tool", "readme", "lost", "stray"]
    assert found["sequences"]["InstallExecuteSequence"][2] == {
        "action": "Call",
        "sequence": 4001,
        "condition": "NOT Installed",
        "base": None,
        "after": None,
    }
    assert found["streams"]["empty"]["size"] == 0


def test_directories_that_lead_in_circles_or_nowhere() -> None:
    paths = {file.key: file.path for file in files(product())}
    assert paths["lost"].endswith("/lost")
    assert paths["stray"] == "[None]/stray"


def test_a_merge_module(tmp_path: Path) -> None:
    database = Database()
    database.create("ModuleSignature", "ModuleID:s72! Language:i2! Version:s32")
    database.write(tmp_path / "empty.msm")
    assert inspect(tmp_path / "empty.msm")[1].startswith("A merge module, not signed.\n")
    assert describe(database)["kind"] == "module"


def test_text_that_could_steer_a_terminal_is_spelled_out(tmp_path: Path) -> None:
    database = Database()
    database.streams["\33[2J"] = b""
    database.write(tmp_path / "bad.msi")
    assert "\\x1b[2J" in inspect(tmp_path / "bad.msi")[1]


@pytest.mark.parametrize(
    ("data", "why"),
    [(None, "No such file"), (b"", "it is empty"), (b"MZ" * 1000, "is not a compound file")],
)
def test_one_line_says_what_is_wrong(data: bytes | None, why: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.msi"
    if data is not None:
        file.write_bytes(data)
    status, said, errors = inspect(file)
    assert (status, said) == (1, "")
    assert errors.startswith(f"ringtun: {file}: ")
    assert why in errors
    assert errors.count("\n") == 1


@given(databases())
@settings(max_examples=40, deadline=None)
def test_any_database_can_be_described(database: Database) -> None:
    for name in ("File", "Directory", "Component", "InstallUISequence"):
        if database.tables:
            table = database.tables.popitem()[1]
            table.name = name
            database.tables[name] = table
    assert json.dumps(describe(database))
    with suppress(InstallerError):
        assert sequences(Database.from_bytes(database.to_bytes())).keys() == (
            sequences(database).keys()
        )
