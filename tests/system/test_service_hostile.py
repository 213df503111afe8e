"""Clients that break the contract with the driver service, each while another one is served."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import pytest

import ringtun
from ringtun import abi
from ringtun.abi import SetSpace, Status
from ringtun.control.service import ServiceAdapter
from ringtun.event import Event
from ringtun.offer import Offer
from ringtun.wire import Answer, send_request
from tests.backends import ServiceHandle
from tests.services import Service
from tests.system.clients import answering, udp_socket
from tests.system.programs import ROOT
from tests.system.sites import SOON, until

pytestmark = pytest.mark.kernel

CAPACITY = abi.RING_MIN_CAPACITY
WHILE = 2.0  # seconds of misbehaviour that a well-behaved client is served through
SLOWEST = 0.5  # seconds that an answer may take meanwhile: two cores, and others use them
IDLE = 0.3
FULL = 0xFFFFFFFFFFFFFFFE  # of an eventfd
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2  # linux/falloc.h
MADV_REMOVE = 9  # asm-generic/mman-common.h

DRIVER = "org.ringtun.Driver"

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("hostile") / "run") as service:
        yield service
        is_idle(service)


def is_idle(service: Service) -> None:
    spent = service.cpu()
    time.sleep(IDLE)
    assert service.cpu() - spent < IDLE / 3, "it spins"


@pytest.fixture
def unharmed(service: Service) -> Iterator[Callable[[], None]]:
    """Afterwards the service holds what it held, and serves; gives what asks it once."""
    before = service.holdings()
    with answering("good0", "10.98.0") as ask:
        yield ask
        ask()
    until(lambda: service.holdings() == before, f"{service.holdings()}, not {before}")


@pytest.fixture
def device(unharmed: Callable[[], None]) -> Iterator[str]:
    """The path of the device of another adapter, bad0, 10.97.0.1/24."""
    with ringtun.create_adapter("bad0", addresses=["10.97.0.1/24"], backend="service") as adapter:
        opened = adapter._opened
        assert isinstance(opened, ServiceAdapter)
        yield opened.device_path


@contextmanager
def registered(device: str, offer: Offer) -> Iterator[ServiceHandle]:
    handle = ServiceHandle(device)
    try:
        status = handle.register(abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), offer.descriptors)
        assert status == Status.SUCCESS
        yield handle
    finally:
        handle.drop()


@contextmanager
def connected(path: str, kind: int = socket.SOCK_SEQPACKET) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, kind) as connection:
        connection.settimeout(SOON)
        connection.connect(path)
        yield connection


def send_to_client(count: int) -> None:
    """Datagrams that the kernel has for bad0's client."""
    with closing(udp_socket("10.97.0.1")) as host:
        for _ in range(count):
            host.sendto(bytes(500), ("10.97.0.2", 4000))


def is_served(ask: Callable[[], None], seconds: float = 0.0) -> None:
    """The other client is, promptly, for so long."""
    end = time.monotonic() + seconds
    while True:
        before = time.monotonic()
        ask()
        after = time.monotonic()
        assert after - before < SLOWEST
        if after >= end:
            return


# ---- memory --------------------------------------------------------------------------------------


def test_rings_that_are_scribbled_over(unharmed: Callable[[], None], device: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "tests.system.hostile", device]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, process_group=0) as bad:
        try:
            assert bad.stdout is not None
            assert bad.stdout.readline() == b"0\n"
            end = time.monotonic() + WHILE
            while time.monotonic() < end:
                send_to_client(20)
                is_served(unharmed)
            assert bad.stdout.readline() == b"1\n"
            assert bad.poll() is None
        finally:
            os.killpg(bad.pid, 9)


def punch(fd: int, size: int) -> int:
    """Take all pages out of a memfd; returns 0 or an errno."""
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    return 0 if libc.fallocate(fd, mode, 0, size) == 0 else ctypes.get_errno()


