"""Persistent adapters over a restart of the driver service, by itself and under a supervisor.

The supervisor is ours, and speaks the service manager's protocol; systemd itself does not run here.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

import ringtun
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.testing.conformance import packet
from ringtun.testing.netns import enter_private_world
from tests.backends import KernelPeer
from tests.children import NOBODY, ONE_USER_ONLY, as_ordinary_user, raised_in_child
from tests.services import Service
from tests.supervisor import Supervisor
from tests.system.sites import SOON, until

pytestmark = pytest.mark.kernel

NAME = "kept0"
ADDRESSES = ["10.7.0.1/24", "fd07::1/64"]
# Where this user namespace has one user only, that is the owner.
OWNER, OTHER = (os.geteuid(), os.geteuid()) if ONE_USER_ONLY else (NOBODY, NOBODY - 1)

ends = pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["in-order", "killed"])


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can look into; afterwards no adapter is left."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    (place / "driver.toml").write_text(f"group = {OWNER}\n")
    yield place
    for info in ringtun.list_adapters(backend="embedded"):
        ringtun.delete_adapter(info.name, backend="embedded", missing_ok=True)
    shutil.rmtree(place)


@pytest.fixture
def service(place: Path) -> Iterator[Service]:
    with Service(place / "run", "--config", os.fspath(place / "driver.toml")) as service:
        yield service


def as_user(work: Callable[[], object], user: int = OWNER) -> None:
    """Do it as an ordinary user, of the group that reaches the sockets."""

    def become() -> object:
        if not ONE_USER_ONLY:
            os.setgroups([])
            os.setresgid(OWNER, OWNER, OWNER)
            os.setresuid(user, user, user)
        return work()

    assert raised_in_child(become) == ""


def make() -> None:
    ringtun.create_adapter(
        NAME, addresses=ADDRESSES, mtu=1400, txqueuelen=77, persist=True, backend="service"
    ).close()


def kept() -> ringtun.AdapterInfo:
    """As the kernel has it."""
    (info,) = ringtun.list_adapters(backend="embedded")
    return info


def send_one() -> None:
    with (
        ringtun.open_adapter(NAME, backend="service") as adapter,
        adapter.start_session() as session,
    ):
        session.send(packet(1))


def sends() -> None:
    """Its owner sends through it, and the kernel gets what was sent."""
    with closing(KernelPeer(NAME)) as peer:
        as_user(send_one)
        assert peer.receive(SOON) == packet(1)


def configure() -> None:
    with ringtun.open_adapter(NAME, backend="service") as adapter:
        adapter.configure(mtu=1300)
        assert adapter.info().mtu == 1300


def nothing_is_there() -> None:
    assert ringtun.list_adapters(backend="service") == []
    with suppress(ringtun.AdapterNotFound):
        ringtun.open_adapter(NAME, backend="service").close()
        raise AssertionError("it can be opened")


@as_ordinary_user
@ends
def test_it_is_its_owners_as_before(service: Service, end: signal.Signals) -> None:
    as_user(make)
    sends()
    before = kept()
    assert (before.owner, before.persistent) == (OWNER, True)
    service.stop(end)
    assert kept() == before
    service.start()
    assert f"{NAME}: taken up" in service.lines
    assert kept() == before
    as_user(nothing_is_there, OTHER)
    sends()
    as_user(configure)
    as_user(lambda: ringtun.delete_adapter(NAME, backend="service"))
    assert ringtun.list_adapters(backend="embedded") == []


@as_ordinary_user
def test_what_root_made_for_a_user_is_the_users(service: Service) -> None:
    ringtun.create_adapter(NAME, persist=True, owner=OWNER, backend="service").close()
    as_user(configure)
    service.stop()
    service.start()
    as_user(configure)


@as_ordinary_user
def test_one_of_a_groups_may_be_opened_by_its_members(service: Service) -> None:
    ringtun.create_adapter(NAME, persist=True, group=OWNER, backend="service").close()
    service.stop()
    service.start()
    as_user(send_one, OTHER)


def test_others_are_left_alone(service: Service) -> None:
    """One that ringtun did not make, and one that a program holds: these are not its business."""
    service.stop()
    with Namespace.current() as namespace, LinuxTun.create("other0", namespace=namespace) as tun:
        tun.persist(owner=0)
    with ringtun.create_adapter("held0", persist=True, backend="embedded"):
        service.start()
        assert ringtun.list_adapters(backend="service") == []
        assert [line for line in service.lines if line.startswith("held0: not taken up: ")]
    with ringtun.open_adapter("other0", backend="embedded"):
        pass


def test_one_with_a_name_that_none_should_have_is_left_alone(service: Service) -> None:
    """White space, though the kernel does not know it for such."""
    name = "a\N{EM SPACE}b"
    ringtun.create_adapter(NAME, persist=True, backend="service").close()
    service.stop()
    for change in (["down"], ["name", name]):
        subprocess.run(["ip", "link", "set", kept().name, *change], check=True)
    service.start()
    assert ringtun.list_adapters(backend="service") == []
    assert [line for line in service.lines if line.startswith(f"{name}: not taken up: ")]
    subprocess.run(["ip", "link", "delete", name], check=True)


@as_ordinary_user
def test_what_was_there_before_the_service_is_taken_up(service: Service) -> None:
    service.stop()
    ringtun.create_adapter(NAME, persist=True, backend="embedded").close()
    service.start()
    as_user(nothing_is_there)
    ringtun.delete_adapter(NAME, backend="service")
    assert ringtun.list_adapters(backend="embedded") == []


# What the unit gives the service: a user of its own, and one capability.
AS_IN_THE_UNIT = f"""
    set -e
    mount --no-mtab -t tmpfs -o mode=755 none $1
    mknod -m 666 $1/tun c 10 200
    mount --no-mtab --bind $1/tun /dev/net/tun
    shift
    exec setpriv --reuid={OTHER} --regid={OWNER} --clear-groups --no-new-privs \\
        --bounding-set=-all,+net_admin --inh-caps=-all,+net_admin \\
        --ambient-caps=-all,+net_admin -- "$@"
