"""`native/coalesce.c` and the kernel: it takes what is written, and cuts it into what went in."""

from __future__ import annotations

import errno
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from tests.offload import clients
from tests.offload.clients import ACK, DONT_FRAGMENT, PSH, complete
from tests.offload.coalescer import COALESCE_PACKETS, NativeCoalescer
from tests.offload.model_coalesce import TCP4, TCP6, UDP4, UDP6, comparable
from tests.offload.router import SOURCE, TARGET, Router, running_router

pytestmark = [pytest.mark.kernel, pytest.mark.world]

UDP_SEGMENTS = 128

versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
protocols = pytest.mark.parametrize("protocol", ["TCP", "UDP"])


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> NativeCoalescer:
    return NativeCoalescer(tmp_path_factory.mktemp("coalesce"))


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running_router() as router:
        yield router


series = partial(clients.series, addresses=(SOURCE, TARGET))


def one_hop_on(packet: bytes) -> bytes:
    at = 8 if packet[0] >> 4 == 4 else 7
    return complete(packet[:at] + bytes([packet[at] - 1]) + packet[at + 1 :])


def pass_through(
    native: NativeCoalescer, router: Router, packets: Sequence[bytes], verify: bool = True
) -> tuple[list[list[int]], list[bytes]]:
    """How the packets went together, and what the kernel made of them."""
    native.begin(TCP4 | TCP6 | UDP4 | UDP6, verify, UDP_SEGMENTS)
    for packet in packets:
        assert native.add(packet)
    found = native.items()
    for index in range(len(found)):
        try:
            native.writev(router.into, index)
        except OSError as error:
            if error.errno == errno.EINVAL and native.c.items[index].kind & (UDP4 | UDP6):
                pytest.skip("NOT TRIED: this kernel takes no UDP of this size")
            raise
    return [item.packets for item in found], router.forwarded()


