"""Large packets through adapters of the kernel's: nothing is lost, changed, or out of its order."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any, cast

import pytest

import ringtun
from ringtun.device.embedded import Pump
from ringtun.host.linux import LinuxHost
from ringtun.testing.conformance import packet
from tests.inside import embedded
from tests.system.conftest import MakeSite
from tests.system.packets import is_noise
from tests.system.sites import (
    PROGRAM,
    SOON,
    Background,
    Site,
    closing_at_the_end,
    forwarding,
    until,
)
from tests.system.test_tcp import connect, digest_of, send

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SMALLEST_RING = 1 << 17
TCP_MAXSEG = 2  # linux/tcp.h
UDP_SEGMENT = 103  # linux/udp.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h


@pytest.fixture(params=["split", "whole"])
def kind(request: pytest.FixtureRequest) -> str:
    """What the program sees: ordinary packets, or large ones."""
    value: str = request.param
    return value


def start(site: Site, kind: str, pump: Pump, capacity: int = 4 << 20) -> ringtun.Session[Any]:
    if kind == "whole":
        return site.adapter.start_session(offload=True, pump=pump, capacity=capacity)
    return site.adapter.start_session(pump=pump, capacity=capacity)


# segments of next to nothing ---------------------------------------------------------------------


def test_tiny_segments_through_the_smallest_ring(
    make_site: MakeSite, pump: Pump, version: int
) -> None:
    """The peer's MSS is 48, less 12 for timestamps: a packet of 64 KiB takes more than 160 KB of a
    ring, and comes in part as there is room.
    """
    size = 2 * MIB
    data = random.Random(48).randbytes(size)
    left, right = make_site("left"), make_site("right")
    with (
        start(left, "split", pump, SMALLEST_RING) as near,
        start(right, "split", pump, SMALLEST_RING) as far,
        forwarding(near, far),
        ExitStack() as stack,
    ):
        announce_mss(right, version, 48)
        client, server = connect(left, right, version, stack)
        expanded = largest_expansion(client)
        receiver = stack.enter_context(Background(partial(digest_of, server)))
        send(client, data)
        assert receiver.result() == (size, hashlib.sha256(data).hexdigest())
        moved = near.statistics()
        assert moved.split > 0
        assert moved.received_packets > size // 36
        assert moved.discards == ringtun.Discards(drained=moved.discards.drained)
        assert expanded > SMALLEST_RING


def announce_mss(site: Site, version: int, mss: int) -> None:
    """Let the site's host ask its peers for so small segments."""
    of_kernel = ("dev", site.adapter.name, "proto", "kernel", "advmss", str(mss))
    if version == 4:
        route = ["10.99.0.0/24", *of_kernel, "scope", "link", "src", site.addresses[4]]
    else:
        route = ["fd99::/64", *of_kernel, "metric", "256"]
    site.network.run("ip", f"-{version}", "route", "change", *route)


def largest_expansion(stream: socket.socket) -> int:
    """Bytes that a packet of 64 KiB of this connection takes in a ring; checks its segments."""
    segment = stream.getsockopt(socket.IPPROTO_TCP, TCP_MAXSEG)
    assert segment == 36, "48, less timestamps"
    headers = 20 + 20 + 12
    return 65000 // segment * (4 + headers + segment)


# load --------------------------------------------------------------------------------------------


class Datagrams:
    """Numbered datagrams of random sizes, which one socket sends to another."""

    def __init__(self, source: socket.socket, target: socket.socket, count: int) -> None:
        self.source, self.target, self.count = source, target, count

    @staticmethod
    def payload(number: int) -> bytes:
        fill = random.Random(number)
        return struct.pack("!I", number) + fill.randbytes(fill.choice((20, 20, 20, 500, 1300)))

    def send(self) -> None:
        address = self.target.getsockname()
        for number in range(self.count):
            self.source.sendto(self.payload(number), address)
        self.source.sendto(b"end", address)

    def receive(self) -> list[int]:
        """The numbers that came, each with its content, in order."""
        numbers = []
        while (payload := self.target.recv(1 << 16)) != b"end":
            (number,) = struct.unpack_from("!I", payload)
            assert payload == self.payload(number)
            numbers.append(number)
        return numbers


