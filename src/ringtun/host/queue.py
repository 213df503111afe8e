"""One direction of a link in memory in plain Python; ``native/link.c`` is the same in C."""

from __future__ import annotations

import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ringtun.event import Event

if TYPE_CHECKING:
    from ringtun.host.impaired import ImpairedQueue
    from ringtun.host.impairment import Terms
    from ringtun.host.timer import Timer

__all__ = ["Queue"]


class Queue:
    """A queue of ``capacity`` bytes that drops when full; see ``_native.Link``.

    One thread puts and one gets at a time; the other calls may come from any thread.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._packets: deque[bytes] = deque()
        self._bytes_in = self._bytes_out = 0
        self._ready = select.epoll()
        self._event = Event()
        self._ready.register(self._event.fileno(), select.EPOLLIN)
        self._connected = False
        self.down = False  # the interface of the reading end is
        self._passed = self._overflowed = self._unplugged = self._drained = 0
        # Once they are there, they stay.
        self._impaired: ImpairedQueue | None = None
        self._timer: Timer | None = None
        self._lock = threading.Lock()  # over both
        self._armed: int | None = None

    def fileno(self) -> int:
        """Readable when a get has something to give; -1 once it is closed."""
        return -1 if self._ready.closed else self._ready.fileno()

    def connect(self) -> int:
        """See ``_native.Link``."""
        drained = 0
        with self._lock:
            while self._packets:
                self._next_packet()
                drained += 1
            if self._impaired is not None:
                drained += self._impaired.drain()
                self._arm(None)
        self._drained += drained
        self._connected = True
        return drained

    def disconnect(self) -> None:
        """See ``_native.Link``."""
        self._connected = False

    def impair(self, terms: Terms) -> None:
        """See ``_native.Link``."""
        from ringtun.host.impaired import ImpairedQueue
        from ringtun.host.timer import Timer

        with self._lock:
            if self._impaired is not None:
                self._impaired.set(terms)
            elif not self._ready.closed:
                self._timer = self._timer or Timer()
                self._ready.register(self._timer.fileno(), select.EPOLLIN)
                self._impaired = ImpairedQueue(terms)

    @property
    def counters(self) -> dict[str, int]:
        """See ``_native.Link``."""
        with self._lock:
            impaired = dict(self._impaired.counters) if self._impaired is not None else {}
        return {
            "passed": self._passed,
            "unplugged": self._unplugged,
            "drained": self._drained,
            **impaired,
            "overflowed": self._overflowed + impaired.get("overflowed", 0),
        }

    @property
    def dropped(self) -> int:
        """See ``_native.Link``."""
        counters = self.counters
        return counters["unplugged"] + counters["overflowed"]

    def put(self, packet: bytes) -> None:
        """Queue a packet, or drop and count it. Never waits."""
        if not self._connected or self.down:
            self._unplugged += 1
        elif self._impaired is not None:
            self._put_impaired(self._impaired, packet)
        elif self._bytes_in - self._bytes_out + len(packet) > self._capacity:
            self._overflowed += 1
        else:
            self._bytes_in += len(packet)
            self._packets.append(packet)
            self._event.signal()

    def get(self) -> bytes | None:
        """The next packet; None where there is none yet. Never waits."""
        with self._lock:
            packet = self._next_packet()
            if packet is None:
                self._event.clear()  # before the last look: it is set again for all that comes
                packet = self._next_packet()
                if packet is not None:
                    self._event.signal()
                if self._impaired is not None:
                    self._arm(self._impaired.due)
        if packet is not None:
            self._passed += 1
        return packet

    def close(self) -> None:
        """Close the descriptors: the reader is gone for good. More than once is fine."""
        self.disconnect()
        with self._lock:
            self._ready.close()
            self._event.close()
            if self._timer is not None:
                self._timer.close()

    def _next_packet(self) -> bytes | None:
        """What was put before the impairment comes before what was put after it."""
        if self._packets:
            packet = self._packets.popleft()
            self._bytes_out += len(packet)
            return packet
        return None if self._impaired is None else self._impaired.take(time.monotonic_ns())

    def _put_impaired(self, impaired: ImpairedQueue, packet: bytes) -> None:
        with self._lock:
            now = time.monotonic_ns()
            impaired.put(packet, now)
            due = impaired.due
            if due is not None and due <= now:
                self._event.signal()
            elif due is not None and (self._armed is None or due < self._armed):
                self._arm(due)

    def _arm(self, due: int | None) -> None:
        """Also makes a timer that has run out unreadable."""
        if self._timer is not None and due != self._armed:
            self._armed = due
            self._timer.arm(due)
