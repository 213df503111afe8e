"""Child processes that are measured, seen from the run."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.machine import process_cpu
from benchmarks.rows import MeasurementError

__all__ = ["ROOT", "Child", "compiled", "program"]

ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT = 30.0
_END_TIMEOUT = 10.0


def compiled(name: str, *arguments: str) -> list[str]:
    """The command of a baseline in C."""
    return [str(ROOT / "build" / "bench" / name), *arguments]


def program(name: str, *arguments: str) -> list[str]:
    """The command of one of `benchmarks.programs`."""
    return [sys.executable, "-m", f"benchmarks.programs.{name}", *arguments]


class Child:
    """A process that says ``ready`` once it is, and ends at SIGTERM. The block's end ends it."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it, and wait until it is ready."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
        )
        self._unread = b""
        try:
            if self.line(_START_TIMEOUT) != "ready":
                raise self._error("did not begin with `ready`")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """CPU time so far: of all its threads, and of the processes that it started."""
        return process_cpu(self.pid)

    def tell(self, line: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    def line(self, timeout: float) -> str:
        """Its next line. Raises `MeasurementError` where none comes in so many seconds."""
        assert self._process.stdout is not None
        stdout = self._process.stdout.fileno()
        deadline = time.monotonic() + timeout
        while b"\n" not in self._unread:
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise self._error(f"said nothing for {timeout:.0f} s")
            more = os.read(stdout, 1 << 16)
            if not more:
                raise self._error(f"ended ({self._process.wait()})")
            self._unread += more
        line, self._unread = self._unread.split(b"\n", 1)
        return line.decode()

    def check(self) -> None:
        """Raises `MeasurementError` where it has ended."""
        if self._process.poll() is not None:
            raise self._error(f"ended ({self._process.returncode})")

    def _error(self, what: str) -> MeasurementError:
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        command = [Path(self._process.args[0]).name, *self._process.args[1:]]  # type: ignore
        return MeasurementError(f"`{' '.join(command)}` {what}" + (f": {words[-1]}" * bool(words)))

    def close(self) -> None:
        """End it, and wait for its end."""
        self._process.terminate()
        try:
            self._process.wait(_END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
        finally:
            with self._process:  # closes the pipes, and waits
                pass
            self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
