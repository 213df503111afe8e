"""The control socket of the driver service: adapters made, opened, configured, over Varlink.

A connection is as good as a handle: what it has opened it lets go when it ends, however it does.
The interface is ``org.ringtun.Driver.varlink`` beside this file, as the service itself tells it.
"""

import asyncio
import errno
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypedDict, TypeVar

from asyncvarlink import (
    LastResult,
    TypedVarlinkErrorReply,
    VarlinkInterface,
    VarlinkInterfaceRegistry,
    VarlinkInterfaceServerProtocol,
    VarlinkTransport,
    varlinkmethod,
)
from asyncvarlink.serviceinterface import VarlinkServiceInterface

from ringtun import arguments, errors
from ringtun.control import Wanted
from ringtun.events import AdapterEvents
from ringtun.info import AdapterInfo
from ringtun.service.adapters import Adapters, Entry
from ringtun.service.descriptors import close_apart, impatient
from ringtun.service.listener import Listener
from ringtun.service.namespaces import is_namespace
from ringtun.service.peer import Peer
from ringtun.service.quota import Quota

__all__ = ["INTERFACE", "ControlServer", "Driver"]

INTERFACE = "org.ringtun.Driver"
_REQUEST_MAX = 1 << 16  # bytes
_ANSWERS_MAX = 1 << 20  # bytes that were not read
_DESCRIPTORS_MAX = 1  # at a time: what else comes along is not received

T = TypeVar("T")


# ---- what is said --------------------------------------------------------------------------------


@dataclass
class AdapterState:
    """An adapter as it is now."""

    name: str
    namespace: int | None
    ifindex: int
    guid: str | None
    mtu: int
    addresses: list[str]
    up: bool
    connected: bool
    persistent: bool
    owner: int | None
    group: int | None
    txqueuelen: int
    host_drops: int
    offloads: bool
    device: str


class _Adapter(TypedDict):
    adapter: AdapterState


class _AdapterList(TypedDict):
    adapters: list[AdapterState]


class _Statistics(TypedDict):
    counters: dict[str, int]
    discards: dict[str, int]


class _Change(TypedDict):
    event: str | None
    adapter: AdapterState | None


