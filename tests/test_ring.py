"""Both rings, native and twin, pass the same tests, and agree with a deque."""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ringtun import _native, _twin, abi
from ringtun.errors import ConcurrencyError, EndReason, RingCorrupt, SessionClosed
from ringtun.event import Event

SIZES = [16, 32, 64]


class RingTests:
    """What every ring promises; ``core`` is the module under test."""

    core: ClassVar[Any]

    @pytest.fixture(params=SIZES)
    def ring(self, request: pytest.FixtureRequest) -> Iterator[Ring]:
        ring = Ring(self.core, request.param)
        yield ring
        ring.close()

    def make(self, capacity: int = 64) -> Ring:
        return Ring(self.core, capacity)

    # ---- memory ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("capacity", [0, 4, 8, 12, 17, 24, 1 << 27])
    def test_refuses_a_capacity(self, capacity: int) -> None:
        memory = bytearray(abi.ring_size(64))
        for side in (self.core.Producer, self.core.Consumer):
            with pytest.raises(ValueError, match="power of two"):
                side(memory, capacity)

    def test_refuses_memory_of_another_size(self) -> None:
        for side in (self.core.Producer, self.core.Consumer):
            for size in (0, 12, abi.ring_size(64) - 1, abi.ring_size(64) + 1):
                memory = bytearray(size)
                with pytest.raises(ValueError, match="bytes of memory"):
                    side(memory, 64)
                memory.append(0)  # nothing holds it

    def test_refuses_memory_that_cannot_be_written(self) -> None:
        for side in (self.core.Producer, self.core.Consumer):
            with pytest.raises(BufferError):
                side(bytes(abi.ring_size(64)), 64)

    def test_starts_where_the_ring_stands(self) -> None:
        memory = bytearray(abi.ring_size(64))
        memory[0:8] = (24).to_bytes(4, sys.byteorder) * 2
        producer, consumer = self.core.Producer(memory, 64), self.core.Consumer(memory, 64)
        assert producer.write(b"packet")
        assert consumer.pop() == b"packet"
        assert memory[0:4] == (36).to_bytes(4, sys.byteorder)

    def test_a_new_producer_writes_over_nothing(self) -> None:
        memory = bytearray(abi.ring_size(16))
        assert self.core.Producer(memory, 16).write(b"12345678")
        assert not self.core.Producer(memory, 16).push(b"")
        assert self.core.Consumer(memory, 16).pop() == b"12345678"

    @pytest.mark.parametrize("index", [2, 64, abi.RING_CLOSED])
    def test_does_not_start_at_nonsense(self, index: int) -> None:
        memory = bytearray(abi.ring_size(64))
        memory[0:8] = index.to_bytes(4, sys.byteorder) * 2
        for side in (self.core.Producer, self.core.Consumer):
            with pytest.raises(RingCorrupt):
                side(memory, 64)
        memory.append(0)

    # ---- packets --------------------------------------------------------------------------------

    def test_packets_in_their_order(self, ring: Ring) -> None:
        largest = ring.capacity - 8
        for number in range(100):
            packet = bytes([number]) * (number % (largest + 1))
            assert ring.producer.write(packet)
            assert ring.consumer.pop() == packet
            assert ring.consumer.pop() is None

    def test_full(self, ring: Ring) -> None:
        for turn in range(20):
            pushed = 0
            while ring.producer.push(bytes([turn, pushed])):
                pushed += 1
            assert pushed == (ring.capacity - 4) // 8
            assert ring.producer.staged == pushed * 8
            assert ring.consumer.pop() is None, "nothing is seen before it is submitted"
            ring.producer.submit()
            assert ring.producer.staged == 0
            assert ring.consumer.content == pushed * 8
            for number in range(pushed):
                assert ring.consumer.pop() == bytes([turn, number])
            assert ring.consumer.pop() is None

    def test_the_trailing_bytes(self) -> None:
        ring = self.make(0x20000)
        packets = [bytes([i]) * 65535 for i in (1, 2, 3, 4, 5)]
        for packet in packets:
            assert ring.producer.write(packet)
            assert ring.consumer.pop() == packet
        ring.close()

    def test_what_never_fits(self, ring: Ring) -> None:
        assert not ring.producer.push(bytes(ring.capacity - 8)) or True
        for size in (ring.capacity - 7, 65535):
            with pytest.raises(ValueError, match="never fits"):
                ring.producer.push(bytes(size))
            with pytest.raises(ValueError, match="never fits"):
                ring.producer.reserve(size)
        with pytest.raises(ValueError, match="at most 65535"):
            ring.producer.push(bytes(65536))

    def test_any_buffer(self, ring: Ring) -> None:
        for packet in (b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"xabc")[1:]):
            assert ring.producer.write(packet)
            assert ring.consumer.pop() == b"abc"
        with pytest.raises(TypeError):
            ring.producer.push("abc")

    def test_push_many(self) -> None:
        ring = self.make()
        packets = [bytes([i]) * 4 for i in range(20)]
        assert ring.producer.push_many(packets) == 7
        ring.producer.submit()
        assert [ring.consumer.pop() for _ in range(7)] == packets[:7]
        assert ring.producer.push_many(packets, 18) == 2
        ring.close()

    def test_push_many_from_a_batch(self) -> None:
        one, other = self.make(), self.make()
        packets = [b"a", b"bc", b"def"]
        one.producer.push_many(packets)
        one.producer.submit()
        with one.consumer.peek_many() as batch:
            assert other.producer.push_many(batch, 1) == 2
        with pytest.raises(ValueError, match="released"):
            other.producer.push_many(batch)
        other.producer.submit()
        assert [other.consumer.pop() for _ in range(3)] == [b"bc", b"def", None]
        one.close()
        other.close()

    def test_ip_only(self) -> None:
        producer = self.core.Producer(bytearray(abi.ring_size(256)), 256, ip_only=True)
        for bad in (b"", b"\x45" * 19, b"\x60" * 39, b"\x50" * 60, b"\x05" * 60):
            with pytest.raises(ValueError, match="not an IP packet"):
                producer.push(bad)
        for good in (b"\x45" * 20, b"\x4f" * 60, b"\x60" * 40):
            assert producer.push(good)

    # ---- events ---------------------------------------------------------------------------------

    def test_a_waiting_consumer_is_woken(self, ring: Ring) -> None:
        assert ring.consumer.arm()
        ring.producer.push(b"a")
        assert not ring.event.wait(0)
        ring.producer.submit()
        assert ring.event.wait(0)
        assert not ring.consumer.arm(), "there is something: do not wait"
        ring.consumer.disarm()
        assert ring.consumer.pop() == b"a"
        assert ring.consumer.arm()
        ring.producer.submit()
        assert not ring.event.wait(0), "nothing new, nobody is woken"

    # ---- batches and slots ----------------------------------------------------------------------

    def test_room_comes_back_in_order(self) -> None:
        ring = self.make()
        ring.producer.push_many([b"0123"] * 7)
        ring.producer.submit()
        first, second = ring.consumer.peek_many(2), ring.consumer.peek_many(2)
        assert ring.consumer.pop() == b"0123"
        second.release()
        assert ring.producer.room == 4, "the first batch is in use"
        first.release()
        assert ring.producer.room == 4 + 5 * 8
        ring.close()

    def test_pinned_slots_stop_the_ring(self) -> None:
        ring = self.make()
        ring.producer.push_many([b"0123", b"4567", b"89ab"])
        ring.producer.submit()
        batch = ring.consumer.peek_many()
        part = batch[1][1:]
        with pytest.warns(ResourceWarning, match="pinned"):
            batch.release()
        assert ring.consumer.pinned == 1
        assert bytes(part) == b"567"
        del part, batch
        gc.collect()
        assert ring.consumer.pinned == 0
        assert ring.consumer.pop() is None
        assert ring.producer.room == 60
        ring.close()

    def test_a_batch_forgotten_is_released(self) -> None:
        ring = self.make()
        ring.producer.push_many([b"0123", b"4567"])
        ring.producer.submit()
        batch = ring.consumer.peek_many()
        next(iter(batch))
        del batch
        gc.collect()
        assert ring.consumer.pop() is None
        assert ring.producer.room == 60
        ring.close()

    def test_a_batch_is_no_buffer(self) -> None:
        ring = self.make()
        ring.producer.write(b"a")
        with ring.consumer.peek_many() as batch, pytest.raises((BufferError, TypeError)):
            memoryview(batch)
        ring.close()

    def test_views_may_be_changed(self) -> None:
        one, other = self.make(), self.make()
        one.producer.write(b"abc")
        with one.consumer.peek_many() as batch:
            view = batch[0]
            view[0] = ord("x")
            other.producer.write(view)
        assert other.consumer.pop() == b"xbc"
        one.close()
        other.close()

    def test_slots(self, ring: Ring) -> None:
        slot = ring.producer.reserve(6)
        with pytest.raises(ConcurrencyError):
            ring.producer.push(b"a")
        with pytest.raises(ConcurrencyError):
            ring.producer.reserve(1)
        slot.view[:3] = b"abc"
        for length in (0, -1, 7):
            with pytest.raises(ValueError, match="cannot commit"):
                slot.commit(length)
        slot.commit(3)
        with pytest.raises(ValueError, match="released|forbidden"):
            slot.view[0]
        ring.producer.submit()
        assert ring.consumer.pop() == b"abc"
        ring.producer.reserve(6).abandon()
        ring.producer.submit()
        assert ring.consumer.pop() is None

    def test_a_slot_whose_slice_lives_is_not_committed(self, ring: Ring) -> None:
        slot = ring.producer.reserve(4)
        part = slot.view[1:]
        with pytest.raises(BufferError):
            slot.commit()
        part.release()
        slot.commit()
        ring.producer.submit()
        assert len(ring.consumer.pop()) == 4

    # ---- the end --------------------------------------------------------------------------------

    def test_the_producers_end(self, ring: Ring) -> None:
        ring.producer.end()
        assert ring.event.wait(0)
        assert not ring.consumer.arm()
        with pytest.raises(SessionClosed) as caught:
            ring.consumer.pop()
        assert caught.value.reason is EndReason.DRIVER_ENDED
        with pytest.raises(SessionClosed):
            ring.consumer.peek_many()

    def test_the_consumers_end(self, ring: Ring) -> None:
        assert not ring.producer.ended
        ring.consumer.end()
        assert ring.producer.ended
        with pytest.raises(SessionClosed):
            while ring.producer.push(b"a"):
                pass
        with pytest.raises(SessionClosed):
            ring.producer.room  # noqa: B018

    def test_closed(self, ring: Ring) -> None:
        ring.producer.close()
        ring.consumer.close()
        ring.memory.append(0)  # nothing holds it
        for call in (ring.consumer.pop, ring.consumer.peek_many, ring.consumer.arm):
            with pytest.raises(SessionClosed):
                call()
        with pytest.raises(SessionClosed):
            ring.producer.push(b"a")
        assert ring.consumer.content == 0
        ring.producer.submit()
        ring.producer.end()
        ring.consumer.end()
        ring.consumer.disarm()

    def test_memory_stays_while_a_batch_lives(self) -> None:
        ring = self.make()
        ring.producer.write(b"abc")
        ring.producer.close()
        batch = ring.consumer.peek_many()
        ring.consumer.close()
        assert bytes(batch[0]) == b"abc"
        batch.release()
        ring.memory.append(0)

    # ---- hostile peers --------------------------------------------------------------------------

    @pytest.mark.parametrize("tail", [1, 2, 3, 66, 64, 68, 0x7FFFFFFC, 0xFFFFFFFC])
    def test_a_bogus_tail(self, tail: int) -> None:
        ring = self.make()
        ring.set(abi.RING_TAIL, tail)
        for call in (ring.consumer.pop, ring.consumer.peek_many):
            with pytest.raises(RingCorrupt):
                call()
        assert not ring.consumer.arm()
        ring.close()

    @pytest.mark.parametrize("head", [1, 2, 3, 66, 64, 68, 0x7FFFFFFC, 0xFFFFFFFC])
    def test_a_bogus_head(self, head: int) -> None:
        ring = self.make()
        ring.set(abi.RING_HEAD, head)
        with pytest.raises(RingCorrupt):
            while ring.producer.push(b"a"):
                pass
        ring.close()

    @pytest.mark.parametrize("size", [13, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF])
    def test_a_bogus_size(self, size: int) -> None:
        ring = self.make()
        ring.set(abi.RING_HEADER_SIZE, size)
        ring.set(abi.RING_TAIL, 16)
        for call in (ring.consumer.pop, ring.consumer.peek_many):
            with pytest.raises(RingCorrupt):
                call()
        ring.close()

    def test_what_came_before_the_bogus_packet_is_read(self) -> None:
        ring = self.make()
        ring.producer.push(b"good")
        ring.producer.push(b"bad")
        ring.producer.submit()
        ring.set(abi.RING_HEADER_SIZE + 8, 0x10000)
        with ring.consumer.peek_many() as batch:
            assert [bytes(view) for view in batch] == [b"good"]
        with pytest.raises(RingCorrupt):
            ring.consumer.peek_many()
        ring.close()

    def test_a_wait_ends_with_what_comes_first(self) -> None:
        ring = Ring(self.core, 64)
        with Event() as stop:
            assert not ring.consumer.wait(stop.fileno(), 0.001), "nothing came"
            stop.signal()
            assert ring.consumer.wait(stop.fileno())
            stop.clear()
            ring.producer.push(b"0123")
            ring.producer.submit()
            assert ring.consumer.wait(stop.fileno()), "it is there already"
            assert ring.consumer.pop() == b"0123"
            writer = threading.Thread(target=lambda: ring.producer.write(b"4567"))
            writer.start()
            assert ring.consumer.wait(stop.fileno(), 10)
            writer.join()
            assert ring.consumer.pop() == b"4567"
            ring.event.clear()
            assert not ring.consumer.wait(stop.fileno(), 0.001)
            ring.producer.end()
            assert ring.consumer.wait(stop.fileno())
            with pytest.raises(SessionClosed):
                ring.consumer.pop()
        ring.close()


