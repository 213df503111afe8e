"""`ringtun.testing.netns`: private worlds, and namespaces in them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ringtun.testing import netns
from ringtun.testing.netns import NetworkNamespace, enter_private_world
from tests.children import NOBODY, ONE_USER_ONLY, as_ordinary_user, raised_in_child

pytestmark = pytest.mark.world


def here(path: str = "/proc/thread-self/ns/net") -> int:
    return os.stat(path).st_ino


def live_in_a_private_world() -> None:
    outside = here(), here("/proc/self/ns/mnt")
    enter_private_world()
    inside = here(), here("/proc/self/ns/mnt")
    assert not set(outside) & set(inside)
    assert os.getuid() == 0
    assert os.listdir("/run/netns") == []
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    assert "LOOPBACK,UP" in subprocess.check_output(["ip", "link", "show", "lo"], text=True)
    with NetworkNamespace("blue") as blue:
        assert here(blue.path) not in inside
        assert blue.run("stat", "-Lc%i", "/proc/self/ns/net").stdout == f"{here(blue.path)}\n"
    assert os.listdir("/run/netns") == []


def test_a_private_world_is_empty_and_works() -> None:
    outside = here()
    assert raised_in_child(live_in_a_private_world) == ""
    assert here() == outside


@as_ordinary_user
def test_an_ordinary_user_is_root_in_a_private_world() -> None:
    raised = raised_in_child(live_in_a_private_world, user=NOBODY)
    if "cannot make a private network namespace" in raised:
        pytest.skip(raised)
    assert raised == ""


@pytest.mark.parametrize("service", [False, True])
def test_where_no_namespace_has_a_name(service: bool) -> None:
    """All of /run is hidden then, but for the sockets of a driver service."""

    def work() -> None:
        enter_private_world()
        assert subprocess.run(["mount", "-t", "tmpfs", "none", "/run"]).returncode == 0
        if service:
            Path("/run/ringtun").mkdir()
        Path("/run/other").mkdir()
        enter_private_world()
        assert sorted(os.listdir("/run")) == ["netns"] + ["ringtun"] * service
        if service:
            Path("/run/ringtun/control").touch()
        with NetworkNamespace("blue") as blue:
            assert blue.run("true").returncode == 0

    for user in (None,) if ONE_USER_ONLY else (None, NOBODY):
        assert raised_in_child(work, user) == ""


def test_it_is_refused_once_there_are_threads() -> None:
    def enter_with_a_thread() -> None:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        enter_private_world()

    raised = raised_in_child(enter_with_a_thread)
    assert raised.startswith("RuntimeError: enter_private_world() comes before the first thread")


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOSPC])
def test_a_system_that_forbids_it_says_what_to_change(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(function: str, *_: object) -> None:
        raise OSError(code, f"{function}: {os.strerror(code)}")

    monkeypatch.setattr(netns, "_libc_call", refuse)
    monkeypatch.setattr(netns, "USER_NAMESPACE_SYSCTLS", ())
    raised = raised_in_child(enter_private_world)
    assert raised.startswith(f"PermissionError: [Errno {code}] cannot make a private network")
    assert f"(unshare: {os.strerror(code)}): run as root; in a container" in raised

    name = "net.ipv4.ip_default_ttl"  # stands in for one that forbids it
    value = int(Path("/proc/sys/net/ipv4/ip_default_ttl").read_text())
    monkeypatch.setattr(netns, "USER_NAMESPACE_SYSCTLS", (("no.such", 0, 1), (name, value, 7)))
    raised = raised_in_child(enter_private_world)
    assert f"sysctl {name} is {value}, which forbids it" in raised
    assert f"sysctl -w {name}=7" in raised


def test_a_namespace_is_there_for_the_block() -> None:
    outside = here()
    with NetworkNamespace("blue") as blue:
        assert (blue.name, blue.path) == ("blue", "/run/netns/blue")
        assert here(blue.path) != outside == here()
        assert "LOOPBACK,UP" in blue.run("ip", "-o", "link").stdout
    assert not Path("/run/netns/blue").exists()


def test_ip_netns_knows_it() -> None:
    with NetworkNamespace("blue"):
        listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True)
        assert "blue" in listed.stdout


def test_a_taken_name_is_left_alone() -> None:
    with NetworkNamespace("blue") as blue:
        before = here(blue.path)
        with pytest.raises(FileExistsError), NetworkNamespace("blue"):
            pass
        assert here(blue.path) == before


def test_a_failure_leaves_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    call: Callable[..., None] = netns._libc_call

    for failing in ("unshare", "mount"):

        def fail(function: str, *arguments: object, failing: str = failing) -> None:
            if function == failing:
                raise OSError(errno.ENOSPC, function)
            call(function, *arguments)

        monkeypatch.setattr(netns, "_libc_call", fail)
        with pytest.raises(OSError, match=failing), NetworkNamespace("blue"):
            pass
        assert not Path("/run/netns/blue").exists()


def test_its_end_kills_what_was_started_through_it() -> None:
    with NetworkNamespace("blue") as blue:
        lives = blue.popen("sleep", "1000", stdout=subprocess.PIPE)
        ended = blue.popen("true")
        ended.wait()
    assert lives.returncode < 0
    assert ended.returncode == 0
    assert lives.stdout is not None
    assert lives.stdout.closed


def test_command_can_be_run_by_others() -> None:
    with NetworkNamespace("blue") as blue:
        assert " ".join(blue.command("ip", "-o")) == "nsenter --net=/run/netns/blue -- ip -o"


def test_run_raises_unless_told_not_to() -> None:
    with NetworkNamespace("blue") as blue:
        with pytest.raises(subprocess.CalledProcessError):
            blue.run("false")
        assert blue.run("false", check=False).returncode == 1
        assert blue.run("cat", input="text").stdout == "text"


def test_nothing_stays_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with NetworkNamespace("blue") as blue:
        blue.popen("sleep", "1000", stdout=subprocess.PIPE)
    assert len(os.listdir("/proc/self/fd")) == before
