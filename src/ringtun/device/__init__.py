"""How a session reaches a driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ringtun._native import Batch, Space
    from ringtun.abi import Options, RegisterRings
    from ringtun.errors import EndReason
    from ringtun.statistics import Statistics

__all__ = ["Device"]


class Device(Protocol):
    """An open handle on an adapter's device. Closing it ends what was registered on it."""

    name: str
    """The adapter's, for messages."""
    to_client_space: Space | None
    """By which the driver learns of room in the to_client ring; None: it looks by itself."""
    to_host_space: Space | None
    """By which a client learns of room in the to_host ring; None: there is nobody to wait for."""
    host_fd: int | None
    """With an inline engine, what to wait for beside the events: the host's descriptor."""

    def set_options(self, options: Options) -> None:
        """Ask for options of the session, before its rings are registered.

        Raises `DriverUnavailable` where the driver or the adapter cannot serve them.
        """

    def register_rings(self, offer: RegisterRings, descriptors: Sequence[int]) -> None:
        """Register both rings; returns once the adapter is connected.

        Raises `AdapterBusy` while somebody else's are registered, `RegistrationError` for an offer
        that the driver refuses, `AdapterNotFound` for an adapter that is gone.
        """

    def pump_to_client(self, budget: int) -> int:
        """Inline: move packets that the host has into the ring; else nothing. A `StepResult`."""

    def wait_to_client(self, budget: int, stop: int, timeout: float | None) -> int | None:
        """Inline: wait until the host has something, the session ends or ``stop`` is readable, and
        move packets as `pump_to_client`. None where ``timeout`` seconds run out first.
        """

    def pump_to_host(self, budget: int) -> int:
        """Inline: move packets from the ring to the host; else nothing. A `StepResult`."""

    def forward(self, batch: Batch[Any]) -> list[int] | None:
        """Inline: packets of another session's batch to the host, past the to_host ring.

        None: they have to go through the ring. Else which of them the host did not take, in the
        order in which they are to go.
        """

    def end_reason(self) -> EndReason:
        """Why the driver ended the session."""

    def statistics(self) -> Statistics:
        """As the driver counts."""

    def close(self) -> None: ...
    def abandon(self) -> None:
        """In a forked child: forget the handle, which is the parent's."""