class TestNativeRing(RingTests):
    core: ClassVar[Any] = _native

    def test_space_wakes_a_producer(self) -> None:
        space = _native.Space()
        ring = Ring(_native, 64, space)
        while ring.producer.push(b"0123"):
            pass
        ring.producer.submit()
        assert ring.producer.arm(), "no room came: wait"
        ring.consumer.pop()
        space.clear()
        assert not ring.producer.arm(), "room came already"
        ring.consumer.pop()
        ring.producer.disarm()
        ring.close()

    def test_misaligned_memory(self) -> None:
        memory = memoryview(bytearray(abi.ring_size(64) + 1))[1:]
        with pytest.raises(ValueError, match="aligned"):
            _native.Producer(memory, 64)


class TestTwinRing(RingTests):
    core: ClassVar[Any] = _twin


class Ring:
    """A ring in ordinary memory, with both of its sides."""

    def __init__(self, core: Any, capacity: int, space: Any = None) -> None:
        self.capacity = capacity
        self.memory = bytearray(abi.ring_size(capacity))
        self.event = Event()
        self.producer = core.Producer(self.memory, capacity, self.event, space)
        self.consumer = core.Consumer(self.memory, capacity, self.event, space)

    def set(self, offset: int, value: int) -> None:
        self.memory[offset : offset + 4] = value.to_bytes(4, sys.byteorder)

    def close(self) -> None:
        self.producer.close()
        self.consumer.close()
        self.event.close()


