"""Adapters: what is checked before anything is made, what stays behind, who holds what."""

from __future__ import annotations

import fcntl
import gc
import os
import resource
import select
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

import ringtun
from ringtun.driver.adapter import DriverAdapter, Handle
from ringtun.errors import (
    AdapterBusy,
    AdapterExists,
    AdapterNotFound,
    EndReason,
    RingCorrupt,
    SessionClosed,
)
from ringtun.host import netlink
from ringtun.host.linux import LinuxHost
from ringtun.host.memory import MemoryHost
from ringtun.host.namespace import Namespace
from ringtun.offer import Offer
from ringtun.testing import memory_link
from ringtun.testing.conformance import packet
from tests.inside import embedded


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": ""}, "0 bytes"),
        ({"name": "x" * 16}, "16 bytes"),
        ({"name": "a/b"}, "'/'"),
        ({"name": "a b"}, "' '"),
        ({"name": "tun%d"}, "'%'"),
        ({"name": ".."}, "no interface name"),
        ({"addresses": ["10.0.0.1"]}, "lacks its prefix"),
        ({"addresses": ["10.0.0.300/24"]}, "is none"),
        ({"addresses": ["10.0.0.1/33"]}, "is none"),
        ({"addresses": ["nonsense/24"]}, "is none"),
        ({"mtu": 67}, "68 to 65535"),
        ({"mtu": 65536}, "68 to 65535"),
        ({"mtu": 1279, "addresses": ["fd00::1/64"]}, "IPv6 needs"),
        ({"txqueuelen": 0}, "txqueuelen"),
        ({"txqueuelen": 1 << 30}, "txqueuelen"),
        ({"owner": 1000}, "persist"),
        ({"owner": -1, "persist": True}, "owner"),
        ({"group": 1 << 32, "persist": True}, "group"),
        ({"addresses": ["10.0.0.1/24", "10.0.0.1/24"]}, "twice"),
    ],
)
def test_arguments_are_checked_first(arguments: dict[str, Any], says: str) -> None:
    before, held = interfaces(), descriptors()
    with pytest.raises(ValueError, match=says):
        ringtun.create_adapter(**{"name": "checked0", **arguments})
    assert interfaces() == before
    assert descriptors() == held


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": None}, "name is a string"),
        ({"netns": 5}, "netns is a string"),
        ({"addresses": "10.0.0.1/24"}, "addresses is a list"),
        ({"addresses": [5]}, "an address is a string"),
        ({"mtu": "1500"}, "mtu is an integer"),
        ({"mtu": 1500.0}, "mtu is an integer"),
        ({"txqueuelen": 5.0}, "txqueuelen is an integer"),
        ({"owner": "root", "persist": True}, "owner is an integer"),
        ({"group": True, "persist": True}, "group is an integer"),
    ],
)
def test_arguments_of_another_type(arguments: dict[str, Any], says: str) -> None:
    before = interfaces()
    with pytest.raises(TypeError, match=says):
        ringtun.create_adapter(**{"name": "checked0", **arguments})
    assert interfaces() == before


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="ip netns add nowhere"):
        ringtun.create_adapter("lost0", netns="nowhere")
    with pytest.raises(FileNotFoundError, match="ip netns add nowhere"):
        ringtun.open_adapter("lost0", netns="nowhere")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pump": "other"}, "inline"),
        ({"spin": -1}, "spin"),
        ({"spin": 2}, "spin"),
        ({"capacity": 5}, "power of two"),
        ({"capacity": "4M"}, "power of two"),
        ({"spin": "a"}, "spin"),
    ],
)
def test_session_options_are_checked(options: dict[str, Any], says: str) -> None:
    left, right = memory_link()
    with left, right:
        with pytest.raises(ValueError, match=says):
            left.start_session(**options)
        left.start_session().close()


@pytest.mark.parametrize(
    ("arguments", "capacity"),
    [({}, 512 << 10), ({"pump": "thread"}, 4 << 20), ({"capacity": 1 << 17}, 1 << 17)],
)
def test_rings_that_are_passed_through_stay_in_the_cache(
    arguments: dict[str, Any], capacity: int
) -> None:
    left, right = memory_link()
    with left, right, left.start_session(**arguments) as session:
        assert session.capacity == capacity