def begin_load(
    left: Site, right: Site, flows: int, each: int, datagrams: int, stack: ExitStack
) -> list[Callable[[], int]]:
    """Streams of ``each`` bytes both ways, half of either IP version, with datagrams among them.

    Each of what it returns waits for something of it, raises what went wrong, and says how many
    datagrams were lost.
    """
    data = random.Random(1).randbytes(each)
    digest = hashlib.sha256(data).hexdigest()
    ends: list[Callable[[], int]] = []
    for number in range(flows):
        version = (4, 6)[number % 2]
        source, target = (left, right) if number // 2 % 2 else (right, left)
        client, server = connect(source, target, version, stack)
        receiver = stack.enter_context(Background(partial(digest_of, server)))
        sender = stack.enter_context(Background(partial(send, client, data)))
        ends.append(partial(streamed, sender, receiver, (each, digest)))
    for version in (4, 6):
        here = stack.enter_context(left.udp(version, port=5001))
        there = stack.enter_context(right.udp(version, port=5002))
        there.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * MIB)  # nothing is lost there
        stream = Datagrams(here, there, datagrams)
        numbers = stack.enter_context(Background(stream.receive))
        sent = stack.enter_context(Background(stream.send))
        ends.append(partial(numbered, sent, numbers, datagrams))
    return ends


def streamed(
    sender: Background[None], receiver: Background[tuple[int, str]], expected: tuple[int, str]
) -> int:
    sender.result()
    assert receiver.result() == expected
    return 0


def numbered(sender: Background[None], receiver: Background[list[int]], count: int) -> int:
    sender.result()
    numbers = receiver.result()
    assert numbers == sorted(set(numbers)), "reordered, or doubled"
    return count - len(numbers)


def run_load(
    make_site: MakeSite,
    kind: str,
    pump: Pump,
    *,
    flows: int,
    each: int,
    datagrams: int,
    rounds: int = 1,
) -> None:
    """What was lost the kernel's queue counted, and nothing else discarded anything."""
    lost = 0
    sites = make_site("left"), make_site("right")
    takes = [host_of(site).coalesces for site in sites]
    with (
        start(sites[0], kind, pump) as near,
        start(sites[1], kind, pump) as far,
        forwarding(near, far),
    ):
        for _ in range(rounds):
            with ExitStack() as stack:
                lost += sum(end() for end in begin_load(*sites, flows, each, datagrams, stack))
        statistics = near.statistics(), far.statistics()
    for found in statistics:
        counted = found.discards
        assert counted.total == counted.host_queue_full + counted.drained, counted
        assert (found.split > 0, found.merged > 0) == ((kind == "split",) * 2)
    assert lost <= sum(found.discards.host_queue_full for found in statistics)
    assert [host_of(site).coalesces for site in sites] == takes, "nothing was switched off"


def host_of(site: Site) -> LinuxHost:
    return cast(LinuxHost, embedded(site.adapter).host)


def test_many_flows_at_once(make_site: MakeSite, kind: str, pump: Pump) -> None:
    run_load(make_site, kind, pump, flows=64, each=4 * MIB, datagrams=2000)


def test_one_large_flow_each_way(make_site: MakeSite, kind: str, pump: Pump) -> None:
    run_load(make_site, kind, pump, flows=4, each=32 * MIB, datagrams=0)


@pytest.mark.soak
def test_gigabytes(make_site: MakeSite, kind: str, pump: Pump) -> None:
    run_load(make_site, kind, pump, flows=64, each=4 * MIB, datagrams=5000, rounds=20)


# merging between others --------------------------------------------------------------------------


