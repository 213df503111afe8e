"""Where an adapter's packets come from and go to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ringtun import _native
    from ringtun.arguments import Interface
    from ringtun.host.netlink import LinkInfo
    from ringtun.host.watch import Watch

__all__ = ["AdapterHost", "Host", "HostInterface"]


class Host(Protocol):
    """The host's end of one adapter; the driver owns it.

    The packet calls never wait. ``read_packet`` returns None where there is nothing; both raise
    ``OSError`` with EBADFD once the interface is gone.
    """

    @property
    def offloads(self) -> bool:
        """Whether the packets of `native` have offload headers, once connected with offload."""

    def fileno(self) -> int:
        """Readable when there is a packet to read; in error when the interface is gone."""

    def native(self) -> _native.Host:
        """The same host for the native engine, which drops it when it ends."""

    def read_packet(self) -> bytes | None: ...
    def write_packet(self, packet: bytes) -> None: ...
    def connect(self, offload: bool) -> int:
        """Plug in the cable for a new session; returns the stale packets thrown away before.

        With ``offload`` the engine of the session takes large packets and missing checksums: the
        native one, by `native`.
        """

    def disconnect(self) -> None:
        """Pull the cable. Never raises for an interface that is gone."""

    def queue_drops(self) -> int:
        """Packets that the host dropped since ever because its queue was full or unplugged."""

    def close(self) -> None:
        """Let the host go, and with it the interface unless that is persistent."""


class HostInterface(Protocol):
    """An interface of the host's, looked at and set up. What it is asked is as it is now.

    Raises `AdapterNotFound` once the interface is gone.
    """

    @property
    def backend(self) -> str:
        """Which backend's it is: "embedded", "service" or "memory"."""

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace."""

    def info(self) -> LinkInfo:
        """All about it but its addresses."""

    def addresses(self) -> tuple[Interface, ...]:
        """Its addresses with their prefixes, but for those that the host made by itself."""

    def configure(
        self,
        *,
        addresses: Sequence[Interface] | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        txqueuelen: int | None = None,
        alias: str | None = None,
    ) -> None:
        """Bring what is given to what it is now, the rest stays; ``addresses`` are all of them.

        Returns once packets reach the new addresses. What fails is undone as far as possible, and
        the error says what was not.
        """

    def watch(self) -> Watch:
        """News of it, from now on; `unwatch` ends them."""

    def unwatch(self, watch: Watch) -> None:
        """Close what `watch` gave, before or after the host itself. Idempotent."""


class AdapterHost(Host, HostInterface, Protocol):
    """A host whose interface can be looked at and set up."""

    def persist(self, owner: int | None, group: int | None) -> None:
        """Let the interface outlive its queue, for a user id or a group id."""

    def abandon(self) -> None:
        """In a forked child: close our copies of what would keep the interface alive."""
