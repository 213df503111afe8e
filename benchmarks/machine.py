"""The machine that figures are of, and what others do on it meanwhile."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import Any

__all__ = ["Usage", "describe", "process_cpu"]

_TICKS = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, Any]:
    """What a figure depends on beside the programs."""
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def process_cpu(pid: int) -> float:
    """CPU seconds of a process so far: of all its threads, and of the processes that it started."""
    own = time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3), as glibc does it
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    waited_for = (int(fields[13]) + int(fields[14])) / _TICKS  # cutime, cstime: proc_pid_stat(5)
    running = (
        process_cpu(int(child))
        for children in Path(f"/proc/{pid}/task").glob("*/children")
        for child in children.read_text().split()
    )
    return own + waited_for + sum(running)


class Usage:
    """CPU time of the whole machine, and this process's and its ended children's part of it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy, self._own = _busy(), _own()

    def others(self) -> float:
        """How many CPUs others have used since, on average; what a hypervisor took is with them."""
        used = (_busy() - self._busy) - (_own() - self._own)
        return max(0.0, used / max(time.monotonic() - self._began, 1e-9))


def _busy() -> float:
    line = Path("/proc/stat").read_text().partition("\n")[0]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
