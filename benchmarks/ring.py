"""Workload R: one ring, Python at one end and a C loop at the other, each in its own process."""

from __future__ import annotations

import json
import subprocess
from functools import partial

from benchmarks.child import Child, compiled, program
from benchmarks.forward import uvloop_lacks
from benchmarks.rows import MeasurementError, Row, Sample, Target

__all__ = ["rows"]

_SIZES = (64, 512, 1400)
_BATCH = 256
_CAPACITY = 4 << 20
_TIMEOUT = 60.0
_SLICE_NS = 226  # of `bytes(view[a:b])`, 1,400 bytes, where the rates were set

# Name, what it is, millions of packets for 4 seconds of the run's, targets at 64 bytes.
_M = 1e6 / 4
_WAYS: list[tuple[str, str, float, tuple[Target, ...]]] = [
    (
        "untouched",
        f"peek_many({_BATCH}), release",
        4 * _M,
        (Target(0.7, 0.9, against=("c-loop",)),),
    ),
    ("views", "every view visited", 2 * _M, (Target(3, 6, scale="slice", scale_from=_SLICE_NS),)),
    ("pop", "pop, bytes", 1 * _M, (Target(1.5, 3, scale="slice", scale_from=_SLICE_NS),)),
    ("write", "write, bytes", 1 * _M, (Target(1.5, 3, scale="slice", scale_from=_SLICE_NS),)),
    ("push-list", f"push_many, a list of {_BATCH}", 2 * _M, ()),
    ("push-batch", f"push_many, a batch of {_BATCH}", 4 * _M, ()),
    ("both", "write and pop in one thread, in turns", 1 * _M, ()),
    ("both-batches", f"push_many and peek_many in one thread, {_BATCH} in turns", 4 * _M, ()),
    ("asyncio", "a session's task, packet by packet", 1 * _M, ()),
    ("asyncio-batches", f"a session's task, batches of {_BATCH}", 4 * _M, ()),
    ("uvloop", "the same in uvloop, packet by packet", 1 * _M, ()),
]
_PROGRAMS = {  # other than `ring`, with the way's name
    "asyncio": ("ring_asyncio", "asyncio", "receive"),
    "asyncio-batches": ("ring_asyncio", "asyncio", "batches"),
    "uvloop": ("ring_asyncio", "uvloop", "receive"),
}


def measure_loop(size: int, packets: int) -> Sample:
    command = compiled(
        "ring_peer", "both", f"--capacity={_CAPACITY}", f"--size={size}", f"--packets={packets}",
        f"--batch={_BATCH}",
    )  # fmt: skip
    try:
        said = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=_TIMEOUT
        ).stdout
    except subprocess.SubprocessError as error:
        raise MeasurementError(f"ring_peer: {error}") from None
    report = json.loads(said)
    return {"value": report["packets"] / report["seconds"] / 1e6}


def measure_way(way: str, size: int, packets: int) -> Sample:
    return {"value": _ask(way, size, packets)["rate"] / 1e6}


def measure_slice(count: int) -> Sample:
    return {"value": _ask("slice", 1400, count)["ns"]}


def _ask(way: str, size: int, packets: int) -> Sample:
    command = _PROGRAMS.get(way, ("ring", way))
    with Child(program(*command, str(size), str(packets), str(_BATCH))) as side:
        side.tell("go")
        said: Sample = json.loads(side.line(_TIMEOUT))
        return said


def rows(seconds: float) -> list[Row]:
    """All of them, of so many packets that the slowest takes a fraction of ``seconds``."""
    made: list[Row] = []
    for size in _SIZES:
        case = f"R.{size}"
        packets = max(1000, round(4 * _M * seconds))
        made.append(
            Row(
                case,
                "c-loop",
                f"{size} bytes: C at both ends, batches of {_BATCH}",
                "Mpkt/s",
                partial(measure_loop, size, packets),
                ours=False,
            )
        )
        made.append(
            Row(
                case,
                "slice",
                "bytes(view[a:b]), 1400 bytes",
                "ns",
                partial(measure_slice, max(1000, round(_M / 4 * seconds))),
                ours=False,
            )
        )
        made.extend(
            Row(
                case,
                name,
                f"{size} bytes: {about}",
                "Mpkt/s",
                partial(measure_way, name, size, max(1000, round(rate * seconds))),
                baseline="c-loop",
                targets=targets if size == 64 else (),
                lacks=uvloop_lacks() if name == "uvloop" else "",
            )
            for name, about, rate, targets in _WAYS
        )
    return made
