"""The measurements through the kernel's network stack, one after the other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from ringtun.demo import ping, tcp, udp
from ringtun.demo.addresses import LEFT, RIGHT
from ringtun.demo.child import PIPES, Child, python
from ringtun.demo.errors import MeasurementError
from ringtun.demo.report import Failed, NotRun, Observer, Row, Side
from ringtun.demo.world import why_no_ipv6
from ringtun.statistics import Discards, Statistics
from ringtun.testing.netns import NetworkNamespace

__all__ = ["measure"]

_PATIENCE: Final = 10.0

_Measure = Callable[[Callable[[Any], None]], Row]


def measure(mode: str, seconds: float, observer: Observer) -> dict[str, Any]:
    """All rows of `Report` and both sides' counters, by field name; a row may have `Failed`.

    The calling process is in a private world. Raises `NoKernelTun` where no adapter can be made
    all the same, before anything is measured; `MeasurementError` where the forwarder fails.
    """
    no_ipv6 = why_no_ipv6()
    with (
        NetworkNamespace(LEFT.name) as left,
        NetworkNamespace(RIGHT.name) as right,
        Child(_start_forwarder(ipv6=no_ipv6 is None)) as forwarder,
    ):
        forwarder.read(_PATIENCE)
        observer.began(mode, None)
        rows: dict[str, Any] = {}
        for name, run in _measurements(left, right, seconds):
            if no_ipv6 is not None and name.endswith("ipv6"):
                rows[name] = NotRun(no_ipv6)
            else:
                rows[name] = _attempt(run, partial(observer.saw, name))
            observer.saw(name, rows[name])
            rows |= _counters(forwarder)
            for side in (LEFT.name, RIGHT.name):
                observer.saw(side, rows[side])
    return rows


def _start_forwarder(*, ipv6: bool) -> subprocess.Popen[str]:
    versions = ("4", "6") if ipv6 else ("4",)
    return subprocess.Popen(python("ringtun.demo.forwarder", *versions), text=True, **PIPES)


def _measurements(
    left: NetworkNamespace, right: NetworkNamespace, seconds: float
) -> Iterator[tuple[str, _Measure]]:
    yield "ping_ipv4", partial(ping.measure, left, RIGHT.ipv4)
    yield "ping_ipv6", partial(ping.measure, left, RIGHT.ipv6)
    yield "tcp_ipv4", partial(tcp.measure, left, right, RIGHT.ipv4, seconds)
    yield "tcp_ipv6", partial(tcp.measure, right, left, LEFT.ipv6, seconds)
    yield "udp_ipv4", partial(udp.measure, left, right, RIGHT.ipv4, seconds)


def _attempt(run: _Measure, observe: Callable[[Any], None]) -> Row:
    try:
        return run(observe)
    except MeasurementError as error:
        return Failed(str(error))


def _counters(forwarder: Child) -> dict[str, Side]:
    forwarder.tell("counters")
    said = forwarder.read(_PATIENCE)
    return {
        side: Side(_statistics(said[side]["adapter"]), _statistics(said[side]["session"]))
        for side in (LEFT.name, RIGHT.name)
    }


def _statistics(said: dict[str, Any]) -> Statistics:
    return Statistics(**{**said, "discards": Discards(**said["discards"])})
