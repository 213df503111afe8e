"""Control of the kernel's TUN interfaces, with their driver in this process."""

from __future__ import annotations

import errno
import os
import threading
import uuid
import weakref
from contextlib import ExitStack, suppress

from ringtun.control import Wanted, set_up
from ringtun.control.embedded import EmbeddedAdapter
from ringtun.driver.adapter import DriverAdapter
from ringtun.errors import AdapterExists, AdapterNotFound
from ringtun.host.distant import DistantHost
from ringtun.host.linux import LinuxHost
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, all_addresses, delete, find, links
from ringtun.info import AdapterInfo, alias_of, describe, guid_in

__all__ = [
    "bring_to",
    "check_guid",
    "create_adapter",
    "create_in",
    "delete_adapter",
    "list_adapters",
    "open_adapter",
    "take_over",
]

# How often creating an adapter is begun anew that comes and goes under our feet.
_ATTEMPTS = 5

# The adapters whose driver runs in this process, by namespace and interface index.
_adapters: weakref.WeakValueDictionary[tuple[int, int], DriverAdapter] = (
    weakref.WeakValueDictionary()
)
# Held while an adapter is made or opened: whoever finds one made by this process finds it whole.
_lock = threading.RLock()


def create_adapter(wanted: Wanted) -> EmbeddedAdapter:
    """See `ringtun.create_adapter`."""
    with _lock, ExitStack() as stack:
        namespace = stack.enter_context(Namespace.of(wanted.netns))
        if wanted.guid is not None:
            check_guid(namespace, wanted.guid, wanted.name)
        for _ in range(_ATTEMPTS):
            try:
                return _make(wanted)
            except AdapterExists:
                if not wanted.exist_ok:
                    raise
            try:
                return _take_up(wanted)
            except AdapterNotFound as error:
                if error.errno != errno.ENODEV:  # else it went since
                    raise AdapterExists(
                        errno.EEXIST,
                        f"interface {wanted.name} is there and is no TUN adapter that could be "
                        "opened: take another name",
                    ) from error
        raise AdapterExists(
            errno.EEXIST, f"interface {wanted.name} comes and goes: somebody else uses that name"
        )


def _make(wanted: Wanted) -> EmbeddedAdapter:
    with Namespace.handing_over(wanted.netns) as namespace:
        host = LinuxHost.create(
            wanted.name,
            namespace=namespace,
            addresses=wanted.addresses or (),
            mtu=wanted.mtu,
            alias=alias_of(wanted.guid or uuid.uuid4()),
            up=wanted.up,
            txqueuelen=wanted.txqueuelen,
        )
    try:
        if wanted.persist:  # last of all: a program that is killed before leaves nothing half made
            _persist(host, wanted)
        return EmbeddedAdapter(_keep(wanted.name, host), host)
    except BaseException:
        host.close()
        raise


def _take_up(wanted: Wanted) -> EmbeddedAdapter:
    """Open what is there, and make it what is wanted."""
    adapter = open_adapter(wanted.name, wanted.netns)
    try:
        bring_to(adapter, wanted)
    except BaseException:
        adapter.let_go()
        raise
    return adapter


def bring_to(adapter: EmbeddedAdapter, wanted: Wanted) -> None:
    """Make an adapter of `create_adapter`'s or `open_adapter`'s what is wanted of it."""
    host = adapter.host
    assert isinstance(host, LinuxHost)
    set_up(host, wanted)
    tun = host.info().tun
    if wanted.persist and tun is not None:
        asked = wanted.owner, wanted.group
        if not tun.persistent or asked not in ((None, None), (tun.owner, tun.group)):
            _persist(host, wanted)


def _persist(host: LinuxHost, wanted: Wanted) -> None:
    owner = wanted.owner
    if owner is None and wanted.group is None:
        owner = os.geteuid()
    host.persist(owner, wanted.group)


def open_adapter(name: str, netns: str | None) -> EmbeddedAdapter:
    """See `ringtun.open_adapter`."""
    with _lock, Namespace.handing_over(netns) as namespace:
        ifindex = _find(namespace, name)
        driver = _adapters.get((namespace.inode(), ifindex))
        with suppress(AdapterNotFound):  # its last handle may be closed at this moment
            if driver is not None:
                host = driver.host
                assert isinstance(host, LinuxHost)
                driver.hold()
                namespace.close()
                return EmbeddedAdapter(driver, host)
        host = LinuxHost.attach(name, namespace=namespace)
    return EmbeddedAdapter(_keep(name, host), host)


def take_over(fd: int) -> EmbeddedAdapter:
    """An adapter of this namespace, by its queue that another process joined; owns ``fd``.

    Raises what `LinuxTun.take_over` does.
    """
    with _lock, Namespace.handing_over(None) as namespace:
        host = LinuxHost.take_over(fd, namespace=namespace)
    return EmbeddedAdapter(_keep(host.name, host), host)


def create_in(descriptor: int, wanted: Wanted) -> EmbeddedAdapter:
    """Make one in the network namespace that ``descriptor`` is of, which need not be entered.

    It is down and has no addresses, and goes with its last handle; nobody else finds it here.
    Raises what `DistantHost.create` does.
    """
    host = DistantHost.create(
        wanted.name,
        into=descriptor,
        mtu=wanted.mtu,
        alias=alias_of(wanted.guid or uuid.uuid4()),
        txqueuelen=wanted.txqueuelen,
    )
    return EmbeddedAdapter(DriverAdapter(wanted.name, host), host)


def list_adapters(netns: str | None) -> list[AdapterInfo]:
    """See `ringtun.list_adapters`."""
    with Namespace.of(netns) as namespace:
        found = [link for link in links(namespace) if link.tun is not None]
        addresses = all_addresses(namespace) if found else {}
    return [describe(link, addresses.get(link.ifindex, ()), "embedded") for link in found]


def delete_adapter(name: str, netns: str | None) -> None:
    """See `ringtun.delete_adapter`."""
    with Namespace.of(netns) as namespace:
        link = Link(namespace, _find(namespace, name))
        if link.info().tun is None:
            raise AdapterNotFound(
                errno.EINVAL,
                f"there is no adapter {name}: the interface of that name is no TUN device",
            )
        delete(namespace, link.ifindex)


def _find(namespace: Namespace, name: str) -> int:
    ifindex = find(namespace, name)
    if ifindex is None:
        raise AdapterNotFound(
            errno.ENODEV, f"there is no adapter {name} in {namespace}; see: ringtun list"
        )
    return ifindex


def check_guid(namespace: Namespace, guid: uuid.UUID, name: str) -> None:
    """Raise `AdapterExists` where another adapter there than ``name`` has that guid."""
    for link in links(namespace):
        if guid_in(link.alias) == guid and link.name != name:
            raise AdapterExists(
                errno.EEXIST,
                f"guid {guid} is that of adapter {link.name} already: delete that one, "
                "or leave the guid out",
            )


def _keep(name: str, host: LinuxHost) -> DriverAdapter:
    driver = DriverAdapter(name, host)
    with _lock:
        _adapters[host.namespace.inode(), host.ifindex] = driver
    return driver


def _forget_all() -> None:
    global _lock
    _lock = threading.RLock()
    _adapters.clear()


os.register_at_fork(after_in_child=_forget_all)
