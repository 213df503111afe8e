"""A driver service for tests: a process of its own, in a directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Service"]

_PATIENCE = 20.0


class Service:
    """Runs `ringtun driver`; inside the ``with`` block this process's calls find it.

    The block's end ends it, and fails where it complained.
    """

    def __init__(self, directory: Path, *arguments: str, before: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self._arguments = arguments
        self._before = before
        self._outside = os.environ.get("RINGTUN_RUNTIME_DIRECTORY")
        self.lines: list[str] = []

    def start(self) -> None:
        """Start it, and return once it serves."""
        serves = threading.Event()
        before = len(self.lines)  # of an earlier start
        command = [*self._before, sys.executable, "-W", "error", "-m", "ringtun", "driver"]
        self.process = subprocess.Popen(
            [*command, "--runtime-directory", os.fspath(self.directory), *self._arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

        def read() -> None:
            assert self.process.stderr is not None
            for line in self.process.stderr:
                self.lines.append(line.rstrip())
                if line.startswith("serving"):
                    serves.set()
            serves.set()

        self._reader = threading.Thread(target=read)
        self._reader.start()
        serves.wait(_PATIENCE)
        if not any(line.startswith("serving") for line in self.lines[before:]):
            self.stop(signal.SIGKILL)
            raise AssertionError(f"the service does not come up: {self.lines}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; returns its exit status."""
        self.process.send_signal(number)
        try:
            return self.process.wait(_PATIENCE)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            assert self.process.stderr is not None
            self.process.stderr.close()

    def holdings(self) -> tuple[list[str], int]:
        """What it has open, and how many mappings of memory that it shares."""
        process = Path("/proc", str(self.process.pid))
        opened = []
        for number in os.listdir(process / "fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                opened.append(os.readlink(process / "fd" / number))
        return sorted(opened), (process / "maps").read_text().count("/memfd:")

    def threads(self) -> int:
        """How many it has."""
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def cpu(self) -> float:
        """Seconds of processor time that it has spent."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Self:
        self.start()
        os.environ["RINGTUN_RUNTIME_DIRECTORY"] = os.fspath(self.directory)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._outside is None:
            del os.environ["RINGTUN_RUNTIME_DIRECTORY"]
        else:
            os.environ["RINGTUN_RUNTIME_DIRECTORY"] = self._outside
        if self.process.poll() is None:
            status = self.stop()
            if exc is None:
                assert status == 0, self.lines
        elif self._reader.is_alive():
            self._reader.join()
        if exc is None:
            assert not [line for line in self.lines if "Traceback" in line or "Error" in line]
