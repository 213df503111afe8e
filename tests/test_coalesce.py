"""`native/coalesce.c`: what goes together, in which order, and what is written."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.offload import clients
from tests.offload.clients import (
    ACK,
    CWR,
    DONT_FRAGMENT,
    ECE,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    complete,
    protocol_of,
    start_of_transport,
)
from tests.offload.coalescer import COALESCE_PACKETS, NativeCoalescer
from tests.offload.model_coalesce import (
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    VNET,
    Coalescer,
    comparable,
    kind_of,
    split,
)
from tests.offload.model_segment import TCP, UDP
from tests.offload.seeds_coalesce import DIRECTORY, seeds

ALL = TCP4 | TCP6 | UDP4 | UDP6
SEGMENTS = 64
SLOT_NONE = 0xFFFF  # of an item that is not found again
SOURCE = {4: "10.0.0.1", 6: "fd00::1"}
TARGET = {4: "10.0.0.2", 6: "fd00::2"}
OTHER = {4: "10.0.0.3", 6: "fd00::3"}
TIMESTAMPS = bytes.fromhex("0101080a 11223344 55667788")

native: NativeCoalescer

versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])
protocols = pytest.mark.parametrize("protocol", ["TCP", "UDP"])


@pytest.fixture(scope="module", autouse=True)
def build(tmp_path_factory: pytest.TempPathFactory) -> None:
    global native
    native = NativeCoalescer(tmp_path_factory.mktemp("coalesce"))


def groups(
    packets: Sequence[bytes],
    *,
    kinds: int = ALL,
    verify: bool = True,
    udp_segments: int = SEGMENTS,
) -> list[list[int]]:
    """Which packets the native coalescer brings together, by number; the model agrees on all."""
    native.begin(kinds, verify, udp_segments)
    model = Coalescer(kinds, verify, udp_segments)
    for packet in packets:
        assert native.add(packet)
        model.add(packet)
    found = native.items()
    assert found == model.items
    assert native.items() == found, "made twice, it is the same"
    if verify:
        check_identity(packets, [item.written for item in found], [item.packets for item in found])
    return [item.packets for item in found]


def check_identity(
    packets: Sequence[bytes], written: Sequence[bytes], numbers: Sequence[Sequence[int]]
) -> None:
    """The host gets what went in; an IPv4 ID may differ where fragments are forbidden."""
    for large, group in zip(written, numbers, strict=True):
        again = split(large)
        before = [packets[number] for number in group]
        if len(group) > 1:
            again, before = list(map(comparable, again)), list(map(comparable, before))
        assert again == before


series = partial(clients.series, addresses=(SOURCE, TARGET))


def changed(packet: bytes, at: int, value: int, size: int = 1) -> bytes:
    """The packet with another value in a field, its checksums right again."""
    return complete(packet[:at] + value.to_bytes(size) + packet[at + size :])


def broken(packet: bytes, at: int, bits: int = 0x10) -> bytes:
    """The packet with bits of a byte turned, and nothing else."""
    return packet[:at] + bytes([packet[at] ^ bits]) + packet[at + 1 :]


# ---- what goes together -----------------------------------------------------------------------


@versions
@protocols
class TestTogether:
    def test_a_series(self, version: int, protocol: str) -> None:
        assert groups(series(version, protocol, [100] * 5)) == [[0, 1, 2, 3, 4]]

    def test_a_shorter_one_ends_it(self, version: int, protocol: str) -> None:
        assert groups(series(version, protocol, [100, 100, 99, 99])) == [[0, 1, 2], [3]]
        assert groups(series(version, protocol, [100, 1, 100, 100])) == [[0, 1], [2, 3]]

    def test_a_longer_one_starts_another(self, version: int, protocol: str) -> None:
        assert groups(series(version, protocol, [100, 101, 101])) == [[0], [1, 2]]

    def test_single_bytes(self, version: int, protocol: str) -> None:
        assert groups(series(version, protocol, [1, 1, 1])) == [[0, 1, 2]]

    def test_without_payload(self, version: int, protocol: str) -> None:
        assert groups(series(version, protocol, [0, 0])) == [[0], [1]]
        assert groups(series(version, protocol, [100, 0, 100])) == [[0], [1], [2]]
        with_options: dict[str, Any] = {"options": TIMESTAMPS} if protocol == "TCP" else {}
        packets = series(version, protocol, [100, 0, 100], **with_options)
        assert groups(packets) == [[0], [1], [2]]

    def test_no_more_than_65535_bytes(self, version: int, protocol: str) -> None:
        headers = {4: 20, 6: 40}[version] + {"TCP": 20, "UDP": 8}[protocol]
        room = 0xFFFF - headers
        assert groups(series(version, protocol, [room - 1000, 1000])) == [[0, 1]]
        assert groups(series(version, protocol, [room - 1000, 1001])) == [[0], [1]]

    def test_only_kinds_that_the_host_takes(self, version: int, protocol: str) -> None:
        packets = series(version, protocol, [100, 100])
        kind = kind_of(packets[0])
        assert groups(packets, kinds=kind) == [[0, 1]]
        assert groups(packets, kinds=ALL & ~kind) == [[0], [1]]

    def test_the_headers_may_stand_at_the_packets_very_end(
        self, version: int, protocol: str
    ) -> None:
        """Cut anywhere, a packet goes alone; nothing behind it is looked at."""
        whole = series(version, protocol, [100, 100])
        for size in range({4: 20, 6: 40}[version], len(whole[1])):
            assert groups([whole[0], whole[1][:size]]) == [[0], [1]]

    @pytest.mark.parametrize("place", ["source", "target", "first port", "second port"])
    def test_only_one_flow(self, version: int, protocol: str, place: str) -> None:
        one = series(version, protocol, [100, 100])
        others: dict[str, dict[str, Any]] = {
            "source": {"source": OTHER[version]},
            "target": {"target": OTHER[version]},
            "first port": {"ports": (1001, 2000)},
            "second port": {"ports": (1000, 2001)},
        }
        two = series(version, protocol, [100, 100], **others[place])
        assert groups([one[0], two[0], one[1], two[1]]) == [[0, 2], [1, 3]]
        assert groups([one[0], two[1]]) == [[0], [1]]

    def test_every_byte_of_the_addresses_counts(self, version: int, protocol: str) -> None:
        one, two = series(version, protocol, [100, 100])
        for at in range(*{4: (12, 20), 6: (8, 40)}[version]):
            assert groups([one, changed(two, at, two[at] ^ 1)]) == [[0], [1]]

    @pytest.mark.parametrize("bits", [0x01, 0x02, 0x04, 0x80], ids=hex)
    def test_same_class_and_congestion_bits(self, version: int, protocol: str, bits: int) -> None:
        assert groups(series(version, protocol, [100] * 2, tos=bits)) == [[0, 1]]
        plain = series(version, protocol, [100] * 2)
        marked = series(version, protocol, [100] * 2, tos=bits)
        assert groups([plain[0], marked[1]]) == [[0], [1]]

    def test_same_ttl(self, version: int, protocol: str) -> None:
        one, two = series(version, protocol, [100] * 2)
        at = {4: 8, 6: 7}[version]
        assert groups([one, changed(two, at, 63)]) == [[0], [1]]

    def test_ip_length(self, version: int, protocol: str) -> None:
        """A packet that says it is shorter than it is, or longer, goes alone."""
        packets = series(version, protocol, [100] * 3)
        at = {4: 2, 6: 4}[version]
        for number in range(3):
            for wrong in (-1, 1):
                tried = list(packets)
                (length,) = struct.unpack_from("!H", tried[number], at)
                lying = bytearray(tried[number])
                struct.pack_into("!H", lying, at, length + wrong)
                tried[number] = bytes(lying)
                expected = {0: [[0], [1, 2]], 1: [[0], [1], [2]], 2: [[0, 1], [2]]}[number]
                assert groups(tried, verify=False) == expected
                assert groups(tried) == expected

    @pytest.mark.parametrize("verify", [True, False])
    def test_checksums(self, version: int, protocol: str, verify: bool) -> None:
        """Wrong anywhere, a packet goes alone as it is, and closes what was open."""
        packets = series(version, protocol, [100] * 3)
        start = start_of_transport(packets[0])
        payload = start + {"TCP": 20, "UDP": 8}[protocol]
        field = start + {"TCP": 16, "UDP": 6}[protocol]
        places = [field, field + 1, payload, len(packets[0]) - 1]
        for at in places + ([10, 11] if version == 4 else []):
            for number in range(3):
                tried = list(packets)
                tried[number] = broken(tried[number], at)
                expected = {0: [[0], [1, 2]], 1: [[0], [1], [2]], 2: [[0, 1], [2]]}[number]
                assert groups(tried, verify=verify) == (expected if verify else [[0, 1, 2]])


@versions
class TestTcp:
    def test_push_ends_it(self, version: int) -> None:
        packets = series(version, "TCP", [100] * 4)
        start = start_of_transport(packets[0])
        packets[1] = changed(packets[1], start + 13, ACK | PSH)
        assert groups(packets) == [[0, 1], [2, 3]]
        packets[0] = changed(packets[0], start + 13, ACK | PSH)
        assert groups(packets) == [[0], [1], [2, 3]]

    @pytest.mark.parametrize("flags", [FIN, SYN, RST, URG, ECE, CWR, FIN | PSH])
    def test_no_other_flags(self, version: int, flags: int) -> None:
        packets = series(version, "TCP", [100] * 5)
        start = start_of_transport(packets[0])
        packets[2] = changed(packets[2], start + 13, ACK | flags)
        assert groups(packets) == [[0, 1], [2], [3, 4]]
        assert groups(series(version, "TCP", [100] * 2, flags=ACK | flags)) == [[0], [1]]

    @pytest.mark.parametrize("flags", [0, PSH])
    def test_not_without_ack(self, version: int, flags: int) -> None:
        assert groups(series(version, "TCP", [100] * 2, flags=flags)) == [[0], [1]]

    def test_no_reserved_bits(self, version: int) -> None:
        for reserved in (1, 2, 4, 8):
            assert groups(series(version, "TCP", [100] * 2, reserved=reserved)) == [[0], [1]]

    def test_sequence(self, version: int) -> None:
        packets = series(version, "TCP", [100] * 4)
        assert groups([packets[0], packets[2], packets[3]]) == [[0], [1, 2]]
        assert groups([packets[1], packets[0]]) == [[0], [1]]
        assert groups([packets[0], packets[0]]) == [[0], [1]]
        assert groups(series(version, "TCP", [100] * 4, seq=2**32 - 150)) == [[0, 1, 2, 3]]

    @pytest.mark.parametrize(
        "field", [{"ack": 1}, {"ack": 1 << 24}, {"window": 501}, {"urgent": 1}], ids=str
    )
    def test_same_ack_window_and_urgent_pointer(self, version: int, field: dict[str, Any]) -> None:
        packets = series(version, "TCP", [100] * 4)
        packets[2:] = series(version, "TCP", [100] * 4, **field)[2:]
        packets[3] = series(version, "TCP", [100] * 4)[3]
        assert groups(packets) == [[0, 1], [2], [3]]
        assert groups(series(version, "TCP", [100] * 2, **field)) == [[0, 1]]

    def test_same_options(self, version: int) -> None:
        packets = series(version, "TCP", [100] * 4, options=TIMESTAMPS)
        start = start_of_transport(packets[0])
        assert groups(packets) == [[0, 1, 2, 3]]
        for at in range(start + 20, start + 32):
            other = list(packets)
            other[2:] = [changed(packet, at, packet[at] ^ 1) for packet in other[2:]]
            assert groups(other) == [[0, 1], [2, 3]]
        fewer = series(version, "TCP", [100] * 4)
        assert groups([*packets[:2], *fewer[2:]]) == [[0, 1], [2, 3]]
        assert groups([*fewer[:2], *packets[2:]]) == [[0, 1], [2, 3]]

    def test_the_longest_options(self, version: int) -> None:
        packets = series(version, "TCP", [10] * 3, options=bytes(range(40)))
        assert groups(packets) == [[0, 1, 2]]
        last = start_of_transport(packets[0]) + 59
        assert groups([packets[0], changed(packets[1], last, 0)]) == [[0], [1]]

    def test_header_length(self, version: int) -> None:
        """Whatever it says, it is 20 bytes at least, and leaves something behind it."""
        whole = series(version, "TCP", [10], seq=0)[0]
        at = start_of_transport(whole) + 12
        for words in range(16):
            behind = 20 + 10 - 4 * words
            two = series(version, "TCP", [10], seq=max(behind, 0), identifier=0xFFF1)[0]
            tried = [changed(packet, at, words << 4) for packet in (whole, two)]
            assert groups(tried) == ([[0, 1]] if words >= 5 and behind > 0 else [[0], [1]])


@versions
class TestUdp:
    def test_no_more_datagrams_than_the_host_takes(self, version: int) -> None:
        packets = series(version, "UDP", [10] * 130)
        for most in (1, 2, 64, 128):
            expected = [list(range(at, min(at + most, 130))) for at in range(0, 130, most)]
            assert groups(packets, udp_segments=most) == expected

    def test_udp_length(self, version: int) -> None:
        packets = series(version, "UDP", [100] * 2)
        at = start_of_transport(packets[0]) + 4
        for length in (0, 7, 8, 107, 109):
            lying = packets[1][:at] + length.to_bytes(2) + packets[1][at + 2 :]
            for verify in (True, False):
                assert groups([packets[0], lying], verify=verify) == [[0], [1]]
                assert groups([lying, packets[1]], verify=verify) == [[0], [1]]

    @pytest.mark.parametrize("verify", [True, False])
    def test_without_a_checksum(self, version: int, verify: bool) -> None:
        packets = series(version, "UDP", [100] * 3)
        at = start_of_transport(packets[0]) + 6
        packets[1] = packets[1][:at] + bytes(2) + packets[1][at + 2 :]
        assert groups(packets, verify=verify) == [[0], [1], [2]]

    @pytest.mark.parametrize("verify", [True, False])
    def test_a_sum_of_zero_is_not_no_checksum(self, version: int, verify: bool) -> None:
        """0xFFFF goes together with others; 0, which has the same sum, does not."""
        at = start_of_transport(series(version, "UDP", [1])[0]) + 6
        made = series(version, "UDP", [100] * 2)
        for number, packet in enumerate(made):
            (value,) = struct.unpack_from("!H", complete(packet[:-2] + bytes(2)), at)
            made[number] = complete(packet[:-2] + value.to_bytes(2))
            assert made[number][at : at + 2] == b"\xff\xff"
        assert groups(made, verify=verify) == [[0, 1]]
        zero = [packet[:at] + bytes(2) + packet[at + 2 :] for packet in made]
        assert groups(zero, verify=verify) == [[0], [1]]


@protocols
class TestIpv4:
    def test_ids_where_fragments_are_allowed(self, protocol: str) -> None:
        """The host counts up; only what counts up comes back as it was."""
        free: dict[str, Any] = {"fragment": 0}
        assert groups(series(4, protocol, [100] * 4, **free)) == [[0, 1, 2, 3]]
        wrapping = series(4, protocol, [100] * 4, identifier=0xFFFE, **free)
        assert groups(wrapping) == [[0, 1, 2, 3]]
        packets = series(4, protocol, [100] * 4, **free)
        packets[2:] = [changed(packet, 4, 900 + i, 2) for i, packet in enumerate(packets[2:])]
        assert groups(packets) == [[0, 1], [2, 3]]
        fixed = [changed(packet, 4, 7, 2) for packet in packets]
        assert groups(fixed) == [[0], [1], [2], [3]]

    def test_ids_where_fragments_are_forbidden(self, protocol: str) -> None:
        packets = series(4, protocol, [100] * 4)
        fixed = [changed(packet, 4, 0, 2) for packet in packets]
        assert groups(fixed) == [[0, 1, 2, 3]]
        random_ids = [changed(packet, 4, 60000 - 9 * i, 2) for i, packet in enumerate(packets)]
        assert groups(random_ids) == [[0, 1, 2, 3]]

    def test_same_bits(self, protocol: str) -> None:
        packets = series(4, protocol, [100] * 4)
        packets[2:] = [changed(packet, 6, 0) for packet in packets[2:]]
        assert groups(packets) == [[0, 1], [2, 3]]
        reserved = [changed(packet, 6, 0xC0) for packet in packets]
        assert groups(reserved) == [[0, 1, 2, 3]]
        assert groups([packets[0], reserved[1]]) == [[0], [1]]

    def test_no_fragments(self, protocol: str) -> None:
        packets = series(4, protocol, [104] * 2)
        for fragment in (0x2000, 0x0001, 0x1FFF, 0x3FFF, 0x6000):
            tried = [changed(packet, 6, fragment, 2) for packet in packets]
            assert groups(tried) == [[0], [1]]

    def test_no_options(self, protocol: str) -> None:
        """Nor what says that it has a header shorter than 20 bytes."""
        packets = series(4, protocol, [100] * 2)
        for words in (*range(5), *range(6, 16)):
            tried = [bytes([0x40 | words]) + packet[1:] for packet in packets]
            for verify in (True, False):
                assert groups(tried, verify=verify) == [[0], [1]]


@protocols
class TestIpv6:
    def test_same_flow_label(self, protocol: str) -> None:
        packets = series(6, protocol, [100] * 2, label=0x12345)
        assert groups(packets) == [[0, 1]]
        for label in (0x12344, 0x12245, 0x02345):
            other = series(6, protocol, [100] * 2, label=label)
            assert groups([packets[0], other[1]]) == [[0], [1]]

    def test_no_extension_headers(self, protocol: str) -> None:
        for extension in (0, 43, 44, 60, 135):
            packets = [extended(packet, extension) for packet in series(6, protocol, [100] * 2)]
            assert groups(packets) == [[0], [1]]


def extended(packet: bytes, extension: int) -> bytes:
    """The IPv6 packet with an extension header of 8 bytes behind the first."""
    length = len(packet) - 40 + 8
    before = packet[:4] + length.to_bytes(2) + bytes([extension]) + packet[7:40]
    return before + bytes([protocol_of(packet), 0]) + bytes(6) + packet[40:]


def optional(packet: bytes) -> bytes:
    """The IPv4 packet with 4 bytes of options."""
    header = bytearray(packet[:20] + bytes(4))
    header[0] = 0x46
    struct.pack_into("!H", header, 2, len(packet) + 4)
    return bytes(header) + packet[20:]


def colliding_ports(protocol: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Ports of two flows that are the same to the native coalescer's hash."""
    packet = bytearray(series(4, protocol, [50])[0])
    seen: dict[int, tuple[int, int]] = {}
    native.begin(ALL, False, SEGMENTS)
    for ports in itertools.product(range(1, 1000), range(1, 1000)):
        struct.pack_into("!HH", packet, 20, *ports)
        if not native.add(bytes(packet)):
            native.reset()
            native.add(bytes(packet))
        item = native.c.items[native.c.item_count - 1]
        assert item.packets == 1
        if item.slot == SLOT_NONE:
            continue
        if item.hash in seen:
            return seen[item.hash], ports
        seen[item.hash] = ports
    raise AssertionError("no two of a million flows have the same hash")


