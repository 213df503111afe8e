"""What an impairment does to packets, by a clock of the test's own: the queue, native and twin."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringtun._native import ImpairedQueue as NativeQueue
from ringtun.host.impaired import ImpairedQueue as TwinQueue
from ringtun.host.impairment import HOLD, Impairment, random_number, terms_of
from ringtun.testing.conformance import packet

Queue = NativeQueue | TwinQueue
Make = Callable[[Impairment], Queue]

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
NEVER = 1 << 62


@pytest.fixture(params=[NativeQueue, TwinQueue], ids=["native", "twin"])
def make(request: pytest.FixtureRequest) -> Make:
    return lambda impairment: request.param(terms_of(impairment, 0))


def all_due(queue: Queue, now: int = NEVER) -> list[bytes]:
    taken = []
    while (one := queue.take(now)) is not None:
        taken.append(one)
    return taken


def passed(queue: Queue, count: int = 40) -> list[bytes]:
    """What becomes of so many packets, all sent at once."""
    for number in range(count):
        queue.put(packet(number), 0)
    return all_due(queue)


def times(queue: Queue) -> list[int]:
    """When all that waits is due."""
    due = []
    while queue.due is not None:
        due.append(queue.due)
        assert queue.take(queue.due - 1) is None
        assert queue.take(queue.due) is not None
    return due


def flipped(before: bytes, after: bytes) -> list[int]:
    """Which bits differ, counted as in the protocols' drawings: 0 is the highest of byte 0."""
    size = len(before) * 8
    change = int.from_bytes(before) ^ int.from_bytes(after)
    return [bit for bit in range(size) if change >> (size - 1 - bit) & 1]


# ---- each impairment ----------------------------------------------------------------------------


def test_by_default_nothing_happens(make: Make) -> None:
    queue = make(Impairment())
    queue.put(packet(1), 5)
    queue.put(packet(2), 6)
    assert queue.due == 5
    assert queue.take(4) is None
    assert all_due(queue, 6) == [packet(1), packet(2)]
    assert queue.due is None
    assert not any(queue.counters.values())


def test_loss(make: Make) -> None:
    lost = [9, 13, 19, 30, 33]
    queue = make(Impairment(loss=0.25, seed=7))
    assert passed(queue) == [packet(number) for number in range(40) if number not in lost]
    assert queue.counters["lost"] == len(lost)


def test_duplicate(make: Make) -> None:
    twice = [9, 18, 27, 29, 37]
    queue = make(Impairment(duplicate=0.1, seed=7))
    assert passed(queue) == [packet(n) for n in range(40) for _ in range(1 + (n in twice))]
    assert queue.counters["duplicated"] == len(twice)


def test_damage(make: Make) -> None:
    bits = {11: [452], 15: [80], 33: [75]}
    queue = make(Impairment(damage=0.1, seed=7))
    found = {n: flipped(packet(n), after) for n, after in enumerate(passed(queue))}
    assert {number: bit for number, bit in found.items() if bit} == bits
    assert queue.counters["damaged"] == len(bits)


def test_damage_hits_any_bit_behind_the_version(make: Make) -> None:
    queue = make(Impairment(damage=1))
    before = packet(1, size=28)
    hit = set()
    for _ in range(3000):
        queue.put(before, 0)
        (after,) = all_due(queue)
        (bit,) = flipped(before, after)
        hit.add(bit)
    assert hit == set(range(4, 224))


def test_a_copy_is_damaged_as_the_first_is(make: Make) -> None:
    first, second = passed(make(Impairment(damage=1, duplicate=1)), 1)
    assert first == second != packet(0)


def test_reorder(make: Make) -> None:
    held = [1, 2, 4, 7, 14, 18, 21, 28]
    queue = make(Impairment(reorder=0.2, seed=7))
    order = [0, 3, 1, 2, 5, 4, 6, 8, 7, *range(9, 14), 15, 14, 16, 17, 19, 18, 20, 22, 21]
    order += [*range(23, 28), 29, 28, *range(30, 40)]
    assert passed(queue) == [packet(number) for number in order]
    assert queue.counters["held"] == len(held)


def test_what_is_held_back_goes_alone_where_nothing_comes(make: Make) -> None:
    queue = make(Impairment(reorder=1, delay=1))
    queue.put(packet(1), 0)
    queue.put(packet(2), 5)
    assert times(queue) == [SECOND + int(HOLD * SECOND), SECOND + int(HOLD * SECOND) + 5]


def test_what_is_held_back_follows_at_once(make: Make) -> None:
    queue = make(Impairment(reorder=1))
    queue.put(packet(1), 0)
    queue.set(terms_of(Impairment(delay=3), 0))
    queue.put(packet(2), 5)
    assert all_due(queue, 3 * SECOND + 4) == []
    assert all_due(queue, 3 * SECOND + 5) == [packet(2), packet(1)]


