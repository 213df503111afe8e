"""The system's own ping, and what it says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any, Final

from ringtun.demo.child import PIPES, Child, emit, python
from ringtun.demo.errors import MeasurementError
from ringtun.demo.report import NotRun, Progress, RoundTrips
from ringtun.testing.netns import NetworkNamespace

__all__ = ["measure", "parse", "run"]

_COUNT: Final = 10
_INTERVAL: Final = 0.1
_DEADLINE: Final = 3
"""Seconds; until then ping goes on where replies are missing."""
_PATIENCE: Final = 10.0

# iputils and inetutils, and busybox, which says "packets received" and "round-trip"
_COUNTED: Final = re.compile(r"^(\d+) packets transmitted, (\d+) (?:packets )?received", re.M)
_TIMES: Final = re.compile(r"min/avg/max\S* = ([\d.]+)/([\d.]+)/([\d.]+)")


def measure(
    source: NetworkNamespace, address: str, observe: Callable[[Progress], None]
) -> RoundTrips | NotRun:
    """Ping ``address`` from inside ``source``. Raises `MeasurementError` where ping cannot."""
    program = shutil.which("ping")
    if program is None:
        return NotRun("install iputils-ping")
    command = python("ringtun.demo.peer", "ping", program, address)
    with Child(source.popen(*command, **PIPES)) as peer:
        said: dict[str, Any] = {}
        while "all" not in said:
            said = peer.read(_PATIENCE)
            observe(Progress(min(1.0, said["replies"] / _COUNT), said["replies"]))
    return parse(said["all"])


def run(program: str, address: str) -> None:
    """In the peer process: run ping, which ends with it; say the replies, and then all it said."""
    command = [program, "-n", f"-c{_COUNT}", f"-i{_INTERVAL}", f"-w{_DEADLINE}", address]
    said = []
    replies = 0
    with subprocess.Popen(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "LC_ALL": "C"},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if "time=" in line:
                replies += 1
                emit(replies=replies)
    emit(replies=replies, all="".join(said))


def parse(said: str) -> RoundTrips:
    """The figures in ping's summary. Raises `MeasurementError` with what it said instead."""
    counted = _COUNTED.search(said)
    if counted is None:
        raise MeasurementError(" ".join(said.split()) or "ping said nothing")
    times = _TIMES.search(said)
    least, average, most = map(float, times.groups()) if times else (None, None, None)
    return RoundTrips(int(counted[1]), int(counted[2]), least, average, most)
