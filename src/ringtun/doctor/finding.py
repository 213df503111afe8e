"""What a check says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["OK", "PROBLEM", "WARNING", "Finding", "Status"]

Status: TypeAlias = Literal["ok", "warning", "problem"]

OK: Final = "ok"
WARNING: Final = "warning"
PROBLEM: Final = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about one thing."""

    check: str
    status: Status
    """"problem": something does not work. "warning": it works, but not well, or not for all."""
    message: str
    cure: str | None = None
    """What to do; None where there is nothing to do."""

    def as_dict(self) -> dict[str, str | None]:
        """For JSON; the names are promised."""
        return asdict(self)
