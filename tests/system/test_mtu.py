"""The MTU changes while a session runs."""

from __future__ import annotations

import ipaddress
from contextlib import closing

import pytest

from ringtun.device.embedded import Pump
from ringtun.testing.conformance import packet
from tests.system.conftest import MakeSite
from tests.system.packets import ICMPV6, protocol_of, udp_payload
from tests.system.sites import ADDRESSES, PROGRAM, Site, next_packet

pytestmark = pytest.mark.kernel


def test_larger_and_smaller_packets_flow_at_once(left: Site, pump: Pump, version: int) -> None:
    number = 0
    with (
        left.adapter.start_session(pump=pump) as session,
        closing(left.udp(version)) as host,
    ):
        for mtu in (9000, 1280, 65535, 1500, 1280, 9000):
            left.link.set_mtu(mtu)
            assert left.adapter.mtu == mtu
            for size in (mtu, 1280, 64):
                number += 1
                whole = packet(number, size, version)
                host.sendto(udp_payload(whole), (PROGRAM[version], 4000))
                received = next_packet(session)
                assert len(received) == size
                assert udp_payload(received) == udp_payload(whole)
                session.send(whole)
                assert host.recv(1 << 16) == udp_payload(whole)


def test_what_does_not_fit_any_more_comes_in_fragments(make_site: MakeSite, pump: Pump) -> None:
    left = make_site("left", versions=(4,))
    with left.adapter.start_session(pump=pump) as session, closing(left.udp()) as host:
        for mtu in (4000, 1500, 576, 68):
            left.link.set_mtu(mtu)
            host.sendto(bytes(4000), (PROGRAM[4], 4000))
            seen = 0
            while seen < 8 + 4000:
                fragment = next_packet(session)
                assert len(fragment) <= mtu
                seen += len(fragment) - 20
            assert seen == 8 + 4000


def test_the_program_may_send_more_than_the_mtu(left: Site, pump: Pump, version: int) -> None:
    """It bounds what the kernel sends; what the kernel takes may have any size."""
    left.link.set_mtu(1280)
    with (
        left.adapter.start_session(pump=pump) as session,
        closing(left.udp(version)) as host,
    ):
        for size in (1281, 9000, 65535):
            session.send(packet(size, size, version))
            assert host.recv(1 << 16) == udp_payload(packet(size, size, version))
        assert session.statistics().discards.total == 0


def test_below_1280_ipv6_is_lost_and_ipv4_goes_on(left: Site, pump: Pump) -> None:
    with left.adapter.start_session(pump=pump) as session:
        left.link.set_mtu(1279)
        assert left.adapter.addresses == (ipaddress.ip_interface("10.99.0.1/24"),)
        with closing(left.udp()) as host:
            host.sendto(b"still here", (PROGRAM[4], 4000))
            assert udp_payload(next_packet(session)) == b"still here"
            session.send(packet(1))
            assert host.recv(1 << 16) == udp_payload(packet(1))

        left.link.set_mtu(1500)
        assert {address.version for address in left.adapter.addresses} == {4}, "it stays lost"
        left.link.add_address(ipaddress.ip_interface(f"{ADDRESSES['left'][6]}/64"))
        left.wait_for_ipv6()
        with closing(left.udp(6)) as host:
            host.sendto(b"back", (PROGRAM[6], 4000))
            received = next_packet(session)
            while protocol_of(received) == ICMPV6:  # its automatic link-local address solicits
                received = next_packet(session)
            assert udp_payload(received) == b"back"
            session.send(packet(2, version=6))
            assert host.recv(1 << 16) == udp_payload(packet(2, version=6))
