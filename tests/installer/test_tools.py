"""Databases beside the tools of msitools: theirs read and written again, ours read by them."""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import subprocess
from pathlib import Path

import olefile
import pytest

from ringtun.installer import Database, Property
from ringtun.installer.names import unpack
from tests.installer.databases import BINARY, PROPERTY, ordinary

PRODUCT = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="*" Name="Example" Version="1.2.3" Manufacturer="Acme" Language="1033"
      UpgradeCode="11111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="200" Compressed="yes" Comments="An example"/>
    <Media Id="1" Cabinet="product.cab" EmbedCab="yes"/>
    <MajorUpgrade DowngradeErrorMessage="A newer version is there."/>
    <Property Id="GREETING" Value="hello"/>
    <Binary Id="tool" SourceFile="tool.dll"/>
    <CustomAction Id="Call" BinaryKey="tool" DllEntry="Run" Execute="deferred" Impersonate="no"/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFilesFolder">
        <Directory Id="INSTALLDIR" Name="Example">
          <Component Id="Main" Guid="aaaaaaaa-0000-0000-0000-000000000001">
            <File Id="readme" Name="Read me.txt" Source="readme.txt" KeyPath="yes"/>
            <RegistryKey Root="HKLM" Key="SOFTWARE\\Example">
              <RegistryValue Name="Number" Type="integer" Value="7"/>
            </RegistryKey>
          </Component>
        </Directory>
      </Directory>
    </Directory>
    <Feature Id="All" Title="All of it" Level="1"><ComponentRef Id="Main"/></Feature>
    <InstallExecuteSequence><Custom Action="Call" After="InstallFiles"/></InstallExecuteSequence>
  </Product>
</Wix>
"""
README = b"Read me.\n" * 1000
TOOL = random.Random(7).randbytes(9000)
CODE_PAGE, SUMMARY_TABLE = "_ForceCodepage", "_SummaryInformation"


def run(*command: str | Path, cwd: Path | None = None) -> bytes:
    done = subprocess.run(command, cwd=cwd, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    assert b"CRITICAL" not in done.stderr, done.stderr.decode()
    return done.stdout


def said_of(file: Path) -> dict[str, object]:
    """All that msiinfo says of a file; the order of a table's rows means nothing."""
    tables = run("msiinfo", "tables", file).decode().split()
    streams = run("msiinfo", "streams", file).decode().splitlines()
    found: dict[str, object] = {"tables": sorted(tables), "streams": sorted(streams)}
    for table in tables:
        lines = run("msiinfo", "export", file, table).split(b"\r\n")
        assert len(lines) > 3
        found[table] = lines if table == CODE_PAGE else (lines[:3], sorted(lines[3:]))
    for stream in streams:
        if stream != "SummaryInformation":  # said by `suminfo`
            found[f"stream {stream}"] = run("msiinfo", "extract", file, stream)
    found["summary"] = run("msiinfo", "suminfo", file)
    return found


@pytest.fixture(scope="module")
def by_wixl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    here = tmp_path_factory.mktemp("wixl")
    (here / "product.wxs").write_text(PRODUCT)
    (here / "readme.txt").write_bytes(README)
    (here / "tool.dll").write_bytes(TOOL)
    run("wixl", "-o", "product.msi", "product.wxs", cwd=here)
    return here / "product.msi"


