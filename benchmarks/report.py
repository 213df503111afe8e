"""What the run says: how far it is, and the table at its end."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.rows import Row, Sample

__all__ = ["Display", "make_display", "print_table"]

_COLUMNS = ("row", "median", "quartiles", "", "CPU", "ratio", "must", "goal", "also")
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


def make_display(console: Console, total: int, done: int, rounds: int) -> Display:
    """For a terminal a bar, otherwise a line a measurement; ``done`` of ``total`` are behind it."""
    if console.is_terminal:
        return _Bar(console, total, done, rounds)
    return _Lines(console, total, done, rounds)


class _Lines:
    def __init__(self, console: Console, total: int, done: int, rounds: int) -> None:
        self._console = console
        self._total, self._done, self._rounds = total, done, rounds

    def begins(self, row: Row, number: int) -> None:
        pass

    def measured(self, row: Row, number: int, sample: Sample) -> None:
        self._say(row, number, f"{_number(sample['value'])} {row.unit}")

    def failed(self, row: Row, number: int, why: str) -> None:
        self._say(row, number, f"FAILED: {why}")

    def _say(self, row: Row, number: int, what: str) -> None:
        self._done += 1
        line = f"[{self._done}/{self._total}] {row.id} round {number}/{self._rounds}: {what}"
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
    def __init__(self, console: Console, total: int, done: int, rounds: int) -> None:
        self._rounds = rounds
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=total, completed=done)

    def begins(self, row: Row, number: int) -> None:
        what = f"{row.id}, round {number} of {self._rounds}"
        self._progress.update(self._task, description=f"{what:42}", refresh=True)

    def measured(self, row: Row, number: int, sample: Sample) -> None:
        self._progress.update(self._task, advance=1, refresh=True)

    def failed(self, row: Row, number: int, why: str) -> None:
        self._progress.console.print(f"[bold red]{row.id}, round {number}:[/] {escape(why)}")
        self._progress.update(self._task, advance=1, refresh=True)

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
    """One line a row: with colours on a terminal, plain columns elsewhere."""
    lines = [(result, _cells(result, rounds)) for result in results]
    if not console.is_terminal:
        _print_plain(console, [cells for _, cells in lines])
        return
    table = Table()
    for column in _COLUMNS:
        table.add_column(
            column, justify="right" if column in ("median", "CPU", "ratio") else "left"
        )
    case = ""
    for result, cells in lines:
        if case not in ("", result["case"]):
            table.add_section()
        case = result["case"]
        table.add_row(
            *(escape(cell) for cell in cells), style=_COLOURS.get(result["must"] or "", "")
        )
    console.print(table)


def _print_plain(console: Console, lines: Sequence[Sequence[str]]) -> None:
    lines = [_COLUMNS, *lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    for line in lines:
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)


def _cells(result: dict[str, Any], rounds: int) -> tuple[str, ...]:
    low, high = result["quartiles"]
    fewer = f" ({result['rounds']} of {rounds} rounds)" if result["rounds"] < rounds else ""
    also = [
        f"{_number(entry['median'])} {entry['unit']}"
        for entry in result["also"].values()
        if entry["median"] or entry["unit"] != "retr"
    ]
    return (
        f"{result['case']}.{result['name']}{fewer}",
        _number(result["median"]),
        f"{_number(low)} to {_number(high)}",
        result["unit"],
        f"{_number(result['cpu'])} {result['cpu_unit']}" if result["cpu"] is not None else "",
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


def _number(value: float) -> str:
    """Three digits or so."""
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2
    return f"{value:,.{digits}f}"
