"""`native/segment.c`: what it cuts is byte for byte what the model, and the kernel, cut."""

from __future__ import annotations

import ctypes
import errno
import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.offload import model_segment as model
from tests.offload import seeds
from tests.offload.library import build_library
from tests.offload.model_segment import (
    CWR,
    ECN,
    FIN,
    LARGEST,
    NEEDS_CSUM,
    NONE,
    PSH,
    TCP,
    TCPV4,
    TCPV6,
    UDP,
    UDP_L4,
    VnetHeader,
    field,
    fold,
    put,
    summed,
)
from tests.offload.packets import (
    ACK,
    DESTINATION,
    HOP_BY_HOP,
    NOP,
    PAD_6,
    ROUTING,
    TIMESTAMPS,
    Large,
    checksums_right,
)
from tests.offload.router import Router, running_router

URG, ECE = 0x20, 0x40
CANARY = b"\xa5" * 64

library: ctypes.CDLL


class Vnet(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint8) for name in ("flags", "gso_type")),
        *(
            (name, ctypes.c_uint16)
            for name in ("hdr_len", "gso_size", "csum_start", "csum_offset", "num_buffers")
        ),
    ]


@pytest.fixture(scope="module", autouse=True)
def build(tmp_path_factory: pytest.TempPathFactory) -> None:
    global library
    library = build_library(tmp_path_factory.mktemp("segment"), "checksum", "segment")
    library.segment_begin.restype = ctypes.c_bool
    library.segment_size.restype = ctypes.c_uint32
    library.segment_write.restype = None


def cut(vnet: VnetHeader, packet: bytes) -> list[bytes] | None:
    """What the native core makes of it; None: refused."""
    segmenter = ctypes.create_string_buffer(b"\xff" * 256)  # more than struct segmenter
    borrowed = ctypes.create_string_buffer(packet, len(packet))
    if not library.segment_begin(segmenter, ctypes.byref(Vnet(*vnet)), borrowed, len(packet)):
        assert library.segment_size(segmenter) == 0
        return None
    segments = []
    while size := library.segment_size(segmenter):
        assert size <= len(packet)
        room = ctypes.create_string_buffer(CANARY + bytes(size) + CANARY, size + 2 * len(CANARY))
        library.segment_write(segmenter, ctypes.byref(room, len(CANARY)))
        assert room.raw.startswith(CANARY)
        assert room.raw.endswith(CANARY)
        segments.append(room.raw[len(CANARY) : -len(CANARY)])
    assert borrowed.raw == packet
    return segments


def expected(vnet: VnetHeader, packet: bytes) -> list[bytes] | None:
    try:
        return model.segment(vnet, packet)
    except model.Malformed:
        return None


def whole(large: Large) -> VnetHeader:
    """The header of a packet that is as small as it looks: only its checksum is to be done."""
    return large.vnet._replace(gso_type=NONE, gso_size=0, hdr_len=0)


def sum_to_zero(vnet: VnetHeader, packet: bytes, index: int, payload_at: int) -> bytes:
    """Change a word of payload so that the sum of segment ``index`` is 0xFFFF, its checksum 0."""
    checksum = field(model.segment(vnet, packet)[index], vnet.csum_start + vnet.csum_offset)
    at = payload_at + index * vnet.gso_size
    changed = bytearray(packet)
    put(changed, at, fold(field(packet, at) + checksum))
    return bytes(changed)


# ---- held equal to the model -------------------------------------------------------------------

