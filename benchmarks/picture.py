"""The table as a picture: for each case the rows' medians, as multiples of a baseline's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any
from xml.sax.saxutils import escape

from benchmarks.report import readable

__all__ = ["draw"]

_REFERENCES = ("c-offload", "c-plain", "c-loop")  # the first that a case has is its 1.0
_LOWER_IS_BETTER = ("µs", "ns")

_WIDTH, _LABELS, _BAR = 760, 170, 440
_LINE, _THICK, _TITLE, _GAP = 18, 11, 22, 16
_OURS, _THEIRS, _INK, _GRID = "#2563a8", "#b3b3b3", "#222", "#888"
_STYLE = (
    f"text{{font:12px sans-serif;fill:{_INK}}} .title{{font-weight:bold}} .right{{text-anchor:end}}"
)

Result = dict[str, Any]


def draw(results: Sequence[Result]) -> str:
    """An SVG, one element a line. Cases without a reference of their own are left out."""
    lines: list[str] = []
    top = _GAP
    for case, of_case in groupby(results, key=lambda result: result["case"]):
        rows = list(of_case)
        reference = _reference(rows)
        if reference is None:
            continue
        rows = [row for row in rows if row["unit"] == reference["unit"]]
        lines += _panel(case, rows, reference, top)
        top += _TITLE + len(rows) * _LINE + _GAP
    size = f'width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            "<title>Medians as multiples of a baseline's; whiskers: quartiles</title>",
            f"<style>{_STYLE}</style>",
            f'<rect width="{_WIDTH}" height="{top}" fill="#fff"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _reference(rows: Sequence[Result]) -> Result | None:
    by_name = {row["name"]: row for row in rows if row["median"]}
    return next((by_name[name] for name in _REFERENCES if name in by_name), None)


def _panel(case: str, rows: Sequence[Result], reference: Result, top: int) -> Iterator[str]:
    unit = reference["median"]
    scale = _BAR / max(1.0, *(row["quartiles"][1] / unit for row in rows))
    better = "less" if reference["unit"] in _LOWER_IS_BETTER else "more"
    title = f"{case}: multiples of {reference['name']}, {better} is better"
    yield f'<text class="title" x="8" y="{top + 12}">{escape(title)}</text>'
    top += _TITLE
    for row in rows:
        yield from _bar(row, unit, scale, top)
        top += _LINE
    x = _LABELS + scale
    yield (
        f'<path d="M{x:.1f} {top - len(rows) * _LINE - 3}V{top}" stroke="{_GRID}" '
        'stroke-dasharray="3 2"/>'
    )


def _bar(row: Result, unit: float, scale: float, top: int) -> Iterator[str]:
    median, low, high = (
        value / unit * scale + _LABELS for value in (row["median"], *row["quartiles"])
    )
    middle = top + _THICK / 2
    text = top + _THICK - 1
    ratio = f"{row['median'] / unit:.2f}"
    yield f'<text class="right" x="{_LABELS - 8}" y="{text}">{escape(row["name"])}</text>'
    yield (
        f'<rect x="{_LABELS}" y="{top}" width="{median - _LABELS:.1f}" height="{_THICK}" '
        f'fill="{_OURS if row["ours"] else _THEIRS}"/>'
    )
    yield (
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {top + 2}v{_THICK - 4}'
        f'M{high:.1f} {top + 2}v{_THICK - 4}" stroke="{_INK}" fill="none"/>'
    )
    figures = escape(f"{ratio}   {readable(row['median'])} {row['unit']}")
    yield f'<text class="right" x="{_WIDTH - 8}" y="{text}">{figures}</text>'
