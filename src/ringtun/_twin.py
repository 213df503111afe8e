"""The ring in plain Python: the native core's twin, call for call.

It is the oracle that the native core is tested against, and it serves where nothing can be
compiled. Indices are read and written through ``memoryview.cast("I")`` alone, which is one access
of 32 bits; there is no fence in Python, so its producer always signals and its consumer stays
alertable. Both rest on x86-64's order of stores; on other processors it refuses to start a session.

The contracts stand in ``_native.pyi``. What differs: a packet's view shows a private copy.
"""

from __future__ import annotations

import select
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, overload

from ringtun import abi
from ringtun.errors import ConcurrencyError, EndReason, RingCorrupt, SessionClosed
from ringtun.packet import require_ip

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ringtun.event import Event

_MIN_CAPACITY = 16
_HEAD = abi.RING_HEAD // 4
_TAIL = abi.RING_TAIL // 4
_ALERTABLE = abi.RING_ALERTABLE // 4


class _Indices:
    """A ring's memory: the three indices as words, and the packets."""

    def __init__(self, memory: Buffer, capacity: int) -> None:
        if not (_MIN_CAPACITY <= capacity <= abi.RING_MAX_CAPACITY and capacity.bit_count() == 1):
            raise ValueError(
                f"a ring's capacity is a power of two from 16 bytes to 64 MiB, not {capacity}"
            )
        view = memoryview(memory)
        if view.readonly:
            view.release()
            raise BufferError("a ring's memory must be writable")
        if view.nbytes != abi.ring_size(capacity):
            size = view.nbytes
            view.release()
            raise ValueError(
                f"a ring of capacity {capacity} takes {abi.ring_size(capacity)} bytes "
                f"of memory, not {size}"
            )
        self.view = view
        self.words = view[: abi.RING_HEADER_SIZE].cast("B").cast("I")
        self.capacity = capacity

    def index(self, word: int) -> int:
        """The peer's index, read once and checked."""
        value = self.words[word]
        if value < self.capacity and value % abi.PACKET_ALIGNMENT == 0:
            return value
        if value == abi.RING_CLOSED:
            raise SessionClosed(EndReason.DRIVER_ENDED)
        raise RingCorrupt()

    def own_index(self, word: int) -> int:
        """Where the ring stands when this side takes it up."""
        try:
            return self.index(word)
        except SessionClosed:
            self.let_go()
            raise RingCorrupt() from None

    def size_at(self, offset: int) -> memoryview:
        start = abi.RING_HEADER_SIZE + offset
        return self.view[start : start + abi.PACKET_HEADER_SIZE].cast("I")

    def data_at(self, offset: int, size: int) -> memoryview:
        start = abi.RING_HEADER_SIZE + offset + abi.PACKET_HEADER_SIZE
        return self.view[start : start + size]

    def let_go(self) -> None:
        self.words.release()
        self.view.release()


