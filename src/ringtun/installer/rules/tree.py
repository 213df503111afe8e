"""Trees, as tables have them: rows that name a parent each, whatever that leads to."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["roots"]


def roots(parents: Mapping[str, str]) -> dict[str, str | None]:
    """Where the way up from each key ends: at what has no parent, or None if in a circle.

    Takes each way once, so that no depth makes it slow.
    """
    ends: dict[str, str | None] = {}
    for start in parents:
        way: dict[str, None] = {}
        at = start
        while at in parents and at not in ends and at not in way:
            way[at] = None
            at = parents[at]
        end = ends.get(at, None if at in way else at)
        ends.update(dict.fromkeys(way, end))
    return ends