"""


@as_ordinary_user
@ends
def test_it_takes_one_capability(place: Path, end: signal.Signals) -> None:
    """All of this runs as a user of its own, with CAP_NET_ADMIN and nothing else."""
    for name in ("run", "nodes"):
        (place / name).mkdir()
    os.chown(place / "run", OTHER, OWNER)
    before = ("unshare", "--mount", "sh", "-c", AS_IN_THE_UNIT, "sh", os.fspath(place / "nodes"))
    if subprocess.run([*before, sys.executable, "-c", "import ringtun"]).returncode:
        pytest.skip("NOT TRIED: no node can be made here, or no other user can run ringtun")
    configuration = os.fspath(place / "driver.toml")
    with Service(place / "run", "--config", configuration, before=before) as service:
        rights = Path(f"/proc/{service.process.pid}/status").read_text()
        assert "\nCapEff:\t0000000000001000\n" in rights
        as_user(make)
        sends()
        service.stop(end)
        service.start()
        sends()
        as_user(configure)
        as_user(lambda: ringtun.delete_adapter(NAME, backend="service"))
        ringtun.list_adapters(backend="embedded")  # loads what the user may not read
        assert raised_in_child(make_in_a_world, OWNER) == ""


def make_in_a_world() -> None:
    """An adapter in a network namespace of the user's own: that takes no more."""
    enter_private_world()
    with ringtun.create_adapter(NAME, addresses=ADDRESSES, backend="service") as adapter:
        assert [info.name for info in ringtun.list_adapters(backend="embedded")] == [NAME]
        with adapter.start_session() as session:
            session.send(packet(1))
            until(lambda: adapter.statistics().sent_packets == 1)


# ---- the store ----------------------------------------------------------------------------------

RTMGRP_LINK = 1  # linux/rtnetlink.h
RTM_NEWLINK = 16
IFF_UP = 1  # linux/if.h
NLMSGHDR = struct.Struct("=IHHII")
IFINFOMSG = struct.Struct("=BBHiII")