# ---- order ------------------------------------------------------------------------------------


def fragment(packet: bytes) -> bytes:
    return changed(packet, 6, 0x2000, 2)


PORTLESS: dict[int, dict[str, Callable[[bytes], bytes]]] = {
    4: {
        "fragment": fragment,
        "later fragment": lambda packet: changed(packet, 6, 100, 2),
        "options": optional,
        "cut": lambda packet: packet[:23],
    },
    6: {
        "cut": lambda packet: packet[:43],
        **{
            f"extension {number}": partial(extended, extension=number)
            for number in (0, 43, 44, 51, 60, 135, 139, 140, 253, 254)
        },
    },
}
UNRELATED = {
    4: {f"protocol {number}": number for number in (0, 1, 2, 4, 41, 47, 50, 51, 132, 136)},
    6: {f"protocol {number}": number for number in (4, 41, 47, 50, 58, 59, 132, 136)},
}
EVERY_PORTLESS = [
    pytest.param(version, change, id=f"IPv{version} {name}")
    for version, changes in PORTLESS.items()
    for name, change in changes.items()
]
EVERY_UNRELATED = [
    pytest.param(version, number, id=f"IPv{version} {name}")
    for version, numbers in UNRELATED.items()
    for name, number in numbers.items()
]


class TestOrder:
    @versions
    @protocols
    def test_flows_take_turns(self, version: int, protocol: str) -> None:
        flows = [series(version, protocol, [100] * 4, ports=(number, 1)) for number in range(1, 21)]
        packets = [flow[turn] for turn in range(4) for flow in flows]
        expected = [[first + 20 * turn for turn in range(4)] for first in range(20)]
        assert groups(packets) == expected

    def test_tcp_and_udp_on_the_same_ports(self) -> None:
        first, second = series(4, "TCP", [100] * 2), series(4, "UDP", [100] * 2)
        assert groups([first[0], second[0], first[1], second[1]]) == [[0, 2], [1, 3]]

    @versions
    @protocols
    def test_what_goes_alone_closes_its_flow_only(self, version: int, protocol: str) -> None:
        one = series(version, protocol, [100] * 5)
        other = series(version, protocol, [100] * 2, ports=(7, 7))
        alone = one[2][:-1]  # its IP length is not right
        packets = [one[0], other[0], one[1], alone, one[3], one[4], other[1]]
        assert groups(packets) == [[0, 2], [1, 6], [3], [4, 5]]

    def test_an_acknowledgement_without_data(self) -> None:
        packets = series(4, "TCP", [100, 0, 100, 100])
        assert groups(packets) == [[0], [1], [2, 3]]

    @pytest.mark.parametrize(("version", "change"), EVERY_PORTLESS)
    @protocols
    def test_what_hides_its_ports(
        self, version: int, change: Callable[[bytes], bytes], protocol: str
    ) -> None:
        """It closes all that is open between its two addresses, and nothing else."""
        one = series(version, protocol, [100] * 4)
        two = series(version, protocol, [100] * 2, ports=(9, 9))
        other = series(version, protocol, [100] * 2, source=OTHER[version])
        back = series(version, protocol, [100] * 2, source=TARGET[version], target=SOURCE[version])
        hidden = change(series(version, protocol, [104], ports=(5, 6))[0])
        packets = [one[0], two[0], other[0], back[0], one[1], hidden, *one[2:], two[1]]
        packets += [other[1], back[1]]
        assert groups(packets) == [[0, 4], [1], [2, 9], [3, 10], [5], [6, 7], [8]]
        assert groups([one[0], hidden, hidden, one[1]]) == [[0], [1], [2], [3]]

    @versions
    def test_a_fragment_between_many_flows(self, version: int) -> None:
        """It closes each, however many there are, and the others' stay open."""
        own = [series(version, "UDP", [9] * 2, ports=(number, 1)) for number in range(60)]
        others = [
            series(version, "UDP", [9] * 2, ports=(number, 1), source=OTHER[version])
            for number in range(60)
        ]
        cut = series(version, "UDP", [9])[0][:-14]
        flows = [flow for pair in zip(own, others, strict=True) for flow in pair]
        packets = [flow[0] for flow in flows] + [cut] + [flow[1] for flow in flows]
        first = [[at] if at % 2 == 0 else [at, 121 + at] for at in range(120)]
        assert groups(packets) == [*first, [120], *([at] for at in range(121, 241, 2))]

    @pytest.mark.parametrize(("version", "number"), EVERY_UNRELATED)
    @protocols
    def test_other_protocols_touch_nothing(self, version: int, number: int, protocol: str) -> None:
        one = series(version, protocol, [100] * 2)
        other = bytearray(one[0])
        other[{4: 9, 6: 6}[version]] = number
        assert groups([one[0], bytes(other), one[1]]) == [[0, 2], [1]]

    @pytest.mark.parametrize("protocol", ["TCP", "UDP"])
    def test_flows_with_the_same_hash_do_not_mix(self, protocol: str) -> None:
        """They only close each other's items."""
        one, two = (
            series(4, protocol, [50] * 2, ports=ports) for ports in colliding_ports(protocol)
        )
        native.begin(ALL, True, SEGMENTS)
        for packet in (one[0], two[1], one[1]):
            native.add(packet)
        assert [item.packets for item in native.items()] == [[0], [1], [2]]

    def test_what_became_ipv6_since(self) -> None:
        """Then it may be shorter than an IPv6 header: nothing behind its end is looked at."""
        packets = series(6, "TCP", [50] * 3)
        native.begin(ALL, True, SEGMENTS)
        for packet in (packets[0], packets[1], packets[1][:30], packets[2]):
            native.add(packet)
        assert [item.packets for item in native.items()] == [[0, 1, 3], [2]]

    def test_more_flows_than_are_found_again(self) -> None:
        """Every packet of a flow of its own, then again: whatever comes together is in order."""
        half = COALESCE_PACKETS // 2
        flows = [series(4, "UDP", [50] * 2, ports=(number, 5)) for number in range(half)]
        packets = [flow[turn] for turn in range(2) for flow in flows]
        native.begin(ALL, True, SEGMENTS)
        for packet in packets:
            assert native.add(packet)
        found = native.items()
        check_identity(packets, [item.written for item in found], [item.packets for item in found])
        where = {number: index for index, item in enumerate(found) for number in item.packets}
        assert sorted(where) == list(range(COALESCE_PACKETS))
        assert all(where[number] <= where[number + half] for number in range(half))
        assert len(found) < half * 1.1


