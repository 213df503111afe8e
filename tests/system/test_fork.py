"""A child process does not keep its parent's adapter alive."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

import ringtun
from ringtun import AdapterNotFound, EndReason, RingtunError, SessionClosed
from ringtun.device.embedded import Pump
from ringtun.testing.conformance import packet
from tests.system.packets import udp_payload
from tests.system.sites import PROGRAM, Site, descriptors, next_packet

pytestmark = [
    pytest.mark.kernel,
    # Python 3.12 warns of what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@contextmanager
def forked(first: Callable[[], object] = lambda: None) -> Iterator[str]:
    """A child that lives for the ``with`` block; gives what ``first`` raised in it."""
    said, say = os.pipe()
    ended, end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(end)
            try:
                first()
                os.write(say, b"nothing was raised")
            except BaseException as error:
                os.write(say, f"{type(error).__name__}: {error}".encode())
            os.read(ended, 1)  # until the parent closes its end
        finally:
            os._exit(0)
    os.close(say)
    os.close(ended)
    try:
        yield os.read(said, 1 << 12).decode()
        os.kill(child, 0)  # it lives
    finally:
        os.close(end)
        os.close(said)
        os.waitpid(child, 0)


def test_the_interface_goes_though_the_child_lives(left: Site, pump: Pump) -> None:
    session = left.adapter.start_session(pump=pump)
    with forked() as said:
        assert said == "nothing was raised"
        session.close()
        left.adapter.close()
        assert left.interfaces() == ["lo"]


def test_so_it_does_without_a_session(left: Site) -> None:
    with forked():
        left.adapter.close()
        assert left.interfaces() == ["lo"]


def test_and_for_a_childs_child(left: Site, pump: Pump) -> None:
    def fork_again() -> None:
        os.close(end)
        if os.fork() == 0:
            os.read(ended, 1)
            os._exit(0)

    ended, end = os.pipe()
    try:
        with left.adapter.start_session(pump=pump), forked(fork_again):
            left.adapter.close()
            assert left.interfaces() == ["lo"]
    finally:
        os.close(end)
        os.close(ended)


def test_the_parent_goes_on(left: Site, pump: Pump) -> None:
    """Also when the child ends, and with it its copies of everything."""
    with left.adapter.start_session(pump=pump) as session, closing(left.udp()) as host:

        def both_ways(number: int) -> None:
            payload = udp_payload(packet(number))
            host.sendto(payload, (PROGRAM[4], 4000))
            assert udp_payload(next_packet(session)) == payload
            session.send(packet(number))
            assert host.recv(1 << 16) == payload

        both_ways(1)
        with forked():
            both_ways(2)
        both_ways(3)
        assert left.adapter.up


def test_the_child_is_told(left: Site, pump: Pump) -> None:
    with left.adapter.start_session(pump=pump) as session:
        calls: list[Callable[[], object]] = [
            session.receive,
            session.try_receive,
            lambda: session.send(packet(1)),
        ]
        for call in calls:
            with forked(call) as said:
                assert said == f"SessionClosed: {EndReason.FORKED.value}"
        for call in (left.adapter.start_session, left.adapter.statistics, lambda: left.adapter.up):
            with forked(call) as said:
                assert said.startswith("AdapterNotFound: ")
        assert issubclass(AdapterNotFound, RingtunError)
        assert issubclass(SessionClosed, RingtunError)
        with forked(left.adapter.close), forked(session.close):
            assert left.interfaces() == ["lo", "vpn0"], "a child's close is its own"


def test_subprocesses_inherit_no_descriptor(left: Site, pump: Pump) -> None:
    def inherited() -> set[str]:
        listing = subprocess.run(
            ["ls", "-l", "/proc/self/fd"], close_fds=False, check=True, capture_output=True
        ).stdout.decode()
        targets = [line.rpartition(" -> ")[2] for line in listing.splitlines()[1:]]
        return {re.sub(r"\d+", "", target) for target in targets}

    def inheritable() -> set[int]:
        return {n for n in map(int, descriptors()) if os.get_inheritable(n)}

    left.adapter.close()
    before = inherited(), inheritable()
    name = left.network.name
    with (
        ringtun.create_adapter("vpn0", netns=name) as adapter,
        adapter.start_session(pump=pump) as session,
    ):
        session.fileno()
        assert "/dev/net/tun" in descriptors().values()
        assert (inherited(), inheritable()) == before


def test_a_subprocess_that_lives_on_keeps_nothing(left: Site, pump: Pump) -> None:
    session = left.adapter.start_session(pump=pump)
    with subprocess.Popen(["cat"], close_fds=False, stdin=subprocess.PIPE) as cat:
        session.close()
        left.adapter.close()
        assert left.interfaces() == ["lo"]
        assert cat.poll() is None
        assert cat.stdin is not None
        cat.stdin.close()
