"""Ordinary users in network namespaces of their own, and the driver service outside, root's."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import ringtun

# What a user who may not read this virtual environment cannot load.
from ringtun import abi, aio, session
from ringtun.control import automatic, embedded, kernel
from ringtun.control import service as control
from ringtun.device import service as device
from ringtun.events import EventKind
from ringtun.host.namespace import Namespace
from ringtun.testing.netns import NetworkNamespace, enter_private_world
from tests.children import NOBODY, as_ordinary_user, raised_in_child
from tests.services import Service
from tests.system.clients import udp_socket
from tests.system.sites import SOON, responding, until
from tests.system.test_c_client import pings

pytestmark = [pytest.mark.kernel, as_ordinary_user]

LOADED = (aio, automatic, control, device, embedded, kernel, session)
NAME = "own0"
CONFIGURATION = f"""
group = {NOBODY}
[limits]
adapters = 3
[[adapter]]
name = "office0"
[[grant]]
users = [{NOBODY}]
create = ["own*"]
"""
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000  # linux/sched.h

libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    ringtun.list_adapters(backend="embedded")  # loads what speaks to the kernel
    with TemporaryDirectory() as place:  # those of pytest are root's alone
        os.chmod(place, 0o755)
        file = Path(place, "driver.toml")
        file.write_text(CONFIGURATION)
        with Service(Path(place, "run"), "--config", os.fspath(file)) as service:
            yield service


@pytest.fixture(autouse=True)
def nothing_is_left(service: Service) -> Iterator[None]:
    before = service.holdings(), socket.if_nameindex()
    yield

    def as_before() -> bool:
        return (service.holdings(), socket.if_nameindex()) == before

    until(as_before, f"{service.holdings()}, {socket.if_nameindex()}, not {before}")
    assert [path.name for path in (service.directory / "devices").iterdir()] == ["office0"]


def as_nobody(call: Callable[[], object]) -> None:
    """In a child process without any right; fails with what fails there."""
    assert raised_in_child(call, NOBODY) == ""


def in_a_world(call: Callable[[], object]) -> None:
    """The same, in a network namespace of its own."""

    def work() -> None:
        enter_private_world()
        call()

    as_nobody(work)


def interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex() if name != "lo"]


# ---- what works ----------------------------------------------------------------------------------


def test_an_adapter_in_ones_own_namespace(service: Service) -> None:
    def work() -> None:
        with ringtun.create_adapter(NAME, addresses=["10.7.0.1/24", "fd07::1/64"]) as adapter:
            info = adapter.info()
            assert (info.backend, info.name, info.up) == ("service", NAME, True)
            assert interfaces() == [NAME]
            with adapter.start_session() as session, responding(session):
                pings("10.7.0.2")
                pings("fd07::2")
            adapter.configure(mtu=1300, addresses=["10.8.0.1/24"])
            assert (adapter.mtu, str(adapter.addresses[0])) == (1300, "10.8.0.1/24")
            assert adapter.statistics().received_packets >= 40
            with ringtun.open_adapter(NAME) as again:
                assert again.info() == adapter.info()
        assert interfaces() == []

    in_a_world(work)
    assert any(f"{NAME} in network namespace" in line for line in service.lines)


def test_two_namespaces_joined_in_a_loop() -> None:
    """By their names, with asyncio."""

    async def join(left: ringtun.Adapter, right: ringtun.Adapter, ping: list[str]) -> None:
        async with left.start_async_session() as one, right.start_async_session() as other:

            async def forward(a: ringtun.AsyncSession, b: ringtun.AsyncSession) -> None:
                async for packet in a:
                    await b.send(packet)

            tasks = [asyncio.ensure_future(forward(*ends)) for ends in ((one, other), (other, one))]
            process = await asyncio.create_subprocess_exec(*ping, stdout=-3)
            assert await asyncio.wait_for(process.wait(), SOON) == 0
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def work() -> None:
        with (
            NetworkNamespace("left") as left,
            NetworkNamespace("right"),
            ringtun.create_adapter(NAME, addresses=["10.8.0.1/24"], netns="left") as one,
            ringtun.create_adapter(NAME, addresses=["10.8.0.2/24"], netns="right") as other,
        ):
            assert [end.info().backend for end in (one, other)] == ["service"] * 2
            asyncio.run(join(one, other, left.command("ping", "-c1", "-w10", "10.8.0.2")))
            assert interfaces() == []

    in_a_world(work)


def test_what_happens_to_it_is_told() -> None:
    def work() -> None:
        with ringtun.create_adapter(NAME) as adapter, adapter.events() as events:
            adapter.configure(mtu=1300)
            assert next(events).kind is EventKind.MTU
            with adapter.start_session():
                assert next(events).kind is EventKind.CONNECTED
            assert next(events).kind is EventKind.DISCONNECTED
            ringtun.delete_adapter(NAME)
            assert next(events).kind is EventKind.REMOVED

    in_a_world(work)


# ---- ends ----------------------------------------------------------------------------------------


def test_its_client_is_killed(service: Service) -> None:
    def work() -> None:
        child = os.fork()
        if not child:
            adapter = ringtun.create_adapter(NAME, addresses=["10.7.0.1/24"])
            with adapter.start_session() as session:
                session.receive()  # the kernel says nothing here
            os._exit(1)
        until(lambda: interfaces() == [NAME])
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        until(lambda: interfaces() == [])

    in_a_world(work)


def test_its_namespace_ends_under_a_session() -> None:
    """Neither the service nor a session keeps it; a client that does nothing there does not."""

    def work() -> None:
        with ExitStack() as stack:
            connection = stack.enter_context(closing(control._Connection()))
            with (
                NetworkNamespace("short") as short,
                Namespace.named(short.name) as namespace,
                namespace.open() as fd,
            ):
                descriptors = [fd.fileno()]
                answer = connection.call(
                    "CreateAdapter", descriptors=descriptors, name=NAME, namespace=0
                )
                state = answer["adapter"]
                opened = device.ServiceDevice(NAME, state["device"])
                ends = stack.enter_context(session.Session(opened, abi.RING_MIN_CAPACITY))
            with pytest.raises(ringtun.SessionClosed) as caught:
                ends.receive(SOON)
            assert caught.value.reason is ringtun.EndReason.ADAPTER_REMOVED
            with pytest.raises(ringtun.AdapterNotFound):
                connection.call("GetAdapter", name=NAME, namespace=state["namespace"])

    in_a_world(work)


@pytest.mark.parametrize("how", ["deleted", "moved", "renamed"])
def test_its_owner_takes_it_away_under_the_service(how: str) -> None:
    def work() -> None:
        with NetworkNamespace("other") as other, ringtun.create_adapter(NAME) as adapter:
            command = {
                "deleted": f"ip link delete {NAME}",
                "moved": f"ip link set {NAME} netns {other.name}",
                "renamed": f"ip link set {NAME} down name else0",
            }
            assert os.system(command[how]) == 0
            if how == "renamed":
                assert adapter.info().name == "else0"
                adapter.start_session().close()
                return
            with pytest.raises(ringtun.AdapterNotFound):
                adapter.info()
            with pytest.raises(ringtun.AdapterNotFound):
                adapter.statistics()
            with ringtun.create_adapter(NAME):
                assert interfaces() == [NAME]

    in_a_world(work)


# ---- refusals ------------------------------------------------------------------------------------


def says(message: object, descriptors: Sequence[int] = (), *, parts: int = 1) -> dict[str, object]:
    """What the control socket answers; the message may go in parts, each with the descriptors."""
    line = json.dumps(message).encode() + b"\0"
    size = -(-len(line) // parts)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SOON)
        connection.connect(os.path.join(control.runtime_directory(), "control"))
        for at in range(0, len(line), size):
            socket.send_fds(connection, [line[at : at + size]], descriptors)
        said = b""
        while not said.endswith(b"\0"):
            more = connection.recv(1 << 16)
            assert more, "it hangs up"
            said += more
    answer: dict[str, object] = json.loads(said[:-1])
    return answer


def creates(descriptors: Sequence[int] = (), *, parts: int = 1, **parameters: object) -> str:
    """What `CreateAdapter` says is wrong; the connection ends with it, and so does the adapter."""
    method = f"{control._INTERFACE}.CreateAdapter"
    answer = says(
        {"method": method, "parameters": {"name": NAME, "namespace": 0} | parameters},
        descriptors,
        parts=parts,
    )
    error = str(answer.get("error", "")).rpartition(".")[2]
    return f"{error}: {answer.get('parameters', {}).get('message', '')}" if error else ""  # type: ignore[attr-defined]


@contextmanager
def opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


NO_NAMESPACE = "InvalidArgument: namespace is 0, the index of the one descriptor"


def test_a_namespace_of_somebody_elses() -> None:
    with NetworkNamespace("roots") as roots, opened("/proc/self/ns/net") as own:
        with Namespace.named(roots.name) as namespace, namespace.open() as fd:
            wrong = partial(creates, [fd.fileno()])

            def work() -> None:
                assert wrong().startswith("PermissionDenied: that network namespace is root's"), (
                    wrong()
                )
                assert creates([own]) == ""  # the service's

            as_nobody(work)
            assert wrong() == ""  # root's it is
        before = interfaces()
        assert before == ["office0"]


def test_a_namespace_that_the_caller_is_in_and_does_not_rule() -> None:
    """Neither the service makes an adapter there, nor one elsewhere instead."""

    def work() -> None:
        with pytest.raises(ringtun.AdapterPermissionError, match="is root's, not yours"):
            ringtun.create_adapter(NAME, backend="service")
        with pytest.raises(ringtun.AdapterPermissionError):
            ringtun.create_adapter(NAME)

    def inside() -> None:
        assert libc.unshare(CLONE_NEWNET) == 0
        as_nobody(work)

    assert raised_in_child(inside) == ""


@pytest.mark.parametrize("what", ["none", "two", "index", "user", "file", "memory", "named"])
def test_descriptors_that_are_no_namespace(what: str) -> None:
    def work() -> None:
        if what == "none":
            assert creates().startswith(NO_NAMESPACE)
            return
        path = {"user": "/proc/self/ns/user", "file": "/dev/null"}.get(what, "/proc/self/ns/net")
        with ExitStack() as stack, opened(path) as fd:
            if what == "two":
                assert creates([fd, fd]) == "", "the second one is not received"
            elif what == "index":
                for index in (1, -1, 1 << 40):
                    assert creates([fd], namespace=index).startswith(NO_NAMESPACE)
            elif what == "named":  # a mount of one has a path, as any file
                named = stack.enter_context(NetworkNamespace("blue"))
                with opened(named.path) as mounted:
                    assert creates([mounted]).startswith(NO_NAMESPACE)
            else:
                memory = os.memfd_create("memory")
                stack.callback(os.close, memory)
                fd = memory if what == "memory" else fd
                assert creates([fd]).startswith(NO_NAMESPACE)

    in_a_world(work)


def test_a_request_that_comes_in_parts(service: Service) -> None:
    """Its descriptor waits for the rest; of several the last one counts, and none stays."""

    def work() -> None:
        with opened("/proc/self/ns/net") as fd, opened("/dev/null") as null:
            for parts in (1, 2, 7):
                assert creates([fd], parts=parts) == ""
                assert creates([null], parts=parts).startswith(NO_NAMESPACE)

    in_a_world(work)


def test_a_flood_of_descriptors() -> None:
    def work() -> None:
        call = json.dumps({"method": "org.varlink.service.GetInfo"}).encode() + b"\0"
        with ExitStack() as stack, opened("/proc/self/ns/net") as fd:
            for _ in range(20):
                kind = socket.SOCK_STREAM
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
                connection.settimeout(SOON)
                connection.connect(os.path.join(control.runtime_directory(), "control"))
                for _ in range(10):
                    socket.send_fds(connection, [call], [fd] * 250)
                    assert connection.recv(1 << 16).endswith(b"\0")
                for _ in range(10):
                    socket.send_fds(connection, [b" "], [fd] * 250)
            ringtun.create_adapter(NAME).close()

    in_a_world(work)


def test_what_the_configuration_does_not_grant() -> None:
    def work() -> None:
        for netns in (None, "blue"):
            with pytest.raises(ringtun.AdapterPermissionError, match="make an adapter lab0"):
                ringtun.create_adapter("lab0", netns=netns, backend="service")

    def world() -> None:
        with NetworkNamespace("blue"):
            work()

    in_a_world(world)


def test_adapters_of_all_namespaces_count() -> None:
    def work() -> None:
        with ExitStack() as stack:
            for name in ("one", "two", "three"):
                stack.enter_context(NetworkNamespace(name))
                options = {"netns": name, "backend": "service"}
                stack.enter_context(ringtun.create_adapter(NAME, **options))  # type: ignore[arg-type]
            with pytest.raises(OSError, match="3 adapters already"):
                ringtun.create_adapter(NAME, backend="service")

    in_a_world(work)


def test_it_does_not_persist() -> None:
    def work() -> None:
        with pytest.raises(ringtun.DriverUnavailable, match="leave persist out"):
            ringtun.create_adapter(NAME, persist=True, backend="service")
        assert interfaces() == []

    in_a_world(work)


@pytest.mark.parametrize("exist_ok", [False, True])
def test_a_name_that_is_taken(exist_ok: bool) -> None:
    def work() -> None:
        assert os.system(f"ip link add {NAME} type veth peer peer0") == 0
        before = interfaces()
        with pytest.raises(ringtun.AdapterExists, match=NAME):
            ringtun.create_adapter(NAME, exist_ok=exist_ok, backend="service")
        assert interfaces() == before

    in_a_world(work)


def test_an_address_that_cannot_be_had_leaves_nothing() -> None:
    def work() -> None:
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        with pytest.raises(OSError, match="IPv6 is switched off"):
            ringtun.create_adapter(NAME, addresses=["fd07::1/64"], backend="service")
        assert interfaces() == []

    in_a_world(work)


def test_another_users_is_not_there() -> None:
    """Though it is known where: in a namespace that the other one rules."""
    other = NOBODY - 1

    def work() -> None:
        enter_private_world()
        inode = os.stat("/proc/self/ns/net").st_ino
        with ringtun.create_adapter(NAME), closing(udp_socket("127.0.0.1")):
            os.write(told, f"{inode}\n".encode())
            os.read(done, 1)
            assert interfaces() == [NAME]

    def peep() -> None:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(other, other, other)
        for method in ("OpenAdapter", "GetAdapter", "GetStatistics", "DeleteAdapter"):
            with pytest.raises(ringtun.AdapterNotFound, match="that you may open"):
                control._once(method, name=NAME, namespace=inode)
        assert control._once("ListAdapters")["adapters"] == []

    tell, told = os.pipe()
    done, do = os.pipe()
    child = os.fork()
    if not child:
        os.close(do)
        os._exit(bool(raised_in_child(work, NOBODY)))
    try:
        os.close(done)
        os.close(told)
        inode = int(os.read(tell, 100))
        assert raised_in_child(peep) == ""
        (state,) = (each for each in control._once("ListAdapters")["adapters"] if each["namespace"])
        assert (state["name"], state["namespace"]) == (NAME, inode)
    finally:
        os.close(do)
        os.close(tell)
        _, status = os.waitpid(child, 0)
    assert status == 0


# ---- races ---------------------------------------------------------------------------------------


def test_interfaces_come_and_go_under_the_names() -> None:
    """Somebody in the namespace takes and deletes the name all the time."""

    def work() -> None:
        child = os.fork()
        if not child:
            link = f"ip link add {NAME} type veth peer peer0"
            os.execvp("sh", ["sh", "-c", f"while :; do {link}; ip link del {NAME}; done 2>&-"])
        try:
            made = 0
            for _ in range(40):
                with (
                    suppress(ringtun.AdapterExists, ringtun.AdapterNotFound),
                    ringtun.create_adapter(NAME, backend="service") as adapter,
                ):
                    adapter.info()
                    made += 1
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.system(f"ip link del {NAME} 2>/dev/null")
        assert interfaces() == []
        with ringtun.create_adapter(NAME, backend="service"):
            assert interfaces() == [NAME]

    in_a_world(work)
