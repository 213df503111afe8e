"""A Windows of one's own to install on: a Wine prefix, gone afterwards with all that it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Final

__all__ = ["SUCCESS", "Outcome", "Windows", "why_not"]

SUCCESS: Final = 0
TIMEOUT: Final = 120  # seconds for what takes one
STATUS: Final = "status.cmd"
# A program's exit status has 8 bits here, and a batch file's line %errorlevel% all of them.
BATCH: Final = "@%*\r\n@echo %errorlevel% > C:\\status.txt\r\n"
UNINSTALL: Final = r"HKLM\Software\Microsoft\Windows\CurrentVersion\Uninstall"
VALUE: Final = re.compile(r" {4}(.*?) {4}REG_\w+ {4}(.*)")
# What belongs to Windows, and what Windows Installer keeps for itself.
_OF_WINDOWS: Final = ("windows", "users")


def why_not() -> str:
    """Why there is no Windows here; empty where there is one."""
    missing = [name for name in ("wine", "wineboot", "wineserver") if shutil.which(name) is None]
    return f"no {', '.join(missing)} here: apt-get install wine wine64" if missing else ""


@dataclass(frozen=True)
class Outcome:
    """How a program of Windows ended: its status, all 32 bits of it, and msiexec's log."""

    status: int
    log: str

    @property
    def last_action(self) -> str:
        """The last action that was begun."""
        begun: list[str] = re.findall(r"^Action start [0-9:]+: (\S+)\.$", self.log, re.M)
        return begun[-1]

    def said(self, who: str) -> list[str]:
        """The lines of the log that begin with these words, and what is in them after that."""
        return [line.removeprefix(who) for line in self.log.splitlines() if line.startswith(who)]


class Windows:
    """A Wine prefix in a directory, up until it is closed."""

    def __init__(self, directory: Path) -> None:
        self._home = directory
        self.drive = directory / "prefix/drive_c"
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.fspath(directory),
            "LANG": "C.UTF-8",
            "WINEPREFIX": os.fspath(directory / "prefix"),
            "WINEDEBUG": "-all",
            # No browser, no .NET, and nothing that asks to install them.
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
        }
        try:
            self._quietly("wine", "wineboot", "-i")
            self._quietly("wineserver", "-w")
            self._quietly("wine", "winecfg", "-v", "win10")
            (self.drive / STATUS).write_bytes(BATCH.encode())
            self._at_first = self._names()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End all that runs in it, and take it away."""
        for argument in ("-k", "-w"):
            self._run("wineserver", argument)
        shutil.rmtree(self._home / "prefix")

    def run(self, program: str | Path, *arguments: str) -> int:
        """Run a program to its end; its exit status. A path of this system is one of Windows."""
        status = self.drive / "status.txt"
        status.unlink(missing_ok=True)
        self._run("wine", "cmd", "/c", f"C:\\{STATUS}", self.name(program), *arguments)
        return int(status.read_text())

    def msiexec(self, *arguments: str | Path) -> Outcome:
        """Run Windows Installer without a window, and with a log of everything."""
        log = self.drive / "msi.log"
        log.unlink(missing_ok=True)
        words = [a if isinstance(a, str) else self.name(a) for a in arguments]
        status = self.run("msiexec", *words, "/qn", "/l*v", r"C:\msi.log")
        raw = log.read_bytes() if log.exists() else b""
        return Outcome(status, raw.decode("utf-16" if raw[:2] == b"\xff\xfe" else "utf-8"))

    def name(self, path: str | Path) -> str:
        """What a path of this system is called there; text stays what it is."""
        return path if isinstance(path, str) else str(PureWindowsPath("Z:", path.absolute()))

    def files(self) -> dict[str, bytes]:
        """The files that were not there at first, without those of Windows itself, by name."""
        return {
            name: (self.drive / name).read_bytes()
            for name in sorted(self._names() - self._at_first)
            if (self.drive / name).is_file()
        }

    def folders(self) -> set[str]:
        """The folders that were not there at first."""
        return {n for n in self._names() - self._at_first if (self.drive / n).is_dir()}

    def registry(self, key: str) -> dict[str, dict[str, str]]:
        """The keys at and below this one, with their values; empty where there is no such key."""
        done = self._run("wine", "reg", "query", key, "/s")
        found: dict[str, dict[str, str]] = {}
        values: dict[str, str] = {}
        for line in done.stdout.splitlines() if not done.returncode else ():
            if line.startswith("HKEY_"):
                values = found[line.replace("HKEY_LOCAL_MACHINE", "HKLM")] = {}
            elif match := VALUE.fullmatch(line):
                values[match[1].strip()] = match[2]
        return found

    def products(self) -> dict[str, str]:
        """The list of programs: name and version."""
        keys = self.registry(UNINSTALL).values()
        return {key["DisplayName"]: key["DisplayVersion"] for key in keys if "DisplayName" in key}

    def left(self) -> list[str]:
        """What was not there at first: files, folders, and what is in the list of programs."""
        return sorted({*(self._names() - self._at_first), *self.products()})

    def _names(self) -> set[str]:
        return {
            os.fspath(path.relative_to(self.drive))
            for top in self.drive.iterdir()
            if top.name not in _OF_WINDOWS and top.is_dir()
            for path in (top, *top.rglob("*"))
        }

    def _quietly(self, *command: str) -> None:
        done = self._run(*command)
        if done.returncode:
            raise OSError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command. Its output goes to a file: what stays in the background may keep it."""
        with open(self._home / "output", "w+") as output:
            done = subprocess.run(
                command,
                *(0, None, subprocess.DEVNULL, output, subprocess.STDOUT),
                env=self._environment,
                cwd=self._home,
                timeout=TIMEOUT,
            )
            output.seek(0)
            return subprocess.CompletedProcess(command, done.returncode, output.read())
