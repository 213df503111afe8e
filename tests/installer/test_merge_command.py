"""``ringtun msi merge``: from files to a file, or to one line that says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ringtun.cli import main
from ringtun.installer import Database
from tests.installer.modules import package, suffixed, with_files

SNIPPET = """\
<DirectoryRef Id="INSTALLFOLDER">
  <Merge Id="Module" Language="0" DiskId="1" SourceFile="$(var.WHERE)\\example.msm"/>
</DirectoryRef>
<Feature Id="Network" Title="Network" Level="1"><MergeRef Id="Module"/></Feature>
"""


def merge(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["msi", "merge", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    package().write("product.msi")
    (tmp_path / "modules").mkdir()
    with_files().write("modules/example.msm")
    (tmp_path / "snippet.wxs").write_text(SNIPPET)
    return tmp_path


ORDINARY = ("product.msi", "snippet.wxs", "-d", "WHERE=modules", "-o", "merged.msi")


def test_to_another_file(here: Path) -> None:
    before = (here / "product.msi").read_bytes()
    assert merge(*ORDINARY) == (0, "merged.msi: with modules/example.msm\n", "")
    found = Database.read("merged.msi")
    assert ("Network", suffixed("Tool")) in found.tables["FeatureComponents"].rows
    assert (here / "product.msi").read_bytes() == before
    again = (here / "merged.msi").read_bytes()
    assert merge(*ORDINARY)[0] == 0
    assert (here / "merged.msi").read_bytes() == again


def test_in_its_place(here: Path) -> None:
    assert merge(*ORDINARY[:-1], "product.msi")[0] == 0
    assert "ModuleSignature" in Database.read("product.msi").tables
    # Again: all of it is there, and nothing changes.
    assert merge(*ORDINARY[:-1], "again.msi")[0] == 0
    assert (here / "again.msi").read_bytes() == (here / "product.msi").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "data", "why"),
    [
        ("product.msi", None, "product.msi: No such file or directory"),
        ("product.msi", b"", "product.msi: it is empty"),
        ("modules/example.msm", None, "snippet.wxs:2: modules/example.msm: No such file"),
        ("modules/example.msm", b"MZ" * 999, "snippet.wxs:2: modules/example.msm: it is not a"),
        ("snippet.wxs", b"<Wix>", "snippet.wxs:1: it is no XML: mismatched tag"),
        ("snippet.wxs", None, "snippet.wxs: No such file or directory"),
    ],
)
def test_one_line_says_why_not(here: Path, spoil: str, data: bytes | None, why: str) -> None:
    (here / spoil).unlink()
    if data is not None:
        (here / spoil).write_bytes(data)
    before = sorted(here.rglob("*"))
    status, said, errors = merge(*ORDINARY)
    assert (status, said) == (1, "")
    assert errors.startswith(f"ringtun: {why}")
    assert errors.count("\n") == 1
    assert sorted(here.rglob("*")) == before


def test_after_an_error_the_package_is_what_it_was(here: Path) -> None:
    snippet = SNIPPET.replace("INSTALLFOLDER", "NOWHERE")
    (here / "snippet.wxs").write_text(snippet)
    before = (here / "product.msi").read_bytes()
    status, _, errors = merge(*ORDINARY[:-1], "product.msi")
    assert status == 1
    assert "snippet.wxs:2: modules/example.msm: the package has no directory 'NOWHERE'" in errors
    assert (here / "product.msi").read_bytes() == before


@pytest.mark.parametrize("define", ["WHERE", "=x", "WHERE=a"])
def test_a_wrong_command_line(here: Path, define: str) -> None:
    status, _, errors = merge(*ORDINARY, "-d", define)
    assert status == 2
    assert "is not NAME=VALUE, or is there twice" in errors
    assert merge("product.msi", "snippet.wxs")[0] == 2
