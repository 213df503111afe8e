"""Child processes that speak JSON, one object a line, and end when their parent does.

`Child` is the parent's end. The other end calls `serve` and `emit`: its standard input is a pipe
that nobody but the parent holds, so the pipe's end is the parent's, however that came about.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from ringtun.demo.errors import MeasurementError, NoKernelTun
from ringtun.errors import AdapterPermissionError, DriverUnavailable

__all__ = ["PIPES", "Child", "emit", "python", "serve"]

# A process group of its own: Ctrl-C reaches the parent alone, which ends its children.
PIPES: Final[dict[str, Any]] = {
    "stdin": subprocess.PIPE,
    "stdout": subprocess.PIPE,
    "process_group": 0,
}
_LAST_WORDS = 2.0


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs ``module`` of this package, whatever lies in the working directory."""
    return [sys.executable, "-P", "-m", module, *arguments]


class Child:
    """The parent's end of a process started with `PIPES`. The ``with`` block's end ends it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Takes ``process`` over."""
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout.fileno()
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        self._unread = b""

    def tell(self, word: str) -> None:
        """Write it a line. One that has ended already says so at the next `read`."""
        with suppress(BrokenPipeError):
            self._stdin.write(f"{word}\n")
            self._stdin.flush()

    def read(self, timeout: float) -> dict[str, Any]:
        """Its next object.

        Raises `MeasurementError` when it reports an error, ends, or takes longer than ``timeout``
        seconds; `NoKernelTun` when it was refused an adapter.
        """
        said: dict[str, Any] = json.loads(self._line(time.monotonic() + timeout))
        if "error" in said:
            raise (NoKernelTun if said["unavailable"] else MeasurementError)(said["error"])
        return said

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                raise MeasurementError("it did not come to an end in time")
            more = os.read(self._stdout, 1 << 16)
            if not more:
                status = self._process.wait()
                raise MeasurementError(f"a process of the demonstration ended ({status})")
            self._unread += more
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def close(self) -> None:
        """Close its standard input, wait for its end, and kill it where that takes too long."""
        with suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(_LAST_WORDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._process.kill()
            with self._process:  # closes the other pipe, and waits
                pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def emit(**said: object) -> None:
    """In a child: say one object to the parent. Where there is no parent any more, end."""
    try:
        os.write(1, json.dumps(said).encode() + b"\n")  # less than a pipe takes at once
    except BrokenPipeError:
        os._exit(1)


def serve(work: Callable[[], None]) -> None:
    """In a child: do ``work``; what it raises is said to the parent."""
    try:
        work()
    except Exception as error:
        refused = isinstance(error, (AdapterPermissionError, DriverUnavailable))
        emit(
            error=str(error) if refused else f"{type(error).__name__}: {error}", unavailable=refused
        )
        os._exit(1)
