"""Events, packets, statistics, offers, and the table of an adapter's life."""

from __future__ import annotations

import dataclasses
import json
import os
import threading

import pytest

from ringtun.driver.lifecycle import AdapterState, LifeEvent, next_state
from ringtun.event import Event
from ringtun.offer import Offer
from ringtun.packet import is_ip, require_ip
from ringtun.statistics import Discards, Statistics


def test_an_event_is_set_until_somebody_waits() -> None:
    with Event() as event:
        assert not event.wait(0)
        event.signal()
        event.signal()
        assert event.wait(0)
        assert not event.wait(0)
        event.signal()
        event.clear()
        event.clear()
        assert not event.wait(0)


def test_a_full_event_stays_set() -> None:
    with Event() as event:
        os.eventfd_write(event.fileno(), 0xFFFFFFFFFFFFFFFE)
        event.signal()
        assert event.wait(0)


def test_an_event_wakes_another_thread() -> None:
    with Event() as event:
        thread = threading.Thread(target=event.signal)
        thread.start()
        assert event.wait(5)
        thread.join()


def test_an_event_closes_once() -> None:
    event = Event()
    event.close()
    event.close()
    assert event.fileno() == -1


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (b"", False),
        (b"\x45" * 19, False),
        (b"\x45" * 20, True),
        (b"\x60" * 39, False),
        (b"\x60" * 40, True),
        (b"\x50" * 64, False),
        (b"\x05" * 64, False),
    ],
)
def test_what_is_ip(packet: bytes, expected: bool) -> None:
    assert is_ip(packet) is expected
    if expected:
        require_ip(packet)
    else:
        with pytest.raises(ValueError, match=f"{len(packet)} bytes"):
            require_ip(packet)


def test_statistics_add_up() -> None:
    one = Statistics(received_packets=1, discards=Discards(host_queue_full=2, not_ip_from_host=3))
    both = one + Statistics(received_packets=10, discards=Discards(host_queue_full=20))
    assert both.received_packets == 11
    assert both.discards.host_queue_full == 22
    assert both.discards.total == 25
    assert json.loads(json.dumps(both.as_dict()))["discards"]["not_ip_from_host"] == 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        both.received_packets = 0  # type: ignore[misc]


def test_an_offer_gives_everything_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    offer = Offer(1 << 17)
    assert len(set(offer.descriptors)) == 4
    assert all(not os.get_inheritable(fd) for fd in offer.descriptors)
    offer.close()
    offer.close()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("state", "event", "after"),
    [
        (AdapterState.CREATED, LifeEvent.REGISTERED, AdapterState.CONNECTED),
        (AdapterState.CREATED, LifeEvent.RELEASED, None),
        (AdapterState.CREATED, LifeEvent.REMOVED, AdapterState.REMOVED),
        (AdapterState.CONNECTED, LifeEvent.REGISTERED, None),
        (AdapterState.CONNECTED, LifeEvent.RELEASED, AdapterState.DISCONNECTED),
        (AdapterState.CONNECTED, LifeEvent.REMOVED, AdapterState.REMOVED),
        (AdapterState.DISCONNECTED, LifeEvent.REGISTERED, AdapterState.CONNECTED),
        (AdapterState.DISCONNECTED, LifeEvent.RELEASED, None),
        (AdapterState.DISCONNECTED, LifeEvent.REMOVED, AdapterState.REMOVED),
        (AdapterState.REMOVED, LifeEvent.REGISTERED, None),
        (AdapterState.REMOVED, LifeEvent.RELEASED, AdapterState.REMOVED),
        (AdapterState.REMOVED, LifeEvent.REMOVED, AdapterState.REMOVED),
    ],
)
def test_the_life_of_an_adapter(
    state: AdapterState, event: LifeEvent, after: AdapterState | None
) -> None:
    assert next_state(state, event) is after