class _Claim:
    """One caller at a time: a second one gets `ConcurrencyError`, not a turn."""

    def __init__(self, what: str) -> None:
        self._lock = threading.Lock()
        self._what = what
        self._closed = False

    def close(self) -> bool:
        """Nobody enters any more. Returns whether nobody is inside."""
        self._closed = True
        return self._lock.acquire(blocking=False)

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            if self._closed:
                raise SessionClosed(EndReason.CLOSED)
            raise ConcurrencyError(f"another thread {self._what} this ring just now")

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class Producer:
    """See ``_native.pyi``."""

    def __init__(
        self,
        memory: Buffer,
        capacity: int,
        event: Event | None = None,
        space: None = None,
        *,
        ip_only: bool = False,
    ) -> None:
        self._ring = _Indices(memory, capacity)
        self._event = event
        self._ip_only = ip_only
        self._closed = False
        self._slot: Slot | None = None
        self._tail = self._reserved = self._ring.own_index(_TAIL)
        self._head = (self._tail + abi.PACKET_ALIGNMENT) % capacity  # full, until Head was read
        self._claim = _Claim("writes to")

    @property
    def capacity(self) -> int:
        return self._ring.capacity

    @property
    def room(self) -> int:
        self._check_usable()
        self._head = self._ring.index(_HEAD)
        return self._room()

    @property
    def staged(self) -> int:
        return (self._reserved - self._tail) % self._ring.capacity

    def check(self) -> None:
        self._check_usable()

    @property
    def ended(self) -> bool:
        return self._closed or self._ring.words[_HEAD] == abi.RING_CLOSED

    def _room(self) -> int:
        return (self._head - self._reserved - abi.PACKET_ALIGNMENT) % self._ring.capacity

    def _check_usable(self) -> None:
        if self._closed:
            raise SessionClosed(EndReason.CLOSED)
        if self._slot is not None:
            raise ConcurrencyError("a reserved slot is open: commit or leave it first")

    def _find_room(self, size: int) -> bool:
        if size > abi.PACKET_MAX_SIZE:
            raise ValueError(f"a packet has at most {abi.PACKET_MAX_SIZE} bytes, not {size}")
        if abi.packet_span(size) > self._ring.capacity - abi.PACKET_ALIGNMENT:
            raise ValueError(
                f"a packet of {size} bytes never fits a ring of {self._ring.capacity} bytes"
            )
        if self._room() < abi.packet_span(size):
            self._head = self._ring.index(_HEAD)
        return self._room() >= abi.packet_span(size)

    def _commit(self, size: int) -> None:
        self._ring.size_at(self._reserved)[0] = size
        self._reserved = (self._reserved + abi.packet_span(size)) % self._ring.capacity

    def push(self, packet: Buffer) -> bool:
        with self._claim, memoryview(packet) as view:
            self._check_usable()
            data = view.cast("B")
            if self._ip_only and data.nbytes <= abi.PACKET_MAX_SIZE:
                require_ip(data)
            if not self._find_room(data.nbytes):
                return False
            self._ring.data_at(self._reserved, data.nbytes)[:] = data
            self._commit(data.nbytes)
            return True

    def push_many(self, packets: Sequence[Buffer], start: int = 0) -> int:
        for done in range(start, len(packets)):
            if not self.push(packets[done]):
                return done - start
        return len(packets) - start

    def submit(self) -> None:
        if self._closed or self._tail == self._reserved:
            return
        self._tail = self._reserved
        self._ring.words[_TAIL] = self._tail
        if self._event is not None:
            self._event.signal()

    def write(self, packet: Buffer) -> bool:
        if not self.push(packet):
            return False
        self.submit()
        return True

    def reserve(self, size: int) -> Slot | None:
        with self._claim:
            self._check_usable()
            if size < 1:
                raise ValueError(f"a slot has at least 1 byte, not {size}")
            if not self._find_room(size):
                return None
            self._slot = Slot(self, size)
            return self._slot

    def arm(self) -> bool:
        return False

    def disarm(self) -> None:
        pass

    def end(self) -> None:
        if not self._closed:
            self._ring.words[_TAIL] = abi.RING_CLOSED
            if self._event is not None:
                self._event.signal()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._event = None
            if self._claim.close():
                self._ring.let_go()


class Slot:
    """See ``_native.pyi``. Its view shows a private buffer, copied into the ring by the commit."""

    def __init__(self, producer: Producer, size: int) -> None:
        self._producer: Producer | None = producer
        self._buffer = bytearray(size)
        self.view = memoryview(self._buffer)

    def commit(self, length: int | None = None) -> None:
        producer = self._producer
        size = len(self._buffer) if length is None else length
        if producer is None:
            raise ValueError("this slot was committed or left already")
        if producer._closed:
            raise SessionClosed(EndReason.CLOSED)
        if not 0 < size <= len(self._buffer):
            raise ValueError(f"the slot has {len(self._buffer)} bytes: cannot commit {size}")
        if producer._ip_only:
            require_ip(self._buffer[:size])
        self.view.release()
        if _is_exported(self._buffer):
            raise BufferError("a slice of the slot's view is still in use")
        producer._ring.data_at(producer._reserved, size)[:] = self._buffer[:size]
        producer._commit(size)
        self._leave()

    def abandon(self) -> None:
        if self._producer is not None:
            self._leave()

    def _leave(self) -> None:
        if self._producer is not None:
            self._producer._slot = None
        self._producer = None


def _is_exported(buffer: bytearray) -> bool:
    """Whether a view of the buffer lives: a bytearray that is looked into refuses to grow."""
    try:
        buffer.append(0)
    except BufferError:
        return True
    del buffer[-1]
    return False


class _Span:
    """Consecutive packets that one batch holds, and those copied out after them."""

    def __init__(self) -> None:
        self.slots: list[tuple[bytearray, int]] = []  # packet, offset behind it
        self.end = 0
        self.released = False

    def used(self) -> int:
        return sum(_is_exported(buffer) for buffer, _ in self.slots)