class Histories(RuleBasedStateMachine):
    """Random histories leave both rings equal to a deque, and to each other byte for byte."""

    @initialize(capacity=st.sampled_from(SIZES))
    def begin(self, capacity: int) -> None:
        self.rings = [Ring(core, capacity) for core in CORES]
        self.staged: deque[bytes] = deque()
        self.queue: deque[bytes] = deque()
        self.held: list[tuple[list[Any], list[bytes]]] = []

    def both(self, call: str, *arguments: object) -> Any:
        native, twin = (getattr(ring.producer, call)(*arguments) for ring in self.rings)
        assert native == twin
        return native

    @rule(packet=st.binary(max_size=8))
    def push(self, packet: bytes) -> None:
        if self.both("push", packet):
            self.staged.append(packet)

    @rule(packets=st.lists(st.binary(max_size=8), max_size=8))
    def push_many(self, packets: list[bytes]) -> None:
        self.staged.extend(packets[: self.both("push_many", packets)])

    @rule(size=st.integers(1, 8), data=st.data())
    def reserve(self, size: int, data: st.DataObject) -> None:
        slots = [ring.producer.reserve(size) for ring in self.rings]
        assert (slots[0] is None) == (slots[1] is None)
        if slots[0] is None:
            return
        length = data.draw(st.integers(0, size))
        packet = data.draw(st.binary(min_size=length, max_size=length))
        for slot in slots:
            slot.view[:length] = packet
            if length:
                slot.commit(length)
            else:
                slot.abandon()
        if length:
            self.staged.append(packet)

    @rule()
    def submit(self) -> None:
        self.both("submit")
        self.queue.extend(self.staged)
        self.staged.clear()

    @rule()
    def pop(self) -> None:
        expected = self.queue.popleft() if self.queue else None
        assert [ring.consumer.pop() for ring in self.rings] == [expected, expected]

    @rule(limit=st.integers(1, 4))
    def peek_many(self, limit: int) -> None:
        expected = [self.queue.popleft() for _ in range(min(limit, len(self.queue)))]
        batches = [ring.consumer.peek_many(limit) for ring in self.rings]
        if not expected:
            assert batches == [None, None]
            return
        for batch in batches:
            assert len(batch) == len(expected)
            assert [bytes(view) for view in batch] == expected
        self.held.append((batches, expected))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not self.held:
            return
        batches, expected = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        for batch in batches:
            assert [bytes(view) for view in batch] == expected, "held bytes stay as they were"
            batch.release()

    @invariant()
    def same_indices_and_room(self) -> None:
        if not hasattr(self, "rings"):
            return
        native, twin = self.rings
        assert native.memory[:8] == twin.memory[:8]
        assert native.producer.room == twin.producer.room
        assert native.consumer.content == twin.consumer.content

    def teardown(self) -> None:
        for batches, _ in getattr(self, "held", []):
            for batch in batches:
                batch.release()
        for ring in getattr(self, "rings", []):
            ring.close()


