"""A host in memory: two adapters back to back, without a kernel.

What one adapter's client sends, the other's receives. As with the kernel, a queue that is full or
unplugged drops and counts, and the sender is never slowed.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ringtun.abi import PACKET_MAX_SIZE
from ringtun.errors import AdapterNotFound
from ringtun.event import Event
from ringtun.host.netlink import LinkInfo, TunInfo
from ringtun.host.queue import Queue
from ringtun.host.watch import Watch, Watchers
from ringtun.ring import NATIVE

if TYPE_CHECKING:
    from ringtun import _native
    from ringtun.arguments import Interface
    from ringtun.host.impairment import DirectionStatistics, Terms

__all__ = ["MemoryHost", "link_hosts"]

_QUEUE_BYTES = 16 << 20
_ifindices = itertools.count(1)


def link_hosts(queue_bytes: int = _QUEUE_BYTES) -> tuple[MemoryHost, MemoryHost]:
    """Two hosts joined by a queue of ``queue_bytes`` (a power of two) in each direction."""
    if NATIVE:
        from ringtun import _native

        there, back = _native.Link(queue_bytes), _native.Link(queue_bytes)
        return _NativeMemoryHost(back, there), _NativeMemoryHost(there, back)
    one = Queue(queue_bytes)
    try:
        other = Queue(queue_bytes)
    except BaseException:
        one.close()
        raise
    return _PythonMemoryHost(other, one), _PythonMemoryHost(one, other)


class MemoryHost:
    """One end of a link in memory; made in pairs by `link_hosts`.

    It is set up as an interface of the kernel's would be.
    """

    backend = "memory"
    offloads = False

    def __init__(self, incoming: _native.Link | Queue, outgoing: _native.Link | Queue) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False
        self._info = LinkInfo(
            name="",
            ifindex=next(_ifindices),
            kind="tun",
            alias=None,
            mtu=PACKET_MAX_SIZE,
            txqueuelen=0,
            up=True,
            running=False,
            carrier=False,
            tx_packets=0,
            rx_packets=0,
            tx_dropped=0,
            rx_dropped=0,
            tun=TunInfo(persistent=False, owner=None, group=None),
        )
        self._addresses: tuple[Interface, ...] = ()
        self._watchers = Watchers()

    @property
    def ifindex(self) -> int:
        """See `ringtun.host.AdapterHost`."""
        return self._info.ifindex

    def info(self) -> LinkInfo:
        """See `ringtun.host.AdapterHost`."""
        self._check_there()
        info = self._info
        running = info.up and info.carrier
        return replace(info, running=running, tx_dropped=self.queue_drops())

    def addresses(self) -> tuple[Interface, ...]:
        """See `ringtun.host.AdapterHost`. There is no network stack that would use them."""
        self._check_there()
        return self._addresses

    def configure(
        self,
        *,
        name: str | None = None,
        addresses: Sequence[Interface] | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        txqueuelen: int | None = None,
        alias: str | None = None,
    ) -> None:
        """See `ringtun.host.AdapterHost`; ``name`` is given once.

        Going down stops the packets. MTU and addresses are kept and shown: no network stack heeds
        them.
        """
        self._check_there()
        given = {"name": name, "mtu": mtu, "up": up, "txqueuelen": txqueuelen, "alias": alias}
        changes: dict[str, Any] = {key: new for key, new in given.items() if new is not None}
        self._info = replace(self._info, **changes)
        if addresses is not None:
            self._addresses = tuple(addresses)
        if up is not None:
            self._set_up(up)
        self._watchers.tell()

    def _set_up(self, up: bool) -> None:
        raise NotImplementedError

    def watch(self) -> Watch:
        """See `ringtun.host.AdapterHost`."""
        return self._watchers.add(_MemoryWatch(self))

    def unwatch(self, watch: Watch) -> None:
        """See `ringtun.host.AdapterHost`."""
        self._watchers.close(watch)

    def persist(self, owner: int | None, group: int | None) -> None:
        """See `ringtun.host.AdapterHost`."""
        had = self._info.tun
        assert had is not None
        tun = TunInfo(
            persistent=True,
            owner=had.owner if owner is None else owner,
            group=had.group if group is None else group,
        )
        self._info = replace(self._info, tun=tun)

    def _check_there(self) -> None:
        if self._closed:
            raise AdapterNotFound(errno.ENODEV, f"adapter {self._info.name} was removed")

    def abandon(self) -> None:
        """In a forked child: nothing is held."""

    def connect(self, offload: bool) -> int:
        """See `ringtun.host.Host`."""
        self._info = replace(self._info, carrier=True)
        self._watchers.tell()
        return self._incoming.connect()

    def disconnect(self) -> None:
        """See `ringtun.host.Host`."""
        self._info = replace(self._info, carrier=False)
        self._incoming.disconnect()
        self._watchers.tell()

    def queue_drops(self) -> int:
        """See `ringtun.host.Host`."""
        return self._incoming.dropped

    def impair(self, terms: Terms) -> None:
        """Impair what comes to this end from now on."""
        self._incoming.impair(terms)

    def direction_statistics(self) -> DirectionStatistics:
        """Of what came to this end."""
        from ringtun.host.impairment import DirectionStatistics

        return DirectionStatistics(**self._incoming.counters)

    def close(self) -> None:
        """See `ringtun.host.Host`. The other end stays, and what it sends is dropped."""
        self._closed = True
        self.disconnect()

    def fileno(self) -> int:
        """See `ringtun.host.Host`."""
        raise NotImplementedError

    def native(self) -> _native.Host:
        """See `ringtun.host.Host`."""
        raise NotImplementedError

    def read_packet(self) -> bytes | None:
        """See `ringtun.host.Host`."""
        raise NotImplementedError

    def write_packet(self, packet: bytes) -> None:
        """See `ringtun.host.Host`."""
        raise NotImplementedError


class _MemoryWatch:
    """See `ringtun.host.watch.Watch`."""

    def __init__(self, host: MemoryHost) -> None:
        self._host = host
        self._event = Event()

    def fileno(self) -> int:
        return self._event.fileno()

    def news(self) -> bool:
        return self._event.wait(0)

    def look(self) -> tuple[LinkInfo, tuple[Interface, ...]]:
        return self._host.info(), self._host.addresses()

    def nudge(self) -> None:
        self._event.signal()

    def close(self) -> None:
        self._event.close()


class _NativeMemoryHost(MemoryHost):
    def __init__(self, incoming: _native.Link, outgoing: _native.Link) -> None:
        from ringtun import _native

        super().__init__(incoming, outgoing)
        self._native = _native.LinkHost(incoming, outgoing)

    def fileno(self) -> int:
        return self._native.fileno()

    def native(self) -> _native.Host:
        return self._native

    def _set_up(self, up: bool) -> None:
        self._native.set_up(up)


class _PythonMemoryHost(MemoryHost):
    _incoming: Queue
    _outgoing: Queue

    def fileno(self) -> int:
        return self._incoming.fileno()

    def read_packet(self) -> bytes | None:
        self._check_open()
        return self._incoming.get()

    def write_packet(self, packet: bytes) -> None:
        self._check_open()
        if not self._info.up:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._outgoing.put(packet)

    def _set_up(self, up: bool) -> None:
        self._incoming.down = not up

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADFD, os.strerror(errno.EBADFD))

    def close(self) -> None:
        super().close()
        self._incoming.close()
