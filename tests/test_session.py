"""What a session asks of its device, call by call."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import ringtun
from ringtun.device.embedded import EmbeddedDevice
from ringtun.session import LONE_WAITS, RECEIVE_BUDGET
from ringtun.testing import memory_link
from ringtun.testing.conformance import packet


@pytest.fixture
def ends() -> Iterator[tuple[ringtun.Session, ringtun.Session]]:
    left, right = memory_link()
    with left, right, left.start_session() as a, right.start_session() as b:
        yield a, b


@pytest.fixture
def budgets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of each look at the host, how many packets it was asked for."""
    seen: list[int] = []
    pump, wait = EmbeddedDevice.pump_to_client, EmbeddedDevice.wait_to_client

    def pump_to_client(self: EmbeddedDevice, budget: int) -> int:
        seen.append(budget)
        return pump(self, budget)

    def wait_to_client(
        self: EmbeddedDevice, budget: int, stop: int, timeout: float | None
    ) -> int | None:
        seen.append(budget)
        return wait(self, budget, stop, timeout)

    monkeypatch.setattr(EmbeddedDevice, "pump_to_client", pump_to_client)
    monkeypatch.setattr(EmbeddedDevice, "wait_to_client", wait_to_client)
    return seen


def test_lone_packets_are_asked_for_one_at_a_time(
    ends: tuple[ringtun.Session, ringtun.Session], budgets: list[int]
) -> None:
    peer, session = ends
    for number in range(4 * LONE_WAITS):
        peer.send(packet(number))
        assert session.receive(10) == packet(number)
    assert budgets.count(RECEIVE_BUDGET) <= 2 * 4
    assert set(budgets) == {1, RECEIVE_BUDGET}


def test_packets_that_come_together_are_found_together_again(
    ends: tuple[ringtun.Session, ringtun.Session], budgets: list[int]
) -> None:
    peer, session = ends
    for number in range(3):  # lone ones
        peer.send(packet(number))
        session.receive(10)
    budgets.clear()
    peer.send_many([packet(number) for number in range(200)])
    assert [session.receive(10) for _ in range(200)] == [packet(number) for number in range(200)]
    assert len(budgets) <= LONE_WAITS + 1
    budgets.clear()
    peer.send_many([packet(number) for number in range(200)])
    assert [session.receive(10) for _ in range(200)] == [packet(number) for number in range(200)]
    assert budgets == [RECEIVE_BUDGET]
