"""`ringtun.offload`: large packets as they are; and who gets them, who does not."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, assert_type

import pytest

import ringtun
from ringtun import DriverUnavailable, GsoType, OffloadPacket, abi
from ringtun.abi import Options, Status
from ringtun.device.embedded import EmbeddedDevice
from ringtun.driver.adapter import DriverAdapter, Handle
from ringtun.driver.registration import Refusal
from ringtun.host.memory import link_hosts
from ringtun.offer import Offer
from ringtun.ring import Batch, Consumer, Producer
from ringtun.session import Session
from ringtun.statistics import Statistics
from ringtun.testing import memory_link
from ringtun.testing.conformance import packet
from tests.backends import KernelPeer
from tests.inside import embedded
from tests.offload.model_segment import TCP, TCPV4, UDP, segment
from tests.offload.packets import TIMESTAMPS, Large
from tests.system.sites import SOON, until

LARGE = Large(payload_size=4000, gso_size=1400)
CAPACITY = abi.RING_MIN_CAPACITY


def with_header(large: Large, **changed: int) -> bytes:
    """Header and packet as they lie in a ring."""
    return large.vnet._replace(**changed).pack() + bytes(2) + large.packet


# the record --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("large", "kind"),
    [
        (LARGE, GsoType.TCP4),
        (Large(version=6, options=TIMESTAMPS, payload_size=60000), GsoType.TCP6),
        (Large(protocol=UDP, payload_size=2801), GsoType.UDP),
        (Large(version=6, protocol=UDP, gso_size=1, payload_size=64), GsoType.UDP),
    ],
)
def test_what_it_says(large: Large, kind: GsoType) -> None:
    data = with_header(large)
    it = OffloadPacket(data)
    assert (it.gso_type, it.segment_size, it.needs_checksum, it.ecn) == (
        *(kind, large.gso_size, True, False),
    )
    assert it.data is data
    assert it.view == large.packet
    assert bytes(it) == large.packet
    assert len(it) == len(large.packet)
    assert it.segments() == segment(large.vnet, large.packet)


def test_ecn_is_a_bit_beside_the_type() -> None:
    it = OffloadPacket(with_header(LARGE, gso_type=TCPV4 | 0x80))
    assert (it.gso_type, it.ecn) == (GsoType.TCP4, True)
    assert it.segments() == segment(LARGE.vnet, LARGE.packet)


def test_an_ordinary_one() -> None:
    it = OffloadPacket.ordinary(packet(1))
    assert (it.gso_type, it.segment_size, it.needs_checksum) == (GsoType.NONE, 0, False)
    assert it.segments() == [packet(1)]
    assert bytes(it) == packet(1)


def test_its_looks() -> None:
    assert repr(OffloadPacket.ordinary(packet(1))) == "<OffloadPacket of 64 bytes>"
    assert repr(OffloadPacket(with_header(LARGE))) == (
        "<OffloadPacket of 4040 bytes, TCP4 in segments of 1400, checksum to be done>"
    )
    assert repr(OffloadPacket(with_header(LARGE, gso_type=2))) == (
        "<OffloadPacket of 4040 bytes, of unknown type 2, checksum to be done>"
    )
    assert repr(OffloadPacket(b"short")) == "<OffloadPacket without a header>"


def test_memory_of_any_kind() -> None:
    data = bytearray(with_header(LARGE))
    it = OffloadPacket(memoryview(data))
    it.view[8] = 7  # the packet's TTL
    assert bytes(it)[8] == data[12 + 8] == 7


@pytest.mark.parametrize("size", [0, 5, 11])
def test_what_is_no_header(size: int) -> None:
    it = OffloadPacket(bytes(size))
    for look in ("gso_type", "ecn", "segment_size", "needs_checksum"):
        with pytest.raises(ValueError, match=f"header of 12 bytes.*{size} bytes"):
            getattr(it, look)
    with pytest.raises(ValueError, match=f"an offload header and an IP packet: {size} bytes"):
        it.segments()
    assert (len(it), bytes(it)) == (0, b"")


@pytest.mark.parametrize(
    "changed",
    [{"gso_size": 0}, {"csum_start": 24}, {"csum_offset": 6}, {"flags": 0}, {"gso_type": 5}],
)
def test_what_does_not_fit_is_not_cut(changed: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="the offload header does not fit the packet"):
        OffloadPacket(with_header(LARGE, **changed)).segments()


def test_an_unknown_type() -> None:
    it = OffloadPacket(with_header(LARGE, gso_type=2))
    with pytest.raises(ValueError, match="2 is not a valid GsoType"):
        _ = it.gso_type


# options -----------------------------------------------------------------------------------------


@pytest.fixture
def memory_adapter() -> Iterator[DriverAdapter]:
    near, far = link_hosts()
    pair = DriverAdapter("near", near), DriverAdapter("far", far)
    yield pair[0]
    for adapter in pair:
        adapter.remove()


def refusal(handle: Handle, payload: bytes, code: int = abi.IOCTL_SET_OPTIONS) -> Status:
    with pytest.raises(Refusal) as caught:
        handle.set_options(code, payload)
    return caught.value.status


def option_bytes(options: int) -> bytes:
    return struct.pack("=I", options)


def test_options_that_are_refused(memory_adapter: DriverAdapter) -> None:
    handle = memory_adapter.open()
    assert refusal(handle, option_bytes(0), 0xCA6CE5C8) == Status.INVALID_DEVICE_REQUEST
    for payload in (b"", b"\0\0\0", bytes(5), bytes(8)):
        assert refusal(handle, payload) == Status.INVALID_PARAMETER
    for bits in (4, 0x80000000, 0xFFFFFFFF, Options.TRUSTED_PACKETS | 8):
        assert refusal(handle, option_bytes(bits)) == Status.INVALID_PARAMETER
    whole = option_bytes(Options.WHOLE_PACKETS)
    assert refusal(handle, whole) == Status.NOT_SUPPORTED, "a link in memory has no headers"
    handle.set_options(abi.IOCTL_SET_OPTIONS, option_bytes(Options.TRUSTED_PACKETS))
    handle.set_options(abi.IOCTL_SET_OPTIONS, option_bytes(0))
    handle.close()


def test_options_come_before_registration(memory_adapter: DriverAdapter) -> None:
    handle = memory_adapter.open()
    with Offer(CAPACITY) as offer:
        handle.register(abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), offer.descriptors)
        assert refusal(handle, option_bytes(0)) == Status.INVALID_DEVICE_REQUEST
        handle.close()


def test_in_memory_there_is_no_offload() -> None:
    left, right = memory_link()
    with left, right:
        with pytest.raises(DriverUnavailable, match="has no offload=True: it takes ringtun's nat"):
            left.start_session(offload=True)
        with left.start_session(verify_checksums=False) as session:
            assert session.statistics() == Statistics()


@pytest.mark.parametrize("argument", ["offload", "verify_checksums"])
def test_arguments_are_true_or_false(argument: str) -> None:
    left, right = memory_link()
    with left, right, pytest.raises(TypeError, match=f"{argument} is True or False, not 1"):
        left.start_session(**{argument: 1})  # type: ignore[call-overload]


# sessions on the kernel's adapters ---------------------------------------------------------------


@pytest.fixture
def adapter() -> Iterator[ringtun.Adapter]:
    """Without addresses and IPv6: only what a test sends passes."""
    with ringtun.create_adapter("vpn0") as adapter:
        yield adapter


@pytest.fixture(params=["inline", "thread"])
def pump(request: pytest.FixtureRequest) -> Any:
    return request.param


def host_sends(name: str, *data: bytes) -> None:
    """The host sends packets with their headers, as its own stack would."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.setsockopt(263, 15, 1)  # SOL_PACKET, PACKET_VNET_HDR: 10 bytes
        for each in data:
            out.sendto(each[:10] + each[12:], (name, 0x0800 if each[12] >> 4 == 4 else 0x86DD))


