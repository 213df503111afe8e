"""Workload E: UDP requests and pings through an adapter that a program answers.

Who asks and who answers run on one CPU, or each on its own: two cases, because the kernel's choice
between them changes a round trip far more than the program does. On one CPU nobody waits, so the
program's own cost shows; on two a round trip is mostly the wake-up of an idle CPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import partial

from benchmarks.child import Child, compiled, program
from benchmarks.forward import PYTUNS, configure, pytun_lacks, uvloop_lacks
from benchmarks.rows import MeasurementError, Row, Sample, Target
from benchmarks.run import summarize
from ringtun.testing.netns import NetworkNamespace

__all__ = ["rows"]

_HERE, _BEHIND = "10.98.0.1/24", "10.98.0.2"
_ROUND_TRIPS_A_SECOND = 500  # of the run's `seconds`: 2,000 by default
_TARGETS = {
    "inline": (Target(1.6, 1.25, against=("c-plain",), at_most=True),),
    "service": (Target(3.0, 2.0, against=("c-plain",), at_most=True),),
}
_TIME = re.compile(r"time=([0-9.]+) ms")

Ask = Callable[[NetworkNamespace, int, int], list[float]]
"""In a namespace, so many times, on a CPU."""


def ask_udp(namespace: NetworkNamespace, count: int, cpu: int) -> list[float]:
    """Round trips of datagrams of 64 bytes, in µs."""
    report = json.loads(_run(namespace, count, cpu, *compiled("ask", _BEHIND, "7", str(count))))
    return list(report["us"])


def ask_ping(namespace: NetworkNamespace, count: int, cpu: int) -> list[float]:
    """Round trips of ``ping``, one after the other, in µs; the first tenth is a warm-up."""
    warm_up = count // 10
    said = _run(namespace, count, cpu, "ping", "-n", "-A", "-c", str(count + warm_up), _BEHIND)
    return [float(time) * 1e3 for time in _TIME.findall(said)][warm_up:]


def on_cpu(cpu: int, *command: str) -> list[str]:
    """The command, all its threads on one CPU."""
    return ["taskset", "-c", str(cpu), *command]


def _run(namespace: NetworkNamespace, count: int, cpu: int, *command: str) -> str:
    try:
        return namespace.run(*on_cpu(cpu, *command), timeout=20 + count / 100).stdout
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{command[0]} did not come to an end") from None
    except subprocess.CalledProcessError as error:
        raise MeasurementError(f"{command[0]}: {error.stderr.strip() or 'no answers'}") from None


def measure(ask: Ask, command: list[str], count: int, apart: bool) -> Sample:
    cpus = sorted(os.sched_getaffinity(0))
    asking, answering = cpus[0], cpus[1] if apart else cpus[0]
    with NetworkNamespace("left") as left, Child(on_cpu(answering, *command)) as answerer:
        configure(left, _HERE)
        before = answerer.cpu_seconds()
        times = sorted(ask(left, count, asking))
        answerer.check()
        cpu = answerer.cpu_seconds() - before
    if len(times) < count * 0.9:
        raise MeasurementError(f"{count - len(times)} of {count} were not answered")
    return {
        "value": summarize(times).median,
        "p99": times[len(times) * 99 // 100],
        "cpu": cpu / (count * 1.1) * 1e6,
        "lost": count - len(times),
    }


def rows(seconds: float) -> list[Row]:
    """All of them; about 500 round trips for each of ``seconds``."""
    count = max(20, round(seconds * _ROUND_TRIPS_A_SECOND))
    ping_lacks = "" if shutil.which("ping") else "install iputils-ping"
    apart_lacks = "" if len(os.sched_getaffinity(0)) > 1 else "this needs two CPUs"
    cases: list[tuple[str, str, Ask, bool, str]] = [
        ("E.udp-same", "UDP round trip, one CPU", ask_udp, False, ""),
        ("E.udp-apart", "UDP round trip, two CPUs", ask_udp, True, apart_lacks),
        ("E.ping-same", "ping, one CPU", ask_ping, False, ping_lacks),
        ("E.ping-apart", "ping, two CPUs", ask_ping, True, ping_lacks or apart_lacks),
    ]
    programs = [
        ("c-plain", "C, read and write", compiled("echo", "left"), ""),
        ("python-os", "Python, os.read/os.write", program("echo_os", "left"), ""),
        *(
            (name, name, program("echo_pytun", package, "left"), pytun_lacks(name))
            for name, package in PYTUNS.items()
        ),
        ("inline", "ringtun", program("echo_ringtun", "inline", "left"), ""),
        ("thread", "ringtun, threads", program("echo_ringtun", "thread", "left"), ""),
        ("service", "ringtun, through the service", program("echo_ringtun", "service", "left"), ""),
        ("asyncio", "ringtun in asyncio", program("echo_asyncio", "asyncio", "left"), ""),
        ("uvloop", "ringtun in uvloop", program("echo_asyncio", "uvloop", "left"), uvloop_lacks()),
    ]
    return [
        Row(
            case,
            name,
            f"{what}: {about}",
            "µs",
            partial(measure, ask, command, count, apart),
            baseline="c-plain" if name != "c-plain" else "",
            # A ping of two or three whole microseconds is too coarse to take a ratio of.
            targets=_TARGETS.get(name, ()) if case != "E.ping-same" else (),
            cpu_unit="µs each",
            also={"p99": "µs p99"},
            lacks=lacks or lacks_too,
            ours=name not in ("c-plain", "python-os", *PYTUNS),
            takes=0.8 + count * 1.1 * (8e-5 if apart else 2e-5),
        )
        for case, what, ask, apart, lacks in cases
        for name, about, command, lacks_too in programs
    ]
