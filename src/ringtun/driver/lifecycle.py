"""The life of an adapter in the driver, as a table."""

from __future__ import annotations

import enum

__all__ = ["AdapterState", "LifeEvent", "next_state"]


class AdapterState(enum.Enum):
    """Where an adapter is in its life."""

    CREATED = "created"
    """No rings have been registered yet; the link has no carrier."""
    CONNECTED = "connected"
    """A client's rings are registered; the link has a carrier."""
    DISCONNECTED = "disconnected"
    """The last registration has ended; the next one is welcome."""
    REMOVED = "removed"
    """The interface is gone, for good."""


class LifeEvent(enum.Enum):
    """What happens to an adapter."""

    REGISTERED = "rings were registered"
    RELEASED = "the handle that registered rings was closed"
    REMOVED = "the interface is gone"


_NEXT = {
    (AdapterState.CREATED, LifeEvent.REGISTERED): AdapterState.CONNECTED,
    (AdapterState.DISCONNECTED, LifeEvent.REGISTERED): AdapterState.CONNECTED,
    (AdapterState.CONNECTED, LifeEvent.RELEASED): AdapterState.DISCONNECTED,
    (AdapterState.CREATED, LifeEvent.REMOVED): AdapterState.REMOVED,
    (AdapterState.CONNECTED, LifeEvent.REMOVED): AdapterState.REMOVED,
    (AdapterState.DISCONNECTED, LifeEvent.REMOVED): AdapterState.REMOVED,
    (AdapterState.REMOVED, LifeEvent.RELEASED): AdapterState.REMOVED,
    (AdapterState.REMOVED, LifeEvent.REMOVED): AdapterState.REMOVED,
}


def next_state(state: AdapterState, event: LifeEvent) -> AdapterState | None:
    """The state after ``event``; None where the event cannot happen in ``state``."""
    return _NEXT.get((state, event))
