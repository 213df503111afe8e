"""What happens to an adapter, as a stream: up, down, MTU, addresses, connected, removed."""

from __future__ import annotations

import enum
import errno
import os
import select
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ringtun.errors import AdapterNotFound, ConcurrencyError
from ringtun.event import Event

if TYPE_CHECKING:
    from ringtun.info import AdapterInfo

__all__ = ["AdapterEvent", "AdapterEvents", "EventKind", "EventSource", "differences"]

# A wait is cut into pieces of so many seconds: the kernel's clock takes no larger ones.
_LONGEST_WAIT = 86400.0


class EventKind(enum.Enum):
    """What happened to an adapter."""

    DISCONNECTED = "disconnected"
    DOWN = "down"
    MTU = "mtu"
    ADDRESSES = "addresses"
    UP = "up"
    CONNECTED = "connected"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class AdapterEvent:
    """Something happened to an adapter; from `Adapter.events`."""

    kind: EventKind
    """What."""
    info: AdapterInfo | None
    """How the adapter was afterwards; None where it is gone."""


class EventSource(Protocol):
    """A backend's news of one adapter, since the source was made."""

    def fileno(self) -> int:
        """Readable when there may be news."""

    def read(self) -> list[AdapterEvent]:
        """What has happened since the last call; ``REMOVED`` is the end. Never waits.

        Raises `DriverUnavailable` where nobody tells any longer.
        """

    def close(self) -> None:
        """Give back what it holds. Idempotent."""

    def abandon(self) -> None:
        """In a forked child: close this process's copies of what it holds."""


def differences(before: AdapterInfo, now: AdapterInfo) -> list[AdapterEvent]:
    """What happened between two looks: what ends first, what begins last."""
    happened = {
        EventKind.DISCONNECTED: before.connected and not now.connected,
        EventKind.DOWN: before.up and not now.up,
        EventKind.MTU: before.mtu != now.mtu,
        EventKind.ADDRESSES: set(before.addresses) != set(now.addresses),
        EventKind.UP: now.up and not before.up,
        EventKind.CONNECTED: now.connected and not before.connected,
    }
    return [AdapterEvent(kind, now) for kind, it_did in happened.items() if it_did]


class AdapterEvents:
    """What happens to an adapter from the call of `Adapter.events` on; iterate over it.

    ``for event in events`` waits by blocking, ``async for event in events`` in an event loop. It
    ends after `EventKind.REMOVED`, and once it is closed, or its `Adapter` is. Where the driver
    service goes first, `DriverUnavailable` is raised, and that is the end too.

    Each event tells of a difference between two looks at the adapter, the second of which is its
    ``info``. Who waits sees each change as it comes. Who comes late gets what is different by
    then: a change that was taken back meanwhile is not told of, so nothing piles up.

    One waits at a time, a thread or a task; another one gets `ConcurrencyError`. Close it, or use
    it in a ``with`` or an ``async with``.
    """

    def __init__(self, source: EventSource, name: str) -> None:
        """Take over ``source``, of the adapter ``name``."""
        self._name = name
        self._source = source
        self._pending: deque[AdapterEvent] = deque()
        self._lock = threading.RLock()
        self._waits = False  # somebody, inside
        self._over = False
        self._forked = False
        self._adapter: object = None  # kept as long as this goes on
        with ExitStack() as stack:
            stack.callback(source.close)
            self._ready = stack.enter_context(Event())  # set: look, whatever the source says
            self._epoll = stack.enter_context(select.epoll())
            self._epoll.register(self._ready.fileno(), select.EPOLLIN)
            self._epoll.register(source.fileno(), select.EPOLLIN)
            self._ready.signal()  # the source may have read more than was its beginning
            self._holdings = stack.pop_all()
        _streams.add(self)

    def wait(self, timeout: float | None = None) -> AdapterEvent | None:
        """Wait for an event; None: that was the last one.

        Raises ``TimeoutError`` after ``timeout`` seconds; 0 does not wait.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._waiting():
            while not self._over:
                event = self._take()
                if event is not None:
                    return event
                left = None
                if deadline is not None:
                    left = min(deadline - time.monotonic(), _LONGEST_WAIT)
                    if left <= 0:
                        raise TimeoutError(f"nothing happened to {self._name} in time")
                self._epoll.poll(left)
        return None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AdapterEvent:
        event = self.wait()
        if event is None:
            raise StopIteration
        return event

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AdapterEvent:
        with self._waiting():
            while not self._over:
                event = self._take()
                if event is not None:
                    return event
                await _readable(self._epoll.fileno())
        raise StopAsyncIteration

    def _take(self) -> AdapterEvent | None:
        """The next one that is there."""
        try:
            if not self._pending:
                self._pending.extend(self._source.read())
        except OSError:
            self.close()
            raise
        with self._lock:
            if self._over:  # meanwhile: what was read may be its own end
                return None
            event = self._pending.popleft() if self._pending else None
            if self._pending:
                self._ready.signal()
            else:
                self._ready.clear()
            if event is not None and event.kind is EventKind.REMOVED:
                self.close()
        return event

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        with self._lock:
            if self._forked:
                raise AdapterNotFound(
                    errno.EBADF, f"the events of {self._name} are those of the parent process"
                )
            if self._waits:
                raise ConcurrencyError(f"somebody else waits for these events of {self._name}")
            self._waits = True
        try:
            yield
        finally:
            with self._lock:
                self._waits = False
                if self._over:
                    self._holdings.close()

    def fileno(self) -> int:
        """A descriptor for other event loops: readable when ``wait(0)`` may have an event, or the
        end. It goes with the close. Raises ``ValueError`` after that.
        """
        return self._epoll.fileno()

    def close(self) -> None:
        """End it, from any thread; who waits gets the end. Idempotent."""
        with self._lock:
            self._over = True
            self._adapter = None
            if self._waits:  # gives back what there is, on its way out
                self._ready.signal()
            else:
                self._holdings.close()

    def _abandon(self) -> None:
        """In a forked child: the events are the parent's."""
        if self._over:
            return
        self._lock = threading.RLock()
        self._over = self._forked = True
        self._adapter = None
        self._holdings.pop_all()  # it would take locks that somebody in the parent may hold
        self._epoll.close()
        self._ready.close()
        self._source.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not hasattr(self, "_holdings"):
            return  # it never began
        try:
            if not self._over:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
        finally:  # the warning may be an error
            self.close()

    def __repr__(self) -> str:
        return f"<AdapterEvents of {self._name}{', over' if self._over else ''}>"


async def _readable(fd: int) -> None:
    import asyncio  # who iterates by blocking needs none of it

    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(fd, wake)
    try:
        await ready
    finally:
        if not loop.is_closed():
            loop.remove_reader(fd)


_streams: weakref.WeakSet[AdapterEvents] = weakref.WeakSet()


def _abandon_streams() -> None:
    for stream in list(_streams):
        stream._abandon()


os.register_at_fork(after_in_child=_abandon_streams)