words = st.binary(max_size=10).map(lambda data: data * 4)
extensions = st.lists(
    st.tuples(
        st.sampled_from([HOP_BY_HOP, ROUTING, DESTINATION]),
        st.integers(0, 5).map(lambda count: PAD_6 + bytes(8 * count)),
    ),
    max_size=3,
)
larges = st.builds(
    Large,
    version=st.sampled_from([4, 6]),
    protocol=st.sampled_from([TCP, UDP]),
    payload_size=st.one_of(st.integers(1, 300), st.integers(1, 60_000)),
    gso_size=st.one_of(st.integers(1, 64), st.integers(1, 9000)),
    flags=st.integers(0, 0xFF),
    options=words,
    ip_options=words,
    extensions=extensions.map(tuple),
    sequence=st.integers(0, 2**32 - 1),
    identification=st.integers(0, 0xFFFF),
    fragment=st.sampled_from([0, 0x4000, 0x8000]),
    traffic_class=st.integers(0, 0xFF),
    ttl=st.integers(0, 0xFF),
    seed=st.integers(0, 2**16),
).map(lambda large: replace(large, gso_size=min(large.gso_size, large.payload_size)))

edges = st.sampled_from([0, 1, 2, 6, 16, 19, 20, 39, 40, 0x7FFF, 0xFFFE, 0xFFFF])


@settings(max_examples=150, deadline=None)
@given(larges)
def test_equals_the_model(large: Large) -> None:
    assume(large.payload_size < 400 * large.gso_size)  # as many segments as are quickly compared
    packet, vnet = large.packet, large.vnet
    segments = cut(vnet, packet)
    assert segments is not None
    assert segments == model.segment(vnet, packet)
    assert b"".join(segment[vnet.hdr_len :] for segment in segments) == large.payload
    assert all(checksums_right(segment, large.transport) for segment in segments)
    assert cut(whole(large), packet) == expected(whole(large), packet)


@settings(max_examples=700, deadline=None)
@given(data=st.data(), large=larges)
def test_equals_the_model_whatever_the_host_sends(data: st.DataObject, large: Large) -> None:
    """Which are refused, too: some bytes and lengths are changed, most often of the headers."""
    assume(large.payload_size < 400 * large.gso_size)
    packet = bytearray(large.packet)
    vnet = data.draw(st.sampled_from([large.vnet, whole(large)]))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.one_of(st.integers(0, vnet.csum_start + 40), st.just(len(packet) - 1)))
        packet[min(at, len(packet) - 1)] = data.draw(st.integers(0, 0xFF))
    size = data.draw(st.one_of(st.none(), st.integers(20, vnet.csum_start + 60)))
    del packet[size if size is not None else len(packet) :]
    if data.draw(st.booleans()):
        name = data.draw(st.sampled_from(VnetHeader._fields))
        limit = 0xFF if name in ("flags", "gso_type") else 0xFFFF
        near = st.integers(-3, 3).map(lambda step: getattr(vnet, name) + step)
        value = data.draw(st.one_of(edges, near, st.integers(0, limit))) & limit
        vnet = vnet._replace(**{name: value})
    assume(packet[0] >> 4 == 4 or (packet[0] >> 4 == 6 and len(packet) >= 40))
    assume(not vnet.gso_size or len(packet) < 400 * vnet.gso_size)
    assert cut(vnet, bytes(packet)) == expected(vnet, bytes(packet))


# ---- the rules, one by one ---------------------------------------------------------------------


def test_header_lengths_from_the_host_are_not_used() -> None:
    large = Large(options=TIMESTAMPS)
    for hdr_len in (0, 1, 51, 53, 528, 0xFFFF):
        vnet = large.vnet._replace(hdr_len=hdr_len)
        assert cut(vnet, large.packet) == model.segment(large.vnet, large.packet)


@pytest.mark.parametrize("version", [4, 6])
def test_finish_and_push_are_the_last_ones_reduced_window_the_first_ones(version: int) -> None:
    large = Large(version, flags=FIN | PSH | CWR | ECE | ACK, payload_size=30, gso_size=10)
    for ecn in (0, ECN):
        vnet = large.vnet._replace(gso_type=large.vnet.gso_type | ecn)
        segments = cut(vnet, large.packet)
        assert segments is not None
        flags = [segment[large.transport + 13] for segment in segments]
        assert flags == [CWR | ECE | ACK, ECE | ACK, FIN | PSH | ECE | ACK]


