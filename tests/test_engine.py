"""The engine's step, native and plain, with a client that it knows by memory and events alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ringtun import abi
from ringtun.driver.adapter import DriverAdapter, Handle
from ringtun.driver.lifecycle import AdapterState
from ringtun.errors import DriverUnavailable
from ringtun.host.memory import link_hosts
from ringtun.offer import Offer
from ringtun.ring import Consumer, Producer
from ringtun.step import StepResult
from ringtun.testing.conformance import packet

CAPACITY = abi.RING_MIN_CAPACITY

# A client that knows the table of docs/protocol.md, four descriptors, and nothing of a driver.
CLIENT = """
import mmap, sys
from ringtun import abi
from ringtun.event import Event
from ringtun.ring import Consumer, Producer
to_client, send_event, to_host, receive_event, count = map(int, sys.argv[1:])
capacity = abi.RING_MIN_CAPACITY
memories = [mmap.mmap(fd, abi.ring_size(capacity)) for fd in (to_client, to_host)]
incoming = Consumer(memories[0], capacity, Event(send_event))
outgoing = Producer(memories[1], capacity, Event(receive_event))
wake = Event(send_event)
print("ready", flush=True)
echoed = 0
while echoed < count:
    packet = incoming.pop()
    if packet is None:
        if incoming.arm():
            assert wake.wait(20), f"no wake-up after {echoed} packets"
        incoming.disarm()
        continue
    while not outgoing.write(packet):
        pass
    echoed += 1
"""


@pytest.fixture
def adapters() -> Iterator[tuple[DriverAdapter, DriverAdapter]]:
    near, far = link_hosts()
    pair = DriverAdapter("near", near), DriverAdapter("far", far)
    yield pair
    for adapter in pair:
        adapter.remove()


def register(handle: Handle, offer: Offer, *, threads: bool) -> None:
    # Mapped by the client before it registers: the driver seals the memory against new mappings.
    handle.register(
        abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), offer.descriptors, threads=threads
    )


@pytest.mark.parametrize("threads", [False, True], ids=["stepped", "threads"])
def test_a_client_in_another_process(
    adapters: tuple[DriverAdapter, DriverAdapter], threads: bool
) -> None:
    near, far = adapters
    count = 2000
    offer, far_offer = Offer(CAPACITY), Offer(CAPACITY)
    with offer, far_offer:
        words = [sys.executable, "-W", "error", "-c", CLIENT]
        process = subprocess.Popen(
            [*words, *map(str, offer.descriptors), str(count)],
            pass_fds=offer.descriptors,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process, process.stdout:
            assert process.stdout.readline() == "ready\n"
            near_handle, far_handle = near.open(), far.open()
            register(near_handle, offer, threads=threads)
            register(far_handle, far_offer, threads=False)
            out = Producer(far_offer.to_host.mapping, CAPACITY)
            back = Consumer(far_offer.to_client.mapping, CAPACITY)
            sent = received = 0
            deadline = time.monotonic() + 30
            while received < count:
                assert time.monotonic() < deadline, (sent, received)
                while sent < count and sent - received < 50:
                    assert out.write(packet(sent, 28 + sent % 1000))
                    sent += 1
                far_handle.engine.step_to_host(64)
                if not threads:
                    near_handle.engine.step_to_client(64)
                    offer.to_client_event.signal()
                    near_handle.engine.step_to_host(64)
                far_handle.engine.step_to_client(64)
                while (echoed := back.pop()) is not None:
                    assert echoed == packet(received, 28 + received % 1000)
                    received += 1
            assert process.wait(10) == 0
            assert near_handle.statistics().received_packets == count
            assert near_handle.statistics().sent_packets == count
            out.close()
            back.close()
            near_handle.close()
            far_handle.close()


class Engines:
    """One registered adapter, its client's rings, and the far host."""

    @pytest.fixture
    def near(self, adapters: tuple[DriverAdapter, DriverAdapter]) -> DriverAdapter:
        return adapters[0]

    @pytest.fixture
    def offer(self) -> Iterator[Offer]:
        with Offer(CAPACITY) as offer:
            yield offer

    @pytest.fixture
    def handle(self, near: DriverAdapter, offer: Offer) -> Iterator[Handle]:
        handle = near.open()
        register(handle, offer, threads=False)
        yield handle
        handle.close()

    @pytest.fixture
    def far(self, adapters: tuple[DriverAdapter, DriverAdapter]) -> Iterator[Producer]:
        with Offer(CAPACITY) as offer:
            handle = adapters[1].open()
            register(handle, offer, threads=False)
            producer = Producer(offer.to_host.mapping, CAPACITY)
            self.pump_far = handle.engine.step_to_host
            yield producer
            producer.close()
            handle.close()

    def send(self, far: Producer, *packets: bytes) -> None:
        assert far.push_many(packets) == len(packets)
        far.submit()
        self.pump_far(1000)

    def test_what_a_step_says(
        self, handle: Handle, offer: Offer, far: Producer, near: DriverAdapter
    ) -> None:
        engine = handle.engine
        assert engine.step_to_client(10) == StepResult.IDLE
        assert engine.step_to_host(10) == StepResult.IDLE
        self.send(far, *(packet(n) for n in range(5)))
        assert engine.step_to_client(3) == StepResult.MORE
        assert engine.step_to_client(3) == StepResult.IDLE
        for _ in range(3):
            self.send(far, *(packet(n, 1400) for n in range(90)))
        assert engine.step_to_client(1000) == StepResult.BLOCKED
        assert engine.step_to_client(1000) == StepResult.BLOCKED
        consumer = Consumer(offer.to_client.mapping, CAPACITY)
        taken = 0
        while consumer.pop() is not None:
            taken += 1
        while engine.step_to_client(1000) != StepResult.IDLE:
            while consumer.pop() is not None:
                taken += 1
        while consumer.pop() is not None:
            taken += 1
        consumer.close()
        assert taken == 5 + 3 * 90
        near.remove()
        assert engine.step_to_client(10) == StepResult.OVER
        assert engine.step_to_host(10) == StepResult.OVER
        assert near.state is AdapterState.REMOVED

    def test_a_packet_of_the_host_that_is_none(self, handle: Handle, far: Producer) -> None:
        far_packets = [packet(1), packet(2)]
        self.send(far, *far_packets)
        handle.engine.step_to_client(10)
        assert handle.statistics().received_packets == 2

    def test_packets_that_end_at_the_edge_of_the_room(
        self, handle: Handle, offer: Offer, far: Producer
    ) -> None:
        """Read in two pieces, partly into the ring, partly into the private buffer."""
        consumer = Consumer(offer.to_client.mapping, CAPACITY)
        for turn in range(40):
            for _ in range(2):
                self.send(far, *(packet(n, 20000 + turn) for n in range(4)))
                handle.engine.step_to_client(1000)
            seen: list[bytes] = []
            while len(seen) < 8:
                while (one := consumer.pop()) is not None:
                    seen.append(one)
                handle.engine.step_to_client(1000)
            assert seen == [packet(n, 20000 + turn) for _ in range(2) for n in range(4)]
        consumer.close()


