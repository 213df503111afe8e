"""An auto-reset event: one side sets it, the other waits for it and resets it.

On Linux an eventfd; ``native/event.h`` is the same for the native core.
"""

from __future__ import annotations

import contextlib
import os
import select

__all__ = ["Event"]


class Event:
    """An event and the descriptor that it owns; close it, or use it in a ``with``.

    ``Event(fd)`` takes over an eventfd that is there already. `signal` and `clear` never wait.
    """

    __slots__ = ("_fd",)

    def __init__(self, fd: int | None = None) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if fd is None else fd

    def fileno(self) -> int:
        """The descriptor: readable while the event is set. It stays the event's own."""
        return self._fd

    def signal(self) -> None:
        """Set the event; one that is set stays set, and one that is closed is left alone."""
        if self._fd < 0:
            return
        with contextlib.suppress(BlockingIOError):  # the counter is full: it is set already
            os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Reset the event; one that is closed is left alone."""
        if self._fd < 0:
            return
        try:  # noqa: SIM105 - the way of each packet that is waited for
            os.eventfd_read(self._fd)
        except BlockingIOError:
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the event is set, at most ``timeout`` seconds; then reset it.

        Returns whether it was set.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
            return False
        self.clear()
        return True

    def close(self) -> None:
        """Close the descriptor. More than once is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Event:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
