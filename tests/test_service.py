"""The driver service: the suites over it, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import ringtun
from ringtun.service.control import Driver
from ringtun.testing.conformance import (
    AdapterConformance,
    AsyncSessionConformance,
    RingConformance,
    SessionConformance,
)
from tests.backends import RawServiceBackend, ServiceBackend
from tests.services import Service
from tests.test_aio import AsyncBackend

pytestmark = pytest.mark.kernel


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
