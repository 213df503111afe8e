"""The two ends, and their addresses. They are seen in the demonstration's own world alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ADAPTER", "LEFT", "RIGHT", "End"]

ADAPTER: Final = "ringtun0"


@dataclass(frozen=True, slots=True)
class End:
    """One end: the name of its network namespace, and its addresses."""

    name: str
    ipv4: str
    ipv6: str

    @property
    def interfaces(self) -> dict[int, str]:
        """The addresses with their prefixes, for an adapter, by version of IP."""
        return {4: f"{self.ipv4}/24", 6: f"{self.ipv6}/64"}


LEFT: Final = End("left", "10.7.0.1", "fd07::1")
RIGHT: Final = End("right", "10.7.0.2", "fd07::2")