ALL_KINDS = [
    Large(version, protocol, payload_size=9000, gso_size=1400)
    for version in (4, 6)
    for protocol in (TCP, UDP)
]


@pytest.mark.kernel
def test_segments_are_what_an_ordinary_session_receives(
    adapter: ringtun.Adapter, pump: Any
) -> None:
    sent = [with_header(large) for large in ALL_KINDS]
    with adapter.start_session(pump=pump) as session:
        host_sends("vpn0", *sent)
        ordinary = [session.receive(SOON) for _ in range(7 * len(sent))]
        assert session.statistics().split == len(sent)
    with adapter.start_session(pump=pump, offload=True) as whole:
        host_sends("vpn0", *sent)
        received = [whole.receive(SOON) for _ in sent]
        assert whole.statistics().split == 0
        assert whole.statistics().received_packets == len(sent)
    assert [bytes(each) for each in received] == [large.packet for large in ALL_KINDS]
    assert [cut for each in received for cut in each.segments()] == ordinary


@pytest.mark.kernel
def test_a_batch_and_its_end(adapter: ringtun.Adapter) -> None:
    with adapter.start_session(offload=True) as session:
        host_sends("vpn0", *(with_header(large) for large in ALL_KINDS))
        with session.receive_many(timeout=SOON) as batch:
            first = batch[0]
            assert [bytes(each) for each in batch] == [large.packet for large in ALL_KINDS]
            assert first.segments() == segment(ALL_KINDS[0].vnet, ALL_KINDS[0].packet)
        looks = (
            *(lambda: first.view, lambda: first.gso_type, lambda: first.needs_checksum),
            *(lambda: bytes(first), lambda: len(first), first.segments),
        )
        for look in looks:
            with pytest.raises(ValueError, match="released"):
                look()
        assert repr(first) == "<OffloadPacket released>"
        assert session.statistics().pinned == 0


