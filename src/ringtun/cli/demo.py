"""``ringtun demo``: what is measured in `ringtun.demo`, shown as it happens."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import closing
from types import FrameType
from typing import TYPE_CHECKING

import click

from ringtun import __version__
from ringtun.cli import fail
from ringtun.demo import run, words
from ringtun.demo.errors import MeasurementError
from ringtun.demo.report import NotRun, Progress, Report, Row, Side

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["demo"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document, and nothing else.")
@click.option(
    "--seconds",
    type=click.FloatRange(0.2, 60),
    default=3.0,
    show_default=True,
    help="Length of each TCP and UDP measurement.",
)
@click.option("--memory", is_flag=True, help="Do without the kernel, as where it has no TUN.")
def demo(as_json: bool, seconds: float, memory: bool) -> None:
    """Show ringtun at work on this machine, in under half a minute.

    Two network namespaces, an adapter in each, and a small Python program that forwards packets
    between their sessions; across it go the system's ping, TCP transfers and a UDP stream. Root is
    not needed where the system lets users make user namespaces. Where there is no kernel TUN, it
    runs in memory and says why. Nothing of it is left when it ends.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    with closing(_display(as_json)) as display:
        report = run(display, seconds=seconds, memory=memory)
        display.ended(report)
    if report.failures:
        fail(MeasurementError(words.failed(report)))


def _end(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C, everything cleaned up."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _display(as_json: bool) -> _Document:
    if as_json:
        return _Document()
    if sys.stdout.isatty() and os.environ.get("TERM") != "dumb":
        return _LiveTable()
    return _Lines()


class _Document:
    """The JSON document, at the end; and what the other displays start from."""

    def began(self, mode: str, reason: str | None) -> None:
        """See `ringtun.demo.report.Observer`."""

    def saw(self, name: str, what: Progress | Row | Side) -> None:
        """See `ringtun.demo.report.Observer`."""

    def ended(self, report: Report) -> None:
        """All has been measured and cleaned up."""
        click.echo(json.dumps(report.as_dict(), indent=2))

    def close(self) -> None:
        """Nothing more will be shown."""


class _Lines(_Document):
    """A line for each result, as soon as it is there."""

    def began(self, mode: str, reason: str | None) -> None:
        """Say where it runs."""
        click.echo(f"ringtun {__version__}. {words.setting(mode, reason)}")

    def saw(self, name: str, what: Progress | Row | Side) -> None:
        """Say a result; progress, and counters that still change, are left out."""
        if not isinstance(what, (Progress, Side)):
            self._line(words.LABELS[name], words.result(what))

    def ended(self, report: Report) -> None:
        """Say the counters and the end."""
        for side in ("left", "right"):
            for label, text in words.counters(side, getattr(report, side)).items():
                self._line(label, text)
        click.echo(words.end(report))

    def _line(self, label: str, text: str) -> None:
        click.echo(f"{label:<{words.LABEL_WIDTH}}  {text}")


class _LiveTable(_Document):
    """On a terminal: a table that fills while it runs, and stays as the summary."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        # It refreshes itself only when told to: a thread would keep us out of a private world.
        self._live = Live(console=self._console, auto_refresh=False)
        self._cells: dict[str, RenderableType] = {}

    def began(self, mode: str, reason: str | None) -> None:
        """Say where it runs, and start the table."""
        self._console.print(f"ringtun {__version__}. {words.setting(mode, reason)}", markup=False)
        self._live.start()

    def saw(self, name: str, what: Progress | Row | Side) -> None:
        """Fill a cell."""
        if isinstance(what, Side):
            self._cells |= words.counters(name, what)
        else:
            self._cells[words.LABELS[name]] = _cell(name, what)
        self._live.update(self._table(), refresh=True)

    def ended(self, report: Report) -> None:
        """Leave the table, and say the end."""
        self._live.stop()
        self._console.print(words.end(report), markup=False)

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(show_header=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        for label in words.LABELS.values():
            if label in self._cells:
                table.add_row(label, self._cells[label])
        return table


def _cell(name: str, what: Progress | Row) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if not isinstance(what, Progress):
        return Text(words.result(what), style=_style(what))
    cell = Table.grid(padding=(0, 2))
    cell.add_row(ProgressBar(total=1.0, completed=what.part, width=30), words.progress(name, what))
    return cell


def _style(row: Row) -> str:
    if isinstance(row, NotRun):
        return "yellow"
    return "" if row.failure() is None else "bold red"