@versions
@protocols
class TestKernelCuts:
    """Into just what went in, one hop further."""

    @pytest.mark.parametrize("verify", [True, False])
    @pytest.mark.parametrize(
        "sizes",
        [[1, 1], [1400] * 40, [1400] * 20 + [3], [7] * 100, [1401, 1400], [32_000, 32_000, 1]],
        ids=["bytes", "plain", "short tail", "small", "two", "large"],
    )
    def test_a_series(
        self,
        native: NativeCoalescer,
        router: Router,
        version: int,
        protocol: str,
        sizes: list[int],
        verify: bool,
    ) -> None:
        packets = series(version, protocol, sizes)
        together, forwarded = pass_through(native, router, packets, verify)
        assert together == [list(range(len(packets)))]
        assert forwarded == list(map(one_hop_on, packets))

    def test_class_and_congestion_bits(
        self, native: NativeCoalescer, router: Router, version: int, protocol: str
    ) -> None:
        for tos in (0x03, 0xFD):
            packets = series(version, protocol, [1000] * 4, tos=tos)
            together, forwarded = pass_through(native, router, packets)
            assert together == [[0, 1, 2, 3]]
            assert forwarded == list(map(one_hop_on, packets))

    def test_as_many_as_there_is_room_for(
        self, native: NativeCoalescer, router: Router, version: int, protocol: str
    ) -> None:
        """All packets of one batch, a byte each; datagrams, as many as the host takes."""
        packets = series(version, protocol, [1] * COALESCE_PACKETS)
        together, forwarded = pass_through(native, router, packets)
        most = COALESCE_PACKETS if protocol == "TCP" else UDP_SEGMENTS
        assert [len(item) for item in together] == [most] * (COALESCE_PACKETS // most)
        assert forwarded == list(map(one_hop_on, packets))

    def test_the_largest(
        self, native: NativeCoalescer, router: Router, version: int, protocol: str
    ) -> None:
        """Just 65,535 bytes together, for every segment size that reaches them."""
        headers = {4: 20, 6: 40}[version] + {"TCP": 20, "UDP": 8}[protocol]
        room = 65_535 - headers
        for size in (room - 1, 40_000, 1460, 600):
            sizes = [size] * (room // size)
            sizes += [room % size] if room % size else []
            packets = series(version, protocol, sizes)
            together, forwarded = pass_through(native, router, packets)
            assert together == [list(range(len(packets)))]
            assert native.c.items[0].size == 65_535
            assert forwarded == list(map(one_hop_on, packets))


@versions
class TestKernelTcp:
    @pytest.mark.parametrize("size", [4, 12, 40])
    def test_options(
        self, native: NativeCoalescer, router: Router, version: int, size: int
    ) -> None:
        packets = series(version, "TCP", [500] * 4, options=bytes([1]) * size)
        together, forwarded = pass_through(native, router, packets)
        assert together == [[0, 1, 2, 3]]
        assert forwarded == list(map(one_hop_on, packets))

    def test_push_comes_out_last(
        self, native: NativeCoalescer, router: Router, version: int
    ) -> None:
        packets = series(version, "TCP", [500] * 4)
        packets[3:] = series(version, "TCP", [500] * 4, flags=ACK | PSH)[3:]
        together, forwarded = pass_through(native, router, packets)
        assert together == [[0, 1, 2, 3]]
        assert forwarded == list(map(one_hop_on, packets))

    def test_window_and_urgent_pointer(
        self, native: NativeCoalescer, router: Router, version: int
    ) -> None:
        packets = series(version, "TCP", [500] * 4, window=0xFFFF, urgent=0x1234, ack=2**32 - 1)
        together, forwarded = pass_through(native, router, packets)
        assert together == [[0, 1, 2, 3]]
        assert forwarded == list(map(one_hop_on, packets))


@protocols
class TestKernelIpv4:
    def test_ids_count_up(self, native: NativeCoalescer, router: Router, protocol: str) -> None:
        for fragment in (0, DONT_FRAGMENT):
            packets = series(4, protocol, [100] * 40, fragment=fragment)
            together, forwarded = pass_through(native, router, packets)
            assert together == [list(range(40))]
            assert forwarded == list(map(one_hop_on, packets))

    def test_other_ids_where_fragments_are_forbidden(
        self, native: NativeCoalescer, router: Router, protocol: str
    ) -> None:
        packets = [
            complete(packet[:4] + bytes(2) + packet[6:])
            for packet in series(4, protocol, [100] * 4)
        ]
        together, forwarded = pass_through(native, router, packets)
        assert together == [[0, 1, 2, 3]]
        assert list(map(comparable, forwarded)) == list(map(one_hop_on, packets))
        assert forwarded != list(map(one_hop_on, packets))  # it counts up: they mean nothing


def test_wrong_checksums_stay_wrong(native: NativeCoalescer, router: Router) -> None:
    """A corrupt packet goes out alone, and as it came, so the next host sees that it is."""
    for version in (4, 6):
        for protocol in ("TCP", "UDP"):
            packets = series(version, protocol, [500] * 5)
            packets[2] = packets[2][:-1] + bytes([packets[2][-1] ^ 1])
            together, forwarded = pass_through(native, router, packets)
            assert together == [[0, 1], [2], [3, 4]]
            expected = list(map(one_hop_on, packets))
            start, at = {4: 20, 6: 40}[version], {"TCP": 16, "UDP": 6}[protocol]
            field = slice(start + at, start + at + 2)
            expected[2] = expected[2][: field.start] + packets[2][field] + expected[2][field.stop :]
            assert forwarded == expected


def test_flows_take_turns(native: NativeCoalescer, router: Router) -> None:
    """Each flow's packets come out in order, whatever came between them."""
    fill = random.Random(1)
    flows = [
        series(version, protocol, [fill.choice([200, 200, 200, 90]) for _ in range(30)], ports=port)
        for version in (4, 6)
        for protocol in ("TCP", "UDP")
        for port in ((1, 2), (2, 1), (3, 3))
    ]
    queues = [list(flow) for flow in flows]
    packets = []
    while any(queues):
        packets.append(fill.choice([queue for queue in queues if queue]).pop(0))
    together, forwarded = pass_through(native, router, packets)
    assert len(together) < len(packets) / 2

    def by_flow(some: Sequence[bytes]) -> dict[bytes, list[bytes]]:
        sorted_out = defaultdict(list)
        for packet in some:
            start = {4: 20, 6: 40}[packet[0] >> 4]
            protocol = packet[9:10] if start == 20 else packet[6:7]
            sorted_out[packet[:1] + protocol + packet[start : start + 4]].append(packet)
        return dict(sorted_out)

    assert by_flow(forwarded) == by_flow(list(map(one_hop_on, packets)))
