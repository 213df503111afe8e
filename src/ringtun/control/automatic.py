"""Control for who asks for no backend: the driver service that lets us in, else this process."""

from __future__ import annotations

import errno
from contextlib import suppress

from ringtun.control import OpenAdapter, Wanted, kernel, service
from ringtun.errors import AdapterExists, AdapterNotFound
from ringtun.info import AdapterInfo

__all__ = ["create_adapter", "delete_adapter", "list_adapters", "open_adapter"]


def create_adapter(wanted: Wanted) -> OpenAdapter:
    """See `ringtun.create_adapter`."""
    if service.lets_in():
        try:
            return service.create_adapter(wanted)
        except AdapterExists:
            if not wanted.exist_ok:  # else this process may be able to take it up
                raise
        except OSError as error:
            if error.errno != errno.EXDEV:  # it does not serve that namespace
                raise
    return kernel.create_adapter(wanted)


def open_adapter(name: str, netns: str | None) -> OpenAdapter:
    """See `ringtun.open_adapter`."""
    if service.lets_in():
        with suppress(AdapterNotFound):
            return service.open_adapter(name, netns)
    return kernel.open_adapter(name, netns)


def list_adapters(netns: str | None) -> list[AdapterInfo]:
    """See `ringtun.list_adapters`. The kernel knows them all, the service's too."""
    return kernel.list_adapters(netns)


def delete_adapter(name: str, netns: str | None) -> None:
    """See `ringtun.delete_adapter`."""
    if service.lets_in():
        try:
            service.delete_adapter(name, netns)
        except AdapterNotFound as error:
            if error.errno != errno.ENODEV:
                raise
        else:
            return
    kernel.delete_adapter(name, netns)