@pytest.fixture(scope="module")
def by_msibuild(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merge module, of tables as text."""
    here = tmp_path_factory.mktemp("msibuild")
    module = "example.C28309D9_1954_4F2D_A7D1_228850092461"
    tables = {
        "ModuleSignature": "ModuleID\tLanguage\tVersion\r\ns72\ti2\ts32\r\n"
        f"ModuleSignature\tModuleID\tLanguage\r\n{module}\t0\t0.7\r\n",
        "Directory": "Directory\tDirectory_Parent\tDefaultDir\r\ns72\tS72\tl255\r\n"
        "Directory\tDirectory\r\nTARGETDIR\t\tSourceDir\r\nÜBER\tTARGETDIR\t.\r\n",
        "FeatureComponents": "Feature_\tComponent_\r\ns38\ts72\r\n"
        "FeatureComponents\tFeature_\tComponent_\r\n",
        "Numbers": "A\tB\tC\tD\r\ni2\tI4\tI2\tL0\r\nNumbers\tA\r\n"
        + "".join(f"{n}\t{n * 65536 + 1}\t\tx{n % 3}\r\n" for n in range(-30, 30)),
        CODE_PAGE: "\r\n\r\n1252\t_ForceCodepage\r\n",  # which a database without text forgets
    }
    file = here / "module.msm"
    for name, text in tables.items():
        (here / f"{name}.idt").write_bytes(text.encode())
        run("msibuild", file, "-i", f"{name}.idt", cwd=here)
    (here / "cabinet").write_bytes(TOOL)
    run("msibuild", file, "-a", "MergeModule.CABinet", "cabinet", cwd=here)
    run("msibuild", file, "-s", "Example", "Acme", "x64;0", cwd=here)
    return file


@pytest.mark.parametrize("maker", ["by_wixl", "by_msibuild"])
def test_a_database_of_theirs_stays_what_it_is(
    maker: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    original: Path = request.getfixturevalue(maker)
    database = Database.read(original)
    again = tmp_path / original.name
    database.write(again)
    assert Database.read(again) == database
    before, after = said_of(original), said_of(again)
    assert before.keys() == after.keys()
    for what, said in before.items():
        assert after[what] == said, what
    assert {*database.tables} == {*before["tables"]} - {CODE_PAGE, SUMMARY_TABLE}  # type: ignore[misc]


def test_what_wixl_wrote_is_what_is_read(by_wixl: Path) -> None:
    database = Database.read(by_wixl)
    assert database.tables["Binary"].get("tool") == ("tool", TOOL)
    assert database.tables["CustomAction"].get("Call") == ("Call", 3073, "tool", "Run", None)
    assert database.tables["Property"].get("GREETING") == ("GREETING", "hello")
    assert database.tables["File"].columns[0].spec == "s72!"
    assert [*database.streams] == ["product.cab"]
    assert database.streams["product.cab"].startswith(b"MSCF")
    assert database.summary[Property.TEMPLATE] == "Intel;1033"
    assert isinstance(database.summary[Property.CREATED], dt.datetime)


def test_what_msibuild_wrote_is_what_is_read(by_msibuild: Path) -> None:
    database = Database.read(by_msibuild)
    assert database.code_page == 1252
    assert ("ÜBER", "TARGETDIR", ".") in database.tables["Directory"].rows
    assert database.tables["Numbers"].get(-2) == (-2, -131071, None, "x1")
    assert len(database.tables["FeatureComponents"]) == 0
    assert database.streams == {"MergeModule.CABinet": TOOL}
    assert database.summary[Property.SUBJECT] == "Example"


def test_files_are_extracted_from_a_database_that_was_written_again(
    by_wixl: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again.msi"
    Database.read(by_wixl).write(again)
    run("msiextract", "-C", tmp_path / "files", again)
    (file,) = (path for path in (tmp_path / "files").rglob("*") if path.is_file())
    assert (file.name, file.read_bytes()) == ("Read me.txt", README)


def test_a_database_of_ours_is_what_they_say(tmp_path: Path) -> None:
    file = tmp_path / "ours.msi"
    ordinary().write(file)
    said = said_of(file)
    assert said["tables"] == sorted([*ordinary().tables, CODE_PAGE, SUMMARY_TABLE])
    lines = [b"ProductName\tEx\xc3\xa4mple", b"ProductVersion\t1.2.3"]
    head = [b"Property\tValue", b"s72\tl0", b"Property\tProperty"]
    assert said["Property"] == (head, [b"", *lines])
    assert said["stream product.cab"] == ordinary().streams["product.cab"]
    assert said["stream Binary.tool.dll"] == ordinary().tables["Binary"].rows[0][1]
    summary = said["summary"]
    assert isinstance(summary, bytes)
    assert "Author: Äcme".encode("cp1252") in summary
    assert b"Revision number (UUID): {AAAAAAAA-" in summary
    run("msidump", "-t", "-s", file, cwd=tmp_path)
    assert (tmp_path / "Property.idt").exists()


@pytest.mark.parametrize("megabytes", [6, 7, 8, 16])
def test_large_files(megabytes: int, tmp_path: Path) -> None:
    """From about 7 MB on there is a DIFAT, and from 15 MB on more than a sector of it."""
    file = tmp_path / "large.msi"
    large = random.Random(megabytes).randbytes(megabytes << 20)
    database = Database()
    database.create("Property", PROPERTY).add("A", "B")
    database.create("Binary", BINARY).add("large", large)
    database.streams["product.cab"] = TOOL
    database.summary = {Property.TITLE: "Installation Database"}
    database.write(file)
    assert Database.read(file) == database
    for name, content in [("Binary.large", large), ("product.cab", TOOL)]:
        extracted = run("msiinfo", "extract", file, name)
        assert hashlib.sha256(extracted).digest() == hashlib.sha256(content).digest()
    with olefile.OleFileIO(file, raise_defects=olefile.DEFECT_POTENTIAL) as other:
        found = {unpack(path[0])[0]: other.openstream(path).read() for path in other.listdir()}
    assert (found["Binary.large"], found["product.cab"]) == (large, TOOL)


def test_long_strings_are_stored_as_msibuild_does(tmp_path: Path) -> None:
    """Of 128 kB and more: msibuild writes them, though msiinfo fails to read them."""
    text = "x" * 200_000
    rows = f"A\t{text}\r\nB\tafter\r\n"
    (tmp_path / "Property.idt").write_text(
        f"Property\tValue\r\ns72\tl0\r\nProperty\tProperty\r\n{rows}", newline=""
    )
    subprocess.run(
        ["msibuild", "long.msi", "-i", "Property.idt"], cwd=tmp_path, check=True, stderr=-3
    )
    table = Database.read(tmp_path / "long.msi").tables["Property"]
    assert table.rows == [("A", text), ("B", "after")]


def test_strings_up_to_128_kb_are_read_by_msiinfo(tmp_path: Path) -> None:
    database = Database()
    database.create("Property", PROPERTY).add("A", "x" * 70_000)
    database.tables["Property"].add("B", "after")
    database.write(tmp_path / "long.msi")
    exported = run("msiinfo", "export", tmp_path / "long.msi", "Property")
    assert exported.split(b"\r\n")[3:5] == [b"A\t" + b"x" * 70_000, b"B\tafter"]


def test_over_65535_strings_are_read_by_msiinfo(tmp_path: Path) -> None:
    database = Database()
    table = database.create("Numbers", "Number:i4! Text:s20")
    for number in range(66_000):
        table.add(number, f"text {number}")
    database.write(tmp_path / "many.msi")
    exported = run("msiinfo", "export", tmp_path / "many.msi", "Numbers").split(b"\r\n")
    assert exported[3:-1] == [b"%d\ttext %d" % (number, number) for number in range(66_000)]