@pytest.mark.kernel
def test_headers_pass_unharmed(adapter: ringtun.Adapter, pump: Any) -> None:
    """What the program sends with a header the kernel has with that header."""
    with adapter.start_session(pump=pump, offload=True) as session, other_end(adapter) as peer:
        for large in ALL_KINDS:
            session.send(OffloadPacket(with_header(large)))
            expected = segment(large.vnet, large.packet)
            assert [peer.receive(SOON) for _ in expected] == expected
        session.send(OffloadPacket.ordinary(packet(1)))
        session.send(bytes(12) + packet(2))
        assert [peer.receive(SOON), peer.receive(SOON)] == [packet(1), packet(2)]
        with session.reserve(12 + 64) as slot:
            slot.view[:] = bytes(12) + packet(3)
            slot.commit()
        assert peer.receive(SOON) == packet(3)
        statistics = session.statistics()
        assert statistics.sent_packets == len(ALL_KINDS) + 3
        assert (statistics.merged, statistics.discards.total) == (0, 0)


@pytest.mark.kernel
def test_from_one_whole_session_to_another(adapter: ringtun.Adapter) -> None:
    with (
        ringtun.create_adapter("vpn1") as other,
        adapter.start_session(offload=True) as source,
        other.start_session(offload=True) as target,
        other_end(other) as peer,
    ):
        host_sends("vpn0", *(with_header(large) for large in ALL_KINDS))
        with source.receive_many(timeout=SOON) as batch:
            assert target.send_many(batch) == len(ALL_KINDS)
        host_sends("vpn0", *(with_header(large) for large in ALL_KINDS))
        assert target.send_many([source.receive(SOON) for _ in ALL_KINDS]) == len(ALL_KINDS)
        for large in ALL_KINDS * 2:
            expected = segment(large.vnet, large.packet)
            assert [peer.receive(SOON) for _ in expected] == expected


@contextmanager
def other_end(adapter: ringtun.Adapter) -> Iterator[KernelPeer]:
    """The kernel's side of an adapter."""
    with closing(KernelPeer(adapter.name)) as peer:
        yield peer


@pytest.mark.kernel
def test_what_is_no_header_and_packet_is_not_sent(adapter: ringtun.Adapter) -> None:
    with adapter.start_session(offload=True) as session:
        for bad in (b"", bytes(12), packet(1), bytes(12) + b"\x45" * 19, bytes(100)):
            with pytest.raises(ValueError, match="not an offload header and an IP packet"):
                session.send(bad)
        with pytest.raises(ValueError, match="at most 65535 bytes, not 65547"):
            session.send(OffloadPacket.ordinary(packet(1, 65535)))
    with adapter.start_session() as ordinary, pytest.raises((TypeError, ValueError)):
        ordinary.send(OffloadPacket.ordinary(packet(1)))  # type: ignore[arg-type]


