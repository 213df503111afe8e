"""What each user may take of the driver service."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ringtun.abi import Status
from ringtun.driver.registration import Refusal
from ringtun.service.peer import Peer

__all__ = ["Kind", "Limits", "Quota"]

Kind: TypeAlias = Literal["connections", "memory", "sealed"]
_IN: dict[Kind, str] = {
    "connections": "connections",
    "memory": "bytes of rings",
    "sealed": "bytes of rings with F_SEAL_SEAL of its own",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """For each user by itself."""

    connections: int = 256
    """To all sockets together."""
    memory: int = 1 << 30
    """Bytes of the rings that are registered."""
    sealed: int = 1 << 26
    """Of these, bytes in memory whose seals the user closed: pages of it may become ours to pay."""
    adapters: int = 64
    """That the user made, and are there."""


class Quota:
    """Counts what users have; a root that is refused could help itself, so root is not counted."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._taken: Counter[tuple[int, Kind]] = Counter()

    def take(self, peer: Peer, kind: Kind, amount: int = 1) -> None:
        """So many of them more, until `give_back`. Raises `Refusal`."""
        key, limit = (peer.uid, kind), getattr(self.limits, kind)
        with self._lock:
            if peer.uid and self._taken[key] + amount > limit:
                raise Refusal(
                    Status.INSUFFICIENT_RESOURCES,
                    f"{peer} would have more than {limit} {_IN[kind]}",
                )
            self._taken[key] += amount

    def give_back(self, peer: Peer, kind: Kind, amount: int = 1) -> None:
        """So many less."""
        key = (peer.uid, kind)
        with self._lock:
            self._taken[key] -= amount
            if not self._taken[key]:
                del self._taken[key]
