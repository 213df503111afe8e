"""Adapters in named network namespaces, made and used from outside."""

from __future__ import annotations

import os
import socket
from contextlib import closing
from ipaddress import ip_interface
from pathlib import Path

import pytest

import ringtun
from ringtun import AdapterExists, AdapterNotFound
from ringtun.device.embedded import Pump
from ringtun.host.namespace import Namespace
from ringtun.testing.conformance import packet
from ringtun.testing.netns import NetworkNamespace
from tests.system.packets import udp_payload
from tests.system.sites import ADDRESSES, PROGRAM, Site, next_packet, udp_socket

pytestmark = pytest.mark.kernel


def here() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def test_it_is_there_and_not_here(left: Site, pump: Pump, version: int) -> None:
    own = os.stat("/proc/thread-self/ns/net").st_ino
    with left.adapter.start_session(pump=pump) as session, closing(left.udp(version)) as host:
        assert left.interfaces() == ["lo", "vpn0"]
        assert "vpn0" not in here()
        assert left.network.run("ip", "-o", "link", "show", "vpn0").stdout
        assert os.stat("/proc/thread-self/ns/net").st_ino == own
        host.sendto(b"out", (PROGRAM[version], 4000))
        assert udp_payload(next_packet(session)) == b"out"
        session.send(packet(1, version=version))
        assert host.recv(1 << 16) == udp_payload(packet(1, version=version))
    assert left.adapter.addresses == tuple(
        ip_interface(f"{ADDRESSES['left'][v]}/{prefix}") for v, prefix in ((4, 24), (6, 64))
    )


def test_one_name_in_two_namespaces(left: Site, right: Site, pump: Pump) -> None:
    """Three, with this process's own; each gets what is its own."""
    with (
        ringtun.create_adapter("vpn0") as own,
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        closing(left.udp()) as here_,
        closing(right.udp()) as there,
    ):
        assert own.name == left.adapter.name == right.adapter.name == "vpn0"
        here_.sendto(b"left", (PROGRAM[4], 4000))
        there.sendto(b"right", (ADDRESSES["left"][4], 4000))
        assert udp_payload(next_packet(near)) == b"left"
        assert udp_payload(next_packet(far)) == b"right"
        own.close()
        assert "vpn0" not in here()
        assert left.interfaces() == right.interfaces() == ["lo", "vpn0"]
    left.adapter.close()
    assert (left.interfaces(), right.interfaces()) == (["lo"], ["lo", "vpn0"])


def test_the_name_is_taken_there_only(left: Site) -> None:
    with pytest.raises(AdapterExists):
        ringtun.create_adapter("vpn0", netns="left")
    with pytest.raises(AdapterNotFound):
        ringtun.open_adapter("vpn0")
    with ringtun.open_adapter("vpn0", netns="left") as again:
        assert again.ifindex == left.adapter.ifindex


@pytest.mark.parametrize("call", [ringtun.create_adapter, ringtun.open_adapter])
def test_a_namespace_that_is_not_there(call: object, nothing_is_left: None) -> None:
    assert callable(call)
    before = here()
    with pytest.raises(FileNotFoundError, match="no network namespace 'nowhere'.*ip netns add"):
        call("vpn0", netns="nowhere")
    assert here() == before


def test_a_file_that_is_no_namespace(nothing_is_left: None) -> None:
    file = Path("/run/netns/plain")
    file.touch()
    try:
        with pytest.raises(ValueError, match="is not a network namespace"):
            ringtun.create_adapter("vpn0", netns="plain")
    finally:
        file.unlink()


def test_an_adapter_outlives_the_name_of_its_namespace(nothing_is_left: None, pump: Pump) -> None:
    """It holds the namespace itself."""
    with NetworkNamespace("short"), Namespace.named("short") as namespace:
        adapter = ringtun.create_adapter("vpn0", addresses=["10.99.0.1/24"], netns="short")
        host = udp_socket(namespace, ADDRESSES["left"][4])
    with adapter, closing(host), adapter.start_session(pump=pump) as session:
        host.sendto(b"still", (PROGRAM[4], 4000))
        assert udp_payload(next_packet(session)) == b"still"
        assert adapter.up