# ---- batches ----------------------------------------------------------------------------------


class TestBatch:
    @versions
    @protocols
    def test_as_many_as_there_is_room_for(self, version: int, protocol: str) -> None:
        packets = series(version, protocol, [3] * (COALESCE_PACKETS + 1))
        native.begin(ALL, True, 10_000)
        for packet in packets[:-1]:
            assert native.add(packet)
        assert not native.add(packets[-1])
        (item,) = native.items()
        assert item.packets == list(range(COALESCE_PACKETS))
        assert split(item.written) == packets[:-1]
        native.reset()
        assert native.items() == []
        assert native.add(packets[-1])
        (item,) = native.items()
        assert item.written == bytes(VNET.size) + packets[-1]

    def test_as_many_items_as_packets(self) -> None:
        packet = series(4, "TCP", [100])[0]
        native.begin(ALL, True, SEGMENTS)
        for _ in range(2):
            while native.add(packet):
                pass
            assert [item.packets for item in native.items()] == [
                [number] for number in range(COALESCE_PACKETS)
            ]
            native.reset()

    @versions
    @protocols
    def test_nothing_is_open_after_a_reset(self, version: int, protocol: str) -> None:
        packets = series(version, protocol, [100] * 4)
        native.begin(ALL, True, SEGMENTS)
        for pair in (packets[:2], packets[2:]):
            for packet in pair:
                native.add(packet)
            (item,) = native.items()
            assert item.packets == [0, 1]
            assert split(item.written) == pair
            native.reset()

    @versions
    @protocols
    def test_more_may_come_after_the_pieces_were_made(self, version: int, protocol: str) -> None:
        packets = series(version, protocol, [100] * 4)
        native.begin(ALL, True, SEGMENTS)
        for count, packet in enumerate(packets, 1):
            assert native.add(packet)
            (item,) = native.items()
            assert split(item.written) == packets[:count]


