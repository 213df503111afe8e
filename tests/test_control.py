"""Adapters on every backend by one suite; then what is the kernel's alone."""

from __future__ import annotations

import errno
import gc
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

import ringtun
from ringtun.control import backend_as_default
from ringtun.driver.adapter import DriverAdapter
from ringtun.host import changes, netlink
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import links
from ringtun.testing.conformance import AdapterConformance
from tests.children import (
    NOBODY,
    ONE_USER_ONLY,
    as_ordinary_user,
    descriptors,
    raised_in_child,
)

V4, OTHER_V4, SAME_NET_V4, V6 = map(
    ip_interface, ("10.7.0.1/24", "10.8.0.1/24", "10.7.0.2/24", "fd07::1/64")
)


@pytest.mark.kernel
class TestKernel(AdapterConformance):
    backend = "embedded"


class TestMemory(AdapterConformance):
    backend = "memory"


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    """Nothing is there before, nothing stays behind a test that fails."""
    yield
    for info in ringtun.list_adapters():
        ringtun.delete_adapter(info.name)


def ip(*arguments: str) -> Any:
    """What the system says, whatever we think."""
    done = subprocess.run(["ip", "-j", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout or "[]")


def route_exists(destination: str) -> bool:
    return any(route["dst"] == destination for route in ip("route", "show", "table", "main"))


# ---- backends -----------------------------------------------------------------------------------


def test_backends_have_names() -> None:
    calls: list[Callable[[Any], object]] = [
        lambda backend: ringtun.create_adapter("vpn0", backend=backend),
        lambda backend: ringtun.open_adapter("vpn0", backend=backend),
        lambda backend: ringtun.list_adapters(backend=backend),
        lambda backend: ringtun.delete_adapter("vpn0", backend=backend),
    ]
    for call in calls:
        with pytest.raises(ValueError, match='one of "embedded", "service", "memory"'):
            call("kernel")
        for nothing in ("", 5):
            with pytest.raises(ValueError, match="backend is None or one of"):
                call(nothing)
        for name in ("wintun-dll", "wintun-device"):
            with pytest.raises(ringtun.DriverUnavailable, match=f'"{name}" is not part of'):
                call(name)


def test_elsewhere_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(ringtun.DriverUnavailable, match="plan9"):
        ringtun.list_adapters()


def test_a_default_for_a_while() -> None:
    with backend_as_default("memory"), ringtun.create_adapter("vpn0", backend=None) as adapter:
        assert adapter.info().backend == "memory"
        assert [info.name for info in ringtun.list_adapters()] == ["vpn0"]
        ringtun.open_adapter("vpn0").close()
    with pytest.raises(ringtun.AdapterNotFound):
        ringtun.open_adapter("vpn0", backend="memory")


def test_in_memory_nothing_stays_of_adapters_that_went() -> None:
    """Nor of their links' far ends, though nobody asks for the same name again."""

    def make_some(name: str) -> None:
        for number in range(5):
            ringtun.create_adapter(f"{name}{number}", backend="memory").close()
        assert ringtun.list_adapters(backend="memory") == []

    make_some("a")
    gc.collect()
    before = descriptors()
    make_some("b")
    gc.collect()
    assert descriptors() == before


# ---- the kernel's -------------------------------------------------------------------------------


@pytest.mark.kernel
def test_the_guid_is_the_interfaces_alias() -> None:
    guid = uuid.uuid4()
    with ringtun.create_adapter("vpn0", guid=guid):
        assert ip("link", "show", "vpn0")[0]["ifalias"] == f"ringtun:{guid}"


@pytest.mark.kernel
def test_interfaces_of_other_programs_are_listed_and_other_kinds_are_not() -> None:
    for arguments in (
        ("tuntap", "add", "theirs0", "mode", "tun", "user", str(NOBODY)),
        ("tuntap", "add", "tap0", "mode", "tap"),
        ("link", "add", "veth0", "type", "veth", "peer", "veth1"),
        ("address", "add", "10.9.0.1/24", "dev", "theirs0"),
        ("link", "set", "theirs0", "alias", "ringtun:nothing"),
    ):
        subprocess.run(["ip", *arguments], check=True)
    try:
        (info,) = ringtun.list_adapters()
        assert (info.name, info.guid, info.persistent) == ("theirs0", None, True)
        assert (info.owner, info.up, info.connected) == (NOBODY, False, False)
        assert info.addresses == (ip_interface("10.9.0.1/24"),)
        for name in ("tap0", "veth0", "lo"):
            for missing_ok in (False, True):
                with pytest.raises(ringtun.AdapterNotFound, match="is no TUN device"):
                    ringtun.delete_adapter(name, missing_ok=missing_ok)
            with pytest.raises(ringtun.AdapterNotFound):
                ringtun.open_adapter(name)
            with pytest.raises(ringtun.AdapterExists, match=name):
                ringtun.create_adapter(name, exist_ok=True)
        with ringtun.create_adapter("theirs0", exist_ok=True, addresses=[V4]) as adapter:
            assert adapter.guid is not None, "it is ours from now on"
            assert adapter.addresses == (V4,)
            adapter.start_session().close()
    finally:
        for name in ("tap0", "veth0"):
            subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.kernel
def test_an_address_that_stays_keeps_its_routes() -> None:
    with ringtun.create_adapter("vpn0", addresses=[V4, V6]) as adapter:
        for destination, gateway in (("10.99.0.0/16", "10.7.0.9"), ("fd99::/64", "fd07::9")):
            ip("route", "add", destination, "via", gateway)
        adapter.configure(addresses=[OTHER_V4, V4, V6], mtu=1400)
        adapter.configure(addresses=[V4, V6])
        assert route_exists("10.99.0.0/16")
        assert any(route["dst"] == "fd99::/64" for route in ip("-6", "route"))


@pytest.mark.kernel
def test_an_address_that_goes_takes_no_other_with_it() -> None:
    """The kernel removes what stood second in a network with what stood first."""
    with ringtun.create_adapter("vpn0", addresses=[V4, SAME_NET_V4]) as adapter:
        adapter.configure(addresses=[SAME_NET_V4])
        assert adapter.addresses == (SAME_NET_V4,)
        adapter.configure(addresses=[OTHER_V4])
        assert adapter.addresses == (OTHER_V4,)


@pytest.mark.kernel
def test_addresses_work_at_once_when_it_comes_up_again() -> None:
    import socket

    with ringtun.create_adapter("vpn0", addresses=[V4, V6]) as adapter:
        for _ in range(3):
            adapter.configure(up=False)
            adapter.configure(up=True)
            with (
                adapter.start_session() as session,
                socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as host,
            ):
                host.bind(("fd07::1", 0))
                host.sendto(b"hello", ("fd07::2", 9))
                while not session.receive(10).endswith(b"hello"):
                    pass


@pytest.mark.kernel
def test_without_ipv6_link_local_addresses_of_the_kernels_making() -> None:
    with ringtun.create_adapter("vpn0", addresses=[V4]) as adapter:
        adapter.configure(mtu=1000)
        adapter.configure(mtu=1500)
        with adapter.start_session():
            found = ip("address", "show", "vpn0")[0]["addr_info"]
            assert [entry["local"] for entry in found] == ["10.7.0.1"]


# ---- what fails is undone -----------------------------------------------------------------------

CHANGES: dict[str, Any] = {
    "addresses": [OTHER_V4, ip_interface("fd08::1/64")],
    "mtu": 1300,
    "up": False,
    "txqueuelen": 9,
}
UP = (True, False)


def fail(monkeypatch: pytest.MonkeyPatch, step: str, nth: int = 0) -> None:
    """Let a change fail, but not its undoing."""
    original = getattr(changes.Changes, step)
    calls = 0

    def failing(self: changes.Changes, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == nth + 1:
            raise OSError(errno.EIO, f"{step} was made to fail")
        original(self, *arguments)

    monkeypatch.setattr(changes.Changes, step, failing)


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("step", "nth", "up"),
    [
        *((step, 0, up) for step in ("set_txqueuelen", "set_mtu", "remove", "add") for up in UP),
        ("remove", 1, False),
        *(("add", 1, up) for up in UP),
        ("take_down", 0, True),
        ("bring_up", 0, False),
    ],
)
def test_a_failure_is_undone(
    monkeypatch: pytest.MonkeyPatch, step: str, nth: int, up: bool
) -> None:
    with ringtun.create_adapter("vpn0", addresses=[V4, V6], mtu=1400, up=up) as adapter:
        before = adapter.info()
        with monkeypatch.context() as patch:
            fail(patch, step, nth)
            with pytest.raises(OSError, match=f"{step} was made to fail") as caught:
                adapter.configure(**{**CHANGES, "up": not up})
            assert caught.value.strerror == f"{step} was made to fail", "all was undone"
        after = adapter.info()
        assert set(after.addresses) == set(before.addresses)
        assert (after.mtu, after.up, after.txqueuelen) == (1400, up, before.txqueuelen)


@pytest.mark.kernel
def test_what_cannot_be_undone_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    with ringtun.create_adapter("vpn0", addresses=[V4], mtu=1400) as adapter:
        with monkeypatch.context() as patch:

            def broken(self: changes.Changes, address: object) -> None:
                raise PermissionError(errno.EPERM, f"{address} is not wanted here")

            patch.setattr(changes.Changes, "add", broken)
            with pytest.raises(PermissionError) as caught:
                adapter.configure(addresses=[OTHER_V4], mtu=1300)
        assert caught.value.errno == errno.EPERM
        assert caught.value.strerror == (
            "10.8.0.1/24 is not wanted here; and not all could be undone: "
            "10.7.0.1/24 is not wanted here"
        )
        assert adapter.mtu == 1400


@pytest.mark.kernel
def test_a_refusal_of_the_kernels_is_undone() -> None:
    """A real one: IPv6 is switched off, so that its address cannot be added."""
    with ringtun.create_adapter("vpn0", addresses=[V4], mtu=1400) as adapter:
        Path("/proc/sys/net/ipv6/conf/vpn0/disable_ipv6").write_text("1")
        before = adapter.info()
        with pytest.raises(PermissionError, match="IPv6 is switched off there"):
            adapter.configure(addresses=[OTHER_V4, V6], mtu=1300, txqueuelen=7)
        assert adapter.info() == before


# ---- programs that crash, programs at once ------------------------------------------------------

CRASH = """
import os, ringtun
from ringtun.host import linux
persist = linux.LinuxHost.persist
def crash(self, owner, group):
    os.kill(os.getpid(), 9)
if {crash!r}:
    linux.LinuxHost.persist = crash
ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], persist=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.kernel
def test_what_a_crashed_program_left_is_taken_up_and_repaired() -> None:
    killed = subprocess.run([sys.executable, "-c", CRASH.format(crash=False)], check=False)
    assert killed.returncode == -9
    subprocess.run(["ip", "link", "set", "vpn0", "mtu", "1000", "down"], check=True)
    asked: dict[str, Any] = {"addresses": [V4, V6], "mtu": 1500, "persist": True}
    with pytest.raises(ringtun.AdapterExists):
        ringtun.create_adapter("vpn0", **asked)
    with ringtun.create_adapter("vpn0", exist_ok=True, **asked) as adapter:
        assert (adapter.mtu, adapter.addresses, adapter.up) == (1500, (V4, V6), True)
        adapter.start_session().close()


@pytest.mark.kernel
def test_a_program_that_is_killed_before_it_is_done_leaves_nothing() -> None:
    killed = subprocess.run([sys.executable, "-c", CRASH.format(crash=True)], check=False)
    assert killed.returncode == -9
    deadline = time.monotonic() + 10
    while ringtun.list_adapters():  # the kernel takes it away a moment later
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.kernel
def test_many_at_once_open_one(monkeypatch: pytest.MonkeyPatch) -> None:
    adapters: list[ringtun.Adapter] = []
    errors: list[BaseException] = []

    def create() -> None:
        try:
            adapters.append(ringtun.create_adapter("vpn0", exist_ok=True, addresses=[V4]))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert errors == []
        assert len({adapter.ifindex for adapter in adapters}) == 1
        assert len(ringtun.list_adapters()) == 1
    finally:
        for adapter in adapters:
            adapter.close()
    assert ringtun.list_adapters() == []


@pytest.mark.parametrize("backend", [pytest.param("embedded", marks=pytest.mark.kernel), "memory"])
def test_opened_while_the_last_handle_is_closed(
    monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    """Found, closed by its last holder, and then held: what comes is another adapter, or none."""
    hold = DriverAdapter.hold
    with ringtun.create_adapter("vpn0", backend=backend) as adapter:
        first = adapter.ifindex

        def hold_too_late(driver: DriverAdapter) -> DriverAdapter:
            adapter.close()
            return hold(driver)

        monkeypatch.setattr(DriverAdapter, "hold", hold_too_late)
        with ringtun.create_adapter("vpn0", exist_ok=True, backend=backend) as adapter:
            assert adapter.ifindex != first
            assert adapter.mtu == 1500
            with pytest.raises(ringtun.AdapterNotFound):
                ringtun.open_adapter("vpn0", backend=backend)
    assert ringtun.list_adapters(backend=backend) == []


@pytest.mark.kernel
def test_two_handles_that_change_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both saw no address, both added the same, and one undid what was the other's."""
    add = changes.Changes.add
    with ringtun.create_adapter("vpn0") as one, ringtun.open_adapter("vpn0") as other:
        second = threading.Thread(target=lambda: other.configure(addresses=[V4], mtu=1400))

        def add_later(self: changes.Changes, address: Any) -> None:
            if second.ident is None:
                second.start()
                second.join(0.1)  # it waits for us, or has added it by then
            add(self, address)

        monkeypatch.setattr(changes.Changes, "add", add_later)
        one.configure(addresses=[V4])
        second.join()
        assert (one.addresses, one.mtu) == ((V4,), 1400)


@pytest.mark.kernel
@pytest.mark.parametrize("meddling", ["delete", "down", "remove"])
def test_what_can_no_longer_come_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, meddling: str
) -> None:
    have_routes = netlink._have_routes
    asked = 0

    def meddle(addresses: Any) -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:  # it waits by now, or does so soon
            command = {
                "delete": ("link", "delete", "vpn0"),
                "down": ("link", "set", "vpn0", "down"),
                "remove": ("address", "del", str(V6), "dev", "vpn0"),
            }[meddling]
            ip(*command)
        return have_routes(addresses) and not addresses

    monkeypatch.setattr(netlink, "_have_routes", meddle)
    begun = time.monotonic()
    if meddling == "delete":
        with pytest.raises(ringtun.AdapterNotFound):
            ringtun.create_adapter("vpn0", addresses=[V6])
    else:
        ringtun.create_adapter("vpn0", addresses=[V6]).close()
    assert time.monotonic() - begun < 4
    assert ringtun.list_adapters() == []


