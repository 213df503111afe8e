"""ringtun's module in products that Windows Installer installs: wintun.dll comes, and goes last."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringtun.installer import Database, Inclusion, check, merge
from ringtun.msm.actions import compile_actions
from ringtun.msm.build import Release, build_module
from ringtun.msm.library import Wintun
from ringtun.msm.module import PLATFORMS, ringtun_module
from tests.installer.mingw import compile_dll
from tests.installer.samples import change, product
from tests.installer.windows import SUCCESS, Outcome, Windows

pytestmark = pytest.mark.wine

INSTALL_FAILURE = 1603
KEY = r"HKLM\SOFTWARE\ringtun"
FOLDER = "Program Files/Common Files/ringtun"
LICENCE = b"Do as you like.\r\n"


def package(
    here: Path,
    wintun: Wintun,
    name: str,
    version: str = "1.0.0",
    *,
    module: str = "1.2.3",
    platform: str = "amd64",
) -> Path:
    """A product of this name that has the module in it."""
    target = PLATFORMS[platform]
    actions = compile_actions(target.name, target.anchor)
    included = ringtun_module(target, wintun, LICENCE, actions, module).database()
    database = product(name, version)
    database = merge(database, [Inclusion(included, ["All"], "INSTALLFOLDER")])
    assert check(database) == []
    database.write(here / f"{name} {version}.msi")
    return here / f"{name} {version}.msi"


def verdict(outcome: Outcome) -> str:
    """What the evaluating action found, in its own words."""
    assert outcome.status == SUCCESS
    (found,) = outcome.said("ringtun: verdict: ")[-1:]
    return found


def test_what_is_installed(double: Wintun, windows: Windows, tmp_path: Path) -> None:
    file = package(tmp_path, double, "One")
    installed = windows.msiexec("/i", file)
    assert verdict(installed) == "install"
    assert installed.said("ringtun: this module: ") == ["1.2.3"]
    files = windows.files()
    assert files[f"{FOLDER}/wintun.dll"] == double.data
    assert files[f"{FOLDER}/wintun-license.txt"] == LICENCE
    assert windows.registry(KEY)[KEY] == {
        "Installed": "0x1",
        "Version": "1.2.3",
        "WintunDll": r"C:\Program Files\Common Files\ringtun\wintun.dll",
    }
    (windows.drive / FOLDER / "wintun.dll").unlink()
    repaired = windows.msiexec("/i", file, "REINSTALL=ALL", "REINSTALLMODE=amus")
    assert verdict(repaired) == "reinstall"
    assert windows.files() == files
    assert verdict(windows.msiexec("/x", file)) == "remove"
    assert windows.registry(KEY) == {}


def test_the_driver_goes_with_the_last_product(
    double: Wintun, windows: Windows, tmp_path: Path
) -> None:
    one, other = (package(tmp_path, double, name) for name in ("One", "Other"))
    newer = package(tmp_path, double, "One", "1.1.0", module="1.3.0")
    assert verdict(windows.msiexec("/i", one)) == "install"
    assert verdict(windows.msiexec("/i", other)) == "install"
    upgraded = windows.msiexec("/i", newer)
    assert verdict(upgraded) == "upgrade"
    assert upgraded.said("ringtun: wintun.dll: ") == []
    assert windows.registry(KEY)[KEY]["Version"] == "1.3.0"
    assert windows.products() == {"One": "1.1.0", "Other": "1.0.0"}

    first = windows.msiexec("/x", newer)
    assert verdict(first) == "nothing to do"
    assert first.said("ringtun: wintun.dll: ") == []
    assert windows.files()[f"{FOLDER}/wintun.dll"] == double.data
    assert windows.registry(KEY)

    last = windows.msiexec("/x", other)
    assert verdict(last) == "remove"
    assert last.said("ringtun: wintun.dll: ") == ["deleting (it)"]  # brackets mean something
    assert last.said("ringtun: the driver ") == ["was deleted"]
    assert windows.registry(KEY) == {}
    assert windows.left() == []


# It says outside the log that it was called: that of a removal within an upgrade is another.
TELLS = r"""
#include <windows.h>
__declspec(dllexport) BOOL WINAPI WintunDeleteDriver(void)
{
    return CloseHandle(CreateFileW(L"C:\\deleted", GENERIC_WRITE, 0, NULL, CREATE_NEW, 0, NULL));
}
"""


@pytest.mark.parametrize(
    ("removal", "deleted"),
    [
        pytest.param(1501, True, id="removed first"),
        pytest.param(6550, False, id="removed last"),
    ],
)
def test_an_upgrade_deletes_the_driver_if_the_former_version_goes_first(
    removal: int, deleted: bool, windows: Windows, tmp_path: Path
) -> None:
    """Which is why packages remove it last: between the two no product has the module."""
    dll = compile_dll(tmp_path, TELLS, bits=64, version="0.14.1.0")
    tells = Wintun(dll, "x64", "0.14.1.0", "5" * 64, None)
    told = windows.drive / "deleted"
    assert verdict(windows.msiexec("/i", package(tmp_path, tells, "One"))) == "install"
    newer = package(tmp_path, tells, "One", "1.1.0", module="1.3.0")
    database = Database.read(newer)
    change(database, "InstallExecuteSequence", "RemoveExistingProducts", Sequence=removal)
    database.write(newer)
    try:
        assert verdict(windows.msiexec("/i", newer)) == "upgrade"
        assert windows.registry(KEY)[KEY]["Version"] == "1.3.0"
        assert windows.files()[f"{FOLDER}/wintun.dll"] == dll
        assert told.exists() == deleted
        told.unlink(missing_ok=True)
        assert verdict(windows.msiexec("/x", newer)) == "remove"
        assert told.exists()
    finally:
        told.unlink(missing_ok=True)


def test_a_released_wintun_is_installed_bit_for_bit(
    releases: dict[str, Release], windows: Windows, tmp_path: Path
) -> None:
    release = releases["amd64"]
    built = build_module(release, "1.2.3")
    file = package(tmp_path, built.wintun, "One")
    assert verdict(windows.msiexec("/i", file)) == "install"
    there = windows.files()[f"{FOLDER}/wintun.dll"]
    assert there == Path(release.dll).read_bytes()
    assert Wintun.read(windows.drive / FOLDER / "wintun.dll").sha256 == built.wintun.sha256
    removed = windows.msiexec("/x", file)
    assert verdict(removed) == "remove"
    # Its own words are in the log. Wine has not what it needs to delete a driver.
    assert "Failed to create boundary descriptor" in removed.said("ringtun: wintun.dll: ")[0]


def test_the_module_for_32_bits_refuses_a_windows_of_64(
    releases: dict[str, Release], windows: Windows, tmp_path: Path
) -> None:
    built = build_module(releases["x86"], "1.2.3")
    target = PLATFORMS["x86"]
    actions = compile_actions(target.name, target.anchor)
    included = ringtun_module(target, built.wintun, LICENCE, actions, "1.2.3").database()
    database = product("One", "1.0.0")
    database.summary[7] = "Intel;1033"
    change(database, "Component", "Main", Attributes=0)
    change(database, "Directory", "ProgramFiles64Folder", Directory="ProgramFilesFolder")
    change(database, "Directory", "INSTALLFOLDER", Directory_Parent="ProgramFilesFolder")
    database = merge(database, [Inclusion(included, ["All"], "INSTALLFOLDER")])
    assert check(database) == []
    database.write(tmp_path / "x86.msi")
    refused = windows.msiexec("/i", tmp_path / "x86.msi")
    assert refused.status == INSTALL_FAILURE
    assert refused.last_action.startswith("RefuseOn64Bits.")