def test_datagrams_of_one_flow_keep_their_order_whatever_is_merged(
    make_site: MakeSite, pump: Pump, version: int
) -> None:
    """Two flows by turns, of sizes that merge, end a merging, and do not merge."""
    left, right = make_site("left"), make_site("right")
    with (
        start(left, "split", pump) as near,
        start(right, "split", pump) as far,
        forwarding(near, far),
        closing(left.udp(version, 5001)) as one,
        closing(left.udp(version, 5002)) as two,
        closing(right.udp(version, 5003)) as target,
    ):
        target.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 * MIB)
        sizes = random.Random(3).choices((8, 500, 500, 500, 1000, 1000, 1400), k=3000)
        for number, size in enumerate(sizes):
            source = (one, two)[number % 3 == 0]
            source.sendto(struct.pack("!I", number) + bytes(size), target.getsockname())
        seen: dict[int, list[int]] = {}
        for _ in sizes:
            payload, sender = target.recvfrom(1 << 16)
            (number,) = struct.unpack_from("!I", payload)
            assert len(payload) == 4 + sizes[number]
            seen.setdefault(sender[1], []).append(number)
        assert sorted(number for numbers in seen.values() for number in numbers) == list(
            range(len(sizes))
        )
        assert all(numbers == sorted(numbers) for numbers in seen.values())


# whole packets -----------------------------------------------------------------------------------


def test_a_stream_is_received_whole(make_site: MakeSite, pump: Pump, version: int) -> None:
    """Few packets for much data: that is what they are for."""
    size = 32 * MIB
    data = random.Random(2).randbytes(size)
    left, right = make_site("left"), make_site("right")
    with (
        start(left, "whole", pump) as near,
        start(right, "whole", pump) as far,
        forwarding(near, far),
        ExitStack() as stack,
    ):
        client, server = connect(left, right, version, stack)
        receiver = stack.enter_context(Background(partial(digest_of, server)))
        send(client, data)
        assert receiver.result() == (size, hashlib.sha256(data).hexdigest())
        packets = near.statistics().received_packets
    assert packets < size // 1400 // 4, "a quarter of what the MTU would have taken, at most"


def test_segments_of_datagrams(left: Site, version: int) -> None:
    with left.adapter.start_session(offload=True) as session, closing(left.udp(version)) as host:
        host.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 900)
        sent = os.urandom(60 * 900)
        host.sendto(sent, (PROGRAM[version], 4000))
        parts: list[bytes] = []
        while len(parts) < 60:
            large = session.receive(SOON)
            if not is_noise(bytes(large)):
                parts += large.segments()
    header = 28 if version == 4 else 48
    assert b"".join(part[header:] for part in parts) == sent


def test_a_split_session_and_a_whole_one(make_site: MakeSite, pump: Pump, version: int) -> None:
    """Segments of the one are sent by the other: bytes, one by one, or all of a packet together."""
    size = 8 * MIB
    data = random.Random(5).randbytes(size)
    left, right = make_site("left"), make_site("right")
    with (
        left.adapter.start_session(offload=True, pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
    ):

        def there() -> None:
            for large in near:
                far.send_many(large.segments())

        def back() -> None:
            for packet in far:
                near.send(ringtun.OffloadPacket.ordinary(packet))

        with (
            closing_at_the_end(there, near, far),
            closing_at_the_end(back, near, far),
            ExitStack() as stack,
        ):
            client, server = connect(left, right, version, stack)
            receiver = stack.enter_context(Background(partial(digest_of, server)))
            send(client, data)
            assert receiver.result() == (size, hashlib.sha256(data).hexdigest())
            assert far.statistics().merged > 0
            assert far.statistics().discards.refused == 0


# the interface meanwhile -------------------------------------------------------------------------


def test_down_and_up_in_the_middle_of_merged_packets(
    make_site: MakeSite, pump: Pump, version: int
) -> None:
    """What was merged while it was down counts as so many packets, and switches nothing off."""
    site = make_site("left", versions=())
    with site.adapter.start_session(pump=pump) as session:
        site.link.set_up(False)
        packets = [packet(number, 900, version) for number in range(50)]
        assert session.send_many(packets) == 50
        until(lambda: session.statistics().discards.host_down == 50)
        site.link.set_up(True)
        site.link.wait_running(SOON)
        assert session.send_many(packets) == 50
        until(lambda: session.statistics().sent_packets == 50)
        assert session.statistics().merged > 0
