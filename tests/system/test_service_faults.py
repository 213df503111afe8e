"""The driver service and its clients when either is killed, stopped, or short of what it needs."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

import ringtun
from ringtun.abi import RING_MIN_CAPACITY
from tests.services import Service
from tests.system.clients import answering, udp_socket
from tests.system.programs import ROOT, Program
from tests.system.sites import PROGRAM, SOON, Background, until
from tests.system.test_killed import pump_echoes

pytestmark = pytest.mark.kernel

CLIENTS = 500
AT_ONCE = 20
SEEN = 0.1  # seconds within which a client knows that its driver has ended


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "run") as service:
        yield service


def interfaces() -> list[str]:
    return sorted(name for _, name in socket.if_nameindex())


@pytest.mark.usefixtures("nothing_is_left")
def test_a_client_is_killed_in_the_middle_of_traffic(service: Service) -> None:
    before, there = service.holdings(), interfaces()
    for _ in range(3):
        with Program("echo", "vpn0", "thread") as program:
            assert program.line() == "ready"
            with closing(udp_socket("10.99.0.1")) as host:
                pump_echoes(host, 200)
                program.signal(signal.SIGKILL)
                assert program.wait() == -signal.SIGKILL
        until(lambda: interfaces() == there, "its adapter stays")
    until(lambda: service.holdings() == before, "the service keeps what was the client's")


@pytest.mark.usefixtures("nothing_is_left")
def test_a_stopped_client_disturbs_nobody(service: Service) -> None:
    before = service.holdings()
    with Program("echo", "vpn0", "thread") as program, answering("other0", "10.98.0") as ask:
        assert program.line() == "ready"
        with closing(udp_socket("10.99.0.1")) as host:
            pump_echoes(host, 100)
            program.signal(signal.SIGSTOP)
            os.waitpid(program.pid, os.WUNTRACED)
            for _ in range(4000):  # its ring, and what the kernel queues, fill up
                host.sendto(bytes(1200), (PROGRAM[4], 4000))
            for _ in range(500):
                ask()
            ringtun.delete_adapter("vpn0", backend="service")
            assert "vpn0" not in interfaces()
            for _ in range(100):
                ask()
        program.signal(signal.SIGCONT)
        said = [program.line()]
        while said[-1]:
            said.append(program.line())
        assert "SessionClosed: the adapter was removed" in said[-2]
    until(lambda: service.holdings() == before, "the service keeps what was the client's")


@pytest.mark.usefixtures("nothing_is_left")
def test_every_client_sees_at_once_that_the_driver_was_killed(tmp_path: Path) -> None:
    """One that waits for a packet, one for room, one of asyncio, one by the descriptor."""
    directory = tmp_path / "run"
    ended: dict[str, float] = {}
    started = threading.Event()

    def until_the_end(what: str, work: Callable[[], object]) -> ringtun.EndReason:
        try:
            while True:
                work()
        except ringtun.SessionClosed as closed:
            ended[what] = time.monotonic()
            return closed.reason

    async def receive_all(adapter: ringtun.Adapter) -> None:
        async with adapter.start_async_session() as session:
            started.set()
            while True:
                await session.receive()

    with Service(directory) as service, ExitStack() as stack:
        adapters = [
            stack.enter_context(ringtun.create_adapter(f"end{i}", backend="service"))
            for i in range(4)
        ]
        waiting, sending, looking = (
            stack.enter_context(adapter.start_session(capacity=RING_MIN_CAPACITY))
            for adapter in adapters[:3]
        )
        poll = select.poll()
        poll.register(looking.fileno(), select.POLLIN)
        packet = bytes([0x45]) * 1000

        def look() -> None:
            poll.poll(SOON * 1000)
            looking.try_receive()

        works: dict[str, Callable[[], object]] = {
            "receive": waiting.receive,
            "send": lambda: sending.send(packet),
            "poll": look,
            "asyncio": lambda: asyncio.run(receive_all(adapters[3])),
        }
        calls = {what: Background(partial(until_the_end, what, works[what])) for what in works}
        stack.enter_context(calls["asyncio"])
        assert started.wait(SOON)  # it is connected before that is answered
        for i in range(4, 12):  # each takes a while to go, and the later made go first
            stack.enter_context(ringtun.create_adapter(f"end{i}", backend="service"))
        service.process.send_signal(signal.SIGSTOP)
        while sending.try_send(packet):
            pass
        for what in ("receive", "send", "poll"):
            stack.enter_context(calls[what])
        killed = time.monotonic()
        service.stop(signal.SIGKILL)
        reasons = {call.result() for call in calls.values()}
        assert reasons == {ringtun.EndReason.DRIVER_ENDED}
        late = {what: when - killed for what, when in ended.items() if when - killed > SEEN}
        assert not late
        with pytest.raises(ringtun.DriverUnavailable):
            adapters[0].info()
    with Service(directory) as service:  # where the other one left its sockets
        before = service.holdings()
        with (
            ringtun.create_adapter("end0", backend="service"),
            ringtun.open_adapter("end0", backend="service") as again,
            again.start_session() as session,
        ):
            session.send(packet)
        until(lambda: service.holdings() == before)


@pytest.mark.usefixtures("nothing_is_left")
def test_an_adapter_is_deleted_under_a_session(service: Service) -> None:
    before = service.holdings()
    with (
        ringtun.create_adapter("gone0", backend="service") as adapter,
        adapter.start_session() as session,
    ):
        with Background(lambda: [session.receive() for _ in iter(int, 1)]) as receiver:
            ringtun.delete_adapter("gone0", backend="service")
            error = receiver.error()
        assert isinstance(error, ringtun.SessionClosed)
        assert error.reason is ringtun.EndReason.ADAPTER_REMOVED
        del error
    until(lambda: service.holdings() == before)


CLIENT = f"""
import sys
import ringtun
name = sys.argv[1]
with ringtun.create_adapter(name, backend="service") as adapter:
    for _ in range({CLIENTS // AT_ONCE}):
        session = adapter.start_session(capacity={RING_MIN_CAPACITY})
        session.close()
    kept = adapter.start_session(capacity={RING_MIN_CAPACITY})
    sys.stdout.write("done")
    sys.stdout.flush()
    sys.stdin.read()  # until it is killed
"""


@pytest.mark.usefixtures("nothing_is_left")
def test_five_hundred_clients_come_and_go(service: Service) -> None:
    before = service.holdings()
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-W", "error", "-c", CLIENT, f"many{number}"],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            for number in range(AT_ONCE)
        ]
        for client in clients:
            stack.callback(client.kill)
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.read(4) == b"done"
    until(lambda: service.holdings() == before, f"{service.holdings()}, not {before}")
    assert service.threads() <= 1 + 32, "threads of sessions that have ended"


@pytest.mark.usefixtures("nothing_is_left")
def test_a_service_short_of_descriptors_refuses_and_recovers(tmp_path: Path) -> None:
    with Service(tmp_path / "run", before=("prlimit", "--nofile=64:64")) as service:
        before = service.holdings()
        with ExitStack() as stack:
            with pytest.raises((ringtun.RingtunError, OSError)) as refused:
                for number in range(64):
                    adapter = stack.enter_context(
                        ringtun.create_adapter(f"short{number}", backend="service")
                    )
                    stack.enter_context(adapter.start_session(capacity=RING_MIN_CAPACITY))
            assert not isinstance(refused.value, TimeoutError)
        until(lambda: service.holdings() == before, "it keeps what it refused")
        with answering("after0", "10.98.0") as ask:
            ask()
        until(lambda: service.holdings() == before)
