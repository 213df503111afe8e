"""The adapters of the driver service: who has them, and how they come and go.

Everything here runs in the service's event loop; what waits for the kernel runs in a thread.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from ringtun.control import Wanted, kernel
from ringtun.control.embedded import EmbeddedAdapter
from ringtun.errors import (
    AdapterExists,
    AdapterNotFound,
    AdapterPermissionError,
    DriverUnavailable,
)
from ringtun.info import AdapterInfo
from ringtun.service.device import DeviceServer
from ringtun.service.namespaces import check_owner, inode_of, own_inode
from ringtun.service.peer import Peer
from ringtun.service.policy import Configuration, Holders, StartAdapter
from ringtun.service.quota import Quota
from ringtun.service.systemd import forget, store, tun_label

__all__ = ["Adapters", "Entry"]

T = TypeVar("T")
_log = logging.getLogger("ringtun.driver")


@dataclass
class Entry:
    """An adapter of the service's."""

    opened: EmbeddedAdapter
    owner: int | None
    """The user who made it, or for whom root did; None: it is root's, or of the configuration."""
    holders: Holders
    """Who else may open it."""
    namespace: int | None = None
    """The inode of the network namespace that it is in; None: the service's own."""
    device: DeviceServer = field(init=False)
    handles: int = 0
    """Of clients."""
    kept: bool = False
    """Whether it stays without a handle."""
    label: str | None = None
    """Under which the service manager keeps its queue."""

    @property
    def name(self) -> str:
        """The adapter's."""
        return self.opened.name

    @property
    def key(self) -> tuple[int | None, str]:
        """By which it is found: there is one of a name in each namespace."""
        return self.namespace, self.name

    @property
    def socket_name(self) -> str:
        """Of its device. No name of an adapter has a colon."""
        return self.name if self.namespace is None else f"{self.name}:{self.namespace}"

    def __str__(self) -> str:
        where = "" if self.namespace is None else f" in network namespace {self.namespace}"
        return f"{self.name}{where}"

    def may_open(self, peer: Peer) -> bool:
        """Whether ``peer`` may open it, and look at it."""
        return self.may_manage(peer) or peer in self.holders

    def may_manage(self, peer: Peer) -> bool:
        """Whether ``peer`` may configure and delete it."""
        return peer.uid in (0, self.owner)


