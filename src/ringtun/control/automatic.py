"""Control for who asks for no backend: the driver service that lets us in, else this process."""

from __future__ import annotations

import errno
from contextlib import suppress

from ringtun.control import OpenAdapter, Wanted, kernel, service
from ringtun.errors import AdapterNotFound
from ringtun.info import AdapterInfo

__all__ = ["create_adapter", "delete_adapter", "list_adapters", "open_adapter"]


def create_adapter(wanted: Wanted) -> OpenAdapter:
    """See `ringtun.create_adapter`."""
    if _served(wanted.netns):
        return service.create_adapter(wanted)
    return kernel.create_adapter(wanted)


def open_adapter(name: str, netns: str | None) -> OpenAdapter:
    """See `ringtun.open_adapter`."""
    if _served(netns):
        with suppress(AdapterNotFound):
            return service.open_adapter(name, netns)
    return kernel.open_adapter(name, netns)


def list_adapters(netns: str | None) -> list[AdapterInfo]:
    """See `ringtun.list_adapters`. The kernel knows them all, the service's too."""
    return kernel.list_adapters(netns)


def delete_adapter(name: str, netns: str | None) -> None:
    """See `ringtun.delete_adapter`."""
    if _served(netns):
        try:
            service.delete_adapter(name, netns)
        except AdapterNotFound as error:
            if error.errno != errno.ENODEV:
                raise
        else:
            return
    kernel.delete_adapter(name, netns)


def _served(netns: str | None) -> bool:
    return netns is None and service.lets_in()
