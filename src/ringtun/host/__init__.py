"""Where an adapter's packets come from and go to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ringtun import _native

__all__ = ["Host"]


class Host(Protocol):
    """The host's end of one adapter; the driver owns it.

    The packet calls never wait. ``read_packet`` returns None where there is nothing; both raise
    ``OSError`` with EBADFD once the interface is gone.
    """

    def fileno(self) -> int:
        """Readable when there is a packet to read; in error when the interface is gone."""

    def native(self) -> _native.Host:
        """The same host for the native engine, which drops it when it ends."""

    def read_packet(self) -> bytes | None: ...
    def write_packet(self, packet: bytes) -> None: ...
    def connect(self) -> int:
        """Plug in the cable for a new session; returns the stale packets thrown away before."""

    def disconnect(self) -> None:
        """Pull the cable. Never raises for an interface that is gone."""

    def queue_drops(self) -> int:
        """Packets that the host dropped since ever because its queue was full or unplugged."""

    def close(self) -> None:
        """Let the host go, and with it the interface unless that is persistent."""