def test_spinning_receives() -> None:
    left, right = memory_link()
    with left, right, left.start_session() as a, right.start_session(spin=0.01) as b:
        with pytest.raises(TimeoutError):
            b.receive(0.001)
        a.send(packet(1))
        assert b.receive() == packet(1)


def test_a_receive_behind_a_full_ring_does_not_spin() -> None:
    """A batch that is held fills the ring, and the host has more: nothing tells of room."""
    left, right = memory_link()
    with left, right, left.start_session() as a, right.start_session(capacity=1 << 17) as b:
        for number in range(200):
            a.send(packet(number, 1400))
        with b.receive_many(10_000) as held:
            before = time.thread_time()
            with pytest.raises(TimeoutError):
                b.receive(0.3)
            assert time.thread_time() - before < 0.1
            count = len(held)
        assert b.receive(1) == packet(count, 1400)


def test_threads_of_the_engine() -> None:
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    left, right = memory_link()
    with left, right:
        before = threads()
        with left.start_session() as a, right.start_session() as b:
            a.send(packet(1))
            assert b.receive(1) == packet(1)
            assert threads() == before, "inline: nothing runs beside the program"
            assert a.statistics().wakeups == 0
        with left.start_session(pump="thread"):
            assert threads() == before + 2
        assert threads() == before


@pytest.mark.parametrize("pump", ["inline", "thread"])
def test_a_program_that_closes_nothing_ends_well(pump: str) -> None:
    code = f"""
from ringtun.offer import Offer
from ringtun.testing import memory_link
left, right = memory_link()
a, b = left.start_session(pump={pump!r}), right.start_session(pump={pump!r})
a.send(b"E" * 20)
assert b.receive(5) == b"E" * 20
batch = [a.send(b"E" * 20), b.receive_many(timeout=5)]
view = batch[1][0][4:]
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == b""


@pytest.mark.kernel
@pytest.mark.parametrize("pump", ["inline", "thread"])
def test_a_program_that_forgets_its_adapter_ends(pump: str) -> None:
    code = f"""
import ringtun
adapter = ringtun.create_adapter("forgot0")
session = adapter.start_session(pump={pump!r})
"""
    command = [sys.executable, "-W", "error", "-c", code]
    ended = subprocess.run(command, capture_output=True, check=False, timeout=20)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_forgotten_session_ends_though_its_warning_is_an_error() -> None:
    left, right = memory_link()
    with left, right:
        for pump in ("inline", "thread"):
            session = left.start_session(pump=pump)
            with warnings.catch_warnings(), unraisable() as seen:
                warnings.simplefilter("error")
                del session
                gc.collect()
            assert seen == [ResourceWarning]
            left.start_session().close()


def test_sessions_in_a_cycle_are_collected_under_traffic() -> None:
    def forget() -> None:
        left, right = memory_link()
        a, b = left.start_session(pump="thread"), right.start_session(pump="thread")
        left.cycle = (left, right, a, b)  # type: ignore[attr-defined]
        for number in range(200):
            a.send(packet(number))

    before = len(os.listdir("/proc/self/task"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for _ in range(15):
            forget()
            gc.collect()
    assert len(os.listdir("/proc/self/task")) == before


def test_a_close_that_is_interrupted_is_taken_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception, from a signal's handler say, may come before any step of closing."""
    from ringtun.driver.registration import Registration
    from ringtun.event import Event

    held = descriptors()
    for owner, name in (
        (DriverAdapter, "statistics"),
        (Handle, "statistics"),
        (MemoryHost, "disconnect"),
        (Registration, "close"),
        (Offer, "close"),
        (Event, "close"),
    ):
        left, right = memory_link()
        session = left.start_session(pump="thread")
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, failing(getattr(owner, name), 0))
            with suppress(OSError):
                session.close()
        session.close()
        left.start_session().close()
        left.close()
        right.close()
        del session, left, right
        assert descriptors() == held, name


