"""Batches that go from one session's ring to another's host without a copy between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

import ringtun
from ringtun import _native
from ringtun.errors import ConcurrencyError
from ringtun.testing import memory_link
from ringtun.testing.conformance import packet
from tests.backends import KernelPeer


class Pair:
    """A source whose batches come from ``feed``, and a destination that ``sink`` hears."""

    def __init__(self) -> None:
        self.adapters = [*memory_link(), *memory_link()]
        sessions = [adapter.start_session() for adapter in self.adapters]
        self.feed, self.source, self.destination, self.sink = sessions

    def batch(self, *numbers: int) -> ringtun.Batch:
        for number in numbers:
            self.feed.send(packet(number))
        return self.source.receive_many(timeout=10)

    def heard(self) -> list[bytes]:
        found = []
        while (got := self.sink.try_receive()) is not None:
            found.append(got)
        return found

    def close(self) -> None:
        for adapter in self.adapters:
            adapter.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with closing(Pair()) as pair:
        yield pair


def past_the_ring(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What each forwarding left, as it happens."""
    seen: list[object] = []
    from ringtun.device.embedded import EmbeddedDevice

    original = EmbeddedDevice.forward

    def forward(self: EmbeddedDevice, batch: ringtun.Batch) -> list[int] | None:
        seen.append(original(self, batch))
        return seen[-1]  # type: ignore[return-value]

    monkeypatch.setattr(EmbeddedDevice, "forward", forward)
    return seen


def test_a_batch_goes_past_the_ring(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = past_the_ring(monkeypatch)
    with pair.batch(1, 2, 3) as batch:
        assert pair.destination.send_many(batch) == 3
    assert seen == [[]]
    assert pair.heard() == [packet(number) for number in (1, 2, 3)]
    sent = pair.destination.statistics()
    assert (sent.sent_packets, sent.sent_bytes, sent.to_host_used) == (3, 192, 0)


def test_what_waits_in_the_ring_goes_first(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = past_the_ring(monkeypatch)
    producer = pair.destination._producer
    producer.write(packet(1))  # no step yet
    with pair.batch(2) as batch:
        pair.destination.send_many(batch)
    producer.push(packet(3))  # not even shown
    with pair.batch(4) as batch:
        pair.destination.send_many(batch)
    assert seen == [None], "the second time it was not even asked"
    assert pair.heard() == [packet(number) for number in (1, 2, 3, 4)]


def test_gathered_batches_keep_their_order(pair: Pair) -> None:
    with pair.batch(2) as batch, pair.destination.gather():
        pair.destination.send(packet(1))
        pair.destination.send_many(batch)
        pair.destination.send(packet(3))
    assert pair.heard() == [packet(number) for number in (1, 2, 3)]


def test_an_open_slot_forbids_it(pair: Pair) -> None:
    with pair.batch(1) as batch, pair.destination.reserve(64), pytest.raises(ConcurrencyError):
        pair.destination.send_many(batch)
    assert pair.heard() == []


def test_what_a_program_spoiled_is_counted(pair: Pair) -> None:
    with pair.batch(1, 2, 3) as batch:
        batch[1][0] = 0
        assert pair.destination.send_many(batch) == 3
    assert pair.heard() == [packet(1), packet(3)]
    assert pair.destination.statistics().discards.not_ip_from_client == 1


def test_a_batch_that_was_released_is_none(pair: Pair) -> None:
    batch = pair.batch(1)
    batch.release()
    with pytest.raises(ValueError, match="released"):
        pair.destination.send_many(batch)


def test_what_the_host_does_not_take_goes_through_the_ring(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ringtun.device.embedded import EmbeddedDevice

    monkeypatch.setattr(EmbeddedDevice, "forward", lambda self, batch: [2, 1])
    with pair.batch(0, 1, 2) as batch:
        assert pair.destination.send_many(batch) == 3
    assert pair.heard() == [packet(2), packet(1)], "in the order that it was told"


def test_after_the_end_it_says_so(pair: Pair) -> None:
    with pair.batch(1) as batch:
        pair.destination.close()
        with pytest.raises(ringtun.SessionClosed):
            pair.destination.send_many(batch)


@pytest.mark.kernel
@pytest.mark.parametrize("count", [1, 40, 600])
def test_to_the_kernel_merged(count: int) -> None:
    """More than the coalescer holds at once, too."""
    feed_adapter, source_adapter = memory_link()
    with (
        feed_adapter,
        source_adapter,
        ringtun.create_adapter("forward0", mtu=1500) as adapter,
        feed_adapter.start_session() as feed,
        source_adapter.start_session() as source,
        adapter.start_session() as destination,
        closing(KernelPeer("forward0")) as host,
    ):
        packets = [packet(number, 100) for number in range(count)]
        feed.send_many(packets)
        with source.receive_many(1000, timeout=10) as batch:
            assert len(batch) == count
            assert destination.send_many(batch) == count
        assert [host.receive(10) for _ in range(count)] == packets
        assert destination.statistics().sent_packets == count
        assert (destination.statistics().merged > 0) == (count > 1)


def test_an_engine_without_rings_forwards_nothing(pair: Pair) -> None:
    engine = pair.destination._device._handle.engine  # type: ignore[attr-defined]
    assert isinstance(engine, _native.Engine)
    with pair.batch(1) as batch:
        pair.destination.close()
        assert engine.forward(batch) is None