@pytest.mark.kernel
def test_the_largest_packets(adapter: ringtun.Adapter, pump: Any) -> None:
    """65,523 bytes fit a slot with their header; what is larger is cut, or cannot be had."""
    adapter.configure(mtu=65520)
    with adapter.start_session(pump=pump, offload=True) as session:
        for size in (65519, 65520):
            host_sends("vpn0", bytes(12) + packet(1, size))
            assert bytes(session.receive(SOON)) == packet(1, size)
        for size in (65522, 65523, 65524, 65535):
            large = Large(payload_size=size - 40, gso_size=1400)
            host_sends("vpn0", with_header(large))
            expected = segment(large.vnet, large.packet)
            if size <= 65523:
                assert session.receive(SOON).segments() == expected
            else:
                received = [session.receive(SOON) for _ in expected]
                assert [bytes(each) for each in received] == expected
                assert {each.gso_type for each in received} == {GsoType.NONE}
        assert session.statistics().split == 2
        adapter.configure(mtu=65535)
        host_sends("vpn0", bytes(12) + packet(1, 65535), bytes(12) + packet(2))
        assert bytes(session.receive(SOON)) == packet(2)
        assert session.statistics().discards.too_big == 1


@pytest.mark.kernel
def test_an_mtu_that_does_not_fit_with_a_header(adapter: ringtun.Adapter) -> None:
    adapter.configure(mtu=65521)
    with pytest.raises(ValueError, match="mtu of at most 65520 bytes, and it is 65521"):
        adapter.start_session(offload=True)
    adapter.start_session().close()


# clients that know memory alone ------------------------------------------------------------------


class RawClient:
    """Rings of a client that may write what it likes."""

    def __init__(self, adapter: ringtun.Adapter, options: int | None) -> None:
        self.handle = embedded(adapter).driver.open()
        self.offer = Offer(CAPACITY)
        if options is not None:
            self.handle.set_options(abi.IOCTL_SET_OPTIONS, option_bytes(options))
        self.handle.register(
            abi.IOCTL_REGISTER_RINGS, self.offer.rings.pack(), self.offer.descriptors
        )
        self.consumer = Consumer(self.offer.to_client.mapping, CAPACITY)
        self.producer = Producer(self.offer.to_host.mapping, CAPACITY)

    def write(self, *data: bytes) -> None:
        for each in data:
            assert self.producer.write(each)
        self.handle.engine.step_to_host(1 << 16)

    def read(self) -> bytes:
        found: list[bytes] = []

        def take() -> bool:
            self.handle.engine.step_to_client(1)
            one = self.consumer.pop()
            if one is not None:
                found.append(one)
            return one is not None

        until(take)
        return found[0]

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()
        self.consumer.close()
        self.producer.close()
        self.offer.close()


@pytest.mark.kernel
def test_a_client_that_never_asks(adapter: ringtun.Adapter) -> None:
    with RawClient(adapter, None) as client, other_end(adapter) as peer:
        host_sends("vpn0", with_header(LARGE))
        assert [client.read() for _ in range(3)] == segment(LARGE.vnet, LARGE.packet)
        client.write(packet(1), with_header(LARGE), packet(2))
        assert [peer.receive(SOON), peer.receive(SOON)] == [packet(1), packet(2)]
        assert client.handle.statistics().discards.not_ip_from_client == 1


@pytest.mark.kernel
def test_options_are_the_last_that_were_asked_for(adapter: ringtun.Adapter) -> None:
    handle = embedded(adapter).driver.open()
    handle.set_options(abi.IOCTL_SET_OPTIONS, option_bytes(Options.WHOLE_PACKETS))
    handle.set_options(abi.IOCTL_SET_OPTIONS, option_bytes(0))
    assert refusal(handle, option_bytes(12)) == Status.INVALID_PARAMETER
    assert handle._options == 0
    handle.close()
    with RawClient(adapter, Options.WHOLE_PACKETS) as client:
        host_sends("vpn0", with_header(LARGE))
        assert client.read()[12:] == LARGE.packet


