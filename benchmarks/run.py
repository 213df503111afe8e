"""The run: which rows, in which order, kept where; and what their figures come to."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import Usage
from benchmarks.rows import MeasurementError, Row, Sample, Target

__all__ = [
    "Finished",
    "Summary",
    "Watcher",
    "judge",
    "result",
    "results",
    "run",
    "select",
    "summarize",
]


# ---- which rows ----------------------------------------------------------------------------------


def select(rows: Sequence[Row], prefixes: Iterable[str]) -> list[Row]:
    """The rows whose id begins with one of the prefixes, and those that they are compared to.

    No prefix is all rows. Raises ``ValueError`` for a prefix that fits none.
    """
    prefixes = [prefix.strip() for prefix in prefixes if prefix.strip()]
    for prefix in prefixes:
        if not any(row.id.startswith(prefix) for row in rows):
            raise ValueError(f"no row's name begins with {prefix!r}")
    chosen = {row.id for row in rows if not prefixes or row.id.startswith(tuple(prefixes))}
    chosen |= {reference for row in rows if row.id in chosen for reference in row.references}
    return [row for row in rows if row.id in chosen]


# ---- finished rounds -----------------------------------------------------------------------------


class Finished:
    """The samples of finished rounds, in a file, so that a stopped run goes on where it was.

    ``conditions`` says what the samples are of; a file with others is left behind, which
    ``outdated`` then says. ``began`` is what there was to say when the first of them was taken.
    """

    def __init__(
        self,
        path: Path,
        conditions: dict[str, Any],
        *,
        fresh: bool = False,
        began: dict[str, Any] | None = None,
    ) -> None:
        self._path = path
        self.began = began or {}
        self.conditions = conditions
        self._samples: dict[str, list[Sample]] = {}
        self.outdated = False
        if not fresh and path.exists():
            kept = json.loads(path.read_text())
            self.outdated = kept["conditions"] != conditions
            if not self.outdated:
                self._samples = kept["samples"]
                self.began = kept["began"]

    def of(self, row: Row) -> list[Sample]:
        """The row's samples so far, in the order of their rounds."""
        return self._samples.get(row.id, [])

    def add(self, row: Row, sample: Sample) -> None:
        """Keep one more, on disk before this returns."""
        self._samples.setdefault(row.id, []).append(sample)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._path.with_suffix(".new")
        kept = {"conditions": self.conditions, "began": self.began, "samples": self._samples}
        fresh.write_text(json.dumps(kept))
        os.replace(fresh, self._path)


# ---- the run -------------------------------------------------------------------------------------


class Watcher(Protocol):
    """Who is told how far the run is."""

    def begins(self, row: Row, number: int) -> None: ...
    def measured(self, row: Row, number: int, sample: Sample) -> None: ...
    def failed(self, row: Row, number: int, why: str) -> None: ...


def schedule(rows: Sequence[Row], rounds: int) -> Iterator[tuple[Row, int]]:
    """Each row as often as there are rounds: case after case, the rows of a case in turn."""
    for _, of_case in groupby(rows, key=lambda row: row.case):
        group = list(of_case)
        for number in range(1, rounds + 1):
            for row in group:
                yield row, number


def run(rows: Sequence[Row], rounds: int, finished: Finished, watcher: Watcher) -> int:
    """Measure what is not finished. Returns how many measurements failed."""
    failures = 0
    for row, number in schedule(rows, rounds):
        if len(finished.of(row)) >= number:
            continue
        watcher.begins(row, number)
        usage = Usage()
        try:
            sample = row.measure()
        except MeasurementError as error:
            failures += 1
            watcher.failed(row, number, str(error))
        else:
            sample["others"] = usage.others()
            finished.add(row, sample)
            watcher.measured(row, number, sample)
    return failures


# ---- what the figures come to --------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """The middle of some figures, and between which two their middle half lies."""

    median: float
    quartiles: tuple[float, float]

    @property
    def spread(self) -> float:
        """The interquartile range."""
        low, high = self.quartiles
        return high - low


