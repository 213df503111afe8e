"""The driver service put into a system, and taken away again; in a root of the test's own."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from ringtun.cli import main
from ringtun.service import installation
from ringtun.service.policy import Configuration, load

CONFIGURATION = "etc/ringtun/driver.toml"
SERVICE = "etc/systemd/system/ringtun.service"


def driver(*arguments: str | Path) -> list[str]:
    result = CliRunner().invoke(main, ["driver", *map(str, arguments)])
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout.splitlines()


def refused(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, ["driver", *map(str, arguments)])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    return result.stderr


def tree(root: Path) -> dict[str, bytes]:
    """Every file below, but for the record."""
    files = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != installation.RECORD}


def test_install_and_uninstall(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert driver("install", "--root", tmp_path) == [
        f"written: {tmp_path / name}" for name in installation.FILES
    ]
    assert tree(tmp_path) == {
        name: (installation.UNITS / source).read_bytes()
        for name, source in installation.FILES.items()
    }
    assert {(tmp_path / name).stat().st_mode for name in installation.FILES} == {0o100644}
    assert driver("uninstall", "--root", tmp_path) == [
        f"removed: {tmp_path / name}" for name in (*installation.FILES, installation.RECORD)
    ]
    assert list(tmp_path.rglob("*")) == [tmp_path / "etc"], "what was there before stays"


def test_once_more_changes_nothing(tmp_path: Path) -> None:
    driver("install", "--root", tmp_path)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    assert driver("install", "--root", tmp_path) == [
        f"is there: {tmp_path / name}" for name in installation.FILES
    ]
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_a_later_version_replaces_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(installation.install(tmp_path, program="/opt/old/bin/ringtun"))
    assert "ExecStart=/opt/old/bin/ringtun driver\n" in (tmp_path / SERVICE).read_text()
    assert f"replaced: {tmp_path / SERVICE}" in driver("install", "--root", tmp_path)
    assert "ExecStart=/usr/bin/ringtun driver\n" in (tmp_path / SERVICE).read_text()
    driver("uninstall", "--root", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_user_changed_stays(tmp_path: Path) -> None:
    driver("install", "--root", tmp_path)
    changed = tmp_path / CONFIGURATION
    changed.write_text('group = "wheel"\n')
    beside = changed.with_name("notes")
    beside.write_text("mine")
    (tmp_path / SERVICE).unlink()
    said = driver("install", "--root", tmp_path)
    assert f"left, since it is not as this wrote it: {changed}" in said
    assert f"written: {tmp_path / SERVICE}" in said
    (tmp_path / SERVICE).unlink()
    said = driver("uninstall", "--root", tmp_path)
    assert f"left, since it was changed: {changed}" in said
    assert f"is gone: {tmp_path / SERVICE}" in said
    assert tree(tmp_path) == {CONFIGURATION: b'group = "wheel"\n', "etc/ringtun/notes": b"mine"}
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("there", ["theirs", "the same", "a link", "a directory"])
def test_what_was_there_before_is_not_its_own(tmp_path: Path, there: str) -> None:
    path = tmp_path / CONFIGURATION
    path.parent.mkdir(parents=True)
    if there == "a link":
        path.symlink_to("elsewhere")
    elif there == "a directory":
        path.mkdir()
    else:
        same = (installation.UNITS / "driver.toml").read_text()
        path.write_text(same if there == "the same" else "group = 7\n")
    before = os.lstat(path)
    driver("install", "--root", tmp_path)
    driver("uninstall", "--root", tmp_path)
    assert os.lstat(path)[:7] == before[:7]
    assert [*tmp_path.iterdir()] == [tmp_path / "etc"]


def test_a_dry_run_does_nothing(tmp_path: Path) -> None:
    said = driver("install", "--root", tmp_path, "--dry-run")
    assert said[0] == "Nothing is done. It would be:"
    assert list(tmp_path.iterdir()) == []
    assert said[1:] == driver("install", "--root", tmp_path)
    before = sorted(tmp_path.rglob("*"))
    said = driver("uninstall", "--root", tmp_path, "--dry-run")
    assert sorted(tmp_path.rglob("*")) == before
    assert said[1:] == driver("uninstall", "--root", tmp_path)


def test_nothing_to_uninstall(tmp_path: Path) -> None:
    assert "nothing was installed by `ringtun driver install`" in refused(
        "uninstall", "--root", tmp_path
    )


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_it_takes_root(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "that takes root: run it with sudo, or with --root" in refused(command)


# ---- systemd ------------------------------------------------------------------------------------


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What systemd's commands were called with, by stand-ins that write it down."""
    told, place = tmp_path / "told", tmp_path / "bin"
    place.mkdir()
    for name in ("systemctl", "systemd-sysusers"):
        (place / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {told}\ntest ! -e {told}.fail\n')
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return told


def test_systemd_takes_them_up(tmp_path: Path, told: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    said = list(installation.install(root, managed=True))
    commands = [f"systemd-sysusers {root}/etc/sysusers.d/ringtun.conf", "systemctl daemon-reload"]
    assert told.read_text().splitlines() == commands
    assert said[-2:] == [f"run: {command}" for command in commands]
    told.unlink()
    said = list(installation.uninstall(root, managed=True))
    commands = [
        "systemctl disable --now ringtun.socket ringtun.service",
        "systemctl daemon-reload",
    ]
    assert told.read_text().splitlines() == commands
    assert [said[0], said[-1]] == [f"run: {command}" for command in commands]
    assert list(root.iterdir()) == []


def test_systemd_refuses(tmp_path: Path, told: Path) -> None:
    told.with_name("told.fail").touch()
    with pytest.raises(OSError, match="^systemd-sysusers .* failed: "):
        list(installation.install(tmp_path, managed=True))


def test_nothing_is_run_below_a_root(tmp_path: Path, told: Path) -> None:
    driver("install", "--root", tmp_path)
    driver("uninstall", "--root", tmp_path)
    assert not told.exists()


# ---- the program --------------------------------------------------------------------------------


def with_program(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = place / "bin" / "ringtun"
    path.parent.mkdir(parents=True)
    path.touch(0o755)
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path.with_name("python")))
    monkeypatch.setattr(sys, "prefix", str(place))
    return path


def test_the_program_is_this_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = with_program(tmp_path / "venv", monkeypatch)
    monkeypatch.setattr(installation, "_HIDDEN", ())
    assert installation.program() == str(path)
    path.unlink()
    with pytest.raises(ValueError, match="there is no .*/ringtun: install ringtun with pip"):
        installation.program()


def test_a_program_that_the_service_could_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_program(tmp_path / "venv", monkeypatch)
    monkeypatch.setattr(installation, "_HIDDEN", (str(tmp_path),))
    with pytest.raises(ValueError, match="the service could not see .* in /opt/ringtun say"):
        installation.program()


def test_a_program_that_no_unit_can_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_program(tmp_path / "50% more", monkeypatch)
    monkeypatch.setattr(installation, "_HIDDEN", ())
    with pytest.raises(ValueError, match="a unit cannot name"):
        installation.program()


# ---- the example --------------------------------------------------------------------------------


def test_the_example_changes_nothing() -> None:
    assert load(installation.UNITS / "driver.toml") == Configuration()


def test_the_example_is_one(tmp_path: Path) -> None:
    text = re.sub("^#(?! )", "", (installation.UNITS / "driver.toml").read_text(), flags=re.M)
    assert tomllib.loads(text).keys() == {"group", "limits", "adapter", "grant"}
    text = re.sub(r'"(ringtun|alice|vpn|bob)"', "0", text)  # who is not on this machine
    (tmp_path / "driver.toml").write_text(text)
    found = load(tmp_path / "driver.toml")
    assert [adapter.name for adapter in found.adapters] == ["office0"]
    assert found.limits == Configuration().limits
