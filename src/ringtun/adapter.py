"""Adapters: make one, find one, start sessions on it."""

from __future__ import annotations

import atexit
import errno
import ipaddress
import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ringtun import abi
from ringtun.device.embedded import EmbeddedDevice, Pump
from ringtun.driver.adapter import DriverAdapter
from ringtun.driver.lifecycle import AdapterState
from ringtun.errors import AdapterNotFound, DriverUnavailable, EndReason
from ringtun.host import Host
from ringtun.session import Session
from ringtun.statistics import Statistics

if TYPE_CHECKING:
    from ringtun.host.linux import LinuxHost
    from ringtun.host.namespace import Namespace
    from ringtun.host.netlink import LinkInfo

__all__ = ["Adapter", "create_adapter", "open_adapter"]

_MAX_TXQUEUELEN = 1 << 20  # the kernel keeps an array of so many pointers
_MAX_ID = 0xFFFFFFFE
_MIN_MTU, _MAX_MTU, _MIN_IPV6_MTU = 68, 65535, 1280

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = str | Interface


class _Interface(Host, Protocol):
    """A host that can also say what its interface is like."""

    @property
    def ifindex(self) -> int: ...
    def info(self) -> LinkInfo: ...
    def addresses(self) -> tuple[Interface, ...]: ...
    def abandon(self) -> None: ...


def create_adapter(
    name: str,
    *,
    addresses: Iterable[Address] = (),
    mtu: int | None = None,
    up: bool = True,
    persist: bool = False,
    owner: int | None = None,
    group: int | None = None,
    txqueuelen: int = 5000,
    netns: str | None = None,
) -> Adapter:
    """Make a TUN adapter called ``name``: 1 to 15 bytes, as the kernel takes them.

    ``addresses`` are IPv4 and IPv6 addresses with their prefix, ``"10.7.0.1/24"``. ``mtu`` counts
    bytes (68 to 65,535; the kernel's default is 1,500), ``txqueuelen`` the packets that the kernel
    keeps for the program before it drops. ``netns`` names the network namespace in which the
    adapter is to be, as ``ip netns`` does.

    The adapter goes with its last handle. With ``persist`` it stays, for the user id ``owner`` or
    the group id ``group`` to open again; for the caller's user where neither is given.

    Everything is checked before the adapter is made; where a later step fails, nothing is left of
    it. Raises ``ValueError`` for an argument that cannot be; `AdapterExists`,
    `AdapterPermissionError`, `DriverUnavailable` (no TUN device on this machine);
    ``FileNotFoundError`` for a namespace that is not there; any other ``OSError`` of the kernel's.
    """
    LinuxHost, Namespace, check_name = _linux()
    _check_strings(name=name, netns=netns)
    check_name(name)
    interfaces = _interfaces(addresses)
    _check_mtu(mtu, interfaces)
    _check_number("txqueuelen", txqueuelen, 1, _MAX_TXQUEUELEN, "packets")
    for kind, identity in (("owner", owner), ("group", group)):
        if identity is not None:
            _check_number(kind, identity, 0, _MAX_ID, "as a numeric id")
    namespace = Namespace.current() if netns is None else Namespace.named(netns)
    try:
        host = LinuxHost.create(
            name,
            namespace=namespace,
            addresses=interfaces,
            mtu=mtu,
            up=up,
            txqueuelen=txqueuelen,
            persist=persist,
            owner=owner,
            group=group,
        )
    except BaseException:
        namespace.close()
        raise
    return Adapter(_keep(name, host), host)


def open_adapter(name: str, *, netns: str | None = None) -> Adapter:
    """Open an adapter that is there: one that this process made, or a persistent one.

    An adapter may be open several times; only one session at a time runs on it.

    Raises `AdapterNotFound`, `AdapterBusy` (another program holds it), `AdapterPermissionError`,
    `DriverUnavailable`, ``ValueError`` for a name that cannot be.
    """
    LinuxHost, Namespace, check_name = _linux()
    from ringtun.host.netlink import find

    _check_strings(name=name, netns=netns)
    check_name(name)
    namespace = Namespace.current() if netns is None else Namespace.named(netns)
    try:
        ifindex = find(namespace, name)
        if ifindex is None:
            raise AdapterNotFound(errno.ENODEV, f"there is no adapter {name}")
        with _adapters_lock:
            driver = _adapters.get((_inode(namespace), ifindex))
            if driver is not None and driver.state is not AdapterState.REMOVED:
                namespace.close()
                host = driver.host
                return Adapter(driver.hold(), host)  # type: ignore[arg-type]
        attached = LinuxHost.attach(name, namespace=namespace)
    except BaseException:
        namespace.close()
        raise
    return Adapter(_keep(name, attached), attached)