@pytest.mark.kernel
def test_nothing_stays_open() -> None:
    def everything() -> None:
        with ringtun.create_adapter("vpn0", addresses=[V4]) as adapter:
            adapter.configure(mtu=1300, addresses=[V6])
            ringtun.open_adapter("vpn0").close()
            ringtun.create_adapter("vpn0", exist_ok=True).close()
            ringtun.list_adapters()
            with pytest.raises(ringtun.AdapterExists):
                ringtun.create_adapter("lo", exist_ok=True)
        ringtun.delete_adapter("vpn0", missing_ok=True)

    everything()
    before, threads = descriptors(), threading.active_count()
    everything()
    assert (descriptors(), threading.active_count()) == (before, threads)


# ---- what cannot be -----------------------------------------------------------------------------


@pytest.mark.kernel
def test_the_largest_numbers_that_are_taken_are_kept() -> None:
    ids: dict[str, Any] = {} if ONE_USER_ONLY else {"owner": 0xFFFFFFFE, "group": 0x80000000}
    with ringtun.create_adapter("vpn0", persist=True, txqueuelen=1 << 19, **ids) as adapter:
        info = adapter.info()
        assert info.txqueuelen == 1 << 19
        if ids:
            assert (info.owner, info.group) == (0xFFFFFFFE, 0x80000000)
    with pytest.raises(ValueError, match="1 to 524288 packets"):
        ringtun.create_adapter("vpn1", txqueuelen=(1 << 19) + 1)


