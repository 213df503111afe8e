"""The Linux host of an adapter: a queue of the TUN device, and the interface it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from ringtun.arguments import Interface
from ringtun.host.drops import DropCounter
from ringtun.host.interface import READY_TIMEOUT, LinuxInterface
from ringtun.host.linux_queue import LinuxQueue
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, delete
from ringtun.host.offload import probe

__all__ = ["LinuxHost"]


class LinuxHost(LinuxQueue, LinuxInterface):
    """A TUN interface of the kernel. Owns the queue and the namespace; `close` gives both back."""

    def __init__(self, tun: LinuxTun) -> None:
        LinuxQueue.__init__(self, tun)
        LinuxInterface.__init__(self, Link(tun.namespace, tun.ifindex), "embedded")
        self._drops = tun.namespace.run(lambda: DropCounter(tun.ifindex))

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
                host.link.wait_receiving(addresses, READY_TIMEOUT)
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

    def persist(self, owner: int | None, group: int | None) -> None:
        """See `ringtun.host.AdapterHost`."""
        self._tun.persist(owner, group)

    def connect(self, offload: bool) -> int:
        """See `ringtun.host.Host`. Returns once the interface is running, where it is up."""
        drained = super().connect(offload)
        self.wait_running()
        self.tell()  # the kernel says nothing of the carrier of one that is down
        return drained

    def disconnect(self) -> None:
        """See `ringtun.host.Host`."""
        super().disconnect()
        self.tell()  # the kernel does up to a second later

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