def test_delay(make: Make) -> None:
    queue = make(Impairment(delay=0.25))
    for now in (0, 10, 10, 700):
        queue.put(packet(1), now)
    assert times(queue) == [SECOND // 4 + now for now in (0, 10, 10, 700)]


def test_jitter_is_spread_evenly(make: Make) -> None:
    queue = make(Impairment(delay=1, jitter=0.5, seed=1))
    delays = []
    for _ in range(2000):
        queue.put(packet(1), 0)
        delays += [due - SECOND for due in times(queue)]
        queue.drain()  # or each waits for the latest before it
    assert 0 <= min(delays) < SECOND // 100
    assert SECOND // 2 - SECOND // 100 < max(delays) <= SECOND // 2
    quarters = [cut / SECOND for cut in statistics.quantiles(delays)]
    assert quarters == pytest.approx([0.125, 0.25, 0.375], abs=0.01)


def test_jitter_keeps_the_order(make: Make) -> None:
    queue = make(Impairment(jitter=0.5, seed=1))
    for number in range(40):
        queue.put(packet(number), number * 10 * MILLISECOND)
    taken = [(queue.due, queue.take(NEVER)) for _ in range(40)]
    assert [one for _, one in taken] == [packet(number) for number in range(40)]
    due = [when for when, _ in taken if when is not None]
    assert due == sorted(due)
    assert len(set(due)) < 40  # some had to wait for the one before


def test_rate(make: Make) -> None:
    """64 bytes at 512 bits a second take a second."""
    queue = make(Impairment(rate=512, delay=0.5))
    for now in (0, 0, SECOND // 2, 10 * SECOND):
        queue.put(packet(1, size=64), now)
    assert times(queue) == [int(at * SECOND) for at in (1.5, 2.5, 3.5, 11.5)]


def test_what_is_lost_takes_no_time(make: Make) -> None:
    queue = make(Impairment(rate=512, loss=1))
    queue.put(packet(1), 0)
    queue.set(terms_of(Impairment(rate=512, duplicate=1), 0))
    queue.put(packet(2, size=64), 0)
    assert times(queue) == [SECOND, SECOND]


def test_the_limit_counts_bytes(make: Make) -> None:
    queue = make(Impairment(limit=100, rate=512))
    for number, size in enumerate((60, 60, 40, 28)):
        queue.put(packet(number, size), 0)
    assert queue.counters["overflowed"] == 2
    assert all_due(queue) == [packet(0, 60), packet(2, 40)]
    queue.put(packet(4, 100), 0)
    assert all_due(queue) == [packet(4, 100)]


@pytest.mark.parametrize(("limit", "overflowed"), [(128, 0), (127, 1), (63, 2)])
def test_a_copy_that_finds_no_room_overflows(make: Make, limit: int, overflowed: int) -> None:
    queue = make(Impairment(duplicate=1, limit=limit))
    assert passed(queue, 1) == [packet(0)] * (2 - overflowed)
    assert queue.counters["duplicated"] == 1
    assert queue.counters["overflowed"] == overflowed


def test_new_terms_number_packets_anew(make: Make) -> None:
    bad = Impairment(loss=0.3, duplicate=0.3, damage=0.3, reorder=0.3, seed=3)
    queue = make(bad)
    once = passed(queue)
    assert passed(queue) != once
    queue.set(terms_of(bad, 0))
    assert passed(queue) == once
    queue.set(terms_of(dataclasses.replace(bad, seed=4), 0))
    assert passed(queue) != once


def test_new_terms_leave_alone_what_waits(make: Make) -> None:
    queue = make(Impairment(delay=1))
    queue.put(packet(1), 0)
    queue.set(terms_of(Impairment(), 0))
    queue.put(packet(2), 1)
    assert all_due(queue, SECOND - 1) == []
    assert all_due(queue, SECOND) == [packet(1), packet(2)]


def test_a_drained_queue_begins_anew(make: Make) -> None:
    queue = make(Impairment(rate=512, delay=9, reorder=0.5, limit=640))
    for number in range(10):
        queue.put(packet(number, size=64), 0)
    assert queue.drain() == 10
    assert queue.due is None
    assert queue.drain() == 0
    queue.set(terms_of(Impairment(rate=512, limit=64), 0))
    queue.put(packet(1, size=64), 7)
    assert times(queue) == [SECOND + 7]


# ---- native and twin ----------------------------------------------------------------------------

probabilities = st.sampled_from([0.0, 0.1, 0.5, 1.0]) | st.floats(0, 1)
seconds = st.sampled_from([0.0, 1e-9, 0.01]) | st.floats(0, 3600)
impairments = st.builds(
    Impairment,
    **dict.fromkeys(("loss", "duplicate", "damage", "reorder"), probabilities),
    **dict.fromkeys(("delay", "jitter"), seconds),
    rate=st.none() | st.floats(1, 1e12) | st.integers(1, 10**12),
    limit=st.integers(1, 1000) | st.integers(1, 1 << 30),
    seed=st.integers(0, (1 << 64) - 1),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "take", "take when due", "set", "drain"]),
        st.integers(28, 200),  # bytes
        st.sampled_from([0, 0, 1000, 20 * MILLISECOND, SECOND]),  # passes before it
    ),
    max_size=60,
)