def test_sequence_and_identification_wrap() -> None:
    large = Large(sequence=2**32 - 5, identification=0xFFFF, payload_size=25, gso_size=10)
    segments = cut(large.vnet, large.packet)
    assert segments is not None
    assert [segment[4:6].hex() for segment in segments] == ["ffff", "0000", "0001"]
    assert [int.from_bytes(segment[24:28], "big") for segment in segments] == [2**32 - 5, 5, 15]
    assert [field(segment, 2) for segment in segments] == [50, 50, 45]


def test_lengths_of_udp_behind_extension_headers() -> None:
    chain = ((HOP_BY_HOP, PAD_6), (DESTINATION, PAD_6 + bytes(8)))
    large = Large(6, UDP, payload_size=25, gso_size=10, extensions=chain)
    segments = cut(large.vnet, large.packet)
    assert segments is not None
    assert [field(segment, 4) for segment in segments] == [42, 42, 37]
    assert [field(segment, 64 + 4) for segment in segments] == [18, 18, 13]


def test_checksum_of_zero_is_none_for_udp_alone() -> None:
    for version in (4, 6):
        for protocol, stored in ((UDP, 0xFFFF), (TCP, 0)):
            large = Large(version, protocol, payload_size=100, gso_size=40)
            packet = sum_to_zero(large.vnet, large.packet, 1, large.vnet.hdr_len)
            at = large.vnet.csum_start + large.vnet.csum_offset
            segments = cut(large.vnet, packet)
            assert segments is not None
            assert field(segments[1], at) == stored
            assert cut(whole(large), segments[1]) == expected(whole(large), segments[1])

            small = replace(large, payload_size=40)
            packet = sum_to_zero(small.vnet, small.packet, 0, small.vnet.hdr_len)
            segments = cut(whole(small), packet)
            assert segments is not None
            assert field(segments[0], at) == stored


def test_pseudo_header_is_the_hosts() -> None:
    """What stands in the field counts, not the addresses: a routing header has the last one."""
    large = Large(6, extensions=((ROUTING, PAD_6),))
    packet = bytearray(large.packet)
    at = large.transport + 16
    put(packet, at, fold(field(packet, at) + 0x0101))
    packet[38] ^= 1
    segments = cut(large.vnet, bytes(packet))
    assert segments is not None
    assert segments == model.segment(large.vnet, bytes(packet))
    behind = bytearray(segments[0])
    behind[38] ^= 1
    assert not checksums_right(bytes(behind), large.transport)


