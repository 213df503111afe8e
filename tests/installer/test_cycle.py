"""Installed, repaired, upgraded, refused, removed: what Windows Installer makes of packages."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest

from ringtun.installer import CabinetFile, Database, Inclusion, check, merge
from ringtun.installer.module import Module
from ringtun.installer.parts import Component, File, Folder, RegistryValue
from ringtun.installer.signing import sign
from tests.installer.certificates import Authority
from tests.installer.mingw import TARGETS, compile_dll
from tests.installer.samples import product, with_action
from tests.installer.windows import SUCCESS, Windows

pytestmark = pytest.mark.wine

INSTALL_FAILURE = 1603
TOOL = bytes(range(256)) * 300
# A maker of packages: where to, the version, and the text of a file in it.
Maker: TypeAlias = Callable[[Path, str, bytes], Path]

BY_WIXL = """<?xml version="1.0" encoding="utf-8"?>
<Wix xmlns="http://schemas.microsoft.com/wix/2006/wi">
  <Product Id="*" Name="Example" Version="{version}" Manufacturer="Acme" Language="1033"
      UpgradeCode="11111111-2222-3333-4444-555555555555">
    <Package InstallerVersion="200" Compressed="yes"/>
    <Media Id="1" Cabinet="product.cab" EmbedCab="yes"/>
    <MajorUpgrade DowngradeErrorMessage="A newer version is there."/>
    <Directory Id="TARGETDIR" Name="SourceDir">
      <Directory Id="ProgramFiles64Folder">
        <Directory Id="INSTALLFOLDER" Name="Example">
          <Component Id="Main" Guid="aaaaaaaa-0000-0000-0000-000000000001" Win64="yes">
            <File Id="Tool" Name="tool.dll" Source="tool.dll" KeyPath="yes"/>
            <File Id="Readme" Name="readme.txt" Source="readme.txt"/>
          </Component>
        </Directory>
      </Directory>
    </Directory>
    <Feature Id="All" Level="1"><ComponentRef Id="Main"/></Feature>
  </Product>