@settings(deadline=None)
@given(st.lists(impairments, min_size=1, max_size=3), st.integers(0, 1), steps)
def test_native_and_twin_are_equal(
    wanted: list[Impairment], direction: int, steps: list[tuple[str, int, int]]
) -> None:
    terms = [terms_of(impairment, direction) for impairment in wanted]
    queues: list[Queue] = [NativeQueue(terms[0]), TwinQueue(terms[0])]
    now = 1000 * SECOND

    def on_both(call: str, *arguments: Any) -> Any:
        native, twin = (getattr(queue, call)(*arguments) for queue in queues)
        assert native == twin
        assert queues[0].due == queues[1].due
        assert queues[0].counters == queues[1].counters
        return native

    for number, (step, size, passes) in enumerate(steps):
        now += passes
        if step == "put":
            on_both("put", packet(number, size), now)
        elif step == "set":
            on_both("set", terms[number % len(terms)])
        elif step == "drain":
            on_both("drain")
        else:
            if step == "take when due":
                now = max(now, queues[0].due or 0)
            on_both("take", now)


@settings(deadline=None)
@given(impairments, steps)
def test_every_packet_is_accounted_for(
    impairment: Impairment, steps: list[tuple[str, int, int]]
) -> None:
    queue = NativeQueue(terms_of(impairment, 0))
    for _, size, _ in steps:
        queue.put(packet(1, size), 0)
    counters = queue.counters
    out = len(all_due(queue)) + counters["lost"] + counters["overflowed"]
    assert out == len(steps) + counters["duplicated"]


def test_random_numbers_are_those_of_splitmix64() -> None:
    assert [random_number(1234567, index) for index in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_directions_have_random_numbers_of_their_own() -> None:
    there, back = (terms_of(Impairment(seed=7), direction) for direction in (0, 1))
    assert there.seed != back.seed
    assert there == back._replace(seed=there.seed)


def test_a_native_queue_refuses_what_is_no_packet() -> None:
    queue = NativeQueue(terms_of(Impairment(), 0))
    for size in (0, 65536):
        with pytest.raises(ValueError, match="1 to 65535 bytes"):
            queue.put(bytes(size), 0)


# ---- arguments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        *(
            (field, value, f"{field} is 0 to 1 as a probability, not")
            for field in ("loss", "duplicate", "damage", "reorder")
            for value in (-0.1, 1.1, 5, math.nan, math.inf)
        ),
        *(
            (field, value, f"{field} is 0 to 3600 seconds, not")
            for field in ("delay", "jitter")
            for value in (-1, 3601, math.nan, math.inf)
        ),
        *(
            ("rate", value, "rate is 1 to 1000000000000 bits a second, or None, not")
            for value in (0, 0.5, -1, 1e13, math.nan)
        ),
        *(
            ("limit", value, "limit is 1 to 1073741824 bytes, not")
            for value in (0, -1, (1 << 30) + 1)
        ),
        *(
            ("seed", value, "seed is 0 to 18446744073709551615 as a whole number, not")
            for value in (-1, 1 << 64)
        ),
    ],
)
def test_values_are_checked(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Impairment(**{field: value})


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Impairment)])
@pytest.mark.parametrize("value", ["5%", True, [], 1j])
def test_types_are_checked(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{field} is a "):
        Impairment(**{field: value})


@pytest.mark.parametrize("field", ["limit", "seed"])
def test_a_count_is_whole(field: str) -> None:
    with pytest.raises(TypeError, match=f"{field} is a whole number, not 5.0"):
        Impairment(**{field: 5.0})  # type: ignore[arg-type]


def test_it_is_a_frozen_value() -> None:
    assert Impairment(loss=0.5) == Impairment(loss=0.5) != Impairment(loss=0.4)
    assert len({Impairment(), Impairment()}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Impairment().loss = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Impairment(0.5)  # type: ignore[call-arg]
