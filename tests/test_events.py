"""Events of adapters: the promises are in the conformance suite; here is what is one's own."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
import uvloop

import ringtun
from ringtun import AdapterEvents, AdapterInfo, EventKind
from ringtun.control.embedded import HostEvents
from ringtun.control.service import _Connection
from ringtun.events import differences
from ringtun.host.watch import LinkWatch
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY, as_ordinary_user, descriptors, raised_in_child
from tests.inside import embedded
from tests.services import Service
from tests.system.sites import SOON, until

V4, V6 = map(ip_interface, ("10.7.0.1/24", "fd07::1/64"))

kernel = pytest.mark.kernel
both = pytest.mark.parametrize("backend", ["memory", pytest.param("embedded", marks=kernel)])


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    with ringtun.create_adapter("first", backend="memory") as adapter, adapter.events():
        pass  # what is imported and made once
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.sleep(0))
    before, threads = descriptors(), threading.active_count()
    yield
    for info in ringtun.list_adapters(backend="memory"):
        ringtun.delete_adapter(info.name, backend="memory")
    for info in ringtun.list_adapters(backend="embedded"):
        ringtun.delete_adapter(info.name, backend="embedded")
    assert (descriptors(), threading.active_count()) == (before, threads)


@contextmanager
def listening(
    backend: Any = "embedded", **options: Any
) -> Iterator[tuple[ringtun.Adapter, AdapterEvents]]:
    with (
        ringtun.create_adapter("vpn0", backend=backend, **options) as adapter,
        adapter.events() as events,
    ):
        yield adapter, events


def watch_of(events: AdapterEvents) -> LinkWatch:
    source = events._source
    assert isinstance(source, HostEvents)
    assert isinstance(source._watch, LinkWatch)
    return source._watch


# ---- what differs -------------------------------------------------------------------------------


def test_differences_have_an_order() -> None:
    with ringtun.create_adapter("vpn0", addresses=[V4, V6], backend="memory") as adapter:
        before = adapter.info()
    now = replace(before, connected=True, up=False, mtu=68, addresses=(V4,), host_drops=7)
    there = [EventKind.DOWN, EventKind.MTU, EventKind.ADDRESSES, EventKind.CONNECTED]
    back = [EventKind.DISCONNECTED, EventKind.MTU, EventKind.ADDRESSES, EventKind.UP]
    assert [(event.kind, event.info) for event in differences(before, now)] == [
        (kind, now) for kind in there
    ]
    assert [(event.kind, event.info) for event in differences(now, before)] == [
        (kind, before) for kind in back
    ]
    another = replace(before, addresses=(V6, V4), host_drops=9, txqueuelen=3)
    assert differences(before, another) == []


@both
def test_what_is_taken_back_is_not_told_of(backend: Any) -> None:
    with listening(backend, mtu=1400) as (adapter, events):
        for mtu in (1300, 1400):
            adapter.configure(mtu=mtu)
        with pytest.raises(TimeoutError):
            events.wait(0.01)


@both
def test_several_at_once(backend: Any) -> None:
    """The descriptor is readable until the last of them is taken."""
    with listening(backend, addresses=[V4]) as (adapter, events):
        adapter.configure(mtu=1300, addresses=[], up=False)
        poll = select.poll()
        poll.register(events.fileno(), select.POLLIN)
        kinds = []
        while poll.poll(0):
            event = events.wait(0)
            assert event is not None
            kinds.append(event.kind)
        assert kinds == [EventKind.DOWN, EventKind.MTU, EventKind.ADDRESSES]


# ---- who waits ----------------------------------------------------------------------------------


@both
def test_one_thread_waits(backend: Any) -> None:
    with ringtun.create_adapter("vpn0", backend=backend) as adapter:
        events = adapter.events()
        waiter = threading.Thread(target=lambda: list(events))
        waiter.start()
        until(lambda: events._waits)
        with pytest.raises(ringtun.ConcurrencyError, match="waits for these events of vpn0"):
            events.wait(0)
        events.close()
        waiter.join(SOON)
        assert not waiter.is_alive()


@both
def test_who_is_interrupted_loses_nothing(backend: Any) -> None:
    def interrupt(number: int, frame: object) -> None:
        raise InterruptedError(errno.EINTR, "by the test")

    def when_it_waits() -> None:
        until(lambda: events._waits)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with listening(backend) as (adapter, events):
            with pytest.raises(TimeoutError):
                events.wait(0)
            thread = threading.Thread(target=when_it_waits)
            thread.start()
            with pytest.raises(InterruptedError, match="by the test"):
                events.wait(SOON)
            thread.join()
            adapter.configure(mtu=1300)
            assert next(events).kind is EventKind.MTU
    finally:
        signal.signal(signal.SIGUSR1, before)


@both
def test_on_uvloop(backend: Any) -> None:
    async def main() -> None:
        async with adapter.events() as events:
            task = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            adapter.configure(mtu=1300)
            assert (await asyncio.wait_for(task, SOON)).kind is EventKind.MTU

    with (
        ringtun.create_adapter("vpn0", backend=backend) as adapter,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(main())


@both
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_in_a_forked_child_they_are_the_parents(backend: Any) -> None:
    with listening(backend) as (adapter, events):
        held = events.fileno(), events._source.fileno(), events._ready.fileno()

        def in_child() -> None:
            for fd in held:
                with pytest.raises(OSError, match="Bad file descriptor"):
                    os.fstat(fd)
            events.wait(0)

        said = "AdapterNotFound: [Errno 9] the events of vpn0 are those of the parent process"
        assert raised_in_child(in_child) == said
        adapter.configure(mtu=1300)
        assert next(events).kind is EventKind.MTU


@kernel
def test_without_descriptors() -> None:
    """Each of them missing is an error, and nothing stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ringtun.create_adapter("vpn0") as adapter:
        adapter.events().close()
        before, failures = descriptors(), list[int | None]()
        highest = max(map(int, os.listdir("/proc/self/fd")))
        fill = [os.dup(0)]
        while fill[-1] < highest:  # below the limit all are taken
            fill.append(os.dup(0))
        try:
            for room in range(20):
                resource.setrlimit(resource.RLIMIT_NOFILE, (max(*fill, highest) + 1 + room, hard))
                try:
                    adapter.events().close()
                    break
                except OSError as error:
                    failures.append(error.errno)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in fill:
                os.close(fd)
        assert failures == [errno.EMFILE] * 4
        assert descriptors() == before