@pytest.mark.parametrize("backend", ["embedded", "memory"])
@pytest.mark.parametrize("name", ["all", "default", "\ud800", ".."])
def test_what_is_no_name_anywhere(name: str, backend: Any) -> None:
    for call in (ringtun.create_adapter, ringtun.open_adapter, ringtun.delete_adapter):
        with pytest.raises(ValueError, match="interface name"):
            call(name, backend=backend)


@pytest.mark.kernel
@pytest.mark.parametrize("netns", ["", ".", "..", "a\0b", "/", "/dev/null", "/dev/tty", "\ud800"])
def test_what_is_no_namespace(netns: str) -> None:
    with pytest.raises(ValueError, match="(is not a network namespace|nor a path)$"):
        ringtun.list_adapters(netns=netns)


@pytest.mark.kernel
def test_a_namespace_that_is_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for call in (ringtun.create_adapter, ringtun.open_adapter, ringtun.delete_adapter):
        with pytest.raises(ValueError, match="is not a network namespace"):
            call("vpn0", netns=str(tmp_path / "fifo"))


def test_addresses_that_are_no_list() -> None:
    for wrong in (5, ip_interface("10.7.0.1/24"), "10.7.0.1/24"):
        with pytest.raises(TypeError, match="addresses is a list"):
            ringtun.create_adapter("vpn0", addresses=wrong, backend="memory")  # type: ignore[arg-type]


