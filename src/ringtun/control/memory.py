"""Control of adapters in this process's memory: for programs under test, without kernel or rights.

An adapter here is one end of a link; whoever tests plays the host at the other: see `far_end`.
"""

from __future__ import annotations

import errno
import os
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass

from ringtun.control import Wanted, check_change
from ringtun.control.embedded import EmbeddedAdapter
from ringtun.driver.adapter import DriverAdapter
from ringtun.driver.lifecycle import AdapterState
from ringtun.errors import AdapterExists, AdapterNotFound
from ringtun.host.memory import MemoryHost, link_hosts
from ringtun.info import AdapterInfo, alias_of, describe, guid_in

__all__ = [
    "create_adapter",
    "delete_adapter",
    "delete_all",
    "far_end",
    "list_adapters",
    "open_adapter",
]


@dataclass(slots=True)
class _Entry:
    """An adapter, and who sits at the other end of its link."""

    driver: DriverAdapter
    host: MemoryHost
    far_driver: DriverAdapter
    far_host: MemoryHost
    kept: bool = False  # one of the driver's holds is this entry's: the adapter is persistent

    @property
    def there(self) -> bool:
        return self.driver.state is not AdapterState.REMOVED


_entries: dict[tuple[str | None, str], _Entry] = {}  # by namespace, which is a name here, and name
_lock = threading.RLock()


def create_adapter(wanted: Wanted) -> EmbeddedAdapter:
    """See `ringtun.create_adapter`."""
    with _lock:
        _clear_away()
        _check_guid(wanted)
        entry = _find(wanted.netns, wanted.name)
        if entry is not None and not wanted.exist_ok:
            raise AdapterExists(
                errno.EEXIST,
                f"there is an adapter called {wanted.name} already in this process: "
                "take another name, or open it (exist_ok makes it what is asked for)",
            )
        if entry is not None:
            try:
                check_change(entry.host, wanted.addresses, wanted.mtu)
                entry.driver.hold()
            except AdapterNotFound:  # its last handle was closed at this moment
                entry = _find(wanted.netns, wanted.name)
        if entry is None:
            entry = _make(wanted)
        host = entry.host
        guid = guid_in(host.info().alias)
        host.configure(
            addresses=wanted.addresses,
            mtu=wanted.mtu,
            up=wanted.up,
            txqueuelen=wanted.txqueuelen,
            alias=alias_of(wanted.guid or guid or uuid.uuid4()),
        )
        if wanted.persist:
            owner = wanted.owner
            if owner is None and wanted.group is None and not entry.kept:
                owner = os.geteuid()
            host.persist(owner, wanted.group)
            if not entry.kept:
                entry.driver.hold()
                entry.kept = True
        return EmbeddedAdapter(entry.driver, host)


def _make(wanted: Wanted) -> _Entry:
    near, far = link_hosts()
    near.configure(name=wanted.name, mtu=1500)
    far.configure(name=f"{wanted.name}-far")
    drivers = DriverAdapter(wanted.name, near), DriverAdapter(f"{wanted.name}-far", far)
    entry = _entries[wanted.netns, wanted.name] = _Entry(drivers[0], near, drivers[1], far)
    return entry


def open_adapter(name: str, netns: str | None) -> EmbeddedAdapter:
    """See `ringtun.open_adapter`."""
    with _lock:
        entry = _require(netns, name)
        return EmbeddedAdapter(entry.driver.hold(), entry.host)


def list_adapters(netns: str | None) -> list[AdapterInfo]:
    """See `ringtun.list_adapters`."""
    with _lock:
        _clear_away()
        found = []
        for (where, _), entry in _entries.items():
            with suppress(AdapterNotFound):  # its last handle may be closed at this moment
                if where == netns:
                    found.append(describe(entry.host.info(), entry.host.addresses(), "memory"))
        return found


def delete_adapter(name: str, netns: str | None) -> None:
    """See `ringtun.delete_adapter`."""
    with _lock:
        _require(netns, name).driver.remove()
        _find(netns, name)


def far_end(name: str, netns: str | None) -> EmbeddedAdapter:
    """The adapter at the other end of ``name``'s link, as `open_adapter` would give it."""
    with _lock:
        entry = _require(netns, name)
        return EmbeddedAdapter(entry.far_driver.hold(), entry.far_host)


def delete_all() -> None:
    """Take every adapter in this process's memory away."""
    with _lock:
        for netns, name in list(_entries):
            if _find(netns, name) is not None:
                delete_adapter(name, netns)


def _require(netns: str | None, name: str) -> _Entry:
    entry = _find(netns, name)
    if entry is None:
        raise AdapterNotFound(errno.ENODEV, f"there is no adapter {name} in this process's memory")
    return entry


def _find(netns: str | None, name: str) -> _Entry | None:
    """The entry of an adapter that is there; what is left of one that is not goes."""
    entry = _entries.get((netns, name))
    if entry is not None and not entry.there:
        del _entries[netns, name]
        entry.far_driver.let_go()
        return None
    return entry


def _clear_away() -> None:
    """What is left of adapters that went with their last handle: the far ends of their links."""
    for where, name in list(_entries):
        _find(where, name)


def _check_guid(wanted: Wanted) -> None:
    if wanted.guid is None:
        return
    for info in list_adapters(wanted.netns):
        if info.guid == wanted.guid and info.name != wanted.name:
            raise AdapterExists(
                errno.EEXIST, f"guid {wanted.guid} is that of adapter {info.name} already"
            )


def _forget_all() -> None:
    global _lock
    _lock = threading.RLock()
    _entries.clear()


os.register_at_fork(after_in_child=_forget_all)