class Adapters:
    """All of them, by namespace and name. A namespace is told by its inode; None is our own."""

    def __init__(
        self, configuration: Configuration, directory: Path, quota: Quota, executor: Executor
    ) -> None:
        self._configuration = configuration
        self._directory = directory
        self._quota = quota
        self._executor = executor
        self._entries: dict[tuple[int | None, str], Entry] = {}
        self._here = own_inode()
        self._changing = asyncio.Lock()  # adapters come and go one at a time

    async def start(self, wanted: StartAdapter) -> None:
        """Make one of the configuration's."""
        made = Wanted(
            name=wanted.name,
            addresses=wanted.addresses,
            mtu=wanted.mtu,
            guid=None,
            up=True,
            exist_ok=False,
            persist=False,
            owner=None,
            group=None,
            txqueuelen=wanted.txqueuelen,
            netns=None,
        )
        async with self._changing:
            opened = await self.in_thread(lambda: kernel.create_adapter(made))
            self._add(Entry(opened, None, wanted.holders, kept=True))

    async def adopt(self, queues: Sequence[tuple[str, int]]) -> None:
        """Take up the persistent adapters of ringtun's that are in this namespace already.

        Whose they are the kernel knows: an earlier service, or `ringtun create`, told it. Of some
        the service manager kept the ``queues``, under labels; these are this object's to close.
        """
        async with self._changing:
            for label, fd in queues:
                await self._take_in(label, partial(kernel.take_over, fd), label)
            for info in await self.in_thread(lambda: kernel.list_adapters(None)):
                if (
                    info.persistent
                    and info.guid is not None
                    and (None, info.name) not in self._entries
                ):
                    await self._take_in(info.name, partial(kernel.open_adapter, info.name, None))

    async def _take_in(
        self, what: str, find: Callable[[], EmbeddedAdapter], label: str | None = None
    ) -> None:
        def look() -> tuple[EmbeddedAdapter, AdapterInfo]:
            opened = find()
            try:
                return opened, opened.info()
            except BaseException:
                opened.let_go()
                raise

        try:
            opened, info = await self.in_thread(look)
        except (OSError, ValueError) as error:  # a program holds it, or it has gone
            _log.warning("%s: not taken up: %s", what, getattr(error, "strerror", None) or error)
            if label is not None:
                forget(label)
            return
        groups = frozenset() if info.group is None else frozenset({info.group})
        entry = Entry(opened, info.owner, Holders(groups=groups), kept=True, label=label)
        self._add(entry)
        self._store(entry)
        _log.info("%s: taken up%s", entry.name, ", with its queue" if label else "")

    def _store(self, entry: Entry) -> None:
        """Let the queue of a persistent adapter outlive this process, where it can."""
        label = tun_label(entry.name)
        if entry.label is None and store(label, entry.opened.host.fileno()):
            entry.label = label

    async def create(self, peer: Peer, wanted: Wanted, into: int | None = None) -> Entry:
        """Make one for ``peer``, or with ``exist_ok`` open its own; a handle more on it.

        ``into`` is a descriptor of the network namespace in which it is to be. In one that is not
        the service's own it is as `kernel.create_in` makes it, and the rest is for the peer.
        """
        namespace = None if into is None else self.place(inode_of(into))
        if namespace is not None:
            assert into is not None
            check_owner(into, peer)
            if wanted.persist:
                raise DriverUnavailable(
                    errno.EXDEV,
                    "the driver service keeps no adapter in a network namespace that is not its "
                    'own: leave persist out, or use backend="embedded"',
                )
        async with self._changing:
            entry = await self._find(wanted.name, namespace)
            if entry is not None:
                return await self._take_up(peer, entry, wanted)
            if not self._configuration.may_create(peer, wanted.name):
                raise AdapterPermissionError(
                    errno.EPERM,
                    f"the driver's configuration does not let you make an adapter {wanted.name}",
                )
            self._check_number(peer)
            wanted = replace(wanted, exist_ok=False)  # what is there is none of the service's
            opened = await self.in_thread(
                lambda: (
                    kernel.create_adapter(wanted)
                    if namespace is None or into is None
                    else kernel.create_in(into, wanted)
                )
            )
            groups = frozenset() if wanted.group is None else frozenset({wanted.group})
            users = frozenset() if wanted.owner is None else frozenset({wanted.owner})
            owner = peer.uid if wanted.owner is None else wanted.owner  # as the kernel keeps it
            entry = Entry(opened, owner, Holders(users, groups), namespace, kept=wanted.persist)
            self._add(entry)
            if wanted.persist:
                self._store(entry)
            entry.handles += 1
            _log.info("%s: made for %s", entry, peer)
            return entry

    def place(self, inode: int | None) -> int | None:
        """A namespace as it is in `Entry`."""
        return None if inode == self._here else inode

    async def _take_up(self, peer: Peer, entry: Entry, wanted: Wanted) -> Entry:
        if not wanted.exist_ok or not entry.may_open(peer):
            raise AdapterExists(
                errno.EEXIST,
                f"there is an adapter called {wanted.name} already: take another name, or open it "
                "(exist_ok makes it what is asked for)",
            )
        if entry.may_manage(peer) and entry.namespace is None:
            await self.in_thread(lambda: kernel.bring_to(entry.opened, wanted))
            if wanted.persist:
                entry.kept = True
                self._store(entry)
        entry.handles += 1
        return entry

    def _check_number(self, peer: Peer) -> None:
        limit = self._quota.limits.adapters
        own = sum(entry.owner == peer.uid for entry in self._entries.values())
        if peer.uid and own >= limit:
            raise OSError(errno.EDQUOT, f"you have {own} adapters already, the most allowed here")

    def _add(self, entry: Entry) -> None:
        try:
            entry.device = DeviceServer(
                entry.opened.driver,
                self._directory / entry.socket_name,
                mode=0o600 if self._configuration.group is None else 0o660,
                group=self._configuration.group,
                may_open=entry.may_open,
                quota=self._quota,
                executor=self._executor,
                spin=self._configuration.spin,
            )
        except BaseException:
            entry.opened.let_go()
            raise
        self._entries[entry.key] = entry

    async def open(self, peer: Peer, name: str, namespace: int | None) -> Entry:
        """A handle more on an adapter."""
        entry = await self.require(peer, name, namespace)
        entry.handles += 1
        return entry

    async def close(self, entry: Entry) -> None:
        """A handle less; with the last one it goes, where it is not kept."""
        entry.handles -= 1
        if not entry.handles and not entry.kept:
            async with self._changing:
                if not entry.handles:
                    await self._remove(entry)

    async def delete(self, peer: Peer, name: str, namespace: int | None) -> None:
        """Take it away, whoever has it open."""
        entry = await self.require(peer, name, namespace, manage=True)
        async with self._changing:
            host = entry.opened.host
            if entry.namespace is None:  # else it goes with its queue
                with suppress(AdapterNotFound):
                    await self.in_thread(lambda: kernel.delete_adapter(host.info().name, None))
            await self._remove(entry)

    async def require(
        self, peer: Peer, name: str, namespace: int | None = None, *, manage: bool = False
    ) -> Entry:
        """The adapter of that name, where ``peer`` may open it, or ``manage`` it.

        One that the peer may not open is not there, as far as it knows.
        """
        entry = await self._find(name, self.place(namespace))
        if entry is None or not entry.may_open(peer):
            raise AdapterNotFound(
                errno.ENODEV, f"the driver service has no adapter {name} that you may open"
            )
        if manage and not entry.may_manage(peer):
            raise AdapterPermissionError(
                errno.EPERM, f"adapter {name} is not yours: you may open it, and no more"
            )
        return entry

    async def of(self, peer: Peer) -> list[Entry]:
        """Those that ``peer`` may open, in the order of their making."""
        entries = [await self._find(name, namespace) for namespace, name in list(self._entries)]
        return [entry for entry in entries if entry is not None and entry.may_open(peer)]

    async def _find(self, name: str, namespace: int | None) -> Entry | None:
        """What is there: an interface that somebody took away goes."""
        entry = self._entries.get((namespace, name))
        if entry is None:
            return None
        try:
            await self.in_thread(entry.opened.host.info)
        except AdapterNotFound:
            await self._remove(entry)
            return None
        return entry

    async def _remove(self, entry: Entry) -> None:
        if self._entries.get(entry.key) is not entry:
            return
        del self._entries[entry.key]
        entry.device.close_socket()
        if entry.label is not None:
            forget(entry.label)
        await self.in_thread(entry.opened.driver.remove)
        _log.info("%s: removed", entry)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """What waits for the kernel."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    async def stop(self) -> None:
        """Give everything back; the handles of clients end."""
        for entry in list(self._entries.values()):
            await entry.device.close()
            await self.in_thread(entry.opened.let_go)
        self._entries.clear()