class TestNativeEngine(Engines):
    pass


@pytest.mark.usefixtures("pure_python")
@pytest.mark.filterwarnings("ignore:packets are moved by plain Python:RuntimeWarning")
class TestPythonEngine(Engines):
    pass


def test_without_the_native_core(
    pure_python: None, adapters: tuple[DriverAdapter, DriverAdapter]
) -> None:
    handle = adapters[0].open()
    with Offer(CAPACITY) as offer, pytest.raises(DriverUnavailable, match="compiler.*pump=.inline"):
        register(handle, offer, threads=True)
    with Offer(CAPACITY) as offer, pytest.warns(RuntimeWarning, match="many times slower"):
        register(handle, offer, threads=False)
    handle.close()


def test_other_processors_are_refused(
    pure_python: None,
    adapters: tuple[DriverAdapter, DriverAdapter],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ringtun.driver.engine.twin_works_here", lambda: False)
    handle = adapters[0].open()
    with Offer(CAPACITY) as offer, pytest.raises(DriverUnavailable, match="x86-64"):
        register(handle, offer, threads=False)
    assert adapters[0].state is AdapterState.CREATED
    handle.close()


def test_where_nothing_was_compiled() -> None:
    """`import ringtun` and a session work, and a warning says what is lost."""
    code = """
import sys, warnings
sys.modules["ringtun._native"] = None
import ringtun
from ringtun.ring import NATIVE
from ringtun.testing import memory_link
assert not NATIVE
left, right = memory_link()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with left, right, left.start_session() as a, right.start_session() as b:
        a.send(b"E" * 20)
        assert b.receive(1) == b"E" * 20
assert any("many times slower" in str(w.message) for w in caught), caught
left, right = memory_link()
with left, right:
    try:
        left.start_session(pump="thread")
    except ringtun.DriverUnavailable as error:
        print(error)
"""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr
    assert "install a C compiler" in printed.stdout