class Adapter:
    """An open handle on an adapter; from `create_adapter` or `open_adapter`.

    `close` it, or use it in a ``with`` statement. Calls may come from any thread. What asks the
    kernel raises `AdapterNotFound` once the interface is gone.
    """

    def __init__(self, driver: DriverAdapter, host: _Interface) -> None:
        """Takes over one hold on ``driver``, whose host is ``host``."""
        self._driver = driver
        self._host = host
        self._closed = False
        self._let_go = False
        self._lock = threading.RLock()
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        _handles.add(self)

    @property
    def name(self) -> str:
        """The interface's name when it was made or opened."""
        return self._driver.name

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace."""
        return self._host.ifindex

    @property
    def mtu(self) -> int:
        """Bytes of the largest packet that the host sends, as the kernel has it now."""
        return self._info().mtu

    @property
    def up(self) -> bool:
        """Whether the interface is up, as the kernel has it now."""
        return self._info().up

    @property
    def addresses(self) -> tuple[Interface, ...]:
        """Its addresses with their prefixes, as the kernel has them now."""
        self._check_open()
        return self._host.addresses()

    def _info(self) -> LinkInfo:
        self._check_open()
        return self._host.info()

    def start_session(
        self, *, capacity: int = 4 << 20, pump: Pump = "inline", spin: float = 0.0
    ) -> Session:
        """Connect the adapter: rings of ``capacity`` bytes, a power of two from 128 KiB to 64 MiB.

        ``pump="inline"`` moves packets inside the session's own calls: no thread, and what the host
        sends meanwhile waits in the kernel's queue. ``pump="thread"`` has the driver's own threads
        move them, and then ``capacity`` is the buffer. A receive may ``spin`` so many seconds
        before it waits.

        Returns once the interface is running. Raises ``ValueError``; `AdapterBusy` while a session
        runs on it; `AdapterNotFound`; `DriverUnavailable` where this needs the native core and it
        is not there.
        """
        self._check_open()
        if pump not in ("inline", "thread"):
            raise ValueError(f'pump is "inline" or "thread", not {pump!r}')
        if not isinstance(spin, (int, float)) or not 0 <= spin <= 1:
            raise ValueError(f"spin is a time from 0 to 1 second, not {spin!r}")
        if not isinstance(capacity, int) or not abi.is_capacity(capacity):
            raise ValueError(
                "capacity is a power of two from 131072 (128 KiB) to 67108864 (64 MiB), "
                f"not {capacity!r}"
            )
        session = Session(EmbeddedDevice(self._driver, pump), capacity, spin=spin)
        session._adapter = self
        self._sessions.add(session)
        return session

    def statistics(self) -> Statistics:
        """What went through it, over all sessions since this process made or opened it."""
        self._check_open()
        return self._driver.statistics()

    def close(self) -> None:
        """Close the handle; its sessions end. A created adapter goes with its last handle, unless
        it is persistent. Idempotent.
        """
        with self._lock:
            self._closed = True
            for session in list(self._sessions):
                session._close(EndReason.ADAPTER_CLOSED)
            if not self._let_go:
                self._let_go = True
                self._driver.let_go()

    def _abandon(self) -> None:
        """In a forked child: our copies of descriptors must not keep the parent's adapter alive."""
        if not self._closed:
            self._closed = True
            self._host.abandon()

    def _check_open(self) -> None:
        if self._closed:
            raise AdapterNotFound(errno.EBADF, f"this handle on adapter {self.name} is closed")

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
        return f"<Adapter {self.name} {'closed' if self._closed else self._driver.state.value}>"


def _linux() -> tuple[type[LinuxHost], type[Namespace], type]:
    """What a kernel TUN needs, loaded where it is used."""
    import sys

    if sys.platform != "linux":
        raise DriverUnavailable(errno.ENOSYS, f"no driver of ringtun's runs on {sys.platform}")
    from ringtun.host.linux import LinuxHost
    from ringtun.host.linux_tun import check_name
    from ringtun.host.namespace import Namespace

    return LinuxHost, Namespace, check_name  # type: ignore[return-value]


def _check_strings(**arguments: object) -> None:
    for argument, value in arguments.items():
        if not isinstance(value, str) and not (value is None and argument == "netns"):
            raise TypeError(f"{argument} is a string, not {value!r}")


def _check_number(argument: str, value: object, least: int, most: int, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} is an integer, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{argument} is {least} to {most} {unit}, not {value}")


def _interfaces(addresses: Iterable[Address]) -> list[Interface]:
    if isinstance(addresses, str):
        raise TypeError(f'addresses is a list: ["{addresses}"]')
    interfaces = [_interface(address) for address in addresses]
    for interface in interfaces:
        if interfaces.count(interface) > 1:
            raise ValueError(f"address {interface} is there twice")
    return interfaces


def _interface(address: Address) -> Interface:
    if not isinstance(address, (str, ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
        raise TypeError(f"an address is a string with its prefix, or an interface, not {address!r}")
    if isinstance(address, str) and "/" not in address:
        raise ValueError(f"address {address!r} lacks its prefix: write {address}/24, say")
    try:
        return ipaddress.ip_interface(address)
    except ValueError as error:
        raise ValueError(f"address {address!r} is none: {error}") from None


def _check_mtu(mtu: int | None, interfaces: Iterable[Interface]) -> None:
    if mtu is None:
        return
    _check_number("mtu", mtu, _MIN_MTU, _MAX_MTU, "bytes")
    if mtu < _MIN_IPV6_MTU and any(interface.version == 6 for interface in interfaces):
        raise ValueError(f"IPv6 needs an mtu of at least {_MIN_IPV6_MTU} bytes, not {mtu}")


# The adapters whose driver runs in this process, by namespace and interface index.
_adapters: weakref.WeakValueDictionary[tuple[int, int], DriverAdapter] = (
    weakref.WeakValueDictionary()
)
_adapters_lock = threading.Lock()
_handles: weakref.WeakSet[Adapter] = weakref.WeakSet()


def _inode(namespace: Namespace) -> int:
    return namespace.run(lambda: os.stat("/proc/thread-self/ns/net").st_ino)


def _keep(name: str, host: LinuxHost) -> DriverAdapter:
    driver = DriverAdapter(name, host)
    with _adapters_lock:
        _adapters[_inode(host.namespace), host.ifindex] = driver
    return driver


def _close_adapters() -> None:
    """At the interpreter's exit, while everything still works."""
    for adapter in list(_handles):
        adapter.close()


def _abandon_adapters() -> None:
    global _adapters_lock
    _adapters_lock = threading.Lock()
    _adapters.clear()
    for adapter in list(_handles):
        adapter._abandon()


atexit.register(_close_adapters)
os.register_at_fork(after_in_child=_abandon_adapters)
