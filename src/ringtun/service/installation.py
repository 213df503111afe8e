"""The driver service in a system with systemd: its units, its user, an example of a configuration.

What was written is on record, with its digest: so a file that somebody has changed since is told
from one that may be replaced or taken away.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["FILES", "RECORD", "install", "program", "runs_here", "uninstall"]

UNITS: Final = Path(__file__).parent / "units"

# Below the root, and what it is a copy of.
FILES: Final = {
    "etc/systemd/system/ringtun.service": "ringtun.service",
    "etc/systemd/system/ringtun.socket": "ringtun.socket",
    "etc/sysusers.d/ringtun.conf": "ringtun.sysusers",
    "etc/ringtun/driver.toml": "driver.toml",
}
RECORD: Final = "var/lib/ringtun/installed.json"

SHIPPED_PROGRAM: Final = "/usr/bin/ringtun"  # in the unit, as packages have it
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # from the service: by its unit


def runs_here() -> bool:
    """Whether systemd is this system's manager: see sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def program() -> str:
    """The ``ringtun`` of this interpreter, for the service to be started by.

    Raises ``ValueError`` where there is none that the service could see.
    """
    path = Path(sys.executable).with_name("ringtun")
    if not os.access(path, os.X_OK):
        raise ValueError(f"there is no {path}: install ringtun with pip, and run that one")
    for place in (path.parent.resolve(), Path(sys.prefix).resolve()):
        if any(place.is_relative_to(hidden) for hidden in _HIDDEN):
            raise ValueError(
                f"the service could not see {path}, which is in {place}: install ringtun where "
                "every user finds it, in /opt/ringtun say, and run that one"
            )
    if not re.fullmatch(r"[\w/.+@-]+", str(path)):
        raise ValueError(f"a unit cannot name {path}: install ringtun in a plainer place")
    return str(path)


def install(
    root: Path, *, program: str = SHIPPED_PROGRAM, managed: bool = False, dry_run: bool = False
) -> Iterator[str]:
    """Write the files below ``root``; yields a line for each thing done.

    ``managed``: have systemd take them up. With ``dry_run`` nothing is done, but said. Raises
    ``OSError``.
    """
    record = _Record(root, dry_run)
    for name, source in FILES.items():
        text = (UNITS / source).read_text().replace(f"={SHIPPED_PROGRAM} ", f"={program} ")
        yield record.write(name, text.encode())
    if managed:
        yield from _run(dry_run, "systemd-sysusers", str(root / "etc/sysusers.d/ringtun.conf"))
        yield from _run(dry_run, "systemctl", "daemon-reload")


def uninstall(root: Path, *, managed: bool = False, dry_run: bool = False) -> Iterator[str]:
    """Take away what `install` wrote below ``root`` and nobody changed; yields as that does.

    ``managed``: have systemd end the service first. Raises ``OSError``; ``FileNotFoundError`` where
    nothing was installed.
    """
    record = _Record(root, dry_run)
    if not record.files:
        raise FileNotFoundError(
            f"nothing was installed by `ringtun driver install`: there is no {root / RECORD}"
        )
    if managed:
        yield from _run(
            dry_run, "systemctl", "disable", "--now", "ringtun.socket", "ringtun.service"
        )
    for name in list(record.files):
        yield record.remove(name)
    yield from record.remove_itself()
    if managed:
        yield from _run(dry_run, "systemctl", "daemon-reload")


class _Record:
    """What was written below a root, by name: digests of files; and directories, as made."""

    def __init__(self, root: Path, dry_run: bool) -> None:
        self._root = root
        self._dry_run = dry_run
        self.files: dict[str, str] = {}
        self.directories: list[str] = []
        with suppress(FileNotFoundError):
            found = json.loads((root / RECORD).read_text())
            self.files, self.directories = found["files"], found["directories"]

    def write(self, name: str, content: bytes) -> str:
        """Write a file, unless somebody else's is there; says what was done."""
        path, digest = self._root / name, _digest(content)
        there = _digest_of(path)
        if there == digest:
            return f"is there: {path}"
        if there is not None and there != self.files.get(name):
            return f"left, since it is not as this wrote it: {path}"
        self.files[name] = digest
        self._do(lambda: self._replace(path, content))
        return f"{'written' if there is None else 'replaced'}: {path}"

    def remove(self, name: str) -> str:
        """Take a file away, unless it was changed; says what was done."""
        path, digest = self._root / name, self.files.pop(name)
        there = _digest_of(path)
        if there is None:
            return f"is gone: {path}"
        if there != digest:
            return f"left, since it was changed: {path}"
        self._do(path.unlink)
        return f"removed: {path}"

    def remove_itself(self) -> Iterator[str]:
        """The end of it, and of directories that were made for it all."""
        path = self._root / RECORD
        self._do(path.unlink)
        yield f"removed: {path}"
        for name in reversed(self.directories):
            with suppress(OSError):  # others have something in it
                self._do((self._root / name).rmdir)

    def _replace(self, path: Path, content: bytes) -> None:
        """First on record, then in place: what is there without being on record would stay."""
        record = self._root / RECORD
        self._make_directories(record.parent)
        self._make_directories(path.parent)
        document = {"files": self.files, "directories": self.directories}
        _write(record, json.dumps(document, indent=2).encode() + b"\n")
        _write(path, content)

    def _make_directories(self, path: Path) -> None:
        if path.is_dir():
            return
        self._make_directories(path.parent)
        path.mkdir()
        path.chmod(0o755)
        self.directories.append(str(path.relative_to(self._root)))

    def _do(self, work: Callable[[], object]) -> None:
        if not self._dry_run:
            work()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(content)
    new.chmod(0o644)
    new.replace(path)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest_of(path: Path) -> str | None:
    """None where there is nothing; of anything but a file, what no file has."""
    try:
        return _digest(path.read_bytes()) if not path.is_symlink() else "a link"
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        return "a directory"


def _run(dry_run: bool, *command: str) -> Iterator[str]:
    if not dry_run:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{shlex.join(command)} failed: {done.stderr.strip()}")
    yield f"run: {shlex.join(command)}"
