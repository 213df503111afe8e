"""While others keep the kernel's network configuration busy, promises hold all the same."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

import ringtun
from ringtun.device.embedded import Pump
from ringtun.host.namespace import Namespace
from ringtun.testing.conformance import packet
from ringtun.testing.netns import NetworkNamespace
from tests.system.packets import udp_payload
from tests.system.programs import Program
from tests.system.sites import ADDRESSES, PROGRAM, next_packet, udp_socket

pytestmark = pytest.mark.kernel

TURNS = 15


@pytest.fixture
def busy(network: NetworkNamespace) -> Iterator[None]:
    """Four programs make adapters and delete them, and hold the kernel's lock doing so."""
    with ExitStack() as stack:
        for number in range(4):
            name = f"busy{number}"
            other = stack.enter_context(NetworkNamespace(name))
            program = stack.enter_context(Program("churn", name, "", through=other.command()))
            assert program.line() == "ready"
        yield


@pytest.mark.usefixtures("busy")
def test_a_started_session_receives_and_sends_at_once(namespace: Namespace, pump: Pump) -> None:
    address = ADDRESSES["left"][4]
    for number in range(TURNS):
        with (
            ringtun.create_adapter("vpn0", addresses=[f"{address}/24"], netns="left") as adapter,
            adapter.start_session(pump=pump) as session,
            closing(udp_socket(namespace, address)) as host,
        ):
            host.sendto(b"%d" % number, (PROGRAM[4], 4000))
            assert udp_payload(next_packet(session)) == b"%d" % number
            session.send(packet(number))
            assert host.recv(1 << 16) == udp_payload(packet(number))


@pytest.mark.usefixtures("busy")
def test_an_ipv6_address_receives_once_the_adapter_is_made(namespace: Namespace) -> None:
    start = ipaddress.ip_address("fd99::1").packed.hex() + " 80 "
    for _ in range(TURNS):
        with ringtun.create_adapter("vpn0", addresses=["fd99::1/64"], netns="left"):
            routes = namespace.run(Path("/proc/thread-self/net/ipv6_route").read_text)
            assert any(line.startswith(start) for line in routes.splitlines())
