"""Control: adapters made, found, listed and taken away. Slow and rare, it knows nothing of packets.

A backend is a module with the four functions of `Control`.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, get_args

from ringtun import arguments
from ringtun.errors import DriverUnavailable
from ringtun.info import alias_of, guid_in

if TYPE_CHECKING:
    import uuid

    from ringtun.arguments import Interface
    from ringtun.device import Device
    from ringtun.device.embedded import Pump
    from ringtun.events import EventSource
    from ringtun.host import HostInterface
    from ringtun.info import AdapterInfo
    from ringtun.statistics import Statistics

__all__ = [
    "Backend",
    "Control",
    "OpenAdapter",
    "Wanted",
    "backend_as_default",
    "check_change",
    "control_of",
    "set_up",
]

Backend: TypeAlias = Literal["embedded", "service", "memory", "wintun-dll", "wintun-device"]


class OpenAdapter(Protocol):
    """An adapter that somebody has open; what it is asked is as it is now.

    Raises `AdapterNotFound` once the interface is gone.
    """

    @property
    def name(self) -> str:
        """The interface's name when it was made or opened."""

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace."""

    @property
    def state(self) -> str:
        """Where it is in its life, in a word."""

    @property
    def offloads(self) -> bool:
        """Whether its packets may have offload headers."""

    def info(self) -> AdapterInfo: ...
    def configure(
        self,
        *,
        addresses: tuple[Interface, ...] | None,
        mtu: int | None,
        up: bool | None,
        txqueuelen: int | None,
    ) -> None:
        """Change what is not None, as `ringtun.Adapter.configure` has it."""

    def device(self, pump: Pump) -> Device:
        """A handle on its device, for a session to own."""

    def statistics(self) -> Statistics:
        """Over all sessions."""

    def events(self) -> EventSource:
        """What happens to it from now on, whoever else has it open; `AdapterEvents` owns it."""

    def let_go(self) -> None:
        """Close it; once."""

    def abandon(self) -> None:
        """In a forked child: close what this process holds of it, which is the parent's."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `create_adapter` was asked for, checked; None for what was not."""

    name: str
    addresses: tuple[Interface, ...] | None
    mtu: int | None
    guid: uuid.UUID | None
    up: bool
    exist_ok: bool
    persist: bool
    owner: int | None
    group: int | None
    txqueuelen: int
    netns: str | None


class Control(Protocol):
    """One backend. What each function does and raises stands with its namesake in `ringtun`."""

    def create_adapter(self, wanted: Wanted) -> OpenAdapter: ...
    def open_adapter(self, name: str, netns: str | None) -> OpenAdapter: ...
    def list_adapters(self, netns: str | None) -> list[AdapterInfo]: ...
    def delete_adapter(self, name: str, netns: str | None) -> None: ...


def check_change(
    host: HostInterface, addresses: tuple[Interface, ...] | None, mtu: int | None
) -> None:
    """Raise ``ValueError`` where an adapter that is there could not have these; None is no change.

    What does not change is looked up: its MTU has to suit new addresses, and they a new MTU.
    """
    if mtu is not None or addresses is not None:
        arguments.check_mtu(
            host.info().mtu if mtu is None else mtu,
            host.addresses() if addresses is None else addresses,
        )


def set_up(host: HostInterface, wanted: Wanted) -> None:
    """Make an adapter that is there what is wanted of it, but for whom it persists.

    Raises ``ValueError`` where it could not be so, and what ``configure`` does.
    """
    import uuid

    check_change(host, wanted.addresses, wanted.mtu)
    guid = guid_in(host.info().alias)
    alias = None
    if guid is None or wanted.guid not in (None, guid):
        alias = alias_of(wanted.guid or uuid.uuid4())
    host.configure(
        addresses=wanted.addresses,
        mtu=wanted.mtu,
        up=wanted.up,
        txqueuelen=wanted.txqueuelen,
        alias=alias,
    )


_default: Backend | None = None


def control_of(backend: Backend | None) -> Control:
    """The backend of that name; for None the one that serves here.

    Raises ``ValueError`` for a name that is none, `DriverUnavailable` for one that is not here.
    """
    chosen = _default if backend is None else backend
    if chosen is not None and chosen not in get_args(Backend):
        names = ", ".join(f'"{name}"' for name in get_args(Backend))
        raise ValueError(f"backend is None or one of {names}, not {backend!r}")
    if chosen == "memory":
        from ringtun.control import memory

        return memory
    if chosen == "service":
        from ringtun.control import service

        return service
    if chosen not in (None, "embedded"):
        raise DriverUnavailable(
            errno.ENOSYS, f'backend "{chosen}" is not part of this version of ringtun: leave it out'
        )
    if sys.platform != "linux":
        raise DriverUnavailable(errno.ENOSYS, f"no driver of ringtun's runs on {sys.platform}")
    if chosen is None:
        from ringtun.control import automatic

        return automatic
    from ringtun.control import kernel

    return kernel


@contextmanager
def backend_as_default(backend: Backend) -> Iterator[None]:
    """Inside the block, this is the backend of whoever asks for none: in all of the process."""
    global _default
    before, _default = _default, backend
    try:
        yield
    finally:
        _default = before
