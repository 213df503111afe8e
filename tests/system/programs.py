"""Programs in processes of their own, in `tests.system.program`, and how a test talks with them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.system.sites import SOON, until

__all__ = ["ROOT", "Program", "command"]

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> list[str]:
    """The command line of a program; it is to run in `ROOT`."""
    return [sys.executable, "-W", "error", "-m", "tests.system.program", *arguments]


class Program:
    """A running program; the ``with`` block's end kills it. What it says comes line by line."""

    def __init__(self, *arguments: str, through: Sequence[str] = ()) -> None:
        """``through``: what to start it with, ``nsenter`` say, which must become it by ``exec``."""
        self._process = subprocess.Popen(
            [*through, *command(*arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # memory that is counted stays the same
        )
        assert self._process.stdout is not None
        self._stdout = self._process.stdout.fileno()
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self, timeout: float = SOON) -> str:
        """The next line of what it says, without its end; "" once it has ended."""
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self._stdout, select.POLLIN)
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            assert left > 0, f"the program says nothing; unfinished: {self._unread!r}"
            if poll.poll(left * 1000):
                more = os.read(self._stdout, 1 << 16)
                if not more:
                    break
                self._unread += more
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def tell(self, word: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, negative for a signal; raises where it does not end."""
        return self._process.wait(SOON)

    def wait_asleep(self) -> None:
        """Return once its main thread waits for something."""
        stat = Path(f"/proc/{self.pid}/task/{self.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "it does not wait")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        with self._process:  # closes its pipes, and waits
            pass