@pytest.mark.parametrize("gso_size", [1, 48])
def test_many_small_segments(gso_size: int) -> None:
    payload_size = 2000 if gso_size == 1 else LARGEST - 52
    large = Large(options=TIMESTAMPS, payload_size=payload_size, gso_size=gso_size)
    segments = cut(large.vnet, large.packet)
    assert segments is not None
    assert len(segments) == -(-payload_size // gso_size)
    assert segments == model.segment(large.vnet, large.packet)


def test_largest_packet() -> None:
    for large in (Large(), Large(6), Large(4, UDP), Large(6, UDP)):
        headers = large.vnet.hdr_len
        most = replace(large, payload_size=LARGEST - headers, gso_size=LARGEST - headers)
        assert cut(most.vnet, most.packet) == model.segment(most.vnet, most.packet)
        packet = most.packet + b"\0"
        for vnet in (VnetHeader(), whole(most), most.vnet):
            assert cut(vnet, packet) is None
            assert expected(vnet, packet) is None


def test_packet_without_gso_is_itself() -> None:
    """Whatever is in it, and whatever else stands in its header."""
    junk = random.Random(5).randbytes(99)
    for packet in (b"\x45" + junk, b"\x40" + junk[:19], b"\x6f" + junk[:39]):
        for vnet in (VnetHeader(), VnetHeader(2, NONE, 65535, 65535, 65535, 65535)):
            assert cut(vnet, packet) == [packet]


def test_checksum_of_any_protocol_is_done() -> None:
    """At the offset that the host names, and in a packet within a tunnel's, too."""
    for protocol, offset in ((47, 4), (136, 6), (58, 2), (200, 7)):
        packet = bytearray(Large(4, UDP, payload_size=31).packet)
        packet[9] = protocol
        vnet = VnetHeader(NEEDS_CSUM, csum_start=20, csum_offset=offset)
        assert cut(vnet, bytes(packet)) == model.segment(vnet, bytes(packet)) != [bytes(packet)]
    inner = Large(6, UDP, payload_size=200)
    outer = bytearray(Large(4, TCP, payload_size=0).packet[:20]) + inner.packet
    put(outer, 2, len(outer))
    outer[9] = 41
    segments = cut(whole(inner)._replace(csum_start=60), bytes(outer))
    assert segments is not None
    assert checksums_right(segments[0][20:], 40)


def change(at: int, value: int, size: int = 2) -> Callable[[Large], bytes]:
    """Store ``value`` at offset ``at`` of the packet, from the transport header on if negative."""

    def changed(large: Large) -> bytes:
        packet = bytearray(large.packet)
        put(packet, at if at >= 0 else large.transport - at - 1, value, size)
        return bytes(packet)

    return changed


TCP4, TCP6, UDP4, UDP6 = Large(4), Large(6), Large(4, UDP), Large(6, UDP)
OPTIONED = Large(6, extensions=((DESTINATION, PAD_6),))
SHORT4, SHORT6 = Large(4, payload_size=100, gso_size=50), Large(6, payload_size=100, gso_size=50)
TRANSPORT = -1  # for `change`: where the transport header starts; -1 - n: n bytes behind

MALFORMED_PACKETS = {
    "ipv4 header below 20": (TCP4, change(0, 0x44, 1)),
    "ipv4 header of 0": (TCP4, change(0, 0x40, 1)),
    "ipv4 header longer than said": (TCP4, change(0, 0x46, 1)),
    "ipv4 header longer than the packet": (
        Large(4, UDP, payload_size=1, gso_size=1),
        change(0, 0x4F, 1),
    ),
    "ipv4 total length one less": (TCP4, change(2, 4039)),
    "ipv4 total length one more": (UDP4, change(2, 4029)),
    "ipv4 more fragments": (TCP4, change(6, 0x2000)),
    "ipv4 fragment offset": (TCP4, change(6, 0x0001)),
    "ipv4 udp for tcp": (TCP4, change(9, UDP, 1)),
    "ipv4 tcp for udp": (UDP4, change(9, TCP, 1)),
    "ipv4 sctp": (TCP4, change(9, 132, 1)),
    "ipv6 payload length one less": (TCP6, change(4, 4019)),
    "ipv6 payload length one more": (UDP6, change(4, 4009)),
    "ipv6 jumbogram": (TCP6, change(4, 0)),
    "ipv6 udp for tcp": (TCP6, change(6, UDP, 1)),
    "ipv6 tcp for udp": (UDP6, change(6, TCP, 1)),
    "ipv6 extension header where the transport is": (TCP6, change(6, DESTINATION, 1)),
    "ipv6 extension header that is none": (OPTIONED, change(6, TCP, 1)),
    "ipv6 fragment header": (OPTIONED, change(6, 44, 1)),
    "ipv6 extension header too long": (OPTIONED, change(41, 1, 1)),
    "ipv6 extension header beyond the packet": (
        Large(6, payload_size=1, gso_size=1, extensions=((DESTINATION, PAD_6),)),
        change(41, 255, 1),
    ),
    "ipv6 other protocol behind the extension header": (OPTIONED, change(40, 132, 1)),
    "tcp data offset 4": (TCP4, change(TRANSPORT - 12, 0x40, 1)),
    "tcp data offset 0": (TCP6, change(TRANSPORT - 12, 0x00, 1)),
    "tcp data offset beyond the packet": (
        Large(payload_size=39, gso_size=1),
        change(TRANSPORT - 12, 0xF0, 1),
    ),
    "tcp header alone": (Large(payload_size=40, gso_size=1), change(TRANSPORT - 12, 0xF0, 1)),
    "udp length one less": (UDP4, change(TRANSPORT - 4, 4007)),
    "udp length one more": (UDP6, change(TRANSPORT - 4, 4009)),
    "udp length 0": (UDP4, change(TRANSPORT - 4, 0)),
}


@pytest.mark.parametrize("name", MALFORMED_PACKETS)
def test_malformed_packet(name: str) -> None:
    large, make = MALFORMED_PACKETS[name]
    packet = make(large)
    assert packet != large.packet
    assert cut(large.vnet, large.packet) == model.segment(large.vnet, large.packet)
    assert cut(large.vnet, packet) is None
    assert expected(large.vnet, packet) is None


@pytest.mark.parametrize("header", [0, 4, 8, 12, 16])
@pytest.mark.parametrize("large", [SHORT4, replace(SHORT4, protocol=UDP)], ids=["tcp", "udp"])
def test_ipv4_header_below_20_that_all_else_fits(large: Large, header: int) -> None:
    packet = bytearray(large.packet)
    packet[0] = 0x40 | header // 4
    put(packet, header + 4, len(packet) - header)  # UDP's length
    packet[header + 12] = 0x50  # TCP's data offset
    put(packet, 2, len(packet))
    put(packet, 6, 0)
    packet[9] = large.protocol
    vnet = large.vnet._replace(csum_start=header)
    assert cut(vnet, bytes(packet)) is None
    assert expected(vnet, bytes(packet)) is None


MALFORMED_HEADERS = {
    "size 0": (TCP4, {"gso_size": 0}),
    "size beyond the payload": (TCP4, {"gso_size": 4001}),
    "udp size beyond the payload": (UDP6, {"gso_size": 4001}),
    "tcpv6 over ipv4": (TCP4, {"gso_type": TCPV6}),
    "tcpv4 over ipv6": (TCP6, {"gso_type": TCPV4}),
    "tcpv6 of ipv4 with ecn": (TCP4, {"gso_type": TCPV6 | ECN}),
    "udp of tcp": (TCP4, {"gso_type": UDP_L4}),
    "udp of tcp with its offset": (TCP4, {"gso_type": UDP_L4, "csum_offset": 6}),
    "tcp of udp": (UDP4, {"gso_type": TCPV4}),
    "tcp of udp with its offset": (UDP4, {"gso_type": TCPV4, "csum_offset": 16}),
    "fragments of udp": (UDP4, {"gso_type": 3}),
    "udp with ecn": (UDP4, {"gso_type": UDP_L4 | ECN}),
    "nothing with ecn": (TCP4, {"gso_type": ECN}),
    "unknown type": (TCP4, {"gso_type": 2}),
    "type with a bit of tunnels": (TCP4, {"gso_type": TCPV4 | 0x20}),
    "no checksum to be done": (TCP4, {"flags": 0}),
    "checksum said to be right": (UDP4, {"flags": 2}),
    "start before the transport": (TCP4, {"csum_start": 19}),
    "start behind the transport": (TCP6, {"csum_start": 41}),
    "start 0": (UDP4, {"csum_start": 0}),
    "start at the packet's end": (TCP4, {"csum_start": 4040}),
    "start beyond the packet": (UDP6, {"csum_start": 0xFFFF}),
    "start in the extension header": (OPTIONED, {"csum_start": 40}),
    "offset of udp for tcp": (TCP4, {"csum_offset": 6}),
    "offset of tcp for udp": (UDP4, {"csum_offset": 16}),
    "offset beyond the packet": (UDP6, {"csum_offset": 0xFFFF}),
}


@pytest.mark.parametrize("name", MALFORMED_HEADERS)
def test_malformed_header(name: str) -> None:
    large, changes = MALFORMED_HEADERS[name]
    vnet = large.vnet._replace(**changes)
    assert cut(large.vnet, large.packet) == model.segment(large.vnet, large.packet)
    assert cut(vnet, large.packet) is None
    assert expected(vnet, large.packet) is None


@pytest.mark.parametrize("large", [SHORT4, SHORT6], ids=["ipv4", "ipv6"])
def test_malformed_header_of_a_packet_without_gso(large: Large) -> None:
    packet, start = large.packet, large.transport
    last = len(packet) - 2
    for csum_start, csum_offset, fits in (
        (start, 0, True),
        (start - 1, 16, False),
        (0, 16, False),
        (start, last - start, True),
        (start, last - start + 1, False),
        (last, 0, True),
        (last + 1, 0, False),
        (0xFFFF, 0xFFFF, False),
        (start, 0xFFFF, False),
    ):
        vnet = VnetHeader(NEEDS_CSUM, csum_start=csum_start, csum_offset=csum_offset)
        assert (cut(vnet, packet) is not None) == fits, vnet
        assert cut(vnet, packet) == expected(vnet, packet)
    for first in {0x40, 0x44} if large.version == 4 else set():
        assert cut(whole(large), bytes([first]) + packet[1:]) is None


@pytest.mark.parametrize(
    "large",
    [TCP4, TCP6, UDP4, UDP6, OPTIONED],
    ids=["tcp4", "tcp6", "udp4", "udp6", "extension"],
)
def test_every_cut_short_packet_is_malformed(large: Large) -> None:
    """Also where the lengths in its headers were made to fit: until there is a byte of payload."""
    headers = large.vnet.hdr_len
    for size in range(20 if large.version == 4 else 40, headers + 2):
        packet = bytearray(large.packet[:size])
        vnet = large.vnet._replace(gso_size=1)
        assert cut(vnet, bytes(packet)) is None
        put(packet, 2 if large.version == 4 else 4, size - (0 if large.version == 4 else 40))
        if large.protocol == UDP and size >= large.transport + 6:
            put(packet, large.transport + 4, size - large.transport)
        assert (cut(vnet, bytes(packet)) is None) == (size <= headers)
        assert cut(vnet, bytes(packet)) == expected(vnet, bytes(packet))


def test_seeds_of_the_fuzzer_are_as_written() -> None:
    committed = {path.name: path.read_bytes() for path in seeds.DIRECTORY.iterdir()}
    assert committed == seeds.seeds(), "run `python -m tests.offload.seeds`"


# ---- held equal to the kernel ------------------------------------------------------------------

KERNEL_CASES = {
    "tcp4": Large(),
    "tcp4, timestamps, no shorter last": Large(
        options=TIMESTAMPS, payload_size=1388 * 3, gso_size=1388
    ),
    "tcp4, all flags": Large(flags=FIN | PSH | CWR | ECE | ACK | URG),
    "tcp4, fragments allowed, wrapping": Large(
        fragment=0, identification=0xFFFE, sequence=2**32 - 1500, options=TIMESTAMPS
    ),
    "tcp4, reserved bit": Large(fragment=0x8000),
    "tcp4, ip options": Large(ip_options=NOP * 8, options=NOP * 40),
    "tcp4, largest": Large(payload_size=LARGEST - 40, gso_size=1460),
    "tcp4, small segments": Large(payload_size=5000, gso_size=48, options=TIMESTAMPS),
    "tcp4, one byte more": Large(payload_size=1401, flags=PSH | ACK),
    "tcp6": Large(6),
    "tcp6, all flags and timestamps": Large(
        6, flags=FIN | PSH | CWR | ECE | ACK, options=TIMESTAMPS, payload_size=7777
    ),
    "tcp6, largest": Large(6, payload_size=LARGEST - 60, gso_size=1440),
    "tcp6, behind options for the target": Large(6, extensions=((DESTINATION, PAD_6),)),
    "tcp6, behind a routing header": Large(6, extensions=((ROUTING, PAD_6),)),
    "tcp6, behind options for each hop": Large(6, extensions=((HOP_BY_HOP, PAD_6),)),
    "udp4": Large(4, UDP),
    "udp4, fragments allowed, wrapping": Large(
        4, UDP, identification=0xFFFE, fragment=0, payload_size=64 * 100, gso_size=100
    ),
    "udp4, odd sizes": Large(4, UDP, payload_size=3333, gso_size=1111),
    "udp6": Large(6, UDP),
    "udp6, behind options for the target": Large(6, UDP, extensions=((DESTINATION, PAD_6),)),
}


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    with running_router() as router:
        yield router


def cut_by_kernel(router: Router, vnet: VnetHeader, packet: bytes) -> list[bytes]:
    """What the kernel makes of ``packet`` when it forwards it."""
    try:
        router.write(vnet.pack(), packet)
    except OSError as error:
        if error.errno == errno.EINVAL and vnet.gso_type == UDP_L4:
            pytest.skip("NOT TRIED: this kernel takes no segmentation of UDP from a TUN")
        raise
    return router.forwarded()


def one_hop_on(packet: bytes) -> bytes:
    """What forwarding changes before it segments: the TTL, and with it IPv4's header checksum."""
    hopped = bytearray(packet)
    if packet[0] >> 4 == 6:
        hopped[7] -= 1
        return bytes(hopped)
    hopped[8] -= 1
    put(hopped, 10, 0)
    put(hopped, 10, 0xFFFF - summed(hopped[: packet[0] % 16 * 4]))
    return bytes(hopped)


@pytest.mark.world
@pytest.mark.kernel
@pytest.mark.parametrize("name", KERNEL_CASES)
def test_equals_the_kernel(router: Router, name: str) -> None:
    """Byte for byte, with nothing left out: the packet that we cut has gone one hop, as its has."""
    large = KERNEL_CASES[name]
    vnet = large.vnet
    if large.flags & CWR and large.protocol == TCP:
        vnet = vnet._replace(gso_type=vnet.gso_type | ECN)
    zero_sum = sum_to_zero(vnet, large.packet, 0, large.vnet.hdr_len)
    other_pseudo_header = change(TRANSPORT - vnet.csum_offset, 0x0102)(large)
    for packet in (large.packet, zero_sum, other_pseudo_header):
        assert cut_by_kernel(router, vnet, packet) == cut(vnet, one_hop_on(packet))


@pytest.mark.world
@pytest.mark.kernel
@pytest.mark.parametrize("large", [TCP4, TCP6, UDP4, UDP6], ids=["tcp4", "tcp6", "udp4", "udp6"])
def test_checksum_equals_the_kernels(router: Router, large: Large) -> None:
    for size in (1, 2, 100, 1401):
        small = replace(large, payload_size=size)
        vnet = whole(small)
        assert cut_by_kernel(router, vnet, small.packet) == cut(vnet, one_hop_on(small.packet))
    inner = replace(large, payload_size=300)
    outer = bytearray(replace(TCP4, payload_size=0).packet[:20]) + inner.packet
    outer[9] = {4: 4, 6: 41}[large.version]
    put(outer, 2, len(outer))
    put(outer, 10, 0)
    put(outer, 10, 0xFFFF - summed(outer[:20]))
    vnet = whole(inner)._replace(csum_start=20 + inner.transport)
    assert cut_by_kernel(router, vnet, bytes(outer)) == cut(vnet, one_hop_on(bytes(outer)))