def test_a_session_keeps_its_adapter() -> None:
    link = memory_link()
    session = link[0].start_session()
    other = link[1].start_session()
    del link
    gc.collect()
    other.send(packet(1))
    assert session.receive(1) == packet(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        session.close()
        other.close()
        gc.collect()


def test_an_event_loop_sees_that_the_adapter_was_closed() -> None:
    left, right = memory_link()
    session = left.start_session()
    poll = select.poll()
    poll.register(session.fileno(), select.POLLIN)
    left.close()
    assert poll.poll(1000)
    session.close()
    with pytest.raises(SessionClosed):
        session.fileno()
    right.close()


def test_an_event_loop_in_another_thread_sees_the_close() -> None:
    left, right = memory_link()
    for _ in range(50):
        session = left.start_session()
        poll = select.epoll()
        poll.register(session.fileno(), select.EPOLLIN)
        seen: list[object] = []
        waits = threading.Thread(target=lambda poll=poll, seen=seen: seen.extend(poll.poll(10)))
        waits.start()
        session.close()
        waits.join()
        assert seen, "the descriptor was closed under it"
        poll.close()
    left.close()
    right.close()


def test_a_corrupt_ring_stays_corrupt() -> None:
    left, right = memory_link()
    with left, right, left.start_session(pump="thread") as session:
        words = memoryview(session._offer.to_client.mapping)[:12].cast("I")
        words[1] = 3
        with pytest.raises(RingCorrupt):
            session.receive(1)
        words[1] = 0
        for call in (session.receive, session.try_receive, lambda: session.send(packet(1))):
            with pytest.raises(RingCorrupt):
                call()
        words.release()


def test_a_batch_of_nothing() -> None:
    with pytest.raises(BufferError):
        memoryview(ringtun.Batch())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="released"):
        len(ringtun.Batch())


def test_a_closed_adapter_ends_its_sessions() -> None:
    left, right = memory_link()
    session = left.start_session()
    left.close()
    left.close()
    with pytest.raises(SessionClosed) as caught:
        session.receive()
    assert caught.value.reason is EndReason.ADAPTER_CLOSED
    with pytest.raises(SessionClosed):
        next(iter(session))
    with pytest.raises(AdapterNotFound, match="closed"):
        left.start_session()
    right.close()


def test_a_forgotten_adapter_warns() -> None:
    left, right = memory_link()
    right.close()
    with pytest.warns(ResourceWarning, match="unclosed adapter left"):
        del left
        gc.collect()


def test_a_link_in_memory_drops_and_counts() -> None:
    left, right = memory_link()
    with left, right, left.start_session() as a:
        a.send(packet(1))  # nobody is there
        with right.start_session() as b:
            a.send(packet(2))
            assert b.receive(1) == packet(2)
            for number in range(300):
                a.send(packet(number, 65535))
            received = 0
            while b.try_receive() is not None:
                received += 1
            assert 0 < received < 300
            assert b.statistics().discards.host_queue_full == 300 - received