# ---- the kernel's -------------------------------------------------------------------------------


@kernel
def test_what_the_system_does() -> None:
    with NetworkNamespace("blue") as network, listening(netns=network.name) as (_, events):
        inside = ("-n", network.name)
        ip(*inside, "address", "add", "10.7.0.1/24", "dev", "vpn0")
        _expect(events, EventKind.ADDRESSES, addresses=(V4,))
        ip(*inside, "link", "set", "vpn0", "mtu", "1300")
        _expect(events, EventKind.MTU, mtu=1300)
        ip(*inside, "link", "set", "vpn0", "down")
        _expect(events, EventKind.DOWN, up=False)
        ip(*inside, "link", "set", "vpn0", "name", "vpn1")
        ip(*inside, "link", "set", "vpn1", "up")
        _expect(events, EventKind.UP, name="vpn1")
        ip(*inside, "link", "delete", "vpn1")
        assert events.wait(SOON) == ringtun.AdapterEvent(EventKind.REMOVED, None)


@kernel
def test_the_carrier_of_one_that_is_down() -> None:
    """The kernel says nothing of it."""
    with ringtun.create_adapter("vpn0", up=False) as adapter:
        host = embedded(adapter).host
        watch = host.watch()
        try:
            host.connect(False)
            assert watch.news()
            assert watch.look()[0].carrier
            host.disconnect()
            assert watch.news()
            assert not watch.look()[0].carrier
        finally:
            host.unwatch(watch)


@kernel
def test_one_that_takes_its_index_is_another() -> None:
    with listening() as (adapter, events):
        ip("link", "delete", "vpn0")
        ip("link", "add", "vpn0", "index", str(adapter.ifindex), "type", "veth")
        try:
            assert events.wait(SOON) == ringtun.AdapterEvent(EventKind.REMOVED, None)
        finally:
            ip("link", "delete", "vpn0")


@kernel
def test_news_that_are_lost_are_a_reason_to_look() -> None:
    with listening() as (adapter, events):
        news = watch_of(events)._news
        news.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least there is
        with ringtun.create_adapter("other"):
            for mtu in range(1300, 1320):
                ip("link", "set", "other", "mtu", str(mtu))
            adapter.configure(mtu=1234)
        assert _drops(news), "or it tests nothing"
        _expect(events, EventKind.MTU, mtu=1234)
        adapter.configure(mtu=1235)
        _expect(events, EventKind.MTU, mtu=1235)


def _drops(netlink: socket.socket) -> int:
    """What the kernel counts."""
    port = str(netlink.getsockname()[0])
    for line in Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]:
        words = line.split()
        if words[1:3] == ["0", port]:
            return int(words[8])
    raise AssertionError("it is not there")


@kernel
@as_ordinary_user
def test_they_take_no_rights() -> None:
    with ringtun.create_adapter("vpn0") as adapter:
        heard, say = os.pipe()

        def as_user() -> None:
            adapter._closed = False
            with adapter.events() as events:
                os.write(say, b"!")
                _expect(events, EventKind.MTU, mtu=1300)

        def change() -> None:
            os.read(heard, 1)
            adapter.configure(mtu=1300)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            assert raised_in_child(as_user, NOBODY) == ""
        finally:
            os.write(say, b"!")
            thread.join()
            os.close(heard)
            os.close(say)


