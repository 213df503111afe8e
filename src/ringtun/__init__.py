"""Layer-3 TUN for Python: adapters of the host's network stack, and sessions on their packets.

``create_adapter`` makes an adapter, ``Adapter.start_session`` gives its packets to the program. The
names are loaded where they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from ringtun import testing as testing
    from ringtun.adapter import (
        Adapter,
        create_adapter,
        delete_adapter,
        list_adapters,
        open_adapter,
    )
    from ringtun.aio import AsyncSession
    from ringtun.errors import (
        AdapterBusy,
        AdapterExists,
        AdapterNotFound,
        AdapterPermissionError,
        ConcurrencyError,
        DriverUnavailable,
        EndReason,
        RegistrationError,
        RingCorrupt,
        RingtunError,
        SessionClosed,
    )
    from ringtun.events import AdapterEvent, AdapterEvents, EventKind
    from ringtun.info import AdapterInfo
    from ringtun.offload import GsoType, OffloadPacket
    from ringtun.ring import Batch
    from ringtun.session import ReservedSlot, Session
    from ringtun.statistics import Discards, Statistics

_HOME = {
    "Adapter": "adapter",
    "create_adapter": "adapter",
    "delete_adapter": "adapter",
    "list_adapters": "adapter",
    "open_adapter": "adapter",
    "AsyncSession": "aio",
    "AdapterBusy": "errors",
    "AdapterExists": "errors",
    "AdapterNotFound": "errors",
    "AdapterPermissionError": "errors",
    "ConcurrencyError": "errors",
    "DriverUnavailable": "errors",
    "EndReason": "errors",
    "RegistrationError": "errors",
    "RingCorrupt": "errors",
    "RingtunError": "errors",
    "SessionClosed": "errors",
    "AdapterEvent": "events",
    "AdapterEvents": "events",
    "EventKind": "events",
    "AdapterInfo": "info",
    "GsoType": "offload",
    "OffloadPacket": "offload",
    "Batch": "ring",
    "ReservedSlot": "session",
    "Session": "session",
    "Discards": "statistics",
    "Statistics": "statistics",
}

__all__ = [
    "Adapter",
    "AdapterBusy",
    "AdapterEvent",
    "AdapterEvents",
    "AdapterExists",
    "AdapterInfo",
    "AdapterNotFound",
    "AdapterPermissionError",
    "AsyncSession",
    "Batch",
    "ConcurrencyError",
    "Discards",
    "DriverUnavailable",
    "EndReason",
    "EventKind",
    "GsoType",
    "OffloadPacket",
    "RegistrationError",
    "ReservedSlot",
    "RingCorrupt",
    "RingtunError",
    "Session",
    "SessionClosed",
    "Statistics",
    "create_adapter",
    "delete_adapter",
    "list_adapters",
    "open_adapter",
]


if not TYPE_CHECKING:  # a checker is to know these names, and no others

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name == "testing":
            return import_module(f"{__name__}.testing")
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__, "testing"]
