"""A link in memory between two sessions: impaired from the start, or while packets flow."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import os
import resource
import select
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

import pytest

from ringtun.aio import AsyncSession
from ringtun.device.embedded import Pump
from ringtun.host.timer import Timer
from ringtun.session import Session
from ringtun.testing import DirectionStatistics, Impairment, MemoryLink, memory_link
from ringtun.testing.conformance import packet
from tests.children import descriptors
from tests.inside import embedded

LONG = 30  # seconds for what is to come
OUTAGE = Impairment(loss=1)


@pytest.fixture(params=["inline", "thread", "python"])
def pump(request: pytest.FixtureRequest) -> Iterator[Pump]:
    with warnings.catch_warnings():
        if request.param == "python":
            request.getfixturevalue("pure_python")
            warnings.filterwarnings("ignore", "packets are moved by plain Python", RuntimeWarning)
        yield "thread" if request.param == "thread" else "inline"


@dataclasses.dataclass
class Bed:
    link: MemoryLink
    a: Session  # left's
    b: Session  # right's

    def all_at_b(self) -> list[bytes]:
        """All that arrives there of what was sent."""
        return all_that_arrives(self.a, self.b, lambda: self.link.statistics().to_right)

    def all_at_a(self) -> list[bytes]:
        return all_that_arrives(self.b, self.a, lambda: self.link.statistics().to_left)


def all_that_arrives(
    sender: Session, receiver: Session, counted: Callable[[], DirectionStatistics]
) -> list[bytes]:
    sent = sender.statistics().sent_packets

    def on_its_way() -> bool:
        c = counted()
        gone = c.lost + c.overflowed + c.unplugged + c.drained
        return c.passed + gone < sent + c.duplicated

    received = []
    while on_its_way() or receiver.statistics().to_client_used:
        received.append(receiver.receive(LONG))
    return received


class Beds(Protocol):
    def __call__(
        self, impairment: Impairment | None = None, *, back: Impairment | None = None
    ) -> Bed: ...


@pytest.fixture
def beds(pump: Pump) -> Iterator[Beds]:
    with ExitStack() as stack:

        def make(impairment: Impairment | None = None, *, back: Impairment | None = None) -> Bed:
            link = stack.enter_context(memory_link(impairment, back=back))
            a, b = (stack.enter_context(side.start_session(pump=pump)) for side in link)
            return Bed(link, a, b)

        yield make


def flush(session: Session, count: int) -> None:
    """Wait until the engine has written so many packets of the session to the link."""
    deadline = time.monotonic() + LONG
    while session.statistics().sent_packets < count:
        assert time.monotonic() < deadline
        os.sched_yield()


# ---- both ways, and back -------------------------------------------------------------------------


def test_the_same_seed_is_the_same_fate(beds: Beds) -> None:
    bad = Impairment(loss=0.3, duplicate=0.3, damage=0.3, seed=11)
    packets = [packet(number) for number in range(200)]
    fates = []
    for impairment in (bad, bad, dataclasses.replace(bad, seed=12)):
        bed = beds(impairment)
        bed.a.send_many(packets)
        flush(bed.a, 200)
        fates.append((bed.all_at_b(), bed.link.statistics().to_right))
    assert fates[0] == fates[1] != fates[2]
    # What the seed says, on every machine and in every implementation.
    assert fates[0][1] == DirectionStatistics(passed=189, lost=69, duplicated=58, damaged=45)


def test_a_perfect_way_back(beds: Beds) -> None:
    bed = beds(OUTAGE, back=Impairment())
    bed.a.send(packet(1))
    bed.b.send(packet(2))
    assert bed.a.receive(LONG) == packet(2)
    flush(bed.a, 1)
    statistics = bed.link.statistics()
    assert statistics.to_right == DirectionStatistics(lost=1)
    assert statistics.to_left == DirectionStatistics(passed=1)


def test_only_the_way_back(beds: Beds) -> None:
    bed = beds(back=OUTAGE)
    bed.a.send(packet(1))
    bed.b.send(packet(2))
    assert bed.b.receive(LONG) == packet(1)
    flush(bed.b, 1)
    assert bed.link.statistics().to_left.lost == 1


def test_both_ways_differ_by_default(beds: Beds) -> None:
    bed = beds(Impairment(loss=0.5, seed=1))
    packets = [packet(number) for number in range(100)]
    for session in (bed.a, bed.b):
        session.send_many(packets)
        flush(session, 100)
    at_a, at_b = bed.all_at_a(), bed.all_at_b()
    assert at_a != at_b
    assert len(at_a) == 100 - bed.link.statistics().to_left.lost
    assert len(at_b) == 100 - bed.link.statistics().to_right.lost


# ---- time ----------------------------------------------------------------------------------------


def test_a_delayed_packet_wakes_who_waits(beds: Beds) -> None:
    bed = beds(Impairment(delay=0.05))
    before = time.monotonic()
    bed.a.send(packet(1))
    assert bed.b.try_receive() is None
    assert bed.b.receive(LONG) == packet(1)
    assert time.monotonic() - before >= 0.05


def test_a_delayed_packet_makes_the_descriptor_readable(beds: Beds) -> None:
    bed = beds(Impairment(delay=0.05))
    poll = select.poll()
    poll.register(bed.b.fileno(), select.POLLIN)
    assert not poll.poll(0)
    for number in range(3):
        before = time.monotonic()
        bed.a.send(packet(number))
        # A pump of threads may wake the descriptor for nothing, never too late.
        assert poll.poll(LONG * 1000)
        assert time.monotonic() - before >= 0.05
        assert bed.b.receive(LONG) == packet(number)
        assert not poll.poll(0)


def test_a_delayed_packet_wakes_a_task(pump: Pump) -> None:
    async def main() -> None:
        with memory_link(Impairment(delay=0.02)) as (left, right):
            a, b = (AsyncSession(side._opened.device(pump), 1 << 20) for side in (left, right))
            async with a, b:
                for number in range(3):
                    before = time.monotonic()
                    await a.send(packet(number))
                    await asyncio.wait_for(b.receive(), LONG)
                    assert time.monotonic() - before >= 0.02

    asyncio.run(main())


def test_a_wait_that_runs_out_takes_nothing(beds: Beds) -> None:
    bed = beds(Impairment(delay=0.1))
    bed.a.send(packet(1))
    with pytest.raises(TimeoutError):
        bed.b.receive(0.001)
    assert bed.b.receive(LONG) == packet(1)


def test_a_rate_takes_its_time(beds: Beds) -> None:
    """Ten packets of 1,000 bytes at 8 Mbit/s take a millisecond each."""
    bed = beds(Impairment(rate=8e6))
    before = time.monotonic()
    bed.a.send_many([packet(number, size=1000) for number in range(10)])
    assert [bed.b.receive(LONG) for _ in range(10)] == [packet(n, size=1000) for n in range(10)]
    assert time.monotonic() - before >= 0.01


def test_a_slow_link_overflows_and_counts(beds: Beds) -> None:
    bed = beds(Impairment(rate=800_000, limit=3000, delay=1))
    bed.a.send_many([packet(number, size=1000) for number in range(20)])
    flush(bed.a, 20)
    assert bed.link.statistics().to_right.overflowed == 17
    assert bed.b.statistics().discards.host_queue_full == 17
    assert [bed.b.receive(LONG) for _ in range(3)] == [packet(n, size=1000) for n in range(3)]


def test_an_idle_link_wakes_nobody(beds: Beds) -> None:
    bed = beds(Impairment(delay=0.01))
    poll = select.poll()
    poll.register(embedded(bed.link.right).host.fileno(), select.POLLIN)
    bed.a.send(packet(1))
    assert bed.b.receive(LONG) == packet(1)
    deadline = time.monotonic() + LONG
    while poll.poll(0):  # until the engine has looked once more, and found nothing
        assert bed.b.try_receive() is None
        assert time.monotonic() < deadline
    assert not poll.poll(50)


# ---- while packets flow --------------------------------------------------------------------------


def test_an_outage_and_its_end(beds: Beds) -> None:
    bed = beds()
    for number, impairment in enumerate([None, OUTAGE, None, OUTAGE, Impairment(delay=0.001)]):
        bed.link.impair(impairment)
        bed.a.send(packet(number))
        flush(bed.a, number + 1)
        if impairment is not OUTAGE:
            assert bed.b.receive(LONG) == packet(number)
        assert bed.b.try_receive() is None
    assert bed.link.statistics().to_right == DirectionStatistics(passed=3, lost=2)


def test_what_was_sent_before_the_impairment_arrives_first(beds: Beds) -> None:
    bed = beds()
    bed.a.send_many([packet(number) for number in range(5)])
    flush(bed.a, 5)
    bed.link.impair(Impairment(duplicate=1))
    bed.a.send(packet(5))
    assert [bed.b.receive(LONG) for _ in range(7)] == [
        packet(number) for number in (0, 1, 2, 3, 4, 5, 5)
    ]


def test_who_waits_is_woken_by_what_comes_impaired(beds: Beds) -> None:
    bed = beds()
    received: list[bytes] = []
    thread = threading.Thread(target=lambda: received.append(bed.b.receive(LONG)))
    thread.start()
    bed.link.impair(Impairment(delay=0.01))
    bed.a.send(packet(1))
    thread.join()
    assert received == [packet(1)]


def test_an_impairment_in_full_flight(beds: Beds) -> None:
    """One thread sends, one receives, one impairs: nothing is lost unseen, the order is kept."""
    bed = beds()
    stop = threading.Event()
    count = 3000
    kinds = [
        Impairment(duplicate=0.5),
        Impairment(delay=0.0005),
        Impairment(),
        Impairment(jitter=0.001),
    ]

    def impair() -> None:
        for number in range(100_000):
            bed.link.impair(kinds[number % len(kinds)])
            if stop.wait(0.001):
                return

    def send() -> None:
        for number in range(count):
            bed.a.send(packet(number))

    threads = [threading.Thread(target=call) for call in (impair, send)]
    for thread in threads:
        thread.start()
    try:
        last, seen = packet(0), {packet(0)}
        while len(seen) < count:
            one = bed.b.receive(LONG)
            assert one[28:32] >= last[28:32]
            seen.add(one)
            last = one
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# ---- the pair ------------------------------------------------------------------------------------


def test_a_link_is_a_pair() -> None:
    with memory_link() as link:
        left, right = link
        assert (link.left, link.right) == (left, right) == (link[0], link[1])
        assert len(link) == 2
        assert repr(link) == f"<MemoryLink {left!r} {right!r}>"
    assert "closed" in repr(left)
    assert "closed" in repr(right)
    link.close()
    link.impair(OUTAGE)
    assert link.statistics().to_left == DirectionStatistics()


def test_a_side_outlives_its_link(beds: Beds) -> None:
    bed = beds(Impairment(delay=0.01))
    bed.a.send(packet(1))
    del bed.link
    gc.collect()
    assert bed.b.receive(LONG) == packet(1)


@pytest.mark.parametrize("wanted", [0.5, "loss", {"loss": 1}])
def test_a_link_takes_impairments_alone(wanted: Impairment) -> None:
    held = descriptors()
    with pytest.raises(TypeError, match="takes an Impairment, or None, not"):
        memory_link(wanted)
    with pytest.raises(TypeError, match="takes an Impairment, or None, not"):
        memory_link(back=wanted)
    assert descriptors() == held


def test_every_drop_has_its_reason(beds: Beds) -> None:
    bed = beds(Impairment(delay=100, limit=1000))
    bed.a.send_many([packet(number, size=400) for number in range(3)])
    flush(bed.a, 3)
    bed.b.close()
    bed.a.send(packet(3))
    flush(bed.a, 4)
    with bed.link.right.start_session() as b:
        assert b.statistics().discards.drained == 2
        bed.link.impair()
        bed.a.send(packet(4))
        assert b.receive(LONG) == packet(4)
    assert bed.link.statistics().to_right == DirectionStatistics(
        passed=1, overflowed=1, unplugged=1, drained=2
    )


@pytest.mark.parametrize("end", ["close", "remove"])
def test_an_end_with_packets_in_flight_leaves_nothing(pump: Pump, end: str) -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    gc.collect()
    held = descriptors(), threads()
    for _ in range(3):
        link = memory_link(Impairment(delay=0.001, reorder=0.5))
        sessions = [side.start_session(pump=pump) for side in link]
        for session in sessions:
            session.send_many([packet(number) for number in range(100)])
        if end == "remove":
            embedded(link.right).driver.remove()
        link.close()
        for session in sessions:
            session.close()
        del link, session, sessions
        gc.collect()
        assert (descriptors(), threads()) == held


def test_more_packets_than_one_look_takes() -> None:
    """The engine takes 65,536 packets a step: a send goes on without waiting for the host."""
    with (
        memory_link(OUTAGE) as (left, right),
        left.start_session(capacity=64 << 20) as a,
        right.start_session(),
    ):
        tiny = b"\x45" + bytes(19)
        assert a.send_many([tiny] * 200_000, timeout=LONG) == 200_000
        assert a.statistics().sent_packets == 200_000


# ---- what the plain-Python queue is made of ------------------------------------------------------


def test_a_timer() -> None:
    timer = Timer()
    poll = select.poll()
    poll.register(timer.fileno(), select.POLLIN)
    assert not poll.poll(0)
    timer.arm(time.monotonic_ns() + 5_000_000)
    assert poll.poll(LONG * 1000)
    assert poll.poll(0)
    timer.arm(None)
    assert not poll.poll(0)
    timer.close()
    timer.close()
    timer.arm(1)
    assert timer.fileno() == -1


@pytest.mark.usefixtures("pump")
def test_a_link_without_descriptors_says_so(no_descriptors: NoDescriptors) -> None:
    memory_link(Impairment()).close()  # all is loaded
    link = memory_link()
    held = descriptors()
    with no_descriptors():
        with pytest.raises(OSError, match="Too many open files"):
            memory_link()
        with pytest.raises(OSError, match="Too many open files"):
            link.impair(OUTAGE)
    assert descriptors() == held
    link.impair(OUTAGE)
    link.close()


NoDescriptors = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def no_descriptors() -> NoDescriptors:
    """A block in which no descriptor can be opened."""

    @contextmanager
    def without() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    return without
