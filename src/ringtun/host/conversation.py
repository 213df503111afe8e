"""A conversation with the kernel by rtnetlink, and what its errors mean.

Each opens its netlink socket inside the namespace, in a thread of its own, and closes it there.
(pyroute2 opens another socket, in whatever namespace it is, for each thread that touches an
``IPRoute``.) pyroute2 is imported by the first conversation.
"""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from ringtun.errors import AdapterNotFound, AdapterPermissionError
from ringtun.host.namespace import Namespace

__all__ = ["converse", "doing"]

T = TypeVar("T")

_TAKEN = 8  # descriptors, by an IPRoute and its event loop


def converse(namespace: Namespace, talk: Callable[[Any], T]) -> T:
    """Call ``talk`` with an ``IPRoute`` opened, used and closed in one thread of the namespace."""

    def conversation() -> T:
        from pyroute2 import IPRoute

        _need_descriptors()
        with IPRoute(ext_ack=True) as netlink:
            return talk(netlink)

    return namespace.run(conversation)


def _need_descriptors() -> None:
    """Netlink's library that lacks one half-way leaves the others to the garbage collector."""
    opened: list[int] = []
    try:
        for _ in range(_TAKEN):
            opened.append(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError as error:
        gc.collect()
        raise OSError(
            error.errno,
            f"too few descriptors are left to ask the kernel ({error.strerror}): close some, or "
            "raise the limit (ulimit -n)",
        ) from None
    finally:
        for fd in opened:
            os.close(fd)


@contextmanager
def doing(what: str, hints: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn a netlink error into an ``OSError`` that says what failed.

    ``hints`` gives a cause for an errno that means something else here than it says.
    """
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise _os_error(what, error.code, str(error.args[1]), hints or {}) from error


def _os_error(what: str, code: int, kernel_says: str, hints: Mapping[int, str]) -> OSError:
    if code in hints:
        return OSError(code, f"cannot {what}: {hints[code]}")
    if code in (errno.EPERM, errno.EACCES):
        return AdapterPermissionError(
            code,
            f"no permission to {what}: it takes CAP_NET_ADMIN in its network namespace; "
            "run as root, or have root do it (ip address, ip link)",
        )
    if code == errno.ENODEV:
        return AdapterNotFound(
            code,
            f"cannot {what}: there is no such interface in this network namespace (any more)",
        )
    return OSError(code, f"cannot {what}: {kernel_says}")
