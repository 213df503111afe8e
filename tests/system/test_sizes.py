"""Packets of every size class, both ways, compared byte for byte."""

from __future__ import annotations

import random
from contextlib import closing

import pytest

from ringtun.device.embedded import Pump
from ringtun.testing.conformance import packet
from tests.system.conftest import MakeSite
from tests.system.packets import udp_payload
from tests.system.sites import PROGRAM, SOON, forwarding, next_packet

pytestmark = pytest.mark.kernel

LARGEST = 65535
IP_HEADER = {4: 20, 6: 40}
CAPACITY = 1 << 17
"""The smallest ring: the largest packets wrap all the time."""


def sizes(version: int, header: int) -> list[int]:
    """From nothing but ``header`` bytes up to the largest; shuffled, the same each time."""
    smallest = IP_HEADER[version] + header
    every = set(range(smallest, smallest + 48))
    for middle in (256, 512, 1024, 1280, 1500, 2048, *range(4096, LARGEST, 4096)):
        every.update(range(middle - 4, middle + 5))
    every.update(range(LARGEST - 16, LARGEST + 1))
    shuffle = random.Random(version)
    every.update(shuffle.randrange(smallest, LARGEST) for _ in range(64))
    shuffled = sorted(every)
    shuffle.shuffle(shuffled)
    return shuffled


def any_packet(number: int, size: int, version: int) -> bytes:
    """As `packet`, down to the bare IP header, which then is one of a datagram cut short."""
    return packet(number, max(size, IP_HEADER[version] + 8), version)[:size]


def test_below_ip(make_site: MakeSite, pump: Pump, version: int) -> None:
    """A packet socket at the kernel's side: no IP stack has its say."""
    site = make_site("left", versions=(), mtu=LARGEST)
    with (
        site.adapter.start_session(pump=pump, capacity=CAPACITY) as session,
        closing(site.packet_socket()) as host,
    ):
        for number, size in enumerate(sizes(version, 0)):
            sent = any_packet(number, size, version)
            host.send(sent)
            assert session.receive(SOON) == sent
            session.send(sent)
            assert host.receive(SOON) == sent
        statistics = session.statistics()
        assert statistics.received_packets == statistics.sent_packets == number + 1
        assert statistics.discards.total == 0


def test_many_at_once(make_site: MakeSite, pump: Pump, version: int) -> None:
    """All lie in the kernel's queue and the ring together, side by side."""
    site = make_site("left", versions=(), mtu=LARGEST)
    packets = [any_packet(*each, version) for each in enumerate(sizes(version, 0))]
    with (
        site.adapter.start_session(pump=pump, capacity=1 << 20) as session,
        closing(site.packet_socket()) as host,
    ):
        for sent in packets:
            host.send(sent)
        received: list[bytes] = []
        while len(received) < len(packets):
            with session.receive_many(timeout=SOON) as batch:
                received.extend(bytes(view) for view in batch)
        assert received == packets


def test_datagrams(make_site: MakeSite, pump: Pump, version: int) -> None:
    """UDP sockets at the kernel's side: what its IP stack makes, and what it takes."""
    site = make_site("left", mtu=LARGEST)
    with (
        site.adapter.start_session(pump=pump, capacity=CAPACITY) as session,
        closing(site.udp(version)) as host,
    ):
        for number, size in enumerate(sizes(version, 8)):
            answer = packet(number, size, version)
            payload = udp_payload(answer)
            host.sendto(payload, (PROGRAM[version], 4000))
            received = next_packet(session)
            assert len(received) == size
            assert udp_payload(received) == payload
            session.send(answer)
            assert host.recv(1 << 16) == payload


def test_datagrams_across_two_sites(make_site: MakeSite, pump: Pump, version: int) -> None:
    left, right = make_site("left", mtu=LARGEST), make_site("right", mtu=LARGEST)
    with (
        left.adapter.start_session(pump=pump, capacity=CAPACITY) as near,
        right.adapter.start_session(pump=pump, capacity=CAPACITY) as far,
        forwarding(near, far),
        closing(left.udp(version)) as here,
        closing(right.udp(version)) as there,
    ):
        for number, size in enumerate(sizes(version, 8)):
            payload = udp_payload(packet(number, size, version))
            here.sendto(payload, there.getsockname())
            assert there.recv(1 << 16) == payload
            there.sendto(payload[::-1], here.getsockname())
            assert here.recv(1 << 16) == payload[::-1]
