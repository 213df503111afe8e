"""Workload I: adapters that have nothing to do."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

from benchmarks.child import Child, program
from benchmarks.rows import MeasurementError, Row, Sample, Target
from ringtun.testing.netns import NetworkNamespace

__all__ = ["rows"]

_QUIET = 0.3
_AFTER_LAST_PACKET = 0.1
_PATIENCE = 30.0


def measure(pump: str, count: int, seconds: float) -> Sample:
    with NetworkNamespace("left") as left:
        # IPv6 speaks of itself: solicitations, reports. IPv4 without an address does not.
        left.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6")
        with Child(program("idle", pump, str(count), "left")) as driver:
            before = _when_quiet(driver)
            time.sleep(_AFTER_LAST_PACKET)
            switches, cpu = voluntary_switches(driver.pid), driver.cpu_seconds()
            time.sleep(seconds)
            switches = voluntary_switches(driver.pid) - switches
            cpu = driver.cpu_seconds() - cpu
            after = _count(driver)
    if after["packets"] != before["packets"]:
        raise MeasurementError("packets came: the adapters were not idle")
    return {
        "value": switches,
        "cpu": cpu * 1e3,
        "wakeups": after["wakeups"] - before["wakeups"],
        "memory": after["session_kib"],
    }


def _count(driver: Child) -> Sample:
    driver.tell("")
    said: Sample = json.loads(driver.line(_PATIENCE))
    return said


def _when_quiet(driver: Child) -> Sample:
    """What it counts once no packet has come for a while."""
    deadline = time.monotonic() + _PATIENCE
    counted = _count(driver)
    while time.monotonic() < deadline:
        time.sleep(_QUIET)
        before, counted = counted, _count(driver)
        if counted["packets"] == before["packets"]:
            return counted
    raise MeasurementError(f"packets came for {_PATIENCE:.0f} s: the adapters are not idle")


def voluntary_switches(pid: int) -> int:
    """How often the tasks of a process have waited, so far."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total


def rows(seconds: float) -> list[Row]:
    """All of them; each watches for ``seconds`` times 2.5, which is 10 s by default."""
    made = []
    for pump in ("inline", "thread"):
        for count in (1, 100):
            targets = [Target(0, figure="value", at_most=True)]
            targets.append(Target(0, figure="wakeups", at_most=True))
            also = {"wakeups": "engine wake-ups"}
            if count > 1:  # a single session finds room that an earlier one has left
                also["memory"] = "KiB a session"
                targets.append(Target(256, figure="memory", at_most=True))
                targets.append(Target(1.0, figure="cpu", against=("1",), at_most=True))
            made.append(
                Row(
                    f"I.{pump}",
                    str(count),
                    f"{count} idle, pump={pump}",
                    "waits",
                    partial(measure, pump, count, seconds * 2.5),
                    baseline="1" if count > 1 else "",
                    targets=tuple(targets),
                    cpu_unit="ms",
                    also=also,
                    takes=seconds * 2.5 + 2,
                )
            )
    return made
