"""What is measured: a row is one program in one case; and what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["MeasurementError", "Row", "Sample", "Target"]

# The figures of one measurement: "value", "cpu" where there is one, and others by name.
Sample = dict[str, float]


class MeasurementError(Exception):
    """A measurement that came to nothing; the message says why."""


@dataclass(frozen=True)
class Target:
    """A limit for the median of a row's ``figure``, and the better one that is the goal.

    With ``against``, names of rows of the same case, both are factors of the highest median among
    them. With ``scale``, a row of the same case, both are for a machine where that row's median is
    ``scale_from``, and fall as it rises. With ``at_most`` less is better.
    """

    must: float
    goal: float | None = None
    figure: str = "value"
    against: tuple[str, ...] = ()
    scale: str = ""
    scale_from: float = 1.0
    at_most: bool = False


@dataclass(frozen=True)
class Row:
    """One program in one case: ``measure()`` gives a `Sample` or raises `MeasurementError`."""

    case: str
    name: str
    about: str
    """What it is, in the table's words."""
    unit: str
    measure: Callable[[], Sample]
    baseline: str = ""
    """The row of the same case of which its ratio is taken; empty: none."""
    targets: tuple[Target, ...] = ()
    cpu_unit: str = ""
    also: dict[str, str] = field(default_factory=dict)
    """Other figures of its samples that the table shows, with their units."""
    lacks: str = ""
    """Why it cannot be measured here; empty: it can."""
    ours: bool = True
    """Whether it is ringtun's, and no baseline."""
    takes: float = 1.0
    """Seconds that a measurement takes, about."""

    @property
    def id(self) -> str:
        """Its name among all rows."""
        return f"{self.case}.{self.name}"

    @property
    def references(self) -> set[str]:
        """The rows, by id, without which its figures say little."""
        names = {self.baseline} - {""}
        for target in self.targets:
            names |= {*target.against, target.scale} - {""}
        return {f"{self.case}.{name}" for name in names}
