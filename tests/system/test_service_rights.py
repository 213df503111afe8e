"""What the driver service lets an ordinary user do, and what not."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

import ringtun

# What a user who may not read this virtual environment cannot load.
from ringtun import abi, session
from ringtun.abi import Status
from ringtun.control import service as control
from ringtun.device import service as device
from ringtun.offer import Offer
from tests.backends import ServiceHandle
from tests.children import NOBODY, as_ordinary_user, raised_in_child
from tests.services import Service
from tests.system.clients import answering
from tests.system.sites import SOON, until

pytestmark = [pytest.mark.kernel, as_ordinary_user]

LOADED = (control, device, session)
CONNECTIONS = 8
CONFIGURATION = f"""
group = {NOBODY}
[limits]
connections = {CONNECTIONS}
memory = 1_000_000
sealed = 400_000
adapters = 1
[[adapter]]
name = "mine0"
users = [{NOBODY}]
[[adapter]]
name = "other0"
[[grant]]
users = [{NOBODY}]
create = ["own?"]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a user reaches the sockets."""
    for each in (tmp_path, *tmp_path.parents[:-2]):
        each.chmod(0o755)
    return tmp_path / "run"


@pytest.fixture
def service(directory: Path) -> Iterator[Service]:
    file = directory.parent / "driver.toml"
    file.write_text(CONFIGURATION)
    with Service(directory, "--config", os.fspath(file)) as service:
        yield service


def as_nobody(call: Callable[[], object]) -> None:
    """In a child process without any right; fails with what fails there."""
    assert raised_in_child(call, NOBODY) == ""


@contextmanager
def refused(kind: type[Exception], message: str) -> Iterator[None]:
    with pytest.raises(kind, match=message):
        yield


def call(method: str, **parameters: object) -> object:
    return control._once(method, **parameters)


def test_who_is_not_in_the_group_is_told_the_cure(directory: Path) -> None:
    def work() -> None:
        for ask in (
            lambda: ringtun.create_adapter("own0", backend="service"),
            lambda: ringtun.open_adapter("mine0", backend="service"),
            lambda: ringtun.list_adapters(backend="service"),
        ):
            with refused(ringtun.AdapterPermissionError, "usermod -aG ringtun"):
                ask()

    with Service(directory):
        as_nobody(work)


def test_a_user_has_the_adapter_that_was_granted_and_nothing_else(service: Service) -> None:
    devices = service.directory / "devices"

    def work() -> None:
        (info,) = ringtun.list_adapters(backend="service")
        assert info.name == "mine0"
        for method, more in (
            ("OpenAdapter", {}),
            ("GetAdapter", {}),
            ("GetStatistics", {}),
            ("ConfigureAdapter", {"mtu": 1300}),
            ("DeleteAdapter", {}),
        ):
            with refused(ringtun.AdapterNotFound, "no adapter other0 that you may open"):
                call(method, name="other0", **more)
        handle = ServiceHandle(os.fspath(devices / "other0"))
        with Offer(abi.RING_MIN_CAPACITY) as offer:
            code, payload = abi.IOCTL_REGISTER_RINGS, offer.rings.pack()
            assert handle.register(code, payload, offer.descriptors) == Status.ACCESS_DENIED
        handle.close()
        with (
            ringtun.open_adapter("mine0", backend="service") as adapter,
            adapter.start_session(capacity=abi.RING_MIN_CAPACITY),
        ):
            with refused(ringtun.AdapterPermissionError, "not yours"):
                adapter.configure(mtu=1300)
            with refused(ringtun.AdapterPermissionError, "not yours"):
                ringtun.delete_adapter("mine0", backend="service")
            with refused(ringtun.AdapterExists, "other0 already"):
                ringtun.create_adapter("other0", exist_ok=True, backend="service")

    as_nobody(work)
    assert {info.mtu for info in ringtun.list_adapters(backend="service")} == {1500}


def test_a_user_makes_what_is_granted_within_its_limits(service: Service) -> None:
    def work() -> None:
        for name in ("lab0", "owner0"):
            with refused(ringtun.AdapterPermissionError, f"make an adapter {name}"):
                ringtun.create_adapter(name, backend="service")
        for whose in ({"owner": 0}, {"group": 0}):
            with refused(ringtun.AdapterPermissionError, "persists for you and your groups alone"):
                call("CreateAdapter", name="own0", persist=True, **whose)
        with ringtun.create_adapter("own0", backend="service") as adapter:
            with refused(OSError, "1 adapters already"):
                ringtun.create_adapter("own1", backend="service")
            with refused(ringtun.RegistrationError, "INSUFFICIENT|memory"):
                adapter.start_session(capacity=1 << 20)
            adapter.start_session(capacity=abi.RING_MIN_CAPACITY).close()

    as_nobody(work)
    assert "own0" not in {info.name for info in ringtun.list_adapters(backend="service")}


def test_memory_that_its_user_sealed_has_a_limit_of_its_own(service: Service) -> None:
    """Rings in it fit once, and others beside them; and again once they are closed."""
    devices = service.directory / "devices"

    def register(name: str, *, seal: bool) -> tuple[ServiceHandle, int]:
        with Offer(abi.RING_MIN_CAPACITY) as offer:
            for ring in (offer.to_client, offer.to_host) if seal else ():
                fcntl.fcntl(ring.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
            handle = ServiceHandle(os.fspath(devices / name))
            code, payload = abi.IOCTL_REGISTER_RINGS, offer.rings.pack()
            return handle, handle.register(code, payload, offer.descriptors)

    def work() -> None:
        with ringtun.create_adapter("own0", backend="service"):
            for _ in range(3):
                one, status = register("mine0", seal=True)
                assert status == Status.SUCCESS
                refused, status = register("own0", seal=True)
                assert status == Status.INSUFFICIENT_RESOURCES
                other, status = register("own0", seal=False)
                assert status == Status.SUCCESS
                for handle in (one, refused, other):
                    handle.close()

    before = service.holdings()
    as_nobody(work)
    until(lambda: service.holdings() == before)
    assert any("more than 400000 bytes of rings with F_SEAL_SEAL" in line for line in service.lines)


def test_a_flood_of_connections_is_one_users_trouble(service: Service) -> None:
    before = service.holdings()
    sockets = {
        service.directory / "control": socket.SOCK_STREAM,
        service.directory / "devices" / "mine0": socket.SOCK_SEQPACKET,
    }

    def flood(path: Path, kind: socket.SocketKind) -> None:
        with ExitStack() as stack:
            for number in range(10 * CONNECTIONS):
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
                connection.settimeout(SOON)
                connection.connect(os.fspath(path))
                if number >= CONNECTIONS:
                    assert connection.recv(1) == b""  # refused

    with answering("good0", "10.98.0") as ask:
        opened, mapped = service.holdings()  # perhaps with a connection that ends
        for path, kind in sockets.items():
            as_nobody(partial(flood, path, kind))
            ask()
            until(lambda: len(service.holdings()[0]) <= len(opened))
            assert service.holdings()[1] == mapped
    until(lambda: service.holdings() == before)

    def work() -> None:
        ringtun.open_adapter("mine0", backend="service").close()  # it has its connections back

    as_nobody(work)


@pytest.mark.parametrize("umask", ["000", "077"])
def test_nobody_else_writes_in_the_run_directory(directory: Path, umask: str) -> None:
    before = ("sh", "-c", f'umask {umask}; exec "$@"', "sh")
    with (
        Service(directory, "--group", "nogroup", before=before),
        ringtun.create_adapter("own0", backend="service"),
    ):
        paths = [directory, *directory.rglob("*")]
        assert {path.name for path in paths} == {"run", "devices", "own0", "control", "lock"}
        for path in paths:
            status = path.lstat()
            assert status.st_uid == os.geteuid()
            assert not status.st_mode & stat.S_IWOTH
            if path.is_dir():
                assert stat.S_IMODE(status.st_mode) == 0o755
            else:
                assert stat.S_IMODE(status.st_mode) in (0o660, 0o600)
