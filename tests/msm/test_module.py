"""ringtun's own module, row by row, and the library of its actions."""

from __future__ import annotations

import dataclasses
import re
import subprocess
from pathlib import Path

import pytest

from ringtun.installer import InstallerError, read_cabinet
from ringtun.installer.executable import Executable
from ringtun.installer.merge import CABINET
from ringtun.msm import actions
from ringtun.msm.actions import compile_actions
from ringtun.msm.library import Wintun
from ringtun.msm.module import PLATFORMS, ringtun_module
from tests.installer.mingw import TARGETS

AMD64, X86 = PLATFORMS["amd64"], PLATFORMS["x86"]
SUFFIX = ".FA702AA7_6874_4F84_8866_4BFD0258DD80"
SUFFIX_X86 = ".9844CC16_1DC5_4125_B453_FF451BE7DE0A"


def test_the_rows(double: Wintun) -> None:
    database = ringtun_module(AMD64, double, b"the licence", b"MZ", "1.2.3").database()
    rows = {
        name: table.rows
        for name, table in database.tables.items()
        if name not in ("_Validation", "MsiFileHash")
    }
    for name in ("Anchor", "Wintun"):  # the suffix's absence below makes the rows readable
        assert (name + SUFFIX,) in database.tables["Component"]
    plain = {
        name: [
            tuple(value.replace(SUFFIX, ".*") if isinstance(value, str) else value for value in row)
            for row in table
        ]
        for name, table in rows.items()
    }
    assert plain == {
        "ModuleSignature": [("ringtun.*", 0, "1.2.3")],
        "ModuleComponents": [("Anchor.*", "ringtun.*", 0), ("Wintun.*", "ringtun.*", 0)],
        "FeatureComponents": [],
        "Directory": [
            ("TARGETDIR", None, "SourceDir"),
            ("WintunFolder.*", "TARGETDIR", "ringtun"),
        ],
        "Component": [
            ("Anchor.*", AMD64.anchor, "TARGETDIR", 260, None, "value1.*"),
            ("Wintun.*", AMD64.wintun, "WintunFolder.*", 256, None, "wintun.dll.*"),
        ],
        "File": [
            (
                *("wintun.dll.*", "Wintun.*", "wintun.dll", len(double.data)),
                *("0.14.1.0", "0", 512, 1),
            ),
            (
                *("wintun_license.txt.*", "Wintun.*", "WINTUN~2.TXT|wintun-license.txt", 11),
                *(None, None, 512, 2),
            ),
        ],
        "Registry": [
            ("value1.*", 2, r"SOFTWARE\ringtun", "Installed", "#1", "Anchor.*"),
            ("value2.*", 2, r"SOFTWARE\ringtun", "Version", "[RingtunVersion]", "Anchor.*"),
            ("value3.*", 2, r"SOFTWARE\ringtun", "WintunDll", "[#wintun.dll.*]", "Wintun.*"),
        ],
        "Property": [("RingtunVersion", "1.2.3"), ("RingtunWintunSha256", "5" * 64)],
        "Binary": [("actions.dll.*", b"MZ")],
        "CustomAction": [
            ("SetWintunFolder.*", 51, "WintunFolder.*", "[CommonFiles64Folder]ringtun\\", None),
            ("RingtunEvaluate", 65, "actions.dll.*", "RingtunEvaluate", None),
            ("RingtunProcess", 3137, "actions.dll.*", "RingtunProcess", None),
        ],
        "InstallExecuteSequence": [],
        "InstallUISequence": [],
        "ModuleInstallExecuteSequence": [
            ("CostInitialize", 800, None, None, None),
            ("SetWintunFolder.*", None, "CostInitialize", 0, None),
            ("InstallValidate", 1400, None, None, None),
            ("RingtunEvaluate", None, "InstallValidate", 1, None),
            ("RemoveFiles", 3500, None, None, None),
            ("RingtunProcess", None, "RemoveFiles", 0, 'RingtunProcess="remove"'),
            ("InstallFiles", 4000, None, None, None),
            ("WriteRegistryValues", 5000, None, None, None),
            ("RemoveRegistryValues", 2600, None, None, None),
        ],
        "ModuleInstallUISequence": [
            ("CostInitialize", 800, None, None, None),
            ("SetWintunFolder.*", None, "CostInitialize", 0, None),
        ],
    }
    assert read_cabinet(database.streams[CABINET]) == [
        (f"wintun.dll{SUFFIX}", double.data),
        (f"wintun_license.txt{SUFFIX}", b"the licence"),
    ]


