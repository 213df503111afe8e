"""What the host sends faster than the program reads, and what it sends while no session runs."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from ringtun import Session
from ringtun.device.embedded import Pump
from tests.system.conftest import MakeSite
from tests.system.packets import udp_payload
from tests.system.sites import PROGRAM, SOON, Site, until

pytestmark = pytest.mark.kernel

QUEUE = 10


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    """One whose queue holds next to nothing, and where nothing comes but what a test sends."""
    return make_site("left", versions=(4,), txqueuelen=QUEUE)


def send(host: socket.socket, numbers: range, size: int = 100) -> None:
    for number in numbers:
        host.sendto(number.to_bytes(4, "big") + bytes(size - 4), (PROGRAM[4], 4000))


def number_of(packet: bytes) -> int:
    return int.from_bytes(udp_payload(packet)[:4], "big")


def take(session: Session) -> list[int]:
    """The numbers of the packets that are there."""
    taken = []
    while (packet := session.try_receive()) is not None:
        taken.append(number_of(packet))
    return taken


def test_the_queue_holds_txqueuelen_and_the_rest_is_counted(site: Site) -> None:
    """Nothing runs beside the program: what it does not read waits in the kernel alone."""
    with site.adapter.start_session(pump="inline") as session, closing(site.udp()) as host:
        for turn in range(3):
            first = turn * 1000
            send(host, range(first, first + 500))
            assert take(session) == list(range(first, first + QUEUE))
            lost = session.statistics().discards.host_queue_full
            assert lost == (turn + 1) * (500 - QUEUE)
        assert session.statistics().received_packets == 3 * QUEUE
        assert session.statistics().discards.total == 3 * (500 - QUEUE)
    assert site.adapter.statistics().discards.host_queue_full == 3 * (500 - QUEUE)


@pytest.mark.parametrize("size", [40, 1400])
def test_received_and_lost_are_sent(site: Site, pump: Pump, size: int) -> None:
    """Ring and queue fill up while nobody reads; every packet is accounted for, in order."""
    count = 4000
    with (
        site.adapter.start_session(pump=pump, capacity=1 << 17) as session,
        closing(site.udp()) as host,
    ):
        send(host, range(count), size)
        lost = session.statistics().discards.host_queue_full
        assert lost > 0
        numbers = [number_of(session.receive(SOON)) for _ in range(count - lost)]
        assert session.try_receive() is None
        assert numbers == sorted(set(numbers))
        assert numbers[:QUEUE] == list(range(QUEUE))
        statistics = session.statistics()
        assert statistics.received_packets + statistics.discards.host_queue_full == count
        assert statistics.discards.total == lost
    assert site.adapter.statistics().discards.host_queue_full == lost


def test_a_longer_queue_loses_nothing(site: Site) -> None:
    site.link.set_txqueuelen(500)
    with site.adapter.start_session(pump="inline") as session, closing(site.udp()) as host:
        send(host, range(500))
        assert take(session) == list(range(500))
        assert session.statistics().discards.total == 0


def test_a_reading_program_loses_nothing(make_site: MakeSite, pump: Pump) -> None:
    """With the default queue, in steps that it holds."""
    site = make_site("left", versions=(4,))
    with site.adapter.start_session(pump=pump) as session, closing(site.udp()) as host:
        for first in range(0, 20000, 4000):
            send(host, range(first, first + 4000))
            got = [number_of(session.receive(SOON)) for _ in range(4000)]
            assert got == list(range(first, first + 4000))
        assert session.statistics().discards.total == 0


# without a session -------------------------------------------------------------------------------


def test_what_was_sent_before_the_session_never_shows_up(site: Site, pump: Pump) -> None:
    """There is no carrier: the kernel throws it away, and it is not this session's loss."""
    with closing(site.udp()) as host:
        send(host, range(QUEUE // 2))
        with site.adapter.start_session(pump=pump) as session:
            send(host, range(100, 101))
            assert number_of(session.receive(SOON)) == 100
            assert session.try_receive() is None
            assert session.statistics().discards.total == 0


def test_what_a_session_left_unread_is_thrown_away(site: Site) -> None:
    with closing(site.udp()) as host:
        with site.adapter.start_session(pump="inline"):
            send(host, range(5))
        with site.adapter.start_session(pump="inline") as session:
            assert session.statistics().discards.drained == 5
            send(host, range(100, 101))
            assert number_of(session.receive(SOON)) == 100
            assert session.try_receive() is None
            assert session.statistics().discards.total == 5


def test_what_was_sent_between_two_sessions_never_shows_up(site: Site, pump: Pump) -> None:
    """Right after the end the kernel may still take packets: those are thrown away too."""
    with closing(site.udp()) as host:
        for turn in range(10):
            with site.adapter.start_session(pump=pump) as session:
                send(host, range(100 + turn, 101 + turn))
                assert number_of(session.receive(SOON)) == 100 + turn
                assert session.try_receive() is None
                assert session.statistics().discards.host_queue_full == 0
            send(host, range(QUEUE // 2))


def test_stale_packets_of_a_full_ring_are_thrown_away(site: Site) -> None:
    capacity = 1 << 17
    with closing(site.udp()) as host:
        with site.adapter.start_session(pump="thread", capacity=capacity) as session:

            def fill() -> bool:
                send(host, range(QUEUE), 1400)
                return session.statistics().to_client_used > capacity - 2 * 1500

            until(fill, "the ring does not fill")
            send(host, range(2 * QUEUE), 1400)
        with site.adapter.start_session(pump="thread", capacity=capacity) as session:
            drained = session.statistics().discards.drained
            assert QUEUE - 3 <= drained <= QUEUE, "the ring has room for two, a third is on its way"
            send(host, range(5000, 5001))
            assert number_of(session.receive(SOON)) == 5000
            assert session.try_receive() is None


def test_what_is_sent_right_after_the_start_is_not_lost(site: Site, pump: Pump) -> None:
    """`start_session` returns once the interface is running, not before."""
    with closing(site.udp()) as host:
        for number in range(30):
            with site.adapter.start_session(pump=pump) as session:
                send(host, range(number, number + 1))
                assert number_of(session.receive(SOON)) == number
                assert session.statistics().discards.total == 0