words = st.integers(0, 80) | st.integers(0, 0xFFFFFFFF)


def outcome(call: Callable[[], Any]) -> Any:
    try:
        result = call()
    except (SessionClosed, RingCorrupt) as error:
        return type(error)
    if result is None or isinstance(result, (bytes, bool)):
        return result
    with result as batch:
        return [bytes(view) for view in batch]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    capacity=st.sampled_from(SIZES),
    starts=st.tuples(words, words),
    scribbles=st.lists(st.tuples(st.integers(0, 18), words), max_size=12),
    calls=st.lists(st.sampled_from(["pop", "peek_many", "push", "submit", "arm"]), max_size=12),
)
def test_a_hostile_ring_gives_the_same_to_both(
    capacity: int,
    starts: tuple[int, int],
    scribbles: list[tuple[int, int]],
    calls: list[str],
) -> None:
    """Nonsense in any word, at any time: a packet, EMPTY, FULL, the end or CORRUPT, and no more."""
    seen = []
    for core in CORES:
        memory = bytearray(abi.ring_size(capacity))
        for offset, value in zip((abi.RING_HEAD, abi.RING_TAIL), starts, strict=True):
            memory[offset : offset + 4] = value.to_bytes(4, sys.byteorder)
        results: list[Any] = []
        try:
            sides = core.Producer(memory, capacity), core.Consumer(memory, capacity)
        except RingCorrupt:
            seen.append([RingCorrupt])
            continue
        for step, call in enumerate(calls):
            if step < len(scribbles):
                word, value = scribbles[step]
                memory[word * 4 : word * 4 + 4] = value.to_bytes(4, sys.byteorder)
            if call == "push":
                results.append(outcome(lambda: sides[0].push(b"12345678")))  # noqa: B023
            elif call == "submit":
                sides[0].submit()
            else:
                results.append(outcome(getattr(sides[1], call)))
        seen.append(results)
    assert seen[0] == seen[1]


CORES: list[ModuleType] = [_native, _twin]
TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