class Consumer:
    """See ``_native.pyi``."""

    def __init__(
        self, memory: Buffer, capacity: int, event: Event | None = None, space: None = None
    ) -> None:
        self._ring = _Indices(memory, capacity)
        self._event = event
        self._closed = False
        self._head = self._next = self._tail = self._ring.own_index(_HEAD)
        self._spans: deque[_Span] = deque()
        self._claim = _Claim("reads from")
        self._ring.words[_ALERTABLE] = 1

    @property
    def capacity(self) -> int:
        return self._ring.capacity

    @property
    def pinned(self) -> int:
        self._advance()
        return sum(span.used() for span in self._spans if span.released)

    @property
    def content(self) -> int:
        if self._closed:
            return 0
        with suppress(SessionClosed):
            self._tail = self._ring.index(_TAIL)
        return self._content()

    @property
    def more(self) -> bool:
        return self._content() != 0

    def _content(self) -> int:
        return (self._tail - self._next) % self._ring.capacity

    def _peek(self) -> memoryview | None:
        """The next packet, stepped over; in the ring."""
        if self._closed:
            raise SessionClosed(EndReason.CLOSED)
        if not self._content():
            self._tail = self._ring.index(_TAIL)
            if not self._content():
                return None
        size = self._ring.size_at(self._next)[0]
        if size > abi.PACKET_MAX_SIZE or abi.packet_span(size) > self._content():
            raise RingCorrupt()
        data = self._ring.data_at(self._next, size)
        self._next = (self._next + abi.packet_span(size)) % self._ring.capacity
        return data

    def _give_back(self, end: int) -> None:
        if not self._closed and self._head != end:
            self._head = end
            self._ring.words[_HEAD] = end

    def pop(self) -> bytes | None:
        with self._claim:
            view = self._peek()
            if view is None:
                return None
            packet = bytes(view)
            self._advance()
            if self._spans:
                self._spans[-1].end = self._next
            else:
                self._give_back(self._next)
            return packet

    def peek_many(self, max_packets: int = 256) -> Batch | None:
        if max_packets < 1:
            raise ValueError(f"max_packets is at least 1, not {max_packets}")
        with self._claim:
            self._advance()
            span = _Span()
            while len(span.slots) < max_packets:
                if span.slots and not self._content():
                    break
                try:
                    view = self._peek()
                except RingCorrupt:
                    if not span.slots:
                        raise
                    break
                if view is None:
                    return None
                span.slots.append((bytearray(view), self._next))
            span.end = self._next
            self._spans.append(span)
            return Batch(self, span)

    def _advance(self) -> None:
        """Give back, in order, all that nobody uses any more."""
        while self._spans and self._spans[0].released:
            span = self._spans[0]
            while span.slots and not _is_exported(span.slots[0][0]):
                self._give_back(span.slots.pop(0)[1])
            if span.slots:
                return
            self._give_back(span.end)
            self._spans.popleft()

    def arm(self) -> bool:
        if self._closed:
            raise SessionClosed(EndReason.CLOSED)
        self._ring.words[_ALERTABLE] = 1
        if self._content():
            return False
        try:
            self._tail = self._ring.index(_TAIL)
        except SessionClosed:
            return False
        return not self._content()

    def disarm(self) -> None:
        """Nothing: without a fence it stays alertable."""

    def wait(self, stop: int, timeout: float | None = None) -> bool:
        if not self.arm():
            return True
        assert self._event is not None
        poll = select.poll()
        poll.register(self._event.fileno(), select.POLLIN)
        poll.register(stop, select.POLLIN)
        ready = poll.poll(None if timeout is None else max(0.0, timeout) * 1000)
        self._event.clear()
        return bool(ready)

    def end(self) -> None:
        if not self._closed:
            self._ring.words[_HEAD] = abi.RING_CLOSED

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._claim.close():
                self._ring.let_go()


class Batch(Sequence[memoryview]):
    """See ``_native.pyi``."""

    whole = False

    def __init__(self, consumer: Consumer, span: _Span) -> None:
        self._consumer = consumer
        self._span = span
        self._buffers = [buffer for buffer, _ in span.slots]
        self._views: list[memoryview] = []

    def _check_open(self) -> None:
        if self._span.released:
            raise ValueError("this batch was released")

    def __len__(self) -> int:
        self._check_open()
        return len(self._buffers)

    @overload
    def __getitem__(self, index: int) -> memoryview: ...
    @overload
    def __getitem__(self, index: slice) -> list[memoryview]: ...
    def __getitem__(self, index: int | slice) -> memoryview | list[memoryview]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        buffer = self._buffers[index]
        self._check_open()
        view = memoryview(buffer)
        self._views.append(view)
        return view

    def __iter__(self) -> Iterator[memoryview]:
        self._check_open()
        return (self[i] for i in range(len(self._buffers)))

    def __enter__(self) -> Batch:
        self._check_open()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        if self._span.released:
            return
        for view in self._views:
            with suppress(BufferError):
                view.release()
        self._views.clear()
        self._span.released = True
        pinned = self._span.used()
        self._consumer._advance()
        if pinned:
            warnings.warn(
                "a slice of a packet's view outlives its batch: its slot stays pinned, "
                "and the ring does not move past it",
                ResourceWarning,
                stacklevel=2,
            )

    def __del__(self) -> None:
        if not self._span.released:
            self._views.clear()
            self._span.released = True
            self._consumer._advance()
