"""The driver service: the suites over it, and what it refuses."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import ringtun
from ringtun.host.offload import Coalesces, large_packet
from ringtun.service.control import Driver
from ringtun.testing.conformance import (
    AdapterConformance,
    AsyncSessionConformance,
    RingConformance,
    SessionConformance,
)
from tests.backends import RawServiceBackend, ServiceBackend
from tests.services import Service
from tests.system.sites import SOON, until
from tests.test_aio import AsyncBackend

pytestmark = pytest.mark.kernel

UDP_SEGMENT = 103  # linux/udp.h


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("service") / "run") as service:
        yield service


@pytest.mark.usefixtures("service")
class TestService(SessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[ServiceBackend]:
        with closing(ServiceBackend()) as backend:
            yield backend


@pytest.mark.usefixtures("service")
class TestServiceRaw(RingConformance):
    @pytest.fixture
    def backend(self) -> Iterator[RawServiceBackend]:
        with closing(RawServiceBackend()) as backend:
            yield backend


@pytest.mark.usefixtures("service")
class TestServiceAsync(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(ServiceBackend())) as backend:
            yield backend


@pytest.mark.usefixtures("service")
class TestServiceAdapters(AdapterConformance):
    backend = "service"


def test_a_second_one_is_refused(service: Service) -> None:
    with pytest.raises(AssertionError, match="runs in .* already"):
        Service(service.directory).start()


def test_it_goes_with_all_it_made(tmp_path: Path) -> None:
    with Service(tmp_path / "run") as service:
        assert (service.directory / "control").is_socket()
    assert not (service.directory / "devices").exists() or not list(
        (service.directory / "devices").iterdir()
    )


def test_the_interface_is_shipped_as_it_is() -> None:
    path = Path(ringtun.__file__).parent / "service" / "org.ringtun.Driver.varlink"
    assert path.read_text().rstrip() == Driver.render_interface_description().rstrip()


# ---- offload, and rest --------------------------------------------------------------------------


@pytest.mark.usefixtures("service")
def test_whole_packets_cross_the_socket_too() -> None:
    with (
        ringtun.create_adapter("vpn0", addresses=["10.99.0.1/24"], backend="service") as adapter,
        adapter.start_session(offload=True) as session,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 500)
        sender.sendto(bytes(1500), ("10.99.0.2", 9))
        received = session.receive(SOON)
        while received.view[0] >> 4 != 4:  # IPv6 tells of its groups
            received = session.receive(SOON)
        if received.gso_type is ringtun.GsoType.NONE:
            pytest.skip("NOT TRIED: this kernel has no UDP segmentation offload for TUN")
        assert (received.gso_type, received.segment_size) == (ringtun.GsoType.UDP, 500)
        assert [len(segment) for segment in received.segments()] == [528] * 3
        session.send(received)
        until(lambda: session.statistics().sent_packets == 1)


@pytest.mark.usefixtures("service")
def test_packets_are_merged_and_cut_by_the_service() -> None:
    with (
        ringtun.create_adapter("vpn0", addresses=["10.99.0.1/24"], backend="service") as adapter,
        adapter.start_session() as session,
    ):
        large = ringtun.OffloadPacket(b"".join(large_packet(Coalesces.TCP4)))
        session.send_many(large.segments())
        until(lambda: session.statistics().sent_packets == 2)
        assert session.statistics().merged == 1
        with pytest.raises(ringtun.AdapterBusy):
            adapter.start_session()
    with pytest.raises(ringtun.AdapterNotFound):
        adapter.start_session()


@pytest.mark.usefixtures("service")
def test_an_idle_session_wakes_nobody() -> None:
    with (
        ringtun.create_adapter("vpn0", addresses=["10.99.0.1/24"], backend="service") as adapter,
        adapter.start_session() as session,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.sendto(b"hello", ("10.99.0.2", 9))
        while not session.receive(SOON).endswith(b"hello"):
            pass
        before = session.statistics().wakeups
        with pytest.raises(TimeoutError):
            session.receive(timeout=0.5)
        assert session.statistics().wakeups == before