class LinkNews:
    """All that the kernel tells of interfaces from now on."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK))

    def went_down(self, ifindex: int) -> bool:
        """Whether the interface was gone, or set down, at any time."""
        return any(
            index == ifindex and (kind != RTM_NEWLINK or not flags & IFF_UP)
            for kind, index, flags in self._messages()
        )

    def _messages(self) -> Iterator[tuple[int, int, int]]:
        with suppress(BlockingIOError):
            while True:
                data = self._socket.recv(1 << 16)
                while data:
                    size, kind, *_ = NLMSGHDR.unpack_from(data)
                    _, _, _, index, flags, _ = IFINFOMSG.unpack_from(data, NLMSGHDR.size)
                    yield kind, index, flags
                    data = data[size + 3 & ~3 :]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(place: Path) -> Iterator[Supervisor]:
    """Its service has been started once."""
    with Supervisor(place / "run", "--config", os.fspath(place / "driver.toml")) as supervisor:
        supervisor.start()
        yield supervisor


@ends
def test_the_queue_outlives_the_service(supervisor: Supervisor, end: signal.Signals) -> None:
    as_user(make)
    sends()
    assert supervisor.labels == [f"tun-{NAME}"]
    for turn in range(1, 3):
        before = kept()
        with closing(LinkNews()) as news:
            supervisor.stop(end)
            with pytest.raises(ringtun.AdapterBusy):  # somebody holds it
                ringtun.open_adapter(NAME, backend="embedded")
            supervisor.start()
            assert supervisor.lines.count(f"{NAME}: taken up, with its queue") == turn
            assert not news.went_down(before.ifindex)
        assert kept() == before
        assert supervisor.labels == [f"tun-{NAME}"]
        sends()
    as_user(configure)
    as_user(lambda: ringtun.delete_adapter(NAME, backend="service"))
    assert supervisor.labels == []
    assert ringtun.list_adapters(backend="embedded") == []


def test_a_session_that_the_service_left_running_is_over(supervisor: Supervisor) -> None:
    """Its carrier is off again, and what was queued for it is for nobody."""
    with (
        ringtun.create_adapter(NAME, addresses=ADDRESSES, persist=True) as adapter,
        adapter.start_session() as session,
    ):
        assert kept().connected
        supervisor.stop(signal.SIGKILL)
        with pytest.raises(ringtun.SessionClosed):
            session.receive(SOON)
        with closing(KernelPeer(NAME)) as peer:
            peer.send(packet(1))
            supervisor.start()
            assert not kept().connected
            with (
                ringtun.open_adapter(NAME) as again,
                again.start_session() as session,
            ):
                peer.send(packet(2))
                received = session.receive(SOON)
                while received[0] >> 4 == 6 and received != packet(2):
                    received = session.receive(SOON)
                assert received == packet(2)


def test_one_that_is_made_persistent_later_is_stored_then(supervisor: Supervisor) -> None:
    with ringtun.create_adapter(NAME):
        assert supervisor.labels == []
        ringtun.create_adapter(NAME, persist=True, exist_ok=True).close()
        ringtun.create_adapter(NAME, persist=True, exist_ok=True).close()
        assert supervisor.labels == [f"tun-{NAME}"]


def test_a_name_that_no_label_can_have(supervisor: Supervisor) -> None:
    name = "naïve~"
    ringtun.create_adapter(name, persist=True).close()
    supervisor.stop()
    supervisor.start()
    assert supervisor.labels == ["tun-na%C3%AFve~"]
    ringtun.delete_adapter(name, backend="service")
    assert supervisor.labels == []


def test_one_that_is_gone_is_forgotten(supervisor: Supervisor) -> None:
    ringtun.create_adapter(NAME, persist=True).close()
    supervisor.stop()
    ringtun.delete_adapter(NAME, backend="embedded")
    supervisor.start()
    assert f"tun-{NAME}: not taken up: there is no adapter of this queue" in supervisor.lines
    assert supervisor.labels == []
    ringtun.create_adapter(NAME, persist=True).close()
    assert supervisor.labels == [f"tun-{NAME}"]


def test_who_asks_meanwhile_waits(supervisor: Supervisor) -> None:
    """The supervisor listens, whether or not the service runs."""
    supervisor.stop()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(ringtun.list_adapters, backend="service")
        supervisor.start()
        assert asked.result() == []
