"""What the service takes of a service manager, and tells one: in processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ringtun.service.systemd import notify, store, take_passed, tun_label
from tests.supervisor import BECOME

TAKE = """
import os
from ringtun.service.systemd import take_passed
try:
    passed = take_passed()
except ValueError as error:
    print(error)
else:
    again = take_passed()
    assert (again.listener, again.tuns) == (None, [])
    print(passed.listener and passed.listener.fileno(), passed.tuns)
    for fd in [*(fd for _, fd in passed.tuns), *([3] if passed.listener else [])]:
        assert not os.get_inheritable(fd)
    assert not [name for name in os.environ if name.startswith("LISTEN_")]
"""


def taken(descriptors: list[int], names: str) -> str:
    """What a process makes of what it is passed."""
    numbers = ",".join(map(str, descriptors))
    variables = {"LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": names}
    done = subprocess.run(
        [sys.executable, "-c", BECOME, numbers, sys.executable, "-c", TAKE],
        pass_fds=descriptors,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def passed(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Descriptors of several kinds."""
    with ExitStack() as stack:
        sockets = {
            "listener": stack.enter_context(socket.socket(socket.AF_UNIX)),
            "other": stack.enter_context(socket.socket(socket.AF_UNIX)),
            "silent": stack.enter_context(socket.socket(socket.AF_UNIX)),
            "packets": stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)),
            "internet": stack.enter_context(socket.socket()),
        }
        for name, each in sockets.items():
            if name not in ("silent", "internet"):
                each.bind(str(tmp_path / name))
                each.listen()
        file = stack.enter_context((tmp_path / "file").open("wb"))
        yield {**{name: each.fileno() for name, each in sockets.items()}, "file": file.fileno()}


def test_the_listener_and_queues(passed: dict[str, int]) -> None:
    given = [passed["listener"], passed["file"], passed["file"]]
    assert (
        taken(given, "ringtun.socket:tun-a:tun-b%C3%A4") == "3 [('tun-a', 4), ('tun-b%C3%A4', 5)]"
    )


def test_queues_alone_and_a_listener_of_no_name(passed: dict[str, int]) -> None:
    assert taken([passed["file"]], "tun-a") == "None [('tun-a', 3)]"
    assert taken([passed["listener"]], "") == "3 []"


@pytest.mark.parametrize("kind", ["silent", "packets", "internet", "file"])
def test_what_is_no_listener_is_refused(passed: dict[str, int], kind: str) -> None:
    said = "the service manager passes what is no listening Unix stream socket"
    assert taken([passed[kind]], "ringtun.socket") == said


def test_two_listeners_are_refused(passed: dict[str, int]) -> None:
    said = "the service manager passes two sockets: it is to pass one"
    assert taken([passed["listener"], passed["other"]], "a:b") == said


def test_what_is_for_another_process_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getppid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    found = take_passed()
    assert (found.listener, found.tuns) == (None, [])
    assert os.environ["LISTEN_FDS"] == "1"


@pytest.mark.parametrize("name", ["vpn0", "naïve~", "a%b", "...", "\udcff"])
def test_labels_are_what_a_manager_takes(name: str) -> None:
    label = tun_label(name)
    assert label.isascii()
    assert label.isprintable()
    assert ":" not in label


@pytest.mark.parametrize("address", ["", "relative", "/none/notify", "@none-notify"])
def test_a_manager_that_is_not_there_is_not_missed(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not notify("READY=1")
    assert not store("tun-a", 0)
