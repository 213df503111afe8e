"""The Linux host of an adapter: a queue of the TUN device, and the interface it belongs to."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ringtun.arguments import Interface
from ringtun.errors import AdapterNotFound
from ringtun.host.drops import DropCounter
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, LinkInfo, delete
from ringtun.host.offload import Coalesces, probe
from ringtun.host.watch import LinkWatch, Watch, Watchers

if TYPE_CHECKING:
    from ringtun import _native

__all__ = ["LinuxHost"]

_READY_TIMEOUT = 5.0


class LinuxHost:
    """A TUN interface of the kernel. Owns the queue and the namespace; `close` gives both back."""

    backend = "embedded"

    def __init__(self, tun: LinuxTun) -> None:
        self._tun = tun
        self.link = Link(tun.namespace, tun.ifindex)
        self._changing = threading.Lock()  # each looks at what is there first
        self._watchers = Watchers()
        self._drops = tun.namespace.run(lambda: DropCounter(tun.ifindex))
        self.coalesces = Coalesces.ALL if tun.vnet else Coalesces(0)
        self._native: _native.TunHost | None = None  # of the session that runs

    @classmethod
    def create(
        cls,
        name: str,
        *,
        namespace: Namespace,
        addresses: Sequence[Interface],
        mtu: int | None,
        alias: str,
        up: bool,
        txqueuelen: int,
    ) -> LinuxHost:
        """Make the interface, set up as asked; where a step fails, nothing is left of it.

        It takes over ``namespace`` when it succeeds. Errors are those of `LinuxTun.create` and
        `Link.configure`.
        """
        tun = LinuxTun.create(name, namespace=namespace)
        host: LinuxHost | None = None
        try:
            host = cls(tun)
            if tun.vnet:
                host.coalesces = probe(tun.fileno())
            host.link.configure(
                alias=alias,
                txqueuelen=txqueuelen,
                mtu=mtu,
                addr_gen_mode_none=True,
                addresses=addresses,
                up=up or None,
            )
            if up:
                host.link.wait_receiving(addresses, _READY_TIMEOUT)
        except BaseException:
            if host is not None:
                host._drops.close()
            tun.close()
            raise
        return host

    @classmethod
    def attach(cls, name: str, *, namespace: Namespace) -> LinuxHost:
        """Take up a persistent interface that is there; it takes over ``namespace``."""
        return cls._of(LinuxTun.attach(name, namespace=namespace))

    @classmethod
    def take_over(cls, fd: int, *, namespace: Namespace) -> LinuxHost:
        """The same, by a queue that another process joined: see `LinuxTun.take_over`."""
        return cls._of(LinuxTun.take_over(fd, namespace=namespace))

    @classmethod
    def _of(cls, tun: LinuxTun) -> LinuxHost:
        try:
            return cls(tun)
        except BaseException:
            tun.close()
            raise

    @property
    def name(self) -> str:
        """The interface's name when it was made or found."""
        return self._tun.name

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace."""
        return self._tun.ifindex

    @property
    def namespace(self) -> Namespace:
        """Where the interface is."""
        return self._tun.namespace

    @property
    def offloads(self) -> bool:
        """See `ringtun.host.Host`."""
        return self._tun.vnet

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
            self.link.wait_receiving(self.link.addresses(), _READY_TIMEOUT)

    def watch(self) -> Watch:
        """See `ringtun.host.AdapterHost`."""
        return self._watchers.add(self.namespace.run(lambda: LinkWatch(self.ifindex)))

    def unwatch(self, watch: Watch) -> None:
        """See `ringtun.host.AdapterHost`."""
        self._watchers.close(watch)

    def persist(self, owner: int | None, group: int | None) -> None:
        """See `ringtun.host.AdapterHost`."""
        self._tun.persist(owner, group)

    def fileno(self) -> int:
        """See `ringtun.host.Host`."""
        return self._tun.fileno()

    def native(self) -> _native.Host:
        """See `ringtun.host.Host`."""
        from ringtun import _native

        self._native = _native.TunHost(self._tun.fileno(), self._tun.vnet, self.coalesces)
        return self._native

    def read_packet(self) -> bytes | None:
        """See `ringtun.host.Host`."""
        return self._tun.read_packet()

    def write_packet(self, packet: bytes) -> None:
        """See `ringtun.host.Host`."""
        self._tun.write_packet(packet)

    def connect(self, offload: bool) -> int:
        """See `ringtun.host.Host`. Returns once the interface is running, where it is up."""
        try:
            if offload:
                self.coalesces = self._tun.offload(self.coalesces)
            else:
                self._tun.offload(Coalesces(0))
            drained = self._tun.drain()
            self._tun.carrier(True)
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise AdapterNotFound(
                    errno.ENODEV, f"adapter {self.name} was removed from the system"
                ) from error
            raise
        if self.link.info().up:
            self.link.wait_running(_READY_TIMEOUT)
        self._watchers.tell()  # the kernel says nothing of the carrier of one that is down
        return drained

    def disconnect(self) -> None:
        """See `ringtun.host.Host`."""
        if self._native is not None:
            self.coalesces &= Coalesces(self._native.coalesces)
            self._native = None
        with suppress(OSError, ValueError):
            self._tun.carrier(False)
            # Whoever opens a persistent one next may not know of it.
            self._tun.offload(Coalesces(0))
        self._watchers.tell()  # the kernel does up to a second later

    def queue_drops(self) -> int:
        """See `ringtun.host.Host`. The last count where the interface is gone."""
        return self._drops.read()

    def abandon(self) -> None:
        """In a forked child: close our copy of the queue, which would keep the interface alive."""
        self._native = None  # with a copy of its own
        self._tun.abandon()
        self.close()

    def delete(self) -> None:
        """Take the interface away, persistent or not; a session on it ends."""
        delete(self.namespace, self.ifindex)

    def close(self) -> None:
        """See `ringtun.host.Host`."""
        self._tun.close()
        self._drops.close()
        self.namespace.close()