@pytest.mark.kernel
class TestKernel:
    def test_as_asked(self) -> None:
        with ringtun.create_adapter(
            "asked0", addresses=["10.1.2.3/24", "fd01::1/64"], mtu=1420, txqueuelen=77
        ) as adapter:
            assert adapter.name == "asked0"
            assert adapter.ifindex == socket.if_nametoindex("asked0")
            assert adapter.mtu == 1420
            assert adapter.up
            assert [str(a) for a in adapter.addresses] == ["10.1.2.3/24", "fd01::1/64"]
            host = embedded(adapter).host
            assert isinstance(host, LinuxHost)
            assert host.info().txqueuelen == 77
            assert "created" in repr(adapter)
        assert "asked0" not in interfaces()

    def test_down(self) -> None:
        with ringtun.create_adapter("down0", up=False) as adapter:
            assert not adapter.up
            with adapter.start_session() as session:
                session.send(packet(1))
                assert session.statistics().discards.host_down == 1

    def test_a_name_that_is_taken(self) -> None:
        with ringtun.create_adapter("taken0"):
            for name in ("taken0", "lo"):
                with pytest.raises(AdapterExists, match=name):
                    ringtun.create_adapter(name)
        with pytest.raises(AdapterNotFound, match="nowhere0"):
            ringtun.open_adapter("nowhere0")

    def test_every_step_that_fails_leaves_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each system call of creating fails once, then each change by netlink."""
        ringtun.create_adapter("warm0").close()
        before, held = interfaces(), descriptors()

        def create() -> None:
            ringtun.create_adapter("half0", addresses=["10.1.2.3/24"], mtu=1400).close()

        for owner, name in ((fcntl, "ioctl"), (netlink, "converse"), (os, "open")):
            original = getattr(owner, name)
            calls = count_calls(monkeypatch, owner, name, create)
            assert calls > 0
            for nth in range(calls):
                with monkeypatch.context() as patch:
                    patch.setattr(owner, name, failing(original, nth))
                    with pytest.raises(OSError, match="made to fail"):
                        create()
                assert interfaces() == before, (name, nth)
                assert descriptors() == held, (name, nth)
        create()

    def test_a_failure_in_the_middle_of_a_persistent_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = netlink.Link.configure
        monkeypatch.setattr(netlink.Link, "configure", failing(original, 0))
        with pytest.raises(OSError, match="made to fail"):
            ringtun.create_adapter("half1", persist=True)
        assert "half1" not in interfaces()

    def test_a_session_that_fails_to_start_leaves_the_adapter(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ringtun.create_adapter("start0") as adapter:
            adapter.start_session().close()
            held = descriptors()
            for owner, name in ((LinuxHost, "connect"), (os, "memfd_create"), (os, "eventfd")):
                original = getattr(owner, name)
                calls = count_calls(
                    monkeypatch, owner, name, lambda: adapter.start_session().close()
                )
                for nth in range(calls):
                    with monkeypatch.context() as patch:
                        patch.setattr(owner, name, failing(original, nth))
                        with pytest.raises(OSError, match="made to fail"):
                            adapter.start_session()
                    assert descriptors() == held, (name, nth)
                    with adapter.start_session() as session:
                        session.send(packet(1))

    def test_opened_twice_in_one_process(self) -> None:
        with ringtun.create_adapter("twice0") as one:
            with ringtun.open_adapter("twice0") as other:
                assert other.ifindex == one.ifindex
                with one.start_session(), pytest.raises(AdapterBusy):
                    other.start_session()
                other.start_session().close()
            assert "twice0" in interfaces()
            again = ringtun.open_adapter("twice0")
        assert "twice0" in interfaces(), "the last handle keeps it"
        again.start_session().close()
        again.close()
        assert "twice0" not in interfaces()

    def test_persistent(self) -> None:
        with ringtun.create_adapter("stays0", persist=True, addresses=["10.9.0.1/24"]):
            pass
        assert "stays0" in interfaces()
        with ringtun.open_adapter("stays0") as adapter:
            assert [str(a) for a in adapter.addresses] == ["10.9.0.1/24"]
            with adapter.start_session() as session:
                session.send(packet(1))
            host = embedded(adapter).host
            assert isinstance(host, LinuxHost)
            host.delete()
        assert "stays0" not in interfaces()

    def test_closing_takes_no_descriptor(self) -> None:
        """With none left, a session and its adapter end all the same, and the interface goes."""
        adapter = ringtun.create_adapter("full0")
        session = adapter.start_session()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            session.close()
            adapter.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert "full0" not in interfaces()

    def test_removed(self) -> None:
        with ringtun.create_adapter("gone0") as adapter:
            netlink.delete(Namespace.current(), adapter.ifindex)
            with pytest.raises(AdapterNotFound):
                adapter.mtu  # noqa: B018
            with pytest.raises(AdapterNotFound, match="removed"):
                adapter.start_session()
            with pytest.raises(AdapterNotFound, match="no adapter"):
                ringtun.open_adapter("gone0")
        ringtun.create_adapter("gone0").close()


@contextmanager
def unraisable() -> Iterator[list[type[BaseException]]]:
    """The kinds of exceptions that nobody could catch."""
    seen: list[type[BaseException]] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda caught: seen.append(caught.exc_type)
    try:
        yield seen
    finally:
        sys.unraisablehook = before


def failing(original: Callable[..., Any], nth: int) -> Callable[..., Any]:
    """``original``, but its call number ``nth`` fails."""
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth + 1:
            raise OSError(5, "made to fail")
        return original(*arguments, **options)

    return call


def count_calls(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, action: Callable[[], None]
) -> int:
    calls = 0
    original = getattr(owner, name)

    def counting(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, counting)
        action()
    return calls