def test_for_32_bits_it_refuses_windows_of_64(double: Wintun) -> None:
    wintun = dataclasses.replace(double, machine="x86")
    tables = ringtun_module(X86, wintun, b"licence", b"MZ", "1.2.3").database().tables
    action = f"RefuseOn64Bits{SUFFIX_X86}"
    row = tables["CustomAction"].get(action)
    assert row is not None
    assert row[1] == 19
    for kind in ("Execute", "UI"):
        assert tables[f"ModuleInstall{kind}Sequence"].get(action) == (
            *(action, None, "LaunchConditions", 1, "VersionNT64"),
        )
    assert {row[3] for row in tables["Component"]} == {4, 0}
    assert tables["CustomAction"].get(f"SetWintunFolder{SUFFIX_X86}") == (
        *(f"SetWintunFolder{SUFFIX_X86}", 51, f"WintunFolder{SUFFIX_X86}"),
        *("[CommonFilesFolder]ringtun\\", None),
    )


def test_the_guids_are_those_that_they_were() -> None:
    """Windows counts by them: they may never change, nor may two be the same."""
    guids = [guid for p in PLATFORMS.values() for guid in (p.module, p.anchor, p.wintun)]
    assert guids == [
        "{FA702AA7-6874-4F84-8866-4BFD0258DD80}",
        "{A7F87F37-561B-44E3-9B63-6BF718A123E0}",
        "{F1100956-10C9-48E1-8C6F-1C6122E82480}",
        "{9844CC16-1DC5-4125-B453-FF451BE7DE0A}",
        "{5DD83AD1-0241-4AB6-AC1A-787444BE1AE9}",
        "{2F68BFB9-F7B1-4674-B59E-4934D9F3C6A5}",
    ]


@pytest.mark.parametrize(("version", "shown"), [("1.2.3", "1.2.3"), ("2.0.0.dev4", "2.0.0")])
def test_versions(version: str, shown: str, double: Wintun) -> None:
    assert ringtun_module(AMD64, double, b"", b"", version).version == shown


def test_what_does_not_fit(double: Wintun) -> None:
    with pytest.raises(InstallerError, match=r"wintun.dll is for x64, and the module for x86"):
        ringtun_module(X86, double, b"", b"", "1.2.3")
    with pytest.raises(InstallerError, match="'unknown' is not like 1.2.3"):
        ringtun_module(AMD64, double, b"", b"", "unknown")


# ---- the library of its actions -----------------------------------------------------------------


@pytest.mark.parametrize(("platform", "bits"), [("x64", 64), ("x86", 32)])
def test_the_library(platform: str, bits: int, tmp_path: Path) -> None:
    library = compile_actions(platform, AMD64.anchor)
    assert compile_actions(platform, AMD64.anchor) == library
    assert Executable.of(library) == Executable(platform, True, None)
    assert AMD64.anchor.encode("utf-16-le") in library
    (tmp_path / "actions.dll").write_bytes(library)
    said = subprocess.run(
        [f"{TARGETS[bits]}-objdump", "-p", tmp_path / "actions.dll"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # By these names the table CustomAction calls them; 32 bits would have @4 behind them.
    assert re.findall(r"^\t\[ +\d\] (?:\+base\[ +\d\] +\w+ )?(\w+\S*)$", said, re.M) == [
        "RingtunEvaluate",
        "RingtunProcess",
    ]
    # All of it comes with every Windows.
    assert {name.lower() for name in re.findall(r"DLL Name: (\S+)", said)} == {
        *("advapi32.dll", "kernel32.dll", "msi.dll", "ole32.dll", "shell32.dll"),
    }


def test_a_missing_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstallerError, match="apt-get install gcc-mingw-w64-x86-64"):
        compile_actions("x64", AMD64.anchor)


def test_what_the_compiler_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "_FLAGS", ("-std=none",))
    with pytest.raises(InstallerError, match="x86_64-w64-mingw32-gcc failed: .*-std=none"):
        compile_actions("x64", AMD64.anchor)
