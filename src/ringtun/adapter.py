"""Adapters: make one, find one, set it up, start sessions on it, take it away."""

from __future__ import annotations

import atexit
import errno
import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from ringtun import arguments
from ringtun.control import Backend, OpenAdapter, Wanted, control_of
from ringtun.errors import AdapterNotFound, EndReason
from ringtun.info import AdapterInfo

if TYPE_CHECKING:
    import uuid

    from ringtun import abi
    from ringtun.aio import AsyncSession
    from ringtun.arguments import Address, Interface
    from ringtun.device import Device
    from ringtun.device.embedded import Pump
    from ringtun.events import AdapterEvents
    from ringtun.offload import OffloadPacket
    from ringtun.session import Session
    from ringtun.statistics import Statistics

__all__ = ["Adapter", "create_adapter", "delete_adapter", "list_adapters", "open_adapter"]

# A ring's capacity where none is given. Where packets only pass through it, each lies where another
# lay shortly before: in the cache, if the ring fits into it.
_PASSAGE: Final = 512 << 10
_BUFFER: Final = 4 << 20


def create_adapter(
    name: str,
    *,
    addresses: Iterable[Address] | None = None,
    mtu: int | None = None,
    guid: str | uuid.UUID | None = None,
    up: bool = True,
    exist_ok: bool = False,
    persist: bool = False,
    owner: int | None = None,
    group: int | None = None,
    txqueuelen: int = 5000,
    netns: str | None = None,
    backend: Backend | None = None,
) -> Adapter:
    """Make a TUN adapter called ``name``: 1 to 15 bytes, as the kernel takes them.

    ``addresses`` are IPv4 and IPv6 addresses with their prefix, ``"10.7.0.1/24"``. ``mtu`` counts
    bytes (68 to 65,535; the kernel's default is 1,500), ``txqueuelen`` the packets that the kernel
    keeps for the program before it drops. ``guid`` is by what to know the adapter again whenever it
    is made; a random one by default. ``netns`` names the network namespace in which the adapter is
    to be, as ``ip netns`` does, or is the path of one.

    The adapter goes with its last handle, however the program ends. With ``persist`` it stays, for
    the user id ``owner`` or the group id ``group`` to open again; for the caller's user where
    neither is given.

    With ``exist_ok`` an adapter that is there is opened, and made what is asked for: up or down,
    its ``txqueuelen``, and whatever else is given; what is not given stays. Nothing is touched that
    is as asked, so that an owner without rights can do this too. One that persists goes on to.

    ``backend`` asks for a driver: "service" is the driver service, which takes no rights,
    "embedded" the one in this process above the kernel's TUN, "memory" makes an adapter without a
    kernel (`ringtun.testing`). None takes the service where its socket lets this process in and it
    serves that namespace, else the one in this process.

    Everything is checked before anything is done; where a later step fails, nothing is left of it.
    Raises ``ValueError`` and ``TypeError`` for an argument that cannot be (with ``exist_ok``, an
    ``mtu`` too small for the IPv6 addresses that it has included); `AdapterExists`, `AdapterBusy`
    (``exist_ok``, and another program holds it), `AdapterPermissionError`, `DriverUnavailable` (no
    TUN device on this machine); ``FileNotFoundError`` for a namespace that
    is not there; any other ``OSError`` of the kernel's.
    """
    arguments.check_name(name)
    arguments.check_netns(netns)
    arguments.check_flags(up=up, exist_ok=exist_ok, persist=persist)
    interfaces = None if addresses is None else arguments.check_addresses(addresses)
    arguments.check_mtu(mtu, interfaces or ())
    arguments.check_txqueuelen(txqueuelen)
    arguments.check_identity(persist, owner, group)
    wanted = Wanted(
        name=name,
        addresses=interfaces,
        mtu=mtu,
        guid=arguments.check_guid(guid),
        up=up,
        exist_ok=exist_ok,
        persist=persist,
        owner=owner,
        group=group,
        txqueuelen=txqueuelen,
        netns=netns,
    )
    return Adapter(control_of(backend).create_adapter(wanted))


def open_adapter(name: str, *, netns: str | None = None, backend: Backend | None = None) -> Adapter:
    """Open an adapter that is there: one that this process made, or a persistent one.

    An adapter may be open several times; only one session at a time runs on it.

    Raises `AdapterNotFound`, `AdapterBusy` (another program holds it), `AdapterPermissionError`,
    `DriverUnavailable`, ``ValueError`` for a name that cannot be, ``FileNotFoundError`` for a
    namespace that is not there.
    """
    arguments.check_name(name)
    arguments.check_netns(netns)
    return Adapter(control_of(backend).open_adapter(name, netns))


def list_adapters(*, netns: str | None = None, backend: Backend | None = None) -> list[AdapterInfo]:
    """The TUN adapters of a network namespace, whoever made them, in the order of their making.

    It takes no rights. Raises ``FileNotFoundError`` for a namespace that is not there,
    `AdapterPermissionError` for one that this process may not enter.
    """
    arguments.check_netns(netns)
    return control_of(backend).list_adapters(netns)