def hostile() -> Iterator[tuple[str, bytes]]:
    """Packets with headers that do not fit, by what is wrong with them."""
    for large in ALL_KINDS:
        size = len(large.packet)
        for name, values in {
            "flags": (0, 2, 4, 0xFE),
            "gso_type": (2, 3, 6, 0x7F, 0x82, 0xFF, TCPV4 if large.version == 6 else 4),
            "hdr_len": (size + 1, 0xFFFF),
            "gso_size": (0, 9001, 0xFFFF),
            "csum_start": (0, 10, large.transport - 1, large.transport + 2, size, 0xFFFF),
            "csum_offset": (0, 4, size, 0xFFFF),
        }.items():
            for value in values:
                yield f"{name}={value}", with_header(large, **{name: value})
    small = Large(payload_size=100)
    for changed in (
        {"csum_start": 0},
        {"csum_start": 19},
        {"csum_start": 0xFFFF},
        {"csum_offset": 0xFFFF},
        {"csum_start": 139, "csum_offset": 0},
        {"hdr_len": 141},
    ):
        yield f"small {changed}", with_header(small, **{"gso_type": 0, "gso_size": 0, **changed})


@pytest.mark.kernel
def test_a_hostile_client_and_the_kernel(adapter: ringtun.Adapter) -> None:
    """Nothing of it reaches the kernel, all is counted, and the session goes on."""
    with RawClient(adapter, Options.WHOLE_PACKETS) as client, other_end(adapter) as peer:
        before = embedded(adapter).host.info()
        for number, (what, data) in enumerate(hostile(), 1):
            client.write(data)
            assert client.handle.statistics().discards.malformed == number, what
        for size in range(12 + 20):
            client.write(bytes(size))
        assert client.handle.statistics().discards.not_ip_from_client == 32
        after = embedded(adapter).host.info()
        assert (after.rx_packets, after.rx_dropped) == (before.rx_packets, before.rx_dropped)
        client.write(with_header(LARGE))
        expected = segment(LARGE.vnet, LARGE.packet)
        assert [peer.receive(SOON) for _ in expected] == expected
        assert client.handle.statistics().sent_packets == 1


# checksums ---------------------------------------------------------------------------------------


@pytest.mark.kernel
@pytest.mark.parametrize("verify", [True, False])
def test_a_damaged_packet_is_merged_only_where_it_is_trusted(
    adapter: ringtun.Adapter, verify: bool
) -> None:
    packets = [packet(number, 600) for number in range(8)]
    damaged = bytearray(packets[3])
    damaged[500] ^= 1
    packets[3] = bytes(damaged)
    with adapter.start_session(verify_checksums=verify) as session, other_end(adapter) as peer:
        assert session.send_many(packets) == len(packets)
        received = [peer.receive(SOON) for _ in packets]
        assert session.statistics().merged == (2 if verify else 1)
    if verify:
        assert received == packets, "each as it came, the damaged one with its wrong sum"
    else:
        assert [each[28:] for each in received] == [each[28:] for each in packets]
        assert received[3] != packets[3], "a new sum hides the damage: so it says in the contract"


# types -------------------------------------------------------------------------------------------


def check_types(adapter: ringtun.Adapter, flag: bool, asked: ringtun.Session) -> None:
    """For mypy alone."""
    ordinary = adapter.start_session()
    assert_type(ordinary, Session[bytes])
    assert_type(asked, Session[bytes])
    assert_type(adapter.start_session(offload=False), Session[bytes])
    assert_type(ordinary.receive(), bytes)
    assert_type(ordinary.try_receive(), bytes | None)
    assert_type(ordinary.receive_many(), Batch[memoryview])
    assert_type(ordinary.receive_many()[0], memoryview)
    assert_type(next(iter(ordinary)), bytes)
    assert_type(next(ordinary.batches()), Batch[memoryview])
    whole = adapter.start_session(offload=True, verify_checksums=flag)
    assert_type(whole, Session[OffloadPacket])
    assert_type(whole.receive(), OffloadPacket)
    assert_type(whole.try_receive(), OffloadPacket | None)
    assert_type(whole.receive_many(), Batch[OffloadPacket])
    assert_type(whole.receive_many()[0], OffloadPacket)
    assert_type(next(iter(whole)), OffloadPacket)
    assert_type(next(whole.batches()), Batch[OffloadPacket])
    whole.send(whole.receive())
    ordinary.send(whole.receive())  # type: ignore[arg-type]


def test_the_device_takes_options(memory_adapter: DriverAdapter) -> None:
    device = EmbeddedDevice(memory_adapter, "inline")
    device.set_options(Options.TRUSTED_PACKETS)
    with pytest.raises(DriverUnavailable):
        device.set_options(Options.WHOLE_PACKETS)
    device.close()