</Wix>
"""


def by_wixl(here: Path, version: str, readme: bytes) -> Path:
    """A package that others made, which shows what the test itself is worth."""
    (here / "product.wxs").write_text(BY_WIXL.format(version=version))
    (here / "tool.dll").write_bytes(TOOL)
    (here / "readme.txt").write_bytes(readme)
    name = f"wixl-{version}.msi"
    subprocess.run(["wixl", "-a", "x64", "-o", name, "product.wxs"], cwd=here, check=True)
    return here / name


def by_hand(here: Path, version: str, readme: bytes) -> Path:
    """One that is written table by table."""
    database = product(version=version, files=files(readme))
    assert check(database) == []
    database.write(here / f"hand {version}.msi")
    return here / f"hand {version}.msi"


def files(readme: bytes) -> tuple[CabinetFile, CabinetFile]:
    return CabinetFile("Tool", TOOL), CabinetFile("Readme", readme)


def hashes(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def installed(windows: Windows) -> dict[str, str]:
    """The hashes of all files there, by the names that they have in their folders."""
    return hashes({Path(name).name: data for name, data in windows.files().items()})


def repair(windows: Windows, file: Path) -> None:
    """Repair a product.

    After an upgrade this also has Wine know the product by its upgrade code again, which it forgets
    when the former version is removed after the new one came; Windows does not.
    """
    assert windows.msiexec("/i", file, "REINSTALL=ALL", "REINSTALLMODE=amus").status == SUCCESS


@pytest.mark.parametrize("maker", [by_wixl, by_hand])
def test_the_cycle(maker: Maker, windows: Windows, tmp_path: Path) -> None:
    first = maker(tmp_path, "1.0.0", b"Read me.\r\n" * 1000)
    assert windows.msiexec("/i", first).status == SUCCESS
    assert windows.products() == {"Example": "1.0.0"}
    (folder,) = windows.folders()
    assert folder == "Program Files/Example"
    before = installed(windows)
    assert sorted(before.values()) == sorted(
        hashes({"": TOOL, " ": b"Read me.\r\n" * 1000}).values()
    )

    tool, readme = sorted(windows.files(), key=lambda name: name.endswith(".txt"))
    (windows.drive / tool).write_bytes(b"not what it should be")
    (windows.drive / readme).unlink()
    assert installed(windows) != before
    repair(windows, first)
    assert installed(windows) == before

    second = maker(tmp_path, "1.1.0", b"Read me, too.\r\n")
    assert windows.msiexec("/i", second).status == SUCCESS
    assert windows.products() == {"Example": "1.1.0"}
    after = installed(windows)
    assert before.keys() == after.keys()
    assert after[Path(readme).name] == hashlib.sha256(b"Read me, too.\r\n").hexdigest()

    repair(windows, second)
    refused = windows.msiexec("/i", first)
    assert refused.status == INSTALL_FAILURE
    assert refused.last_action == "LaunchConditions"
    assert windows.products() == {"Example": "1.1.0"}
    assert installed(windows) == after

    assert windows.msiexec("/x", second).status == SUCCESS
    assert windows.left() == []


def test_a_signed_package(windows: Windows, tmp_path: Path) -> None:
    package = by_hand(tmp_path, "1.0.0", b"Read me.")
    identity = Authority(tmp_path).certify("/O=Acme/CN=Acme")
    package.write_bytes(sign(package.read_bytes(), identity))
    assert Database.read(package).signed
    assert windows.msiexec("/i", package).status == SUCCESS
    assert installed(windows) == hashes({"tool.dll": TOOL, "Read me first.txt": b"Read me."})
    assert windows.msiexec("/x", package).status == SUCCESS


# ---- two products with one module ---------------------------------------------------------------

SHARED = Module(
    name="Shared",
    guid="{0D2D3C1F-7E8B-4F43-8D7C-50B5B6C6A5C0}",
    version="1.0.0",
    platform="x64",
    components=[
        Component(
            "Library",
            "{0D2D3C1F-7E8B-4F43-8D7C-50B5B6C6A5C1}",
            "Place",
            files=[File("shared.dll", TOOL)],
        ),
        Component(
            "Anchor",
            "{0D2D3C1F-7E8B-4F43-8D7C-50B5B6C6A5C2}",
            values=[RegistryValue(r"SOFTWARE\Shared", None, 1)],
        ),
    ],
    folders=[Folder("Place", "Shared", path="[CommonFiles64Folder]Shared")],
)
LIBRARY = "Program Files/Common Files/Shared/shared.dll"


def with_shared_module(here: Path, name: str, version: str = "1.0.0") -> Path:
    """A package that has the module in it."""
    inclusion = Inclusion(SHARED.database(), ["All"], "INSTALLFOLDER")
    database = merge(product(name, version, files(b"Read me.")), [inclusion])
    assert check(database) == []
    database.write(here / f"{name}-{version}.msi")
    return here / f"{name}-{version}.msi"


def test_a_shared_module_goes_with_the_last_product(windows: Windows, tmp_path: Path) -> None:
    def is_there() -> bool:
        values = windows.registry(r"HKLM\SOFTWARE\Shared")
        assert bool(values) == (LIBRARY in windows.files())
        return bool(values)

    one, other = (with_shared_module(tmp_path, name) for name in ("One", "Other"))
    assert windows.msiexec("/i", one).status == SUCCESS
    assert windows.files()[LIBRARY] == TOOL
    assert windows.msiexec("/i", other).status == SUCCESS
    newer = with_shared_module(tmp_path, "One", "1.1.0")
    assert windows.msiexec("/i", newer).status == SUCCESS
    assert windows.products() == {"One": "1.1.0", "Other": "1.0.0"}
    assert is_there()
    assert windows.msiexec("/x", newer).status == SUCCESS
    assert windows.products() == {"Other": "1.0.0"}
    assert is_there()
    assert windows.msiexec("/x", other).status == SUCCESS
    assert not is_there()
    assert windows.left() == []


# ---- from a program, and what fails -------------------------------------------------------------


def test_a_program_that_carries_the_package(windows: Windows, tmp_path: Path) -> None:
    package = by_hand(tmp_path, "1.0.0", b"Read me.")
    carrier = compile_carrier(tmp_path, package)
    assert windows.run(carrier) == SUCCESS
    assert windows.products() == {"Example": "1.0.0"}
    assert installed(windows) == hashes({"tool.dll": TOOL, "Read me first.txt": b"Read me."})
    assert [*windows.drive.glob("users/*/Temp/*.msi")] == []
    newer = by_hand(tmp_path, "1.1.0", b"Read me.")
    assert windows.msiexec("/i", newer).status == SUCCESS
    repair(windows, newer)
    assert windows.run(carrier) == INSTALL_FAILURE
    assert windows.msiexec("/x", newer).status == SUCCESS
    assert windows.run(carrier) == SUCCESS
    assert windows.run(carrier, "/x") == SUCCESS


def compile_carrier(here: Path, package: Path) -> Path:
    target = TARGETS[64]
    source = str(Path(__file__).parent / "carrier.c")
    (here / "package.rc").write_text(f'1 RCDATA "{package.name}"\n')
    commands = [
        [f"{target}-windres", "package.rc", "package.o"],
        [
            *(f"{target}-gcc", "-municode", "-O2", "-Wall", "-Wextra", "-Werror", "-s"),
            *("-o", "setup.exe", source, "package.o"),
        ],
    ]
    for command in commands:
        subprocess.run(command, cwd=here, check=True)
    return here / "setup.exe"


FAILING = """
#include <windows.h>
#include <msi.h>
#include <msiquery.h>
__declspec(dllexport) UINT WINAPI Act(MSIHANDLE installation)
{
    MSIHANDLE record = MsiCreateRecord(0);
    MsiRecordSetStringW(record, 0, L"Act: cannot be done");
    MsiProcessMessage(installation, INSTALLMESSAGE_INFO, record);
    MsiCloseHandle(record);
    return ERROR_INSTALL_FAILURE;
}
"""


def test_an_action_that_fails_leaves_nothing(windows: Windows, tmp_path: Path) -> None:
    database = with_action()
    database.tables["Binary"].put("Action", compile_dll(tmp_path, FAILING, bits=64))
    database.write(tmp_path / "fails.msi")
    failed = windows.msiexec("/i", tmp_path / "fails.msi")
    assert failed.status == INSTALL_FAILURE
    assert failed.said("Act: ") == ["cannot be done"]
    assert windows.files() == {}
    assert windows.left() == []