def delete_adapter(
    name: str,
    *,
    missing_ok: bool = False,
    netns: str | None = None,
    backend: Backend | None = None,
) -> None:
    """Take an adapter away, persistent or not, whoever made it and whoever has it open.

    A session on it ends, with `EndReason.ADAPTER_REMOVED`. Raises `AdapterNotFound` for one that is
    not there, unless ``missing_ok``, and always for an interface that is no TUN adapter;
    `AdapterPermissionError`; ``ValueError`` for a name that cannot be.
    """
    arguments.check_name(name)
    arguments.check_netns(netns)
    arguments.check_flags(missing_ok=missing_ok)
    try:
        control_of(backend).delete_adapter(name, netns)
    except AdapterNotFound as error:
        if not missing_ok or error.errno != errno.ENODEV:
            raise


class Adapter:
    """An open handle on an adapter; from `create_adapter` or `open_adapter`.

    `close` it, or use it in a ``with`` statement. Calls may come from any thread. What asks the
    kernel raises `AdapterNotFound` once the interface is gone.
    """

    def __init__(self, opened: OpenAdapter) -> None:
        """Takes over ``opened``."""
        self._opened = opened
        self._closed = False
        self._let_go = False
        self._lock = threading.RLock()
        self._sessions: weakref.WeakSet[Session[Any] | AsyncSession[Any]] = weakref.WeakSet()
        self._streams: weakref.WeakSet[AdapterEvents] = weakref.WeakSet()
        _handles.add(self)

    @property
    def name(self) -> str:
        """The interface's name when it was made or opened."""
        return self._opened.name

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace."""
        return self._opened.ifindex

    @property
    def guid(self) -> uuid.UUID | None:
        """By which it is known again; None for one that another program made."""
        return self.info().guid

    @property
    def mtu(self) -> int:
        """Bytes of the largest packet that the host sends, as the kernel has it now."""
        return self.info().mtu

    @property
    def up(self) -> bool:
        """Whether the interface is up, as the kernel has it now."""
        return self.info().up

    @property
    def addresses(self) -> tuple[Interface, ...]:
        """Its addresses with their prefixes, as the kernel has them now."""
        return self.info().addresses

    def info(self) -> AdapterInfo:
        """All about it, as the kernel has it now."""
        return self._check_open().info()

    def configure(
        self,
        *,
        addresses: Iterable[Address] | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        txqueuelen: int | None = None,
    ) -> None:
        """Change what is given, and leave the rest.

        ``addresses`` are all that the adapter is to have: those that it has already are not
        touched, and keep their routes. Addresses outlast going down; routes do not, which is the
        kernel's rule.

        Everything is checked before the first change. A change that fails is undone, with those
        before it, as far as possible; where something could not be, the error's message lists it.
        Takes the right to configure the network (CAP_NET_ADMIN), where there is something to
        change. Returns once packets reach the addresses.

        Raises ``ValueError`` and ``TypeError`` for an argument that cannot be, an ``mtu`` too small
        for the IPv6 addresses that it has or is to have included; `AdapterPermissionError`,
        `AdapterNotFound`, any other ``OSError`` of the kernel's.
        """
        interfaces = None if addresses is None else arguments.check_addresses(addresses)
        if up is not None:
            arguments.check_flags(up=up)
        if txqueuelen is not None:
            arguments.check_txqueuelen(txqueuelen)
        arguments.check_mtu(mtu, ())
        with self._lock:
            self._check_open().configure(
                addresses=interfaces, mtu=mtu, up=up, txqueuelen=txqueuelen
            )

    @overload
    def start_session(
        self,
        *,
        capacity: int | None = ...,
        pump: Pump = ...,
        spin: float = ...,
        offload: Literal[False] = ...,
        verify_checksums: bool = ...,
    ) -> Session[bytes]: ...
    @overload
    def start_session(
        self,
        *,
        capacity: int | None = ...,
        pump: Pump = ...,
        spin: float = ...,
        offload: Literal[True],
        verify_checksums: bool = ...,
    ) -> Session[OffloadPacket]: ...
    def start_session(
        self,
        *,
        capacity: int | None = None,
        pump: Pump = "inline",
        spin: float = 0.0,
        offload: bool = False,
        verify_checksums: bool = True,
    ) -> Session[Any]:
        """Connect the adapter: rings of ``capacity`` bytes, a power of two from 128 KiB to 64 MiB.

        ``pump="inline"`` moves packets inside the session's own calls: no thread, and what the host
        sends meanwhile waits in the kernel's queue. ``pump="thread"`` has the driver's own threads
        move them, as a driver service does, and then ``capacity`` is the buffer. By default that is
        4 MiB; inline, 512 KiB, which stay in the processor's cache. A receive may ``spin`` so many
        seconds before it waits.

        The session's packets are no larger than the MTU and have their checksums, though the kernel
        hands over large ones, and is given large ones, where it can. With ``offload`` they are
        `OffloadPacket`, as the kernel has them. Before packets that the program sends are merged
        their checksums are verified; ``verify_checksums=False`` leaves that out, for a program
        whose packets are authenticated already: damaged ones would reach the host's programs.

        Returns once the interface is running. Raises ``ValueError``; `AdapterBusy` while a session
        runs on it; `AdapterNotFound`; `DriverUnavailable` where this needs the native core and it
        is not there, or the adapter cannot serve ``offload``.
        """
        from ringtun.session import Session

        device, capacity, options = self._device(capacity, pump, spin, offload, verify_checksums)
        session: Session[Any] = Session(device, capacity, spin=spin, options=options)
        session._adapter = self
        self._sessions.add(session)
        return session

    @overload
    def start_async_session(
        self,
        *,
        capacity: int | None = ...,
        pump: Pump = ...,
        spin: float = ...,
        offload: Literal[False] = ...,
        verify_checksums: bool = ...,
    ) -> AsyncSession[bytes]: ...
    @overload
    def start_async_session(
        self,
        *,
        capacity: int | None = ...,
        pump: Pump = ...,
        spin: float = ...,
        offload: Literal[True],
        verify_checksums: bool = ...,
    ) -> AsyncSession[OffloadPacket]: ...
    def start_async_session(
        self,
        *,
        capacity: int | None = None,
        pump: Pump = "inline",
        spin: float = 0.0,
        offload: bool = False,
        verify_checksums: bool = True,
    ) -> AsyncSession[Any]:
        """`start_session` for asyncio: ``async with adapter.start_async_session() as session``.

        It belongs to the event loop in which it first waits.
        """
        from ringtun.aio import AsyncSession

        device, capacity, options = self._device(capacity, pump, spin, offload, verify_checksums)
        session: AsyncSession[Any] = AsyncSession(device, capacity, spin=spin, options=options)
        session._session._adapter = self
        self._sessions.add(session)
        return session

    def _device(
        self, capacity: int | None, pump: Pump, spin: float, offload: bool, verify_checksums: bool
    ) -> tuple[Device, int, abi.Options]:
        from ringtun import abi

        opened = self._check_open()
        arguments.check_session(capacity, pump, spin)
        arguments.check_flags(offload=offload, verify_checksums=verify_checksums)
        options = abi.Options(0)
        if offload:
            if opened.offloads:
                arguments.check_offload_mtu(opened.info().mtu)
            options |= abi.Options.WHOLE_PACKETS
        if not verify_checksums:
            options |= abi.Options.TRUSTED_PACKETS
        device = opened.device(pump)
        if capacity is None:
            capacity = _BUFFER if device.host_fd is None else _PASSAGE
        return device, capacity, options

    def statistics(self) -> Statistics:
        """What went through it, over all sessions since this process made or opened it."""
        return self._check_open().statistics()

    def events(self) -> AdapterEvents:
        """What happens to the adapter from this call on, whoever does it: an iterator, for
        ``for`` and for ``async for``.

        Takes no rights. Raises `AdapterNotFound`, `DriverUnavailable`; any other ``OSError`` where
        a descriptor cannot be had.
        """
        from ringtun.events import AdapterEvents

        with self._lock:
            events = AdapterEvents(self._check_open().events(), self.name)
            events._adapter = self
            self._streams.add(events)
        return events

    def close(self) -> None:
        """Close the handle; its sessions and events end. A created adapter goes with its last
        handle, unless it is persistent. Idempotent.
        """
        with self._lock:
            self._closed = True
            for session in list(self._sessions):
                session._close(EndReason.ADAPTER_CLOSED)
            for events in list(self._streams):
                events.close()
            if not self._let_go:
                self._let_go = True
                self._opened.let_go()

    def _abandon(self) -> None:
        """In a forked child: our copies of descriptors must not keep the parent's adapter alive."""
        if not self._closed:
            self._closed = True
            self._opened.abandon()

    def _check_open(self) -> OpenAdapter:
        if self._closed:
            raise AdapterNotFound(errno.EBADF, f"this handle on adapter {self.name} is closed")
        return self._opened

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_closed", True):
            return
        try:
            warnings.warn(f"unclosed adapter {self.name}", ResourceWarning, source=self)
        finally:  # the warning may be an error
            self.close()

    def __repr__(self) -> str:
        return f"<Adapter {self.name} {'closed' if self._closed else self._opened.state}>"


_handles: weakref.WeakSet[Adapter] = weakref.WeakSet()


def _close_adapters() -> None:
    """At the interpreter's exit, while everything still works."""
    for adapter in list(_handles):
        adapter.close()


def _abandon_adapters() -> None:
    for adapter in list(_handles):
        adapter._abandon()


atexit.register(_close_adapters)
os.register_at_fork(after_in_child=_abandon_adapters)