def summarize(figures: Sequence[float]) -> Summary:
    """The median and quartiles of at least one figure."""
    if len(figures) == 1:
        return Summary(figures[0], (figures[0], figures[0]))
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
    return Summary(median, (low, high))


def judge(value: float, limit: float, *, at_most: bool, spread: float) -> str:
    """Whether a limit is reached: "yes", "no", or "unresolved" where it is missed by less than
    ``spread``, which is how far the figures that made the limit lie apart themselves.
    """
    miss = value - limit if at_most else limit - value
    if miss <= 0:
        return "yes"
    return "unresolved" if miss < spread else "no"


Summaries = dict[str, dict[str, Summary]]
"""Of each row, by id, of each figure."""


def results(rows: Sequence[Row], finished: Finished, rounds: int) -> list[dict[str, Any]]:
    """The report on each row that was measured, of its first ``rounds`` samples; plain data."""
    machine = finished.conditions | finished.began
    summaries: Summaries = {}
    for row in rows:
        samples = finished.of(row)[:rounds]
        if samples:
            summaries[row.id] = {
                figure: summarize([sample[figure] for sample in samples]) for figure in samples[0]
            }
    return [
        result(row, summaries) | {"rounds": len(finished.of(row)[:rounds]), "machine": machine}
        for row in rows
        if row.id in summaries
    ]


def result(row: Row, summaries: Summaries) -> dict[str, Any]:
    """The report on one row."""
    figures = summaries[row.id]
    value = figures["value"]
    baseline = summaries.get(f"{row.case}.{row.baseline}", {}).get("value")
    targets = [_judged(row, target, summaries) for target in row.targets]
    return {
        "case": row.case,
        "name": row.name,
        "about": row.about,
        "ours": row.ours,
        "median": value.median,
        "quartiles": list(value.quartiles),
        "unit": row.unit,
        "cpu": figures["cpu"].median if "cpu" in figures else None,
        "cpu_unit": row.cpu_unit,
        "also": {
            name: {"median": figures[name].median, "unit": unit} for name, unit in row.also.items()
        },
        "baseline": row.baseline or None,
        "ratio": value.median / baseline.median if baseline and baseline.median else None,
        "targets": targets,
        "must": _worst(target["must_reached"] for target in targets),
        "goal": _worst(target["goal_reached"] for target in targets),
        "others": figures["others"].median if "others" in figures else None,
    }


def _judged(row: Row, target: Target, summaries: Summaries) -> dict[str, Any]:
    own = summaries[row.id][target.figure].median
    unit, spread = _unit(row, target, summaries)
    reached: dict[str, str | None] = {"must": None, "goal": None}
    for name, factor in (("must", target.must), ("goal", target.goal)):
        if unit is not None and factor is not None:
            reached[name] = judge(own, factor * unit, at_most=target.at_most, spread=spread)
    return {
        "figure": target.figure,
        "against": list(target.against),
        "at_most": target.at_most,
        "must": target.must,
        "goal": target.goal,
        "unit": unit,
        "ratio": own / unit if unit else None,
        "must_reached": reached["must"],
        "goal_reached": reached["goal"],
    }


def _unit(row: Row, target: Target, summaries: Summaries) -> tuple[float | None, float]:
    """What a target's numbers are factors of, and the spread of that; None: it was not measured."""
    if target.against:
        others = [
            summaries[f"{row.case}.{name}"][target.figure]
            for name in target.against
            if f"{row.case}.{name}" in summaries
        ]
        best = max(others, key=lambda other: other.median, default=None)
        return (best.median, best.spread) if best else (None, 0.0)
    if target.scale:
        scale = summaries.get(f"{row.case}.{target.scale}")
        return (target.scale_from / scale["value"].median if scale else None), 0.0
    return 1.0, 0.0


def _worst(reached: Iterable[str | None]) -> str | None:
    """One word for several targets; None: there is nothing to say."""
    words = set(reached)
    return next((word for word in ("no", "unresolved", "yes") if word in words), None)
