"""``python -m benchmarks.page``: put the figures of a run into ``docs/benchmarks.md``.

Everything between the page's two markers is replaced, and the picture beside the page. Why a row
does not win is for the page to say: in an item of a list that begins with names of rows, as in
``- **`F.*.packet`**, **`R.64.pop`**:``. Rows that have none are named, and the exit status is 1.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

import click

from benchmarks.child import ROOT
from benchmarks.picture import draw
from benchmarks.report import COLUMNS, describe, row_cells

__all__ = ["insert", "make_table", "unexplained", "wins"]

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
_EXPLAINED = re.compile(r"^- ((?:\*\*`[^`]+`\*\*(?:,\s+)?)+)", re.MULTILINE)
_LOWER_IS_BETTER = ("µs", "ns")

Result = dict[str, Any]


def make_table(results: Sequence[Result]) -> str:
    """The machine, the picture, and a table for each case."""
    most = max(result["rounds"] for result in results)
    lines = [describe(results), "", "![Each row beside its baseline](benchmarks.svg)"]
    for case, of_case in groupby(results, key=lambda result: result["case"]):
        lines += ["", f"**{case}**", "", f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        lines += [f"| {' | '.join(row_cells(result, most))} |" for result in of_case]
    return "\n".join(lines)


def insert(page: str, table: str) -> str:
    """The page with the table between its markers. Raises ``ValueError`` where they are not."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has to have {BEGIN!r} and {END!r} in it")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def wins(result: Result) -> bool:
    """Whether a row of ours is where it should be: its targets reached, or, without any, ahead."""
    if result["must"] is not None:
        return result["must"] == "yes"  # type: ignore[no-any-return]
    if result["ratio"] is None:
        return True
    behind = result["ratio"] > 1 if result["unit"] in _LOWER_IS_BETTER else result["ratio"] < 1
    return not behind


def unexplained(page: str, results: Sequence[Result]) -> list[str]:
    """The rows of ours that do not win, and that the page says nothing about."""
    names = [name for entry in _EXPLAINED.findall(page) for name in re.findall(r"`([^`]+)`", entry)]
    losing = [
        f"{result['case']}.{result['name']}"
        for result in results
        if result["ours"] and not wins(result)
    ]
    return [row for row in losing if not any(fnmatchcase(row, name) for name in names)]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument(
    "json_path",
    default=ROOT / "build" / "bench.json",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)
@click.option(
    "--page",
    "page_path",
    default=ROOT / "docs" / "benchmarks.md",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The page.  [default: docs/benchmarks.md]",
)
def main(json_path: Path, page_path: Path) -> None:
    """Put the figures of a run (build/bench.json) into docs/benchmarks.md."""
    results = json.loads(json_path.read_text())
    page = insert(page_path.read_text(), make_table(results))
    page_path.write_text(page)
    page_path.with_suffix(".svg").write_text(draw(results))
    silent = unexplained(page, results)
    if silent:
        sys.exit(f"{page_path.name} does not say why these do not win: {', '.join(silent)}")


if __name__ == "__main__":
    main()
