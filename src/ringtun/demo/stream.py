"""Numbered datagrams: how they are paced, filled, and accounted for."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Iterator
from typing import Final

__all__ = ["PAYLOAD_BYTES", "RATE", "Account", "number_in", "paced", "payload"]

PAYLOAD_BYTES: Final = 1200
RATE: Final = 20_000
"""Datagrams a second: below what the way carries, so that a loss says something."""
_TICK: Final = 0.001
_GRACE: Final = 0.5

_NUMBER: Final = struct.Struct("!Q")
_CHECK: Final = struct.Struct("!I")
_FILLING: Final = bytes(range(256)) * 5


def paced(seconds: float, rate: int = RATE) -> Iterator[int]:
    """The numbers from 0 on, each when its time has come, for so many seconds.

    They come in small groups: after a sleep of a millisecond all whose time has passed. A taker
    that is too slow for the rate gets fewer of them.
    """
    start = time.monotonic()
    number, total = 0, int(seconds * rate)
    while number < total and (now := time.monotonic() - start) < seconds + _GRACE:
        if number <= now * rate:
            yield number
            number += 1
        else:
            time.sleep(_TICK)


def payload(number: int) -> bytes:
    """What the datagram of this number carries: `PAYLOAD_BYTES`, a checksum of them included."""
    shift = number & 0x3F
    filling = _FILLING[shift : shift + PAYLOAD_BYTES - _NUMBER.size - _CHECK.size]
    content = _NUMBER.pack(number) + filling
    return content + _CHECK.pack(zlib.crc32(content))


def number_in(received: bytes | memoryview) -> int | None:
    """The number of a payload; None where it is damaged."""
    if len(received) != PAYLOAD_BYTES:
        return None
    content, check = received[: -_CHECK.size], received[-_CHECK.size :]
    if _CHECK.unpack(check)[0] != zlib.crc32(content):
        return None
    number: int = _NUMBER.unpack_from(content)[0]
    return number


class Account:
    """What arrived of a stream of numbered datagrams."""

    def __init__(self) -> None:
        self.arrived = 0
        self.reordered = 0
        self.duplicated = 0
        self.damaged = 0
        self._seen = bytearray()
        self._next = 0

    def add(self, received: bytes | memoryview) -> None:
        """A payload has arrived. One that did before counts as duplicated alone."""
        number = number_in(received)
        if number is None:
            self.damaged += 1
        elif self._is_new(number):
            self.arrived += 1
            self.reordered += number < self._next
            self._next = max(self._next, number + 1)
        else:
            self.duplicated += 1

    def _is_new(self, number: int) -> bool:
        if number >= len(self._seen):
            self._seen.extend(bytes(number + RATE - len(self._seen)))
        if self._seen[number]:
            return False
        self._seen[number] = 1
        return True
