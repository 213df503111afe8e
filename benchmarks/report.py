"""What the run says: how far it is, and the table at its end."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from benchmarks.rows import Row, Sample

__all__ = [
    *(
        "COLUMNS",
        "Display",
        "Pace",
        "row_cells",
        "describe",
        "make_display",
        "readable",
        "print_lacking",
    ),
    *("print_table",),
]

COLUMNS = ("row", "median", "quartiles", "", "CPU", "ratio", "must", "goal", "also")
_COLOURS = {"yes": "green", "no": "bold red", "unresolved": "yellow"}


# ---- while it runs -------------------------------------------------------------------------------


class Display(Protocol):
    """How far the run is; nothing of it runs while something is measured."""

    def begins(self, row: Row, number: int) -> None: ...
    def measured(self, row: Row, number: int, sample: Sample) -> None: ...
    def failed(self, row: Row, number: int, why: str) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Pace:
    """How much time is left of ``left`` planned seconds, by how those behind went."""

    def __init__(self, left: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._left, self._behind = left, 0.0
        self._clock, self._began = clock, clock()

    def passed(self, row: Row) -> str:
        """A measurement is behind; returns in words what is left."""
        self._behind += row.takes
        self._left = max(0.0, self._left - row.takes)
        seconds = self._left * (self._clock() - self._began) / self._behind
        if seconds >= 90:
            return f"about {seconds / 60:.0f} min left"
        return f"about {seconds:.0f} s left"


def make_display(
    console: Console, total: int, done: int, rounds: int, pace: Pace | None = None
) -> Display:
    """For a terminal a bar, otherwise a line a measurement; ``done`` of ``total`` are behind it."""
    kind = _Bar if console.is_terminal else _Lines
    return kind(console, total, done, rounds, pace or Pace(0.0))


class _Lines:
    def __init__(self, console: Console, total: int, done: int, rounds: int, pace: Pace) -> None:
        self._console, self._pace = console, pace
        self._total, self._done, self._rounds = total, done, rounds

    def begins(self, row: Row, number: int) -> None:
        pass

    def measured(self, row: Row, number: int, sample: Sample) -> None:
        self._say(row, number, f"{readable(sample['value'])} {row.unit}")

    def failed(self, row: Row, number: int, why: str) -> None:
        self._say(row, number, f"FAILED: {why}")

    def _say(self, row: Row, number: int, what: str) -> None:
        self._done += 1
        line = f"[{self._done}/{self._total}] {row.id} round {number}/{self._rounds}: {what}"
        line += f" ({self._pace.passed(row)})"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class _Bar:
    def __init__(self, console: Console, total: int, done: int, rounds: int, pace: Pace) -> None:
        self._rounds, self._pace = rounds, pace
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=total, completed=done, left="")

    def begins(self, row: Row, number: int) -> None:
        what = f"{row.id}, round {number} of {self._rounds}"
        self._progress.update(self._task, description=f"{what:42}", refresh=True)

    def measured(self, row: Row, number: int, sample: Sample) -> None:
        self._advance(row)

    def failed(self, row: Row, number: int, why: str) -> None:
        self._progress.console.print(f"[bold red]{row.id}, round {number}:[/] {escape(why)}")
        self._advance(row)

    def _advance(self, row: Row) -> None:
        self._progress.update(self._task, advance=1, left=self._pace.passed(row), refresh=True)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()


# ---- the table -----------------------------------------------------------------------------------


def print_table(console: Console, results: Sequence[dict[str, Any]], rounds: int) -> None:
    """The machine, then one line a row, in colour where the console has any."""
    if not results:
        return
    console.print(describe(results), markup=False, highlight=False, soft_wrap=True)
    lines = [COLUMNS, *(row_cells(result, rounds) for result in results)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    case = ""
    for result, line in zip([None, *results], lines, strict=True):
        if result and case not in ("", result["case"]):
            console.print()
        case = result["case"] if result else ""
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        style = _COLOURS.get(result["must"] or "") if result else None
        console.print(text.rstrip(), style=style, markup=False, highlight=False, soft_wrap=True)


def describe(results: Sequence[dict[str, Any]]) -> str:
    """The machine, in a sentence, and how much it was left alone."""
    machine = results[0]["machine"]
    others = [result["others"] for result in results if result["others"] is not None]
    busiest = max(results, key=lambda result: result["others"] or 0.0)
    fewest, most = (pick(result["rounds"] for result in results) for pick in (min, max))
    rounds = f"{fewest} to {most} rounds" if fewest < most else f"{most} round{'s' * (most > 1)}"
    return (
        f"{machine['date']}: {machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, "
        f"CPython {machine['python']}; {rounds}, {machine['seconds']:g} s a flow. "
        f"Load {machine['load']:.2f} when it began; others took {statistics.median(others):.2f} "
        f"CPUs meanwhile, at most {busiest['others']:.2f} ({busiest['case']}.{busiest['name']})."
    )


def print_lacking(console: Console, rows: Sequence[Row]) -> None:
    """Say loudly which rows cannot be measured here."""
    for row in rows:
        console.print(f"[bold red]NOT MEASURED:[/] {row.id}: {row.lacks}", soft_wrap=True)


def row_cells(result: dict[str, Any], rounds: int) -> tuple[str, ...]:
    low, high = result["quartiles"]
    fewer = f" ({result['rounds']} of {rounds} rounds)" if result["rounds"] < rounds else ""
    also = [
        f"{readable(entry['median'])} {entry['unit']}"
        for entry in result["also"].values()
        if entry["median"] or entry["unit"] != "retr"
    ]
    return (
        f"{result['case']}.{result['name']}{fewer}",
        readable(result["median"]),
        f"{readable(low)} to {readable(high)}",
        result["unit"],
        f"{readable(result['cpu'])} {result['cpu_unit']}" if result["cpu"] is not None else "",
        f"{result['ratio']:.2f} of {result['baseline']}" if result["ratio"] is not None else "",
        "; ".join(_target(target) for target in result["targets"]),
        result["goal"] or "",
        ", ".join(also),
    )


def _target(target: dict[str, Any]) -> str:
    figure = "" if target["figure"] == "value" else f"{target['figure']} "
    measured = "" if target["ratio"] is None else f"{target['ratio']:.2f} "
    sign = "≤" if target["at_most"] else "≥"
    return f"{figure}{measured}{sign}{target['must']:g} {target['must_reached'] or 'not measured'}"


def readable(value: float) -> str:
    """Three digits or so."""
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"
