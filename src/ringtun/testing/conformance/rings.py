"""The suite for raw rings and registration: the contract itself, without a `Session` above it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from ringtun import abi
from ringtun.abi import RegisterRings, RingOffer, Status
from ringtun.offer import Offer
from ringtun.ring import Consumer, Producer
from ringtun.testing.conformance.peer import RawBackend, RawHandle, packet

__all__ = ["RingConformance"]

SOON = 5.0
CAPACITY = abi.RING_MIN_CAPACITY
F_SEAL_FUTURE_WRITE = 0x10


class Client:
    """A client that knows the contract only: memory, events, the two rings."""

    def __init__(self, handle: RawHandle, capacity: int = CAPACITY) -> None:
        self.handle = handle
        self.offer = Offer(capacity)
        self.status = register(handle, self.offer)
        self.consumer = Consumer(self.offer.to_client.mapping, capacity, self.offer.to_client_event)
        self.producer = Producer(self.offer.to_host.mapping, capacity, self.offer.to_host_event)
        self.to_client = memoryview(self.offer.to_client.mapping)[:12].cast("I")
        self.to_host = memoryview(self.offer.to_host.mapping)[:12].cast("I")

    def receive(self) -> bytes:
        def take() -> bytes | None:
            return self.consumer.pop()

        taken = self.until(take)
        assert isinstance(taken, bytes)
        return taken

    def until(self, condition: Callable[[], object]) -> object:
        """Wait until the condition is true, pumping and listening to the Send event meanwhile."""
        deadline = time.monotonic() + SOON
        while not (value := condition()):
            assert time.monotonic() < deadline, "it did not happen"
            self.handle.pump()
            if value := condition():
                break
            self.offer.to_client_event.wait(0.001)
        return value

    def end(self) -> bool:
        return self.to_client[1] == abi.RING_CLOSED

    def close(self) -> None:
        self.to_client.release()
        self.to_host.release()
        self.consumer.close()
        self.producer.close()
        self.offer.close()


def register(handle: RawHandle, offer: Offer) -> int:
    return handle.register(abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), offer.descriptors)


@contextmanager
def client(backend: RawBackend) -> Iterator[Client]:
    handle = backend.open()
    try:
        it = Client(handle)
        assert it.status == Status.SUCCESS
        yield it
        it.close()
    finally:
        handle.close()


class RingConformance:
    """Inherit it, and give a fixture ``backend``: a fresh `RawBackend`."""

    def test_packets_both_ways(self, backend: RawBackend) -> None:
        with client(backend) as it:
            for number in range(200):
                backend.host.send(packet(number, 28 + number * 6))
                assert it.receive() == packet(number, 28 + number * 6)
                assert it.producer.write(packet(number, 28 + number * 6))
                it.handle.pump()
                assert backend.host.receive(SOON) == packet(number, 28 + number * 6)

    def test_when_the_event_is_set(self, backend: RawBackend) -> None:
        with client(backend) as it:
            for number in range(50):
                backend.host.send(packet(number))
                if backend.signals_each_batch:
                    assert it.offer.to_client_event.wait(SOON), "without Alertable ever set"
                else:
                    it.handle.pump()
                    assert not it.offer.to_client_event.wait(0)
                assert it.receive() == packet(number)

    # ---- registration ---------------------------------------------------------------------------

    def test_a_refusal_leaves_the_adapter_as_it_was(self, backend: RawBackend) -> None:
        handle = backend.open()
        offer = Offer(CAPACITY)
        wrong = handle.register(abi.IOCTL_REGISTER_RINGS, b"", offer.descriptors)
        assert wrong == Status.INVALID_PARAMETER
        assert register(handle, offer) == Status.SUCCESS
        handle.close()
        offer.close()

    @pytest.mark.parametrize("code", [0, abi.IOCTL_REGISTER_RINGS + 0x100, 0xFFFFFFFF])
    def test_unknown_codes(self, backend: RawBackend, code: int) -> None:
        with Offer(CAPACITY) as offer:
            handle = backend.open()
            status = handle.register(code, offer.rings.pack(), offer.descriptors)
            assert status == Status.INVALID_DEVICE_REQUEST
            handle.close()

    def test_wrong_lengths(self, backend: RawBackend) -> None:
        with Offer(CAPACITY) as offer:
            handle = backend.open()
            right = offer.rings.pack()
            for payload in (b"", right[:-1], right + b"\0", offer.rings.pack_32()):
                status = handle.register(abi.IOCTL_REGISTER_RINGS, payload, offer.descriptors)
                assert status == Status.INVALID_PARAMETER
            handle.close()

    @pytest.mark.parametrize("which", ["send", "receive"])
    @pytest.mark.parametrize(
        "change",
        [
            {"ring": 0},
            {"tail_moved": 0},
            {"ring": 5},
            {"tail_moved": 1 << 40},
            {"ring_size": 0},
            {"ring_size": 0xFFFFFFFF},
            {"ring_size": abi.ring_size(CAPACITY) + 4},
            {"ring_size": abi.ring_size(CAPACITY // 2)},
            {"ring_size": abi.ring_size(abi.RING_MAX_CAPACITY * 2)},
            {"ring_size": abi.ring_size(CAPACITY * 3)},
        ],
        ids=lambda change: "-".join(f"{name}={value}" for name, value in change.items()),
    )
    def test_wrong_parameters(
        self, backend: RawBackend, which: str, change: dict[str, int]
    ) -> None:
        with Offer(CAPACITY) as offer:
            ring: RingOffer = getattr(offer.rings, which)
            rings: RegisterRings = offer.rings._replace(**{which: ring._replace(**change)})
            handle = backend.open()
            status = handle.register(abi.IOCTL_REGISTER_RINGS, rings.pack(), offer.descriptors)
            assert status == Status.INVALID_PARAMETER
            handle.close()

    @pytest.mark.parametrize("place", [0, 2])
    @pytest.mark.parametrize(
        "kind", ["unsealed", "half sealed", "write sealed", "short", "holed", "file", "event"]
    )
    def test_wrong_memory(self, backend: RawBackend, place: int, kind: str) -> None:
        with Offer(CAPACITY) as offer:
            descriptors = list(offer.descriptors)
            descriptors[place] = bad = memory_of(kind, abi.ring_size(CAPACITY))
            handle = backend.open()
            status = handle.register(abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), descriptors)
            assert status == Status.INVALID_USER_BUFFER
            os.close(bad)
            assert register(handle, offer) == Status.SUCCESS
            handle.close()

    @pytest.mark.parametrize("place", [1, 3])
    @pytest.mark.parametrize("kind", ["semaphore", "file", "closed"])
    def test_wrong_events(self, backend: RawBackend, place: int, kind: str) -> None:
        with Offer(CAPACITY) as offer:
            descriptors = list(offer.descriptors)
            if kind == "semaphore":
                bad = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_SEMAPHORE)
            elif kind == "file":
                bad = os.open("/dev/null", os.O_RDWR)
            else:
                bad = 1 << 20
            descriptors[place] = bad
            handle = backend.open()
            status = handle.register(abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), descriptors)
            assert status == Status.INVALID_PARAMETER
            if kind != "closed":
                os.close(bad)
            handle.close()

    @pytest.mark.parametrize("index", [CAPACITY, 2, abi.RING_CLOSED])
    def test_an_index_out_of_range(self, backend: RawBackend, index: int) -> None:
        with Offer(CAPACITY) as offer:
            memory = memoryview(offer.to_client.mapping)
            words = memory[:12].cast("I")
            words[1] = index
            handle = backend.open()
            assert register(handle, offer) == Status.INVALID_PARAMETER
            words[1] = 0
            assert register(handle, offer) == Status.SUCCESS
            handle.close()
            words.release()
            memory.release()

    def test_a_second_registration_is_refused(self, backend: RawBackend) -> None:
        with client(backend) as it:
            other = backend.open()
            with Offer(CAPACITY) as offer:
                assert register(other, offer) == Status.ALREADY_INITIALIZED
                assert register(it.handle, offer) == Status.ALREADY_INITIALIZED
            other.close()
            backend.host.send(packet(1))
            assert it.receive() == packet(1)

    def test_the_next_registration_follows_the_owners_close(self, backend: RawBackend) -> None:
        with client(backend) as it:
            backend.host.send(packet(1))
            assert it.receive() == packet(1)
        with client(backend) as it:
            backend.host.send(packet(2))
            assert it.receive() == packet(2)

    # ---- the end --------------------------------------------------------------------------------

    def test_the_end_is_seen_in_the_ring(self, backend: RawBackend) -> None:
        handle = backend.open()
        it = Client(handle)
        handle.close()
        assert it.to_client[1] == abi.RING_CLOSED
        assert it.offer.to_client_event.wait(SOON)
        it.close()

    def test_removal_is_seen_in_the_ring(self, backend: RawBackend) -> None:
        with client(backend) as it:
            backend.remove()
            it.until(it.end)

    # ---- hostile clients ------------------------------------------------------------------------

    @pytest.mark.parametrize("tail", [CAPACITY, CAPACITY + 4, 1, 2, 0xFFFFFFFC, abi.RING_CLOSED])
    def test_a_bogus_tail_ends_the_session(self, backend: RawBackend, tail: int) -> None:
        with client(backend) as it:
            it.to_host[1] = tail
            self.ring_is_refused(it)
        self.works_again(backend)

    @pytest.mark.parametrize("size", [0x10000, 0xFFFFFFFF, 0x80000000, 61])
    def test_a_bogus_packet_ends_the_session(self, backend: RawBackend, size: int) -> None:
        with client(backend) as it:
            assert it.producer.push(packet(1))
            with memoryview(it.offer.to_host.mapping) as memory:
                memory[12:16] = size.to_bytes(4, "little")
                it.to_host[1] = 64  # one packet of at most 60 bytes
            self.ring_is_refused(it)
        self.works_again(backend)

    def ring_is_refused(self, it: Client) -> None:
        """The driver stops reading, says so in Head, and ends the session."""
        it.offer.to_host_event.signal()
        it.until(lambda: it.to_host[0] == abi.RING_CLOSED)
        it.until(it.end)

    def works_again(self, backend: RawBackend) -> None:
        with client(backend) as it:
            backend.host.send(packet(1))
            assert it.receive() == packet(1)
            assert it.producer.write(packet(2))
            it.handle.pump()
            assert backend.host.receive(SOON) == packet(2)

    @pytest.mark.parametrize("head", [CAPACITY, 1, 0xFFFFFFFC, abi.RING_CLOSED])
    def test_an_invalid_head_costs_its_own_packets_only(
        self, backend: RawBackend, head: int
    ) -> None:
        with client(backend) as it:
            backend.host.send(packet(1))
            assert it.receive() == packet(1)
            right = it.to_client[0]
            room = CAPACITY // 1404
            it.to_client[0] = head
            for number in range(2 * room):
                backend.host.send(packet(number, 1400))
                it.handle.pump()
            it.until(lambda: it.handle.statistics().discards.invalid_head > 0)
            # What was put in before the driver looked at Head anew is there still.
            it.to_client[0] = right
            while it.consumer.pop() is not None:
                pass
            backend.host.send(packet(7))
            last = b""
            while last != packet(7):
                last = it.receive()
            assert it.producer.write(packet(8))
            it.handle.pump()
            assert backend.host.receive(SOON) == packet(8)

    def test_what_is_no_ip_packet_is_skipped(self, backend: RawBackend) -> None:
        with client(backend) as it:
            for bad in (b"", b"\x45", b"\x45" * 19, b"\x60" * 39, b"\x50" * 64):
                assert it.producer.write(bad)
            assert it.producer.write(packet(1))
            it.handle.pump()
            assert backend.host.receive(SOON) == packet(1)
            assert it.handle.statistics().discards.not_ip_from_client == 5
            assert not it.end()

    # ---- full -----------------------------------------------------------------------------------

    def test_a_full_ring_loses_nothing_that_was_read(self, backend: RawBackend) -> None:
        count = CAPACITY // 1404 + 40  # more than fits, less than the host queues
        with client(backend) as it:
            for number in range(count):
                backend.host.send(packet(number, 1400))
            for number in range(count):
                assert it.receive() == packet(number, 1400)
            assert it.handle.statistics().discards.total == 0

    def test_the_largest_packet_goes_round(self, backend: RawBackend) -> None:
        with client(backend) as it:
            for number in range(5):
                large = packet(number, 65535)
                it.until(partial(it.producer.write, large))  # the last one's room comes back late
                it.handle.pump()
                assert backend.host.receive(SOON) == packet(number, 65535)


def memory_of(kind: str, size: int) -> int:
    """A descriptor that is no ring's memory, each in its own way."""
    if kind == "file":
        return os.open("/dev/null", os.O_RDWR)
    if kind == "event":
        return os.eventfd(0)
    fd = os.memfd_create("bad", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    size += -4096 if kind == "short" else 0
    os.ftruncate(fd, size)
    if kind != "holed":
        os.posix_fallocate(fd, 0, size)
    seals = {
        "unsealed": 0,
        "half sealed": fcntl.F_SEAL_SHRINK,
        "write sealed": fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE,
    }.get(kind, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    if seals:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
