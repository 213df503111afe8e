"""Two adapters back to back, and what the way between them does to packets."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ringtun.adapter import Adapter
from ringtun.control.embedded import EmbeddedAdapter
from ringtun.driver.adapter import DriverAdapter
from ringtun.host.impairment import DirectionStatistics, Impairment, terms_of
from ringtun.host.memory import link_hosts

if TYPE_CHECKING:
    from ringtun.host.memory import MemoryHost

__all__ = ["LinkStatistics", "MemoryLink", "memory_link"]


@dataclass(frozen=True, slots=True)
class LinkStatistics:
    """What the link itself did, by direction; the adapters' own statistics are apart from it."""

    to_right: DirectionStatistics
    to_left: DirectionStatistics


class MemoryLink(tuple[Adapter, Adapter]):
    """Two adapters back to back, as a pair: ``left, right = link``. Made by `memory_link`.

    Used in a ``with``, it closes both. The adapters work without it: it need not be kept.
    """

    _hosts: tuple[MemoryHost, MemoryHost]
    _lock: threading.Lock

    def __new__(cls, hosts: tuple[MemoryHost, MemoryHost]) -> Self:
        left, right = hosts
        self = super().__new__(
            cls,
            (
                Adapter(EmbeddedAdapter(DriverAdapter("left", left), left)),
                Adapter(EmbeddedAdapter(DriverAdapter("right", right), right)),
            ),
        )
        self._hosts = hosts
        self._lock = threading.Lock()
        return self

    @property
    def left(self) -> Adapter:
        """The first of the pair."""
        return self[0]

    @property
    def right(self) -> Adapter:
        """The second of the pair."""
        return self[1]

    def impair(
        self, impairment: Impairment | None = None, *, back: Impairment | None = None
    ) -> None:
        """Impair what is sent from now on, as `memory_link` does; at any time, from any thread.

        ``link.impair(Impairment(loss=1))`` is an outage, ``link.impair()`` its end. What is on its
        way keeps its time, and what is sent later stays behind it. The packets of each direction
        are numbered anew: from here on the seed decides, whatever went before.

        Raises ``TypeError`` for what is no `Impairment`, ``OSError`` where there is no descriptor
        left for a timer.
        """
        there = Impairment() if impairment is None else impairment
        back = there if back is None else back
        for wanted in (there, back):
            if not isinstance(wanted, Impairment):
                raise TypeError(f"a link takes an Impairment, or None, not {wanted!r}")
        left, right = self._hosts
        with self._lock:
            right.impair(terms_of(there, 0))
            left.impair(terms_of(back, 1))

    def statistics(self) -> LinkStatistics:
        """What happened to packets since the link was made. It may be asked after the close."""
        left, right = self._hosts
        return LinkStatistics(
            to_right=right.direction_statistics(), to_left=left.direction_statistics()
        )

    def close(self) -> None:
        """Close both adapters; what is on its way is lost. Idempotent."""
        try:
            self.left.close()
        finally:
            self.right.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<MemoryLink {self.left!r} {self.right!r}>"


def memory_link(
    impairment: Impairment | None = None, *, back: Impairment | None = None
) -> MemoryLink:
    """Two adapters back to back, in memory: what one's session sends, the other's receives.

    They have the driver, the rings and the sessions of any other adapter, and no network stack, no
    addresses. A packet for a side without a session, or with 16 MiB waiting, is dropped and counted
    as ``discards.host_queue_full`` there. Close both, or use the pair in a ``with``::

        with memory_link(Impairment(loss=0.05, delay=0.01, seed=7)) as (left, right):
            ...

    ``impairment`` is what happens to packets from left to right, and ``back`` to those from right
    to left; the same where it is not given, with random numbers of its own. None impairs nothing.

    Raises ``TypeError`` for what is no `Impairment`, and ``OSError`` where there are no descriptors
    left.
    """
    link = MemoryLink(link_hosts())
    if impairment is not None or back is not None:
        try:
            link.impair(impairment, back=back)
        except BaseException:
            link.close()
            raise
    return link
