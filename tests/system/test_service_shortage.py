"""The driver service short of descriptors, memory, threads and room on its file system.

Whoever asks then is refused in plain words, whoever is served already is not disturbed, nothing is
left of what was refused, and afterwards all is as before.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import ringtun
from ringtun.abi import RING_MAX_CAPACITY, RING_MIN_CAPACITY, Status
from ringtun.control.service import ServiceAdapter
from tests.backends import ServiceHandle
from tests.children import as_ordinary_user
from tests.services import Service
from tests.system.clients import answering
from tests.system.sites import SOON, until
from tests.test_service_restart import AS_IN_THE_UNIT, OTHER, OWNER

pytestmark = pytest.mark.kernel

TAKEN = 48  # descriptors, more than an adapter and its session take for a moment
ROOM = 96 << 20  # bytes of addresses that a service has left: two rings do not fit


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "run") as service:
        yield service


@pytest.fixture
def served(service: Service) -> Iterator[Callable[[], None]]:
    """Asks a client that is served; afterwards the service holds what it held, and is of use."""
    before, interfaces = service.holdings(), socket.if_nameindex()
    with answering("good0", "10.98.0") as ask:
        yield ask
        ask()
    until(lambda: service.holdings() == before, f"{service.holdings()}, not {before}")
    assert socket.if_nameindex() == interfaces
    use()


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A directory that other users reach; those of pytest are root's alone."""
    with TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


@contextmanager
def limited(service: Service, what: int, to: int) -> Iterator[None]:
    pid = service.process.pid
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (to, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def use(capacity: int = RING_MIN_CAPACITY) -> None:
    """All that a client does."""
    with (
        ringtun.create_adapter("short0", addresses=["10.97.0.1/24"], backend="service") as adapter,
        adapter.events() as events,
        adapter.start_session(capacity=capacity) as session,
    ):
        adapter.configure(mtu=1400)
        while (event := events.wait(SOON)) and event.kind is not ringtun.EventKind.MTU:
            pass
        session.statistics()
        assert adapter.info().connected


def test_each_descriptor_that_it_lacks(service: Service, served: Callable[[], None]) -> None:
    """One more to spare each time, so that it is short of one at every step of its work."""
    while_served = service.holdings()
    refused = {}
    for spare in range(TAKEN):
        with limited(service, resource.RLIMIT_NOFILE, len(while_served[0]) + spare):
            try:
                use()
            except (ringtun.RegistrationError, OSError) as error:
                refused[spare] = error
            served()
        until(lambda: service.holdings() == while_served, f"with {spare} to spare it keeps some")
    assert len(refused) > 8
    assert list(refused) == list(range(len(refused))), "with more to spare it is refused again"
    assert {error.errno for error in refused.values()} == {errno.EMFILE, errno.ENOMEM}
    assert all("descriptors" in str(error) for error in refused.values())


def test_no_descriptor_for_a_connection(service: Service, served: Callable[[], None]) -> None:
    """Who comes waits until there is one; the log says so once."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(SOON)
        with limited(service, resource.RLIMIT_NOFILE, 0):
            connection.connect(os.fspath(service.directory / "control"))
            until(lambda: "control: no connection is taken: Too many open files" in service.lines)
            served()
            connection.sendall(b'{"method":"org.varlink.service.GetInfo"}\0')
            connection.settimeout(0.5)  # it looks again meanwhile
            with pytest.raises(TimeoutError):
                connection.recv(1)
        connection.settimeout(SOON)
        assert b"ringtun driver" in connection.recv(4096)
    assert sum("no connection" in line for line in service.lines) == 1


def test_no_addresses_for_rings(service: Service, served: Callable[[], None]) -> None:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:"))
    with limited(service, resource.RLIMIT_AS, (size << 10) + ROOM):
        for _ in range(3):
            with pytest.raises(ringtun.RegistrationError, match="short of memory") as refused:
                use(RING_MAX_CAPACITY)
            assert refused.value.errno == errno.ENOMEM
            served()


def limit_threads(service: Service, to: str) -> None:
    """As the service's own user, who may."""
    become = ("setpriv", f"--reuid={OTHER}", f"--regid={OWNER}", "--clear-groups", "--")
    limit = ("prlimit", f"--pid={service.process.pid}", f"--nproc={to}:")
    subprocess.run([*become, *limit], check=True)


@as_ordinary_user
def test_no_threads(open_to_all: Path) -> None:
    """A limit that does not hold for root: the service is a user of its own, as in its unit."""
    run, nodes = open_to_all / "run", open_to_all / "nodes"
    run.mkdir()
    nodes.mkdir()
    os.chown(run, OTHER, OWNER)
    before = ("unshare", "--mount", "sh", "-c", AS_IN_THE_UNIT, "sh", os.fspath(nodes))
    if subprocess.run([*before, sys.executable, "-c", "import ringtun"]).returncode:
        pytest.skip("NOT TRIED: no node can be made here, or no other user can run ringtun")
    with Service(run, before=before) as service, answering("good0", "10.98.0") as ask:
        with ringtun.create_adapter("bad0", backend="service") as adapter:
            held = service.holdings()
            assert isinstance(adapter._opened, ServiceAdapter)
            handle = ServiceHandle(adapter._opened.device_path)
            null = os.open("/dev/null", os.O_RDONLY)
            limit_threads(service, "1")
            try:
                with pytest.raises(OSError, match="can't start new thread"):
                    use()
                with pytest.raises(ringtun.RegistrationError, match="short of memory"):
                    adapter.start_session(capacity=RING_MIN_CAPACITY)
                # Its end is a thread's, which is not to be had yet.
                assert handle.register(7, b"", [null]) == Status.INVALID_DEVICE_REQUEST
                ask()
            finally:
                limit_threads(service, "4096")
            os.close(null)
            assert handle.register(7, b"", []) == Status.INVALID_DEVICE_REQUEST
            handle.close()
            until(lambda: service.holdings() == held, "it keeps what it refused")
            adapter.start_session(capacity=RING_MIN_CAPACITY).close()
        use()
        ask()


@pytest.mark.parametrize("full", ["size=16k,nr_inodes=8", "nr_inodes=8"])
def test_a_run_directory_on_a_full_file_system(tmp_path: Path, full: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", full, "none", disk], check=True)
    try:
        with Service(disk / "run") as service, answering("good0", "10.98.0") as ask:
            before = service.holdings()
            with suppress(OSError):
                for number in range(100):
                    (disk / str(number)).touch()
            for _ in range(3):
                with pytest.raises(OSError, match=r"devices/short0 cannot be made: No space"):
                    use()
                assert "short0" not in {name for _, name in socket.if_nameindex()}
                ask()
            until(lambda: service.holdings() == before)
            (disk / "0").unlink()
            use()
            ask()
        (disk / "run" / "lock").unlink()
        with suppress(OSError):
            for number in range(100, 200):
                (disk / str(number)).touch()
        command = [sys.executable, "-m", "ringtun", "driver", "--runtime-directory"]
        done = subprocess.run(
            [*command, os.fspath(disk / "run")], capture_output=True, text=True, timeout=SOON
        )
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
