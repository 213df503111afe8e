"""The queue of an impaired link in plain Python; ``native/impairment.c`` is the same in C."""

from __future__ import annotations

from collections import deque
from typing import Final

from ringtun.host.impairment import Terms, random_number

__all__ = ["ImpairedQueue"]

# Each packet has so many random numbers of its own, whether it needs them or not.
DRAWS: Final = 8
LOSS, DUPLICATE, DAMAGE, DAMAGED_BIT, REORDER, JITTER = range(6)


class ImpairedQueue:
    """Packets that wait for what `Terms` do to them.

    It knows no clock: its caller says what time it is, in nanoseconds that never go back. It has no
    lock.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._number = 0
        self._free_at = 0  # when the rate lets the next packet begin to leave
        self._last_due = 0  # no packet is due before one that came before it
        self._used = 0
        # (due, packet), in the order in which they leave.
        self._passing: deque[tuple[int, bytes]] = deque()
        self._held: deque[tuple[int, bytes]] = deque()
        self.counters = dict.fromkeys(("lost", "duplicated", "damaged", "held", "overflowed"), 0)

    def set(self, terms: Terms) -> None:
        """New terms from the next packet on, which is number 0.

        What waits keeps its time, and what comes stays behind it.
        """
        self._terms = terms
        self._number = 0

    def put(self, packet: bytes, now: int) -> None:
        """Take a packet of at least 1 byte, and queue it, or do not."""
        terms, counters = self._terms, self.counters
        number, self._number = self._number, self._number + 1
        if self._happens(number, LOSS, terms.loss):
            counters["lost"] += 1
            return
        twice = self._happens(number, DUPLICATE, terms.duplicate)
        damaged = self._happens(number, DAMAGE, terms.damage)
        held = self._happens(number, REORDER, terms.reorder)
        counters["duplicated"] += twice
        counters["damaged"] += damaged
        counters["held"] += held
        if self._used + len(packet) > terms.limit:
            counters["overflowed"] += 1 + twice
            return
        if damaged:
            packet = self._damaged(packet, number)
        due = self._due_time(len(packet), self._draw(number, JITTER), now)
        if held:
            due += terms.hold
        line = self._held if held else self._passing
        self._append(line, due, packet)
        if twice and self._used + len(packet) > terms.limit:
            counters["overflowed"] += 1
        elif twice:
            self._append(line, due, packet)
        if not held:
            self._passing.extend((due, packet) for _, packet in self._held)
            self._held.clear()

    def take(self, now: int) -> bytes | None:
        """The next packet that is due; None where none is."""
        line = self._next_line()
        if not line or line[0][0] > now:
            return None
        _, packet = line.popleft()
        self._used -= len(packet)
        return packet

    @property
    def due(self) -> int | None:
        """When the next packet is due; None where none waits."""
        line = self._next_line()
        return line[0][0] if line else None

    def drain(self) -> int:
        """Throw away what waits; returns how many packets."""
        drained = len(self._passing) + len(self._held)
        self._passing.clear()
        self._held.clear()
        self._used = self._free_at = self._last_due = 0
        return drained

    def _append(self, line: deque[tuple[int, bytes]], due: int, packet: bytes) -> None:
        line.append((due, packet))
        self._used += len(packet)

    def _next_line(self) -> deque[tuple[int, bytes]]:
        held, passing = self._held, self._passing
        return held if not passing or (held and held[0][0] < passing[0][0]) else passing

    def _draw(self, number: int, which: int) -> int:
        return random_number(self._terms.seed, number * DRAWS + which)

    def _happens(self, number: int, which: int, probability: int) -> bool:
        return self._draw(number, which) >> 11 < probability

    def _damaged(self, packet: bytes, number: int) -> bytes:
        bit = 4 + self._draw(number, DAMAGED_BIT) % (len(packet) * 8 - 4)
        changed = bytearray(packet)
        changed[bit // 8] ^= 0x80 >> bit % 8
        return bytes(changed)

    def _due_time(self, size: int, jitter: int, now: int) -> int:
        """When a packet that was sent now is due, if nothing holds it back."""
        terms, due = self._terms, now
        if terms.rate:
            due = max(now, self._free_at) + size * 8_000_000_000 // terms.rate
            self._free_at = due
        due += terms.delay + jitter % (terms.jitter + 1)
        self._last_due = max(due, self._last_due)
        return self._last_due