def test_no_holes_are_punched_into_registered_memory(
    unharmed: Callable[[], None], device: str
) -> None:
    with Offer(CAPACITY) as offer, registered(device, offer):
        size = abi.ring_size(CAPACITY)
        for ring in (offer.to_client, offer.to_host):
            assert punch(ring.fd, size) == errno.EPERM
            with pytest.raises(PermissionError):
                mmap.mmap(ring.fd, size)  # writable
            address = ctypes.addressof(ctypes.c_char.from_buffer(ring.mapping))
            assert libc.madvise(ctypes.c_void_p(address), size - size % 4096, MADV_REMOVE) == -1
            assert ctypes.get_errno() == errno.EPERM
        is_served(unharmed)


def test_holes_where_the_client_kept_the_power_to_punch(
    unharmed: Callable[[], None], device: str
) -> None:
    """It set F_SEAL_SEAL itself: pages go during traffic, and read as zeros."""
    for _ in range(3):
        with Offer(CAPACITY) as offer:
            for ring in (offer.to_client, offer.to_host):
                fcntl.fcntl(ring.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
            with registered(device, offer):
                for _ in range(20):
                    send_to_client(20)
                    for ring in (offer.to_client, offer.to_host):
                        assert punch(ring.fd, abi.ring_size(CAPACITY)) == 0
                    offer.to_host_event.signal()
                    is_served(unharmed)


# ---- events --------------------------------------------------------------------------------------


def fill(event: int) -> None:
    """Up to the brim, and so that whoever signals it waits."""
    os.set_blocking(event, False)
    with suppress(BlockingIOError):
        os.eventfd_write(event, FULL)
    os.set_blocking(event, True)


@pytest.mark.parametrize("how", ["the client closes", "the adapter is deleted"])
@pytest.mark.parametrize("which", ["rings", "space"])
def test_events_that_block_who_signals_them(
    service: Service, unharmed: Callable[[], None], device: str, how: str, which: str
) -> None:
    with ExitStack() as stack:
        offer = stack.enter_context(Offer(CAPACITY))
        handle = ServiceHandle(device)
        stack.callback(handle.drop)
        events = [stack.enter_context(Event()).fileno() for _ in range(2)]
        space = os.memfd_create("space", os.MFD_ALLOW_SEALING)
        stack.callback(os.close, space)
        os.posix_fallocate(space, 0, abi.SPACE_SIZE)
        fcntl.fcntl(space, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        words = stack.enter_context(mmap.mmap(space, abi.SPACE_SIZE))
        payload = SetSpace(1, 2, 3).pack()
        assert handle.register(abi.IOCTL_SET_SPACE, payload, (space, *events)) == 0
        payload = offer.rings.pack()
        assert handle.register(abi.IOCTL_REGISTER_RINGS, payload, offer.descriptors) == 0
        for event in events if which == "space" else offer.descriptors[1::2]:
            fill(event)
        words[abi.SPACE_TO_HOST] = 1  # we wait for room, as it were
        if which == "space":
            with memoryview(offer.to_host.mapping) as ring:
                ring[abi.RING_TAIL] = 4  # a packet of no bytes
            offer.to_host_event.signal()
        send_to_client(20)
        is_served(unharmed, 0.1)
        is_idle(service)
        before = time.monotonic()
        if how == "the adapter is deleted":
            ringtun.delete_adapter("bad0", backend="service")
        else:
            handle.close()
        assert time.monotonic() - before < 1


# ---- messages ------------------------------------------------------------------------------------


def test_messages_that_are_none(unharmed: Callable[[], None], device: str) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    header = struct.Struct("=II")
    messages: list[tuple[bytes, int]] = [
        (b"", 8),
        (b"x", 0),
        (bytes(7), 8),
        (header.pack(abi.IOCTL_REGISTER_RINGS, 49) + bytes(48), 4),
        (header.pack(abi.IOCTL_REGISTER_RINGS, 0xFFFFFFFF) + bytes(48), 4),
        (header.pack(abi.IOCTL_REGISTER_RINGS, 0), 250),
        (header.pack(abi.IOCTL_REGISTER_RINGS, 1 << 16) + bytes(1 << 16), 8),
    ]
    refused = {Status.INVALID_PARAMETER, Status.INVALID_DEVICE_REQUEST}
    with connected(device) as connection:
        for message, count in messages:
            socket.send_fds(connection, [message], [null] * count)
            assert Answer.unpack(connection.recv(4096)).status in refused
        for payload, count in ((bytes(48), 0), (bytes(48), 8), (bytes(4000), 8)):
            send_request(connection, abi.IOCTL_REGISTER_RINGS, payload, [null] * count)
            assert Answer.unpack(connection.recv(4096)).status in refused
        is_served(unharmed)
        connection.send(b"")  # as good as the end
        assert Answer.unpack(connection.recv(4096)).status == Status.SUCCESS
        assert connection.recv(4096) == b""
    os.close(null)


@contextmanager
def lingering() -> Iterator[int]:
    """A socket that keeps whoever drops it last for a minute; the caller's to close."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        sending = socket.create_connection(server.getsockname())
        with server.accept()[0]:  # which reads nothing
            sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 60))
            sending.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sending.send(bytes(1 << 16))
            yield sending.detach()


@pytest.mark.parametrize("how", ["malformed", "refused", "too many", "unread", "control", "kept"])
def test_descriptors_whose_end_waits(
    service: Service, unharmed: Callable[[], None], device: str, how: str
) -> None:
    control = os.path.join(os.environ["RINGTUN_RUNTIME_DIRECTORY"], "control")
    null = os.open("/dev/null", os.O_RDWR)
    request = struct.pack("=II", abi.IOCTL_REGISTER_RINGS, 48) + bytes(48)
    before, message = [], request
    path, kind = device, socket.SOCK_SEQPACKET
    if how == "malformed":
        message = b"x"
    elif how == "too many":
        before = [null] * 8
    elif how in ("control", "kept"):
        path, kind = control, socket.SOCK_STREAM
        message = b'{"method":"org.varlink.service.GetInfo"}\0' if how == "control" else b"{"
    with lingering() as fd:
        with connected(path, kind) as connection:
            service.process.send_signal(signal.SIGSTOP)  # which drops the last one, and not we
            try:
                if how == "unread":
                    for _ in range(3):
                        socket.send_fds(connection, [message], [null])
                socket.send_fds(connection, [message], [*before, fd])
                os.close(fd)
            finally:
                service.process.send_signal(signal.SIGCONT)
            if how not in ("unread", "kept"):
                assert connection.recv(4096)
        began = time.monotonic()
        assert ringtun.list_adapters(backend="service")
        ServiceHandle(device).close()
        assert time.monotonic() - began < SLOWEST
        is_served(unharmed)
    os.close(null)


def test_answers_that_nobody_reads(unharmed: Callable[[], None], device: str) -> None:
    """Of the device, and of the control socket: who does not read them is disconnected."""
    control = os.path.join(os.environ["RINGTUN_RUNTIME_DIRECTORY"], "control")
    call = b'{"method":"org.varlink.service.GetInfo"}\0' * 10
    request = struct.pack("=II", abi.IOCTL_GET_STATISTICS, 0)
    for path, kind, message in (
        (device, socket.SOCK_SEQPACKET, request),
        (device, socket.SOCK_SEQPACKET, b"none"),
        (control, socket.SOCK_STREAM, call),
    ):
        with connected(path, kind) as connection, pytest.raises((BrokenPipeError, ConnectionError)):
            deadline = time.monotonic() + SOON
            while time.monotonic() < deadline:
                connection.send(message)
                is_served(unharmed)
        is_served(unharmed)


def control_says(message: bytes) -> bytes:
    """What the control socket says to it: an answer, or nothing, and then it has closed."""
    control = os.path.join(os.environ["RINGTUN_RUNTIME_DIRECTORY"], "control")
    with connected(control, socket.SOCK_STREAM) as connection:
        with suppress(ConnectionError):
            connection.sendall(message)
        said = b""
        while not said.endswith(b"\0"):
            try:
                more = connection.recv(1 << 16)
            except ConnectionError:
                break
            if not more:
                break
            said += more
        return said


@pytest.mark.parametrize(
    "message",
    [
        b"\0",
        b"{\0",
        b"[]\0",
        b"7\0",
        b"\xff\xfe\0",
        b'"\\ud800"\0',
        b"[" * 60000 + b"\0",
        b'{"method":' + b"[" * 60000 + b"\0",
        b"9" * 60000 + b"\0",
        b"x" * (4 << 20),
    ],
    ids=[
        *("empty", "half", "list", "number", "no text", "surrogate", "deep", "deep method"),
        *("long number", "megabytes"),
    ],
)
def test_control_messages_that_are_none(unharmed: Callable[[], None], message: bytes) -> None:
    assert control_says(message) == b""
    is_served(unharmed)


@pytest.mark.parametrize(
    "call",
    [
        {},
        {"method": 7},
        {"method": "nothing"},
        *({"method": f"{DRIVER}.{name}"} for name in ("Nothing", "end", "_create", "__init__")),
        {"method": "org.nobody.Nothing"},
        *(
            {"method": f"{DRIVER}.{method}", "parameters": {"name": "b0", **parameters}}
            for method, parameters in (
                ("OpenAdapter", {"name": None}),
                ("OpenAdapter", {"name": 7}),
                ("OpenAdapter", {"name": "../control"}),
                ("OpenAdapter", {"name": "\ud800"}),
                ("CloseAdapter", {"name": "good0"}),
                ("ConfigureAdapter", {"name": "good0", "mtu": -1}),
                ("CreateAdapter", {"name": "../control"}),
                ("CreateAdapter", {"name": "a" * 60000}),
                ("CreateAdapter", {"name": "\ud800"}),
                ("CreateAdapter", {"name": "tun%d"}),
                ("CreateAdapter", {"mtu": 1 << 70}),
                ("CreateAdapter", {"mtu": 1.5}),
                ("CreateAdapter", {"txqueuelen": -1}),
                ("CreateAdapter", {"guid": "none"}),
                ("CreateAdapter", {"addresses": ["999.1.1.1/24"]}),
                ("CreateAdapter", {"addresses": ["10.0.0.1/24", ["x"]]}),
                ("CreateAdapter", {"persist": True, "owner": 1 << 70}),
            )
        ),
    ],
    ids=lambda call: json.dumps(call)[11:70],
)
def test_control_calls_that_are_wrong(
    unharmed: Callable[[], None], call: dict[str, object]
) -> None:
    answer = json.loads(control_says(json.dumps(call).encode() + b"\0").removesuffix(b"\0"))
    assert "error" in answer
    assert "Internal" not in answer["error"]
    is_served(unharmed)


def test_a_control_connection_that_never_pauses(unharmed: Callable[[], None]) -> None:
    """Requests as fast as they go, with no answer asked for: others are served all the same."""
    control = os.path.join(os.environ["RINGTUN_RUNTIME_DIRECTORY"], "control")
    flood = b'{"method":"org.varlink.service.GetInfo","oneway":true}\0' * 1000
    child = os.fork()
    if not child:
        try:
            with connected(control, socket.SOCK_STREAM) as connection:
                while True:
                    connection.sendall(flood)
        finally:
            os._exit(0)
    try:
        end = time.monotonic() + WHILE / 2
        while time.monotonic() < end:
            before = time.monotonic()
            assert ringtun.list_adapters(backend="service")
            assert time.monotonic() - before < SLOWEST
            is_served(unharmed)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
