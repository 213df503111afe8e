"""The interface is taken away, or down, under a session's feet."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

import ringtun
from ringtun import AdapterNotFound, EndReason, Session, SessionClosed
from ringtun.device.embedded import Pump
from ringtun.testing.conformance import packet
from ringtun.testing.conformance.sessions import waits_inside
from tests.system.conftest import MakeSite
from tests.system.packets import udp_payload
from tests.system.sites import PROGRAM, SOON, Background, Site, next_packet, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def site(make_site: MakeSite) -> Site:
    return make_site("left", versions=(4,))


def say_why(call: Callable[[], object]) -> Callable[[], EndReason]:
    """The call, which is to raise `SessionClosed`; returns its reason."""

    def why() -> EndReason:
        with pytest.raises(SessionClosed) as raised:
            call()
        return raised.value.reason

    return why


def exhaust(packets: Callable[[], Iterator[object]]) -> Callable[[], None]:
    def loop() -> None:
        for _ in packets():
            pass

    return loop


@contextmanager
def flooding(site: Site) -> Iterator[None]:
    """The host sends as fast as it can, until the end of the block; errors are its own business."""
    over = threading.Event()

    def flood(host: socket.socket) -> None:
        while not over.is_set():
            try:
                host.sendto(bytes(1000), (PROGRAM[4], 4000))
            except OSError:  # no route any more
                over.wait()

    with closing(site.udp()) as host, Background(lambda: flood(host)) as flooder:
        try:
            yield
        finally:
            over.set()
        flooder.result()


def check_gone(site: Site, session: Session) -> None:
    """Everything says so, nothing hangs, and the name is free."""
    for call in (session.receive, session.try_receive, lambda: session.send(packet(1))):
        assert say_why(call)() is EndReason.ADAPTER_REMOVED
    session.statistics()
    with pytest.raises(AdapterNotFound):
        _ = site.adapter.mtu
    session.close()
    with pytest.raises((AdapterNotFound, SessionClosed)):
        site.adapter.start_session()
    assert site.interfaces() == ["lo"]
    site.adapter.close()
    name = site.network.name
    with (
        ringtun.create_adapter("vpn0", addresses=["10.99.0.1/24"], netns=name) as again,
        again.start_session() as session,
    ):
        session.send(packet(1))


WAITS: dict[str, Callable[[Session], Callable[[], object]]] = {
    "receive": lambda session: session.receive,
    "receive-timeout": lambda session: lambda: session.receive(SOON),
    "receive_many": lambda session: session.receive_many,
    "iterating": lambda session: exhaust(lambda: iter(session)),
    "batches": lambda session: exhaust(session.batches),
}


@pytest.mark.parametrize("call", WAITS)
def test_who_waits_is_told(site: Site, pump: Pump, call: str) -> None:
    with (
        site.adapter.start_session(pump=pump) as session,
        Background(say_why(WAITS[call](session))) as waiter,
    ):
        waits_inside(session, "_receiver")
        site.delete()
        assert waiter.result() is EndReason.ADAPTER_REMOVED
        check_gone(site, session)


def test_who_does_not_wait_is_told_at_the_next_call(site: Site, pump: Pump) -> None:
    with site.adapter.start_session(pump=pump) as session, closing(site.udp()) as host:
        host.sendto(b"1", (PROGRAM[4], 4000))
        next_packet(session)
        site.delete()
        assert say_why(session.receive)() is EndReason.ADAPTER_REMOVED
        check_gone(site, session)


def test_the_first_to_learn_may_be_a_send(site: Site, pump: Pump) -> None:
    with site.adapter.start_session(pump=pump) as session:

        def send_on() -> None:
            for number in itertools.count():
                session.send(packet(number), timeout=SOON)

        session.send(packet(0))
        site.delete()
        assert say_why(send_on)() is EndReason.ADAPTER_REMOVED
        check_gone(site, session)


@pytest.mark.parametrize("call", ["iterating", "batches"])
def test_in_the_middle_of_traffic(site: Site, pump: Pump, call: str) -> None:
    received, sent = threading.Event(), threading.Event()
    with site.adapter.start_session(pump=pump, capacity=1 << 17) as session:

        def receive_on() -> None:
            flow: Iterator[object] = iter(session) if call == "iterating" else session.batches()
            for number, _ in enumerate(flow):
                if number == 100:
                    received.set()

        def send_on() -> None:
            for number in itertools.count():
                session.send(packet(number, 1000))
                if number == 500:
                    sent.set()

        with (
            flooding(site),
            Background(say_why(receive_on)) as receiver,
            Background(say_why(send_on)) as sender,
        ):
            assert received.wait(SOON)
            assert sent.wait(SOON)
            site.delete()
            assert receiver.result() is EndReason.ADAPTER_REMOVED
            assert sender.result() is EndReason.ADAPTER_REMOVED
        check_gone(site, session)


def test_a_batch_outlives_the_interface(site: Site, pump: Pump) -> None:
    with site.adapter.start_session(pump=pump) as session, closing(site.udp()) as host:
        host.sendto(b"to be kept", (PROGRAM[4], 4000))
        with session.receive_many(timeout=SOON) as batch:
            site.delete()
            assert say_why(session.receive)() is EndReason.ADAPTER_REMOVED
            assert bytes(batch[0]).endswith(b"to be kept")


# down, and up again ------------------------------------------------------------------------------


def test_down_and_up_again_under_a_session(site: Site, pump: Pump) -> None:
    """What is sent meanwhile is counted; then traffic goes on, in the same session."""
    count = 50
    with site.adapter.start_session(pump=pump) as session, closing(site.udp()) as host:

        def both_ways(number: int) -> None:
            payload = udp_payload(packet(number, 500))
            host.sendto(payload, (PROGRAM[4], 4000))
            assert udp_payload(next_packet(session)) == payload
            session.send(packet(number, 500))
            assert host.recv(1 << 16) == payload

        for turn in range(1, 4):
            both_ways(turn)
            site.link.set_up(False)
            assert not site.adapter.up
            for number in range(count):
                session.send(packet(number))
            until(lambda turn=turn: session.statistics().discards.host_down == turn * count)  # type: ignore[misc]
            site.link.set_up(True)
            site.link.wait_running(SOON)
            both_ways(turn)
        statistics = session.statistics()
        assert statistics.sent_packets == statistics.received_packets == 6
        assert statistics.discards.total == 3 * count
        assert session.try_receive() is None


def test_a_waiting_receive_outlasts_down_and_up(site: Site, pump: Pump) -> None:
    with (
        site.adapter.start_session(pump=pump) as session,
        Background(session.receive) as receiver,
        closing(site.udp()) as host,
    ):
        waits_inside(session, "_receiver")
        site.link.set_up(False)
        site.link.set_up(True)
        site.link.wait_running(SOON)
        host.sendto(b"after", (PROGRAM[4], 4000))
        assert udp_payload(receiver.result()) == b"after"


def test_a_session_begins_while_the_interface_is_down(make_site: MakeSite, pump: Pump) -> None:
    site = make_site("left", versions=(4,), up=False)
    with site.adapter.start_session(pump=pump) as session, closing(site.udp()) as host:
        session.send(packet(1))
        until(lambda: session.statistics().discards.host_down == 1)
        site.link.set_up(True)
        site.link.wait_running(SOON)
        host.sendto(b"up", (PROGRAM[4], 4000))
        assert udp_payload(next_packet(session)) == b"up"