@pytest.mark.kernel
def test_without_threads_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(OSError, match="can't start new thread.*ulimit -u") as caught:
            ringtun.create_adapter("vpn0")
        assert caught.value.errno == errno.EAGAIN


# ---- rights -------------------------------------------------------------------------------------


@pytest.mark.kernel
@as_ordinary_user
@pytest.mark.parametrize(
    "call",
    [
        lambda adapter: adapter.configure(mtu=1300),
        lambda adapter: adapter.configure(addresses=[V4]),
        lambda adapter: adapter.configure(up=False),
        lambda adapter: ringtun.delete_adapter("vpn0"),
    ],
    ids=["mtu", "addresses", "up", "delete"],
)
def test_who_may_not_is_told_so(call: Callable[[ringtun.Adapter], object]) -> None:
    with ringtun.create_adapter("vpn0", addresses=[OTHER_V4]) as adapter:
        before = adapter.info()

        def as_user() -> None:
            adapter._closed = False  # the child of a fork: its handle was closed
            call(adapter)

        raised = raised_in_child(as_user, NOBODY)
        assert raised.startswith("AdapterPermissionError: "), raised
        assert "run as root" in raised
        assert "undone" not in raised, "nothing had been done"
        assert adapter.info() == before


@pytest.mark.kernel
@as_ordinary_user
def test_who_changes_nothing_needs_no_rights() -> None:
    with ringtun.create_adapter("vpn0", addresses=[V4, V6]) as adapter:

        def as_user() -> None:
            adapter._closed = False
            adapter.configure(addresses=[V6, V4], mtu=1500, up=True)
            assert [info.name for info in ringtun.list_adapters()] == ["vpn0"]

        assert raised_in_child(as_user, NOBODY) == ""


@pytest.mark.kernel
def test_a_fork_while_an_adapter_is_made_keeps_none_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in nobody's hands yet; the child has its descriptor all the same."""
    configure = netlink.Link.configure
    child = 0

    def fork_first(self: netlink.Link, **options: Any) -> None:
        nonlocal child
        child = os.fork()
        if child == 0:
            os.read(os.eventfd(0), 8)  # for ever
        configure(self, **options)

    monkeypatch.setattr(netlink.Link, "configure", fork_first)
    try:
        ringtun.create_adapter("vpn0").close()
        assert ringtun.list_adapters() == []
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


@pytest.mark.kernel
def test_a_descriptor_of_ours_keeps_no_adapter_alive_in_a_child() -> None:
    with ringtun.create_adapter("vpn0"):
        child = os.fork()
        if child == 0:
            os.read(os.eventfd(0), 8)  # for ever
    try:
        with Namespace.current() as here:
            assert "vpn0" not in [link.name for link in links(here)]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