class AdapterExists(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


class AdapterNotFound(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


class AdapterBusy(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


class PermissionDenied(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


class Unavailable(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


class InvalidArgument(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


class SystemFailure(TypedVarlinkErrorReply, interface=INTERFACE):
    class Parameters:
        errno: int
        message: str


_REPLIES: tuple[tuple[type[Exception], type[TypedVarlinkErrorReply]], ...] = (
    (errors.AdapterExists, AdapterExists),
    (errors.AdapterNotFound, AdapterNotFound),
    (errors.AdapterBusy, AdapterBusy),
    (errors.AdapterPermissionError, PermissionDenied),
    (errors.DriverUnavailable, Unavailable),
    (OSError, SystemFailure),
    (ValueError, InvalidArgument),
    (TypeError, InvalidArgument),
)


def _reply(error: Exception) -> TypedVarlinkErrorReply:
    """What a failure is to the other side."""
    if isinstance(error, MemoryError):
        error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    code = getattr(error, "errno", None) or errno.EINVAL
    message = getattr(error, "strerror", None) or str(error)
    for kind, reply in _REPLIES:
        if isinstance(error, kind):
            return reply(errno=code, message=message)
    raise error


# ---- what is asked -------------------------------------------------------------------------------


class Driver(VarlinkInterface, name=INTERFACE):
    """TUN adapters for programs without rights. What a connection opens it has until it ends.
    An adapter in another network namespace than the service's has that one's inode as its
    namespace; it is configured and watched there, and not by the service.
    """

    errors = (
        AdapterBusy,
        AdapterExists,
        AdapterNotFound,
        InvalidArgument,
        PermissionDenied,
        SystemFailure,
        Unavailable,
    )

    def __init__(self, adapters: Adapters, peer: Peer, connection: socket.socket) -> None:
        self._adapters = adapters
        self._peer = peer
        self._connection = connection
        self._opened: list[Entry] = []
        self._end_monitor: Callable[[], None] | None = None
        self._ended = False
        self._passed: int | None = None

    @varlinkmethod
    async def CreateAdapter(
        self,
        *,
        name: str,
        addresses: list[str] | None = None,
        mtu: int | None = None,
        guid: str | None = None,
        up: bool | None = None,
        exist_ok: bool | None = None,
        persist: bool | None = None,
        owner: int | None = None,
        group: int | None = None,
        txqueuelen: int | None = None,
        namespace: int | None = None,
    ) -> _Adapter:
        """Make an adapter, and open it. It goes with its last handle, unless it is to persist.
        Here the namespace is 0, the index of the one descriptor that comes along: of a network
        namespace of the caller's, where the adapter does not persist, and is down and without
        addresses, for the caller to change.
        """

        async def work() -> _Adapter:
            into = None if namespace is None else self._take_passed(namespace)
            try:
                return await self._create(
                    name, addresses, mtu, guid, up, exist_ok, persist, owner, group, txqueuelen,
                    into,
                )  # fmt: skip
            finally:
                if into is not None:
                    os.close(into)

        return await self._answer(work)

    async def _create(
        self,
        name: str,
        addresses: list[str] | None,
        mtu: int | None,
        guid: str | None,
        up: bool | None,
        exist_ok: bool | None,
        persist: bool | None,
        owner: int | None,
        group: int | None,
        txqueuelen: int | None,
        into: int | None,
    ) -> _Adapter:
        arguments.check_name(name)
        interfaces = None if addresses is None else arguments.check_addresses(addresses)
        arguments.check_mtu(mtu, interfaces or ())
        txqueuelen = 5000 if txqueuelen is None else txqueuelen
        arguments.check_txqueuelen(txqueuelen)
        arguments.check_identity(bool(persist), owner, group)
        wanted = Wanted(
            name=name,
            addresses=interfaces,
            mtu=mtu,
            guid=arguments.check_guid(guid),
            up=up is not False,
            exist_ok=bool(exist_ok),
            persist=bool(persist),
            owner=self._owner(bool(persist), owner, group),
            group=group,
            txqueuelen=txqueuelen,
            netns=None,
        )
        return await self._hold(await self._adapters.create(self._peer, wanted, into))

    def _owner(self, persist: bool, owner: int | None, group: int | None) -> int | None:
        """Who may open a persistent adapter: nobody but the peer, and groups that it is in."""
        peer = self._peer
        if peer.uid and (
            owner not in (None, peer.uid) or (group is not None and group not in peer.groups)
        ):
            raise errors.AdapterPermissionError(
                errno.EPERM, "an adapter of yours persists for you and your groups alone"
            )
        return peer.uid if persist and owner is None and group is None else owner

    @varlinkmethod
    async def OpenAdapter(self, *, name: str, namespace: int | None = None) -> _Adapter:
        """Open an adapter that is there."""

        async def work() -> _Adapter:
            return await self._hold(await self._adapters.open(self._peer, name, namespace))

        return await self._answer(work)

    @varlinkmethod
    async def CloseAdapter(self, *, name: str, namespace: int | None = None) -> None:
        """Let go what this connection has opened; so does its end."""

        async def work() -> None:
            for entry in self._opened:
                if entry.key == (self._adapters.place(namespace), name):
                    self._opened.remove(entry)
                    return await self._adapters.close(entry)
            raise errors.AdapterNotFound(errno.EBADF, f"adapter {name} is not open here")

        return await self._answer(work)

    @varlinkmethod
    async def GetAdapter(self, *, name: str, namespace: int | None = None) -> _Adapter:
        """Look at an adapter."""

        async def work() -> _Adapter:
            entry = await self._adapters.require(self._peer, name, namespace)
            return {"adapter": await self._state(entry)}

        return await self._answer(work)

    @varlinkmethod
    async def ListAdapters(self, *, namespace: int | None = None) -> _AdapterList:
        """The adapters that the caller may open, in the order of their making; of all namespaces,
        or of one.
        """

        async def work() -> _AdapterList:
            entries = await self._adapters.of(self._peer)
            if namespace is not None:
                place = self._adapters.place(namespace)
                entries = [entry for entry in entries if entry.namespace == place]
            return {"adapters": [await self._state(entry) for entry in entries]}

        return await self._answer(work)

    @varlinkmethod
    async def ConfigureAdapter(
        self,
        *,
        name: str,
        addresses: list[str] | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        txqueuelen: int | None = None,
    ) -> None:
        """Change what is given, and leave the rest; the caller's own adapters."""

        async def work() -> None:
            interfaces = None if addresses is None else arguments.check_addresses(addresses)
            if txqueuelen is not None:
                arguments.check_txqueuelen(txqueuelen)
            arguments.check_mtu(mtu, ())
            entry = await self._adapters.require(self._peer, name, manage=True)
            await self._adapters.in_thread(
                lambda: entry.opened.configure(
                    addresses=interfaces, mtu=mtu, up=up, txqueuelen=txqueuelen
                )
            )

        return await self._answer(work)

    @varlinkmethod
    async def DeleteAdapter(self, *, name: str, namespace: int | None = None) -> None:
        """Take an adapter of the caller's own away; a session on it ends."""
        await self._answer(lambda: self._adapters.delete(self._peer, name, namespace))

    @varlinkmethod
    async def GetStatistics(self, *, name: str, namespace: int | None = None) -> _Statistics:
        """What went through an adapter, over all its sessions."""

        async def work() -> _Statistics:
            entry = await self._adapters.require(self._peer, name, namespace)
            counters = asdict(await self._adapters.in_thread(entry.opened.statistics))
            return {"discards": counters.pop("discards"), "counters": counters}

        return await self._answer(work)

    @varlinkmethod(delay_generator=False)
    async def Monitor(self, *, name: str) -> AsyncIterator[_Change]:
        """What happens to an adapter, told to a call with "more" until it is removed. The first
        answer has no event, and how the adapter is. What is taken back before it is read is not
        told of. The connection answers nothing else meanwhile.
        """

        async def work() -> tuple[Entry, AdapterInfo, AdapterEvents]:
            entry = await self._adapters.require(self._peer, name)
            return entry, *await self._adapters.in_thread(lambda: _events(entry))

        entry, info, events = await self._answer(work)
        loop = asyncio.get_running_loop()
        hangup = select.epoll()

        def end() -> None:
            self._end_monitor = None
            if not hangup.closed:
                loop.remove_reader(hangup)
                hangup.close()
            events.close()

        self._end_monitor = end
        try:
            # The library does not look at a connection whose call it answers.
            hangup.register(self._connection, select.EPOLLRDHUP)
            loop.add_reader(hangup, end)
            if self._ended:  # meanwhile
                end()
            yield {"event": None, "adapter": _state(entry, info)}
            async for event in events:
                if event.info is None:
                    raise LastResult({"event": event.kind.value, "adapter": None})
                yield {"event": event.kind.value, "adapter": _state(entry, event.info)}
            raise LastResult({"event": None, "adapter": None})
        except OSError as error:
            raise _reply(error) from error
        finally:
            end()

    # ---- descriptors ----------------------------------------------------------------------------

    def pass_namespace(self, fd: int) -> None:
        """Own a descriptor that came with the call that is next."""
        self.drop_passed()
        self._passed = fd

    def drop_passed(self) -> None:
        """The call is over, which may not have taken it."""
        if self._passed is not None:
            os.close(self._take_passed(0))

    def _take_passed(self, index: int) -> int:
        fd, self._passed = self._passed, None
        if fd is None or index != 0:
            if fd is not None:
                os.close(fd)
            raise ValueError(
                "namespace is 0, the index of the one descriptor that comes along, which is of a "
                "network namespace: /proc/self/ns/net, opened in there"
            )
        return fd

    # ---- the rest -------------------------------------------------------------------------------

    async def _hold(self, entry: Entry) -> _Adapter:
        try:
            state = await self._state(entry)
            if self._ended:  # meanwhile
                raise ConnectionAbortedError(errno.ECONNABORTED, "the caller has gone")
        except BaseException:
            await self._adapters.close(entry)
            raise
        self._opened.append(entry)
        return {"adapter": state}

    async def _state(self, entry: Entry) -> AdapterState:
        return _state(entry, await self._adapters.in_thread(entry.opened.info))

    async def _answer(self, work: Callable[[], Awaitable[T]]) -> T:
        try:
            return await work()
        except (OSError, MemoryError, ValueError, TypeError) as error:
            raise _reply(error) from error

    @property
    def monitors(self) -> bool:
        """Whether it tells the caller of events."""
        return self._end_monitor is not None

    async def end(self) -> None:
        """The connection is over: let go what it has opened."""
        self._ended = True
        self.drop_passed()
        if self._end_monitor is not None:
            self._end_monitor()
        while self._opened:
            await self._adapters.close(self._opened.pop())


def _state(entry: Entry, info: AdapterInfo) -> AdapterState:
    values = info.as_dict()
    del values["backend"]
    return AdapterState(
        **values,
        namespace=entry.namespace,
        offloads=entry.opened.offloads,
        device=str(entry.device.path),
    )


def _events(entry: Entry) -> tuple[AdapterInfo, AdapterEvents]:
    """How an adapter is, and what happens to it from then on."""
    source = entry.opened.events()
    return source.before, AdapterEvents(source, entry.name)


class _Transport(VarlinkTransport):
    """One that stops reading when it is told to, and ends when nobody reads what it says.

    The library's own reads on for as long as more is there already, and keeps every answer.
    """

    MAX_RECV_FDS = _DESCRIPTORS_MAX
    _unread = 0  # bytes
    _serving = False
    _apart = 0  # descriptors that are being closed: until then nothing is read
    _when_closed: Callable[[], None] | None = None

    def serve(self) -> None:
        """Read no more until the request that is there is served."""
        self._serving = True
        self.pause_reading()

    def _resume_reading(self) -> None:
        self._serving = False
        if not self._apart:
            super()._resume_reading()

    def close_apart(self, fd: int) -> None:
        """Close what came along, and then read on."""

        def closed() -> None:
            self._loop.call_soon_threadsafe(self._closed_apart)

        if close_apart((fd,), closed):
            self._apart += 1
            self.pause_reading()

    def _closed_apart(self) -> None:
        self._apart -= 1
        if not self._apart and not self._serving:
            super()._resume_reading()
        if not self._apart and self._when_closed is not None:
            self._when_closed()

    def when_closed(self, work: Callable[[], None]) -> None:
        """Do ``work`` once all that came along is closed; the transport is."""
        self._when_closed = work
        if not self._apart:
            work()

    def _sock_receive_fds(self, size: int) -> int:
        if self._paused or self.is_closing():
            return 0
        with impatient():
            return super()._sock_receive_fds(size)

    def _connection_lost(self, exc: Exception | None = None) -> None:
        with impatient():
            super()._connection_lost(exc)

    def send_message(self, data: bytes, fds: list[int] | None = None) -> asyncio.Future[None]:
        if self._unread > _ANSWERS_MAX:
            self.abort()
        sent = super().send_message(data, fds)
        self._unread += len(data)
        sent.add_done_callback(partial(self._was_read, len(data)))
        return sent

    def _was_read(self, size: int, sent: asyncio.Future[None]) -> None:
        self._unread -= size


class _Protocol(VarlinkInterfaceServerProtocol):
    """A connection, which tells of its end; it takes one request at a time, and nothing else."""

    _transport: _Transport | None

    def __init__(
        self, registry: VarlinkInterfaceRegistry, driver: Driver, ended: Callable[[], None]
    ) -> None:
        super().__init__(registry)
        self._driver = driver
        self._tell = ended
        self._unfinished = 0

    def message_received(self, data: bytes, fds: Any) -> None:
        # The library would close them when its call ends, or at once, where that is not whole yet.
        for descriptor in fds or ():
            self._received(descriptor.take())
        end = data.rfind(b"\0")
        self._unfinished = len(data) - 1 - end if end >= 0 else self._unfinished + len(data)
        if self._unfinished > _REQUEST_MAX:
            self._drop()
            return
        try:
            super().message_received(data, None)
        except (ValueError, RecursionError):  # of the JSON: no text, a number too long, too deep
            self._drop()
        if end >= 0 and self._transport is not None:
            self._transport.serve()

    def _received(self, fd: int) -> None:
        os.set_inheritable(fd, False)
        if is_namespace(fd):
            self._driver.pass_namespace(fd)
        elif self._transport is not None:
            self._transport.close_apart(fd)

    def request_received(self, obj: Any, fds: Any) -> asyncio.Future[None] | None:
        served: asyncio.Future[None] | None = super().request_received(obj, fds)
        if served is None:
            self._driver.drop_passed()
        else:
            served.add_done_callback(lambda _: self._driver.drop_passed())
        return served

    def error_received(self, err: Exception, data: bytes, fds: Any) -> None:
        self._drop()

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._tell()


class ControlServer:
    """Serves the control socket until `close`; belongs to the running event loop."""

    def __init__(
        self, adapters: Adapters, listener: socket.socket, quota: Quota, version: str
    ) -> None:
        """Takes over ``listener``, a Unix stream socket that listens."""
        self._adapters = adapters
        self._quota = quota
        self._version = version
        self._transports: set[VarlinkTransport] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._listener = Listener(listener, "control", quota, self._welcome)

    def _welcome(self, connection: socket.socket, peer: Peer) -> None:
        driver = Driver(self._adapters, peer, connection)
        registry = VarlinkInterfaceRegistry()
        registry.register_interface(driver)
        registry.register_interface(
            VarlinkServiceInterface("ringtun", "ringtun driver", self._version, "", registry)
        )

        def ended() -> None:
            transport.when_closed(lambda: self._quota.give_back(peer, "connections"))
            self._transports.discard(transport)
            if driver.monitors:
                transport.abort()  # it may wait for ever for room in the socket
            task = asyncio.ensure_future(driver.end())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        transport = _Transport(
            self._loop, connection, connection, _Protocol(registry, driver, ended)
        )
        self._transports.add(transport)

    async def close(self) -> None:
        """End every connection."""
        self._listener.close()
        for transport in list(self._transports):
            transport.close()
            with suppress(Exception):
                await transport.closed_future
        if self._tasks:
            await asyncio.wait(self._tasks)