# ---- against the model ------------------------------------------------------------------------


@st.composite
def flows(draw: st.DrawFn) -> list[bytes]:
    """Packets of a few flows, mostly such as go together, in some order."""
    made: list[list[bytes]] = []
    for _ in range(draw(st.integers(1, 4))):
        version, protocol = draw(st.sampled_from([4, 6])), draw(st.sampled_from(["TCP", "UDP"]))
        size = draw(st.integers(1, 40))
        sizes = [
            draw(st.sampled_from([size] * 6 + [size + 1, max(size - 1, 0), 0]))
            for _ in range(draw(st.integers(1, 8)))
        ]
        fields: dict[str, Any] = {
            "ports": (draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            "target": draw(st.sampled_from([TARGET, OTHER]))[version],
            "tos": draw(st.sampled_from([0, 0, 3])),
        }
        if version == 4:
            fields["fragment"] = draw(st.sampled_from([0, DONT_FRAGMENT]))
            fields["identifier"] = draw(st.sampled_from([0, 0xFFFD]))
        if protocol == "TCP":
            fields["options"] = draw(st.sampled_from([b"", TIMESTAMPS, bytes(40)]))
            fields["seq"] = draw(st.sampled_from([0, 2**32 - 50]))
        made.append(series(version, protocol, sizes, **fields))
    packets = []
    while any(made):
        flow = draw(st.sampled_from([flow for flow in made if flow]))
        packets.append(flow.pop(0))
        if draw(st.integers(0, 3)) == 0:
            packets[-1] = draw(mutations(packets[-1]))
    return packets


@st.composite
def mutations(draw: st.DrawFn, packet: bytes) -> bytes:
    """The packet with one field changed, its lengths and checksums made right again or not."""
    start = start_of_transport(packet)
    how = draw(st.sampled_from(["byte", "payload", "flags", "cut", "longer", "portless", "twice"]))
    at = draw(st.integers(1, min(len(packet), start + 60) - 1))
    value = draw(st.integers(0, 255))
    match how:
        case "byte":
            packet = packet[:at] + bytes([value]) + packet[at + 1 :]
        case "payload":
            packet = broken(packet, len(packet) - 1, value)
        case "flags" if protocol_of(packet) == TCP:
            packet = packet[: start + 13] + bytes([value]) + packet[start + 14 :]
        case "cut":
            packet = packet[: max(start, len(packet) - value)]
        case "longer":
            packet += bytes(value)
        case "portless":
            changes = PORTLESS[packet[0] >> 4]
            packet = changes[draw(st.sampled_from(sorted(changes)))](packet)
        case "twice":
            packet = series(packet[0] >> 4, "UDP", [value])[0]
    intact = packet[0] in range(0x60, 0x70) or packet[0] == 0x45
    enough = len(packet) >= start_of_transport(packet) + 20
    if how != "portless" and intact and enough and draw(st.booleans()):
        packet = completed(packet)
    return packet


def completed(packet: bytes) -> bytes:
    return complete(packet) if protocol_of(packet) in (TCP, UDP) else packet


@settings(max_examples=400, deadline=None)
@given(
    packets=flows(),
    kinds=st.sampled_from([ALL] * 5 + [ALL & ~TCP4, ALL & ~UDP6, 0]),
    verify=st.booleans(),
    udp_segments=st.sampled_from([64, 64, 3]),
)
def test_as_the_model(packets: list[bytes], kinds: int, verify: bool, udp_segments: int) -> None:
    groups(packets, kinds=kinds, verify=verify, udp_segments=udp_segments)


def test_seeds_of_the_fuzzer_are_as_written() -> None:
    committed = {path.name: path.read_bytes() for path in DIRECTORY.iterdir()}
    assert committed == seeds(), "run `python -m tests.offload.seeds_coalesce`"
