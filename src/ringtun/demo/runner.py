"""One run of the demonstration, from the choice of its world to the report."""

from __future__ import annotations

import time

import ringtun
from ringtun.demo import kernel, world
from ringtun.demo import memory as in_memory
from ringtun.demo.errors import NoKernelTun
from ringtun.demo.report import Observer, Report, failures

__all__ = ["run"]


def run(observer: Observer, *, seconds: float = 3.0, memory: bool = False) -> Report:
    """Measure, telling ``observer`` what happens; each TCP and UDP measurement takes ``seconds``.

    ``memory`` asks for the last resort. Otherwise this moves the process into a private world, for
    ever: call it in a process of its own, before the first thread starts. Nothing that it makes
    outlives it, nor the process.

    Raises `MeasurementError` where it broke down as a whole; a single measurement that fails is
    told in ``Report.failures``.
    """
    start = time.monotonic()
    reason = None
    try:
        if memory:
            raise NoKernelTun("--memory asks for none")
        mode = world.enter()
        measured = kernel.measure(mode, seconds, observer)
    except NoKernelTun as error:
        mode, reason = "memory", str(error)
        observer.began(mode, reason)
        measured = in_memory.measure(seconds, observer)
    return Report(
        ringtun=ringtun.__version__,
        mode=mode,
        reason=reason,
        failures=failures(measured),
        seconds=time.monotonic() - start,
        **measured,
    )
