"""What each user may take of the driver service."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass

from ringtun.abi import Status
from ringtun.driver.registration import Refusal
from ringtun.service.peer import Peer

__all__ = ["Limits", "Quota"]


@dataclass(frozen=True, slots=True)
class Limits:
    """For each user by itself."""

    connections: int = 256
    """To all sockets together."""
    memory: int = 1 << 30
    """Bytes of the rings that are registered."""
    adapters: int = 64
    """That the user made, and are there."""


class Quota:
    """Counts what users have; a root that is refused could help itself, so root is not counted."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._connections: Counter[int] = Counter()
        self._memory: Counter[int] = Counter()

    def connect(self, peer: Peer) -> None:
        """One connection more. Raises `Refusal`."""
        with self._lock:
            if peer.uid and self._connections[peer.uid] >= self.limits.connections:
                raise Refusal(
                    Status.INSUFFICIENT_RESOURCES,
                    f"{peer} has {self.limits.connections} connections already",
                )
            self._connections[peer.uid] += 1

    def disconnect(self, peer: Peer) -> None:
        """One connection less."""
        _less(self._lock, self._connections, peer.uid, 1)

    def take(self, peer: Peer, size: int) -> int:
        """So many bytes of ring memory more; returns ``size``. Raises `Refusal`."""
        with self._lock:
            if peer.uid and self._memory[peer.uid] + size > self.limits.memory:
                raise Refusal(
                    Status.INSUFFICIENT_RESOURCES,
                    f"the rings of {peer} would take more than {self.limits.memory} bytes",
                )
            self._memory[peer.uid] += size
        return size

    def give_back(self, peer: Peer, size: int) -> None:
        """So many bytes less."""
        _less(self._lock, self._memory, peer.uid, size)


def _less(lock: threading.Lock, counter: Counter[int], key: int, amount: int) -> None:
    with lock:
        counter[key] -= amount
        if not counter[key]:
            del counter[key]
