"""``ringtun msm build``: modules from Wintun's release, the same each time, signed if asked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ringtun import __version__
from ringtun.cli import main
from ringtun.installer import Database, Property, read_cabinet
from ringtun.installer.merge import CABINET
from ringtun.installer.signing import verify
from ringtun.msm.build import Release
from ringtun.msm.module import PLATFORMS
from tests.installer.certificates import Authority

NAMES = [f"ringtun-{__version__}-{platform}.msm" for platform in PLATFORMS]


@pytest.fixture
def folder(releases: dict[str, Release], tmp_path: Path) -> Path:
    """A release of which a test may change what it likes."""
    source = Path(releases["amd64"].licence).parent
    return Path(shutil.copytree(source, tmp_path / "release"))


def build(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["msm", "build", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_both_and_the_same_each_time(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said, errors = build("--wintun", folder, "-o", tmp_path / "out" / "there")
    assert (status, errors) == (0, "")
    built = contents(tmp_path / "out" / "there")
    assert [*built] == NAMES
    for name, data in built.items():
        assert str(tmp_path / "out" / "there" / name) in said
        assert hashlib.sha256(data).hexdigest() in said

    # Elsewhere, at another time, from files of another time, over what is there.
    shutil.copytree(folder, tmp_path / "copied")
    for path in (tmp_path / "copied").glob("**/*"):
        os.utime(path, (0, 0))
    monkeypatch.chdir(tmp_path / "copied")
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    Path(NAMES[0]).write_bytes(b"an older one")
    assert build("--wintun", ".")[0] == 0
    for name, data in built.items():
        assert Path(name).read_bytes() == data


@pytest.mark.parametrize("platform", [*PLATFORMS])
def test_the_files_go_in_bit_for_bit(
    platform: str, releases: dict[str, Release], tmp_path: Path
) -> None:
    release = releases[platform]
    status, said, _ = build(
        *("--wintun", release.dll, "--licence", release.licence, "--json", "-o", tmp_path)
    )
    assert status == 0
    (described,) = json.loads(said)
    database = Database.read(described["file"])
    dll, licence = read_cabinet(database.streams[CABINET])
    assert dll.data == Path(release.dll).read_bytes()
    assert licence.data == Path(release.licence).read_bytes()
    digest = hashlib.sha256(dll.data).hexdigest()
    assert described == {
        "file": str(tmp_path / f"ringtun-{__version__}-{platform}.msm"),
        "platform": platform,
        "version": __version__,
        "sha256": hashlib.sha256(Path(described["file"]).read_bytes()).hexdigest(),
        "signed": False,
        "wintun": {
            "version": "0.14.1.0",
            "sha256": digest,
            "signed": described["wintun"]["signed"],
        },
    }
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    documented = page.partition("<!-- fields: msm build -->")[2].partition("<!--")[0]
    assert re.findall(r"^\| `(\w+)` ", documented, re.M) == [*described]
    assert database.tables["Property"].get("RingtunWintunSha256") == ("RingtunWintunSha256", digest)
    assert database.summary[Property.COMMENTS] == f"wintun.dll 0.14.1.0, SHA-256 {digest}"


def test_one_platform_alone(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert build("--wintun", folder, "-o", out, "--platform", "x86")[0] == 0
    shutil.rmtree(folder / "bin" / "x86")
    assert build("--wintun", folder, "-o", tmp_path / "amd64")[0] == 0
    assert [*contents(out), *contents(tmp_path / "amd64")] == NAMES[::-1]


def test_signed(folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    acme = authority.certify("/O=Acme")
    status, _, errors = build(
        *("--wintun", folder, "-o", tmp_path / "out", "--platform", "amd64"),
        *("--sign", acme.certificate, "--sign-key", acme.key, "--sign-chain", authority.root),
        *("--sign-option", "-i", "--sign-option", "https://example.org"),
    )
    assert (status, errors) == (0, "")
    data = (tmp_path / "out" / NAMES[0]).read_bytes()
    assert verify(data, authority.root).part("O") == "Acme"
    database = Database.from_bytes(data)
    assert database.signed
    ((_, library),) = database.tables["Binary"]
    assert isinstance(library, bytes)
    assert verify(library, authority.root).part("O") == "Acme"
    assert b"https://example.org" in library


# ---- what cannot be built -----------------------------------------------------------------------


def changed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0x2000] ^= 1
    path.write_bytes(data)


def swapped(folder: Path) -> None:
    shutil.copy(folder / "bin" / "amd64" / "wintun.dll", folder / "bin" / "x86" / "wintun.dll")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda f: changed(f / "bin/x86/wintun.dll"), "x86/wintun.dll: it was changed after"),
        (lambda f: (f / "bin/x86/wintun.dll").write_bytes(b""), "it is no library of Windows"),
        (swapped, "the wintun.dll is for x64, and the module for x86"),
        (lambda f: (f / "LICENSE.txt").unlink(), "LICENSE.txt: No such file"),
        (lambda f: (f / "LICENSE.txt").write_text(""), "LICENSE.txt: it is empty"),
        (lambda f: (f / "LICENSE.txt").write_bytes(bytes(2 << 20)), "no licence's text"),
        (lambda f: shutil.rmtree(f / "bin"), "release: it has no bin/amd64/wintun.dll"),
    ],
    ids=["changed", "empty", "swapped", "no-licence", "empty-licence", "long-licence", "none"],
)
def test_nothing_is_written(spoil: Any, why: str, folder: Path, tmp_path: Path) -> None:
    """Not even the module whose wintun.dll is as it should be."""
    spoil(folder)
    status, said, errors = build("--wintun", folder, "-o", tmp_path / "out")
    assert (status, said) == (1, "")
    assert errors.startswith("ringtun: ")
    assert why in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_of_a_machine_that_there_is_no_module_for(folder: Path, tmp_path: Path) -> None:
    dll = folder / "bin" / "arm64" / "wintun.dll"
    status, _, errors = build("--wintun", dll, "--licence", folder / "LICENSE.txt", "-o", tmp_path)
    assert status == 1
    assert "it is for arm64, and there are modules for amd64, x86" in errors


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Missing option '--wintun'"),
        (["--wintun", "nowhere"], "'nowhere' does not exist"),
        (["--wintun", __file__], "Missing option '--licence'"),
        (
            [
                *("--wintun", __file__, "--licence", __file__),
                *("--platform", "x86", "--platform", "amd64"),
            ],
            "for one platform",
        ),
        (["--wintun", "FOLDER", "--platform", "arm64"], "'arm64' is not one of"),
        (["--wintun", "FOLDER", "--platform", "x86"], "has no bin/x86/wintun.dll"),
        (["--wintun", "FOLDER", "--sign-key", "k"], "go with --sign"),
        (["--wintun", "FOLDER", "--sign", "nowhere.pem"], "'nowhere.pem' does not exist"),
        (["--wintun", "FOLDER", "-o", __file__], "is a file"),
    ],
)
def test_a_wrong_command_line(arguments: list[str], why: str, folder: Path) -> None:
    shutil.rmtree(folder / "bin" / "x86")
    status, said, errors = build(*(folder if a == "FOLDER" else a for a in arguments))
    assert (status, said) == (2, "")
    assert why in errors


def test_a_key_that_does_not_fit(folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    one, other = authority.certify("/O=Acme"), authority.certify("/O=Other", "other")
    status, _, errors = build(
        *("--wintun", folder, "-o", tmp_path / "out"),
        *("--sign", one.certificate, "--sign-key", other.key),
    )
    assert status == 1
    assert "it cannot be signed: " in errors
    assert not (tmp_path / "out").exists()
