"""The driver service in another network namespace than its clients: they are served all the same.

It is root's here; for whose namespaces it works, and for whose not, see
`tests.system.test_service_namespaces`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

import ringtun
from ringtun import abi
from ringtun.control import service as control
from ringtun.testing.conformance import AdapterConformance
from ringtun.testing.netns import NetworkNamespace
from tests.children import raised_in_child
from tests.services import Service
from tests.system.clients import udp_socket
from tests.system.packets import udp_echo
from tests.system.sites import SOON, responding, until
from tests.system.test_c_client import pings

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory = tmp_path_factory.mktemp("service") / "run"
    with Service(directory, before=("unshare", "--net")) as service:
        yield service


@pytest.fixture(autouse=True)
def nothing_is_held(service: Service) -> Iterator[None]:
    before = service.holdings()
    yield
    until(lambda: service.holdings() == before, f"{service.holdings()}, not {before}")
    assert list((service.directory / "devices").iterdir()) == []


class TestAdapters(AdapterConformance):
    backend = "service"

    def test_it_stays_until_it_is_taken_away(self) -> None:
        """It does not: the service could not take it up again."""
        with pytest.raises(ringtun.DriverUnavailable, match="leave persist out"):
            self.create(persist=True)
        assert self.names() == []

    test_exist_ok_twice_is_as_once: Any = None
    test_exist_ok_makes_what_is_there_as_asked: Any = None

    def test_exist_ok_leaves_what_is_not_given(self) -> None:
        with self.create(addresses=["10.7.0.1/24"], mtu=1400) as adapter:
            before = adapter.info()
            with self.create(exist_ok=True):
                pass
            assert adapter.info() == before
        assert self.names() == []


# ---- packets -------------------------------------------------------------------------------------


def test_it_answers_pings(service: Service) -> None:
    with (
        ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24", "fd07::1/64"]) as adapter,
        adapter.start_session() as session,
        responding(session),
    ):
        assert adapter.info().backend == "service"
        pings("10.7.0.2")
        pings("fd07::2")
    assert any("made for user" in line and "network namespace" in line for line in service.lines)


def test_it_answers_in_a_loop() -> None:
    async def echo(adapter: ringtun.Adapter) -> None:
        async with adapter.start_async_session() as session:
            host.sendto(b"there?", ("10.7.0.2", 4000))
            async for packet in session:
                answer = udp_echo(packet)
                if answer is not None:
                    await session.send(answer)
                    return

    with (
        ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], backend="service") as adapter,
        closing(udp_socket("10.7.0.1")) as host,
    ):
        asyncio.run(asyncio.wait_for(echo(adapter), SOON))
        assert host.recv(100) == b"there?"


def test_drops_of_the_kernel_are_counted() -> None:
    with (
        ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], backend="service") as adapter,
        closing(udp_socket("10.7.0.1")) as host,
    ):
        for _ in range(3):
            host.sendto(b"nobody is connected", ("10.7.0.2", 4000))
        assert adapter.info().host_drops == 3
        with adapter.start_session(capacity=abi.RING_MIN_CAPACITY) as session:
            until(lambda: sent_more(host) and session.statistics().discards.host_queue_full > 0)
        assert adapter.statistics().discards.host_queue_full > 0


def sent_more(host: socket.socket) -> bool:
    for _ in range(1000):
        host.sendto(bytes(1000), ("10.7.0.2", 4000))
    return True


# ---- namespaces ----------------------------------------------------------------------------------


def test_one_name_in_two_namespaces() -> None:
    with (
        NetworkNamespace("left") as left,
        ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], netns="left") as there,
        ringtun.create_adapter("vpn0", addresses=["10.8.0.1/24"]) as here,
    ):
        assert [info.backend for info in (there.info(), here.info())] == ["service"] * 2
        with there.start_session() as session, responding(session):
            assert "1 received" in left.run("ping", "-c1", "-w10", "10.7.0.2").stdout
        assert [str(info.addresses[0]) for info in listed("left")] == ["10.7.0.1/24"]
        assert [str(info.addresses[0]) for info in listed(None)] == ["10.8.0.1/24"]
        assert len(control.status().adapters) == 2
        ringtun.delete_adapter("vpn0", netns="left")
        with pytest.raises(ringtun.AdapterNotFound):
            ringtun.open_adapter("vpn0", netns="left", backend="service")
        assert here.info().up


def listed(netns: str | None) -> list[ringtun.AdapterInfo]:
    return ringtun.list_adapters(netns=netns, backend="service")


def test_the_services_own_is_asked_for_by_name(service: Service) -> None:
    """As nothing is special about it then, one may persist there."""
    netns = f"/proc/{service.process.pid}/ns/net"
    options: dict[str, Any] = {"netns": netns, "backend": "service"}
    with ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], persist=True, **options):
        assert [info.name for info in ringtun.list_adapters(**options)] == ["vpn0"]
        assert ringtun.list_adapters() == []
    ringtun.open_adapter("vpn0", **options).close()
    ringtun.delete_adapter("vpn0", **options)


def test_one_that_is_to_persist_is_not_the_services() -> None:
    with ringtun.create_adapter("vpn0", persist=True) as adapter:
        assert adapter.info().backend == "embedded"
    with ringtun.create_adapter("vpn0", exist_ok=True) as adapter:
        assert (adapter.info().backend, adapter.info().persistent) == ("embedded", True)
    ringtun.delete_adapter("vpn0")


def test_where_the_service_cannot_look_the_client_does() -> None:
    """By a connection that has no descriptor, an adapter is found by its namespace's inode."""
    with ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], backend="service"):
        inode = os.stat("/proc/self/ns/net").st_ino
        (state,) = control._once("ListAdapters")["adapters"]
        assert (state["namespace"], state["up"], state["addresses"]) == (inode, True, [])
        assert state["device"].endswith(f"/vpn0:{inode}")
        with pytest.raises(ringtun.AdapterNotFound):
            control._once("GetAdapter", name="vpn0")
        assert control._once("GetAdapter", name="vpn0", namespace=inode)["adapter"] == state
        for method in ("ConfigureAdapter", "Monitor"):
            with pytest.raises((ringtun.AdapterNotFound, ringtun.DriverUnavailable)):
                control._once(method, name="vpn0", namespace=inode)


def test_a_forked_child_lets_it_be() -> None:
    with ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], backend="service") as adapter:
        assert raised_in_child(lambda: None) == ""
        assert adapter.info().up
