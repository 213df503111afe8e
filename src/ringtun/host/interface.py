"""A TUN interface of the kernel, looked at and set up in its namespace; whoever holds its queue."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ringtun.arguments import Interface
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, LinkInfo
from ringtun.host.watch import LinkWatch, Watch, Watchers

__all__ = ["READY_TIMEOUT", "LinuxInterface"]

READY_TIMEOUT = 5.0  # seconds for the kernel to let packets pass


class LinuxInterface:
    """One of them, by its ``link``. It owns the link's namespace, which `close` gives back."""

    def __init__(self, link: Link, backend: str) -> None:
        self.link = link
        self.backend = backend
        """See `ringtun.host.AdapterHost`."""
        self._changing = threading.Lock()  # each looks at what is there first
        self._watchers = Watchers()

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace."""
        return self.link.ifindex

    @property
    def namespace(self) -> Namespace:
        """Where the interface is."""
        return self.link.namespace

    def info(self) -> LinkInfo:
        """The interface as the kernel has it now."""
        return self.link.info()

    def addresses(self) -> tuple[Interface, ...]:
        """Its addresses now."""
        return self.link.addresses()

    def configure(
        self,
        *,
        addresses: Sequence[Interface] | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        txqueuelen: int | None = None,
        alias: str | None = None,
    ) -> None:
        """See `ringtun.host.AdapterHost`."""
        with self._changing:
            self.link.reconfigure(
                addresses=addresses, mtu=mtu, up=up, txqueuelen=txqueuelen, alias=alias
            )
        if (addresses or up) and self.link.info().up:
            self.link.wait_receiving(self.link.addresses(), READY_TIMEOUT)

    def wait_running(self) -> None:
        """Return once it transmits, where it is up; it has been connected. Raises what `Link` does,
        ``TimeoutError`` included.
        """
        if self.link.info().up:
            self.link.wait_running(READY_TIMEOUT)

    def watch(self) -> Watch:
        """See `ringtun.host.AdapterHost`."""
        return self._watchers.add(self.namespace.run(lambda: LinkWatch(self.ifindex)))

    def unwatch(self, watch: Watch) -> None:
        """See `ringtun.host.AdapterHost`."""
        self._watchers.close(watch)

    def tell(self) -> None:
        """Who watches is to look: the kernel says some things late, and some not at all."""
        self._watchers.tell()

    def close(self) -> None:
        """Give the namespace back; the interface stays. Idempotent."""
        self.namespace.close()