# ---- the service's ------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "run") as service:
        yield service


@kernel
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_service_ends(service: Service, number: int) -> None:
    with listening("service") as (adapter, events):
        said: list[BaseException] = []

        def listen() -> None:
            try:
                list(events)
            except BaseException as error:
                said.append(error)

        waiter = threading.Thread(target=listen)
        waiter.start()
        until(lambda: events._waits)
        service.stop(number)
        waiter.join(SOON)
        assert [type(error) for error in said] == [ringtun.DriverUnavailable]
        assert events.wait() is None
        with pytest.raises(ringtun.DriverUnavailable):
            adapter.events()


def _held_by(service: Service) -> int:
    return len(os.listdir(f"/proc/{service.process.pid}/fd"))


LISTENER = """
import ringtun, sys
events = ringtun.open_adapter("vpn0").events()
print("ready", flush=True)
list(events)
"""


@kernel
def test_a_listener_is_killed(service: Service) -> None:
    with ringtun.create_adapter("vpn0", backend="service") as adapter:
        before = _held_by(service)
        command = [sys.executable, "-c", LISTENER]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as listener:
            assert listener.stdout is not None
            try:
                assert listener.stdout.readline() == b"ready\n"
                assert _held_by(service) > before
            finally:
                listener.kill()
        until(lambda: _held_by(service) == before)
        with adapter.events() as events:
            adapter.configure(mtu=1300)
            _expect(events, EventKind.MTU, mtu=1300)


@kernel
@pytest.mark.parametrize("end", ["reads", "hangs up", "is told of the end"])
def test_who_does_not_read_costs_no_more(service: Service, end: str) -> None:
    """A message waits for it, and the rest is looked at when that has gone."""
    with ringtun.create_adapter("vpn0", backend="service") as adapter:
        before = _held_by(service)
        with socket.socket(socket.AF_UNIX) as sleeper, adapter.events() as events:
            sleeper.connect(str(service.directory / "control"))
            _call(sleeper, "Monitor", name="vpn0")
            rounds = 1000
            with adapter.start_session():  # its own threads have no part in this
                _expect(events, EventKind.CONNECTED, connected=True)
                for number in range(rounds):
                    mtu = 1300 + number % 2
                    _set_mtu(adapter.ifindex, mtu)
                    _expect(events, EventKind.MTU, mtu=mtu)
            _expect(events, EventKind.DISCONNECTED, connected=False)
            if end == "reads":
                answers = _answers_until(sleeper, lambda state: not state["connected"])
                assert 0 < answers < rounds, "it was told of all: they lay somewhere"
            elif end == "is told of the end":
                assert service.stop() == 0
                return
        until(lambda: _held_by(service) == before)
        adapter.configure(mtu=1200)


def _call(connection: socket.socket, method: str, **parameters: object) -> None:
    request = {"method": f"org.ringtun.Driver.{method}", "parameters": parameters, "more": True}
    connection.sendall(json.dumps(request).encode() + b"\0")


def _answers_until(connection: socket.socket, last: Callable[[dict[str, Any]], bool]) -> int:
    connection.settimeout(SOON)
    unread, count, seen = b"", 0, False
    while True:
        *lines, unread = (unread + connection.recv(1 << 16)).split(b"\0")
        for line in lines:
            count += 1
            state = json.loads(line)["parameters"]["adapter"]
            seen |= state["connected"]
            if seen and last(state):
                return count


def _set_mtu(ifindex: int, mtu: int) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=ifindex, mtu=mtu)


@kernel
def test_who_stops_speaking_is_told_that_it_was_all(service: Service) -> None:
    with (
        ringtun.create_adapter("vpn0", backend="service"),
        socket.socket(socket.AF_UNIX) as connection,
    ):
        connection.connect(str(service.directory / "control"))
        _call(connection, "Monitor", name="vpn0")
        connection.settimeout(SOON)
        first = connection.recv(1 << 16)
        assert json.loads(first.rstrip(b"\0"))["continues"]
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as rest:
            assert json.loads(rest.read().rstrip(b"\0")) == {
                "parameters": {"event": None, "adapter": None}
            }


@kernel
@as_ordinary_user
def test_who_may_not_open_it_hears_nothing() -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        with (
            Service(Path(directory) / "run", "--group", _group_name()),
            ringtun.create_adapter("vpn0", backend="service"),
        ):
            said = raised_in_child(lambda: _Connection().monitor("vpn0"), NOBODY)
    assert said.startswith("AdapterNotFound")


def _group_name() -> str:
    import grp

    return grp.getgrgid(NOBODY).gr_name


def _expect(events: AdapterEvents, kind: EventKind, **values: object) -> AdapterInfo:
    event = events.wait(SOON)
    assert event is not None
    assert event.kind is kind
    assert event.info is not None
    assert {name: getattr(event.info, name) for name in values} == values
    return event.info
