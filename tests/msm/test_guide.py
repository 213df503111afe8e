"""What the guide for packagers tells them to write is what our tools, and NSIS, take."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ringtun.installer import check
from ringtun.installer.apply import apply
from ringtun.installer.snippet import Snippet
from ringtun.msm.actions import compile_actions
from ringtun.msm.library import Wintun
from ringtun.msm.module import PLATFORMS, ringtun_module
from tests.installer.samples import product

GUIDE = Path(__file__).parents[2] / "docs/installer.md"


def block(language: str) -> str:
    """The page's one block in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(), re.M | re.S)
    return str(found)


def test_the_snippet_merges_the_module(double: Wintun, tmp_path: Path) -> None:
    target = PLATFORMS["amd64"]
    actions = compile_actions(target.name, target.anchor)
    module = ringtun_module(target, double, b"the licence", actions, "0.1.0").database()
    assert check(module) == []
    module.write(tmp_path / "ringtun-0.1.0-amd64.msm")
    (tmp_path / "ringtun.wxs").write_text(block("xml"))
    merged = apply(Snippet.read(tmp_path / "ringtun.wxs", {}), product())
    assert check(merged) == []
    features = {row["Component_"].partition(".")[0] for row in merged.rows("FeatureComponents")}
    assert features == {"Main", "Anchor", "Wintun"}
    (made,) = (row for row in merged.rows("Feature") if row["Feature"] == "RingtunFeature")
    assert made["Title"] == "Network adapter"


@pytest.mark.skipif(shutil.which("makensis") is None, reason="no makensis: apt-get install nsis")
def test_the_script_compiles(tmp_path: Path) -> None:
    (package,) = re.findall(r'File "(.*)"', block("nsis"))
    product().write(tmp_path / package)
    (tmp_path / "setup.nsi").write_text(
        "!include LogicLib.nsh\n"
        'Name "Acme"\nOutFile "acme-1.0.exe"\nRequestExecutionLevel admin\n'
        'Section\nInitPluginsDir\nWriteUninstaller "$INSTDIR\\uninstall.exe"\nSectionEnd\n'
        f"{block('nsis')}"
    )
    done = subprocess.run(
        ["makensis", "-WX", "setup.nsi"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "acme-1.0.exe").read_bytes().startswith(b"MZ")


def test_the_words_of_the_log_are_those_that_the_actions_say() -> None:
    said = (GUIDE.parents[1] / "src/ringtun/msm/actions.c").read_text()
    verdicts = re.findall(r"`ringtun: verdict: (.*?)`", GUIDE.read_text())
    assert {*verdicts} == {"install", "upgrade", "reinstall", "remove", "nothing to do"}
    for verdict in verdicts:
        assert f'L"{verdict}"' in said
    assert 'L"ringtun: the driver was deleted"' in said
