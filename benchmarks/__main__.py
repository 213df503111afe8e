"""``python -m benchmarks``: measure, show the table, write the JSON and the picture."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from benchmarks import echo, forward, idle, machine, picture, report, ring
from benchmarks.child import ROOT
from benchmarks.rows import Row
from benchmarks.run import Finished, results, run, select
from ringtun.testing.netns import enter_private_world

# What the figures are of. With another content the finished rounds are of something else.
_MEASURED = (
    "src/ringtun/**/*.py",
    "src/ringtun/*.so",
    "benchmarks/c/*",
    "benchmarks/programs/*.py",
    *(f"benchmarks/{name}.py" for name in ("child", "counters", "echo", "forward", "idle", "ring")),
)


def all_rows(seconds: float) -> list[Row]:
    """Every row, in the order of the run; TCP flows take ``seconds``, the rest in proportion."""
    return [
        module_row for module in (forward, echo, ring, idle) for module_row in module.rows(seconds)
    ]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--rows", "prefixes", envvar="ROWS", default="", help="Prefixes, with commas: F.tcp,E"
)
@click.option("--rounds", envvar="ROUNDS", default=9, show_default=True, type=click.IntRange(1))
@click.option(
    "--seconds",
    default=4.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Of a TCP flow; everything else is in proportion.",
)
@click.option("--fresh", is_flag=True, help="Measure everything anew.")
@click.option("--list", "only_list", is_flag=True, help="Say what the rows are, and end.")
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the results go, the picture beside.  [default: build/bench.json]",
)
@click.option(
    "--keep",
    "keep_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where finished rounds are kept.  [default: build/bench-rounds.json]",
)
def main(
    prefixes: str,
    rounds: int,
    seconds: float,
    fresh: bool,
    only_list: bool,
    json_path: Path | None,
    keep_path: Path | None,
) -> None:
    """Measure ringtun beside its baselines."""
    console = Console()
    try:
        rows = select(all_rows(seconds), prefixes.split(","))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if only_list:
        for row in rows:
            console.print(f"{row.id:28}{row.about}", markup=False, highlight=False)
        return
    lacking = [row for row in rows if row.lacks]
    rows = [row for row in rows if not row.lacks]
    report.print_lacking(console, lacking)
    prepare()
    before = conditions(seconds)
    began = {"date": date.today().isoformat(), "load": os.getloadavg()[0]}
    keep_path = keep_path or ROOT / "build" / "bench-rounds.json"
    finished = Finished(keep_path, before, fresh=fresh, began=began)
    if finished.outdated:
        console.print("What is measured has changed since the last run: every round begins anew.")
    failures = measure(console, rows, rounds, finished)
    reports = results(rows, finished, rounds)
    json_path = json_path or ROOT / "build" / "bench.json"
    json_path.write_text(json.dumps(reports, indent=1) + "\n")
    json_path.with_suffix(".svg").write_text(picture.draw(reports))
    report.print_table(console, reports, rounds)
    report.print_lacking(console, lacking)
    if conditions(seconds) != before:
        sys.exit("What is measured was changed meanwhile: these figures are of both. Run it again.")
    if failures:
        console.print(f"{failures} measurements failed; the same command tries them again.")
        sys.exit(1)


def prepare() -> None:
    """Build the baselines, and move into a world of our own."""
    built = subprocess.run(
        ["make", "-s", "-C", str(ROOT / "benchmarks" / "c")], capture_output=True, text=True
    )
    if built.returncode:
        sys.exit(f"the baselines cannot be built:\n{built.stderr}")
    try:
        enter_private_world()
    except PermissionError as error:
        sys.exit(f"no measurement here: {error.strerror}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with every block's end


def conditions(seconds: float) -> dict[str, Any]:
    """What a figure depends on: the machine, the durations, and the content of what is measured."""
    content = hashlib.sha256()
    for path in sorted(path for pattern in _MEASURED for path in ROOT.glob(pattern)):
        content.update(path.read_bytes())
    return {
        "seconds": seconds,
        **machine.describe(),
        "content": content.hexdigest(),
    }


def measure(console: Console, rows: Sequence[Row], rounds: int, finished: Finished) -> int:
    """All rounds that are not finished; returns how many measurements failed."""
    done = sum(min(rounds, len(finished.of(row))) for row in rows)
    if done:
        console.print(f"{done} of {len(rows) * rounds} measurements are there from before.")
    load = os.getloadavg()[0]
    if load > 0.5 and done < len(rows) * rounds:
        console.print(
            f"[yellow]This machine is busy (load {load:.1f}): the figures will show it.[/]"
        )
    try:
        left = sum(row.takes * max(0, rounds - len(finished.of(row))) for row in rows)
        pace = report.Pace(left)
        with report.make_display(console, len(rows) * rounds, done, rounds, pace) as display:
            return run(rows, rounds, finished, display)
    except KeyboardInterrupt:
        console.print("\nStopped. The same command goes on from here.")
        sys.exit(130)


if __name__ == "__main__":
    main()
