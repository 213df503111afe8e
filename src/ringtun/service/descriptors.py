"""Descriptors that came from clients. The end of one may wait for as long as its maker likes.

A socket that lingers keeps whoever drops it last: by a close, by a message that is not received
whole, by the end of a connection with such messages unread. A signal ends that wait. A file in a
file system of a user's own keeps whoever closes it, signals or none.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ringtun.service.namespaces import is_namespace
from ringtun.wire import close_all

__all__ = ["close_apart", "impatient", "no_signal_matters"]

_TICK = 0.001  # seconds
_SHORTAGE_PAUSE = 0.2  # seconds until a thread is asked for again


def no_signal_matters(loop: asyncio.AbstractEventLoop) -> None:
    """Once, in the loop's main thread: `impatient` is to interrupt, and nothing else."""
    loop.add_signal_handler(signal.SIGALRM, lambda: None)


@contextmanager
def impatient() -> Iterator[None]:
    """Inside the block, in the main thread, no system call waits for a socket that lingers."""
    signal.setitimer(signal.ITIMER_REAL, _TICK, _TICK)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def close_apart(descriptors: Sequence[int], closed: Callable[[], None]) -> bool:
    """Close them; what is neither memory, an event nor a network namespace in a thread of its own.

    Returns whether there is one, which then calls ``closed``; it may never do so.
    """
    plain = [fd for fd in descriptors if _is_plain(fd)]
    close_all(plain)
    others = [fd for fd in descriptors if fd not in plain]
    if not others:
        return False

    def close() -> None:
        close_all(others)
        with suppress(RuntimeError):  # the loop was closed meanwhile
            closed()

    loop = asyncio.get_running_loop()

    def start() -> None:
        try:
            threading.Thread(target=close, name="ringtun-closer", daemon=True).start()
        except RuntimeError:  # the system has none to give
            loop.call_later(_SHORTAGE_PAUSE, start)

    start()
    return True


def _is_plain(fd: int) -> bool:
    """By no call that a file system of a user's own has to answer."""
    with suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        return True
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventfd]" or is_namespace(fd)
    return False
