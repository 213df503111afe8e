"""Adapters that outlive their program, and who may open them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import ringtun
from ringtun import AdapterBusy, AdapterNotFound
from ringtun.device.embedded import Pump
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import delete, find, links
from ringtun.testing.conformance import packet
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY, ONE_USER_ONLY
from tests.system.packets import udp_payload
from tests.system.programs import Program
from tests.system.sites import ADDRESSES, PROGRAM, SOON, next_packet, udp_socket

pytestmark = pytest.mark.kernel

NAME = "kept0"
# Where this user namespace has one user only, that is the owner.
OWNER, OTHER = (os.geteuid(), os.geteuid()) if ONE_USER_ONLY else (NOBODY, NOBODY - 1)
as_users = pytest.mark.skipif(
    ONE_USER_ONLY or not (shutil.which("setpriv") and shutil.which("unshare")),
    reason="NOT TRIED: needs several users in this user namespace, and util-linux",
)


@pytest.fixture
def kept(network: NetworkNamespace, namespace: Namespace) -> Iterator[str]:
    """A persistent adapter of `OWNER`'s that nobody holds."""
    addresses = [f"{ADDRESSES['left'][4]}/24"]
    ringtun.create_adapter(
        NAME, addresses=addresses, persist=True, owner=OWNER, netns=network.name
    ).close()
    yield NAME
    ifindex = find(namespace, NAME)
    if ifindex is not None:
        delete(namespace, ifindex)


def names(namespace: Namespace) -> list[str]:
    return [link.name for link in links(namespace)]


def test_it_stays_and_works_again(kept: str, namespace: Namespace, pump: Pump) -> None:
    for turn in range(3):
        assert names(namespace) == ["lo", kept]
        with (
            ringtun.open_adapter(kept, netns="left") as adapter,
            adapter.start_session(pump=pump) as session,
            closing(udp_socket(namespace, ADDRESSES["left"][4])) as host,
        ):
            host.sendto(b"%d" % turn, (PROGRAM[4], 4000))
            assert udp_payload(next_packet(session)) == b"%d" % turn
            session.send(packet(turn))
            assert host.recv(1 << 16) == udp_payload(packet(turn))
            assert adapter.name == kept


def test_while_nobody_holds_it_nothing_waits_for_the_next(kept: str, namespace: Namespace) -> None:
    with closing(udp_socket(namespace, ADDRESSES["left"][4])) as host:
        for number in range(10):
            host.sendto(b"%d" % number, (PROGRAM[4], 4000))
        with (
            ringtun.open_adapter(kept, netns="left") as adapter,
            adapter.start_session() as session,
        ):
            host.sendto(b"new", (PROGRAM[4], 4000))
            assert udp_payload(next_packet(session)) == b"new"


def test_it_is_made_to_go(kept: str, namespace: Namespace) -> None:
    ifindex = find(namespace, kept)
    assert ifindex is not None
    delete(namespace, ifindex)
    assert names(namespace) == ["lo"]
    with pytest.raises(AdapterNotFound, match=f"there is no adapter {kept}"):
        ringtun.open_adapter(kept, netns="left")


def test_another_program_holds_it(
    kept: str, network: NetworkNamespace, namespace: Namespace
) -> None:
    with Program("open", kept, "inline", through=network.command()) as program:
        assert program.line() == "ready"
        with pytest.raises(AdapterBusy):
            ringtun.open_adapter(kept, netns="left")
    ringtun.open_adapter(kept, netns="left").close()
    assert names(namespace) == ["lo", kept], "the kernel kept it when its program was killed"


# users -------------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a program may mount something for itself; skips where no nodes can be made."""
    try:
        os.mknod(tmp_path / "probe", 0o20000, os.makedev(10, 200))
        (tmp_path / "probe").unlink()
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    return tmp_path


def as_user(network: NetworkNamespace, user: int, place: Path, mode: int) -> list[str]:
    """How to start a program as an ordinary user, to whom /dev/net/tun is a node of ``mode``.

    The node is seen by the program alone, and goes with it.
    """
    script = f"""
        set -e
        mount --no-mtab -t tmpfs -o mode=755 none {place}
        mknod -m {mode:o} {place}/tun c 10 200
        mount --no-mtab --bind {place}/tun /dev/net/tun
        exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all -- "$@"
    """
    return network.command("unshare", "--mount", "--", "sh", "-c", script, "sh")


@pytest.fixture(scope="module")
def ringtun_is_readable() -> None:
    """The interpreter and this checkout may lie where an ordinary user cannot look."""
    become = ("setpriv", f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", "--")
    with Program("nothing", "", "", through=become) as program:
        said = program.line()
        if said != "nothing":
            pytest.skip(f"an ordinary user cannot run these programs: {said}")


@as_users
@pytest.mark.usefixtures("ringtun_is_readable")
def test_its_owner_needs_no_rights(
    kept: str, network: NetworkNamespace, namespace: Namespace, place: Path, pump: Pump
) -> None:
    through = as_user(network, OWNER, place, 0o666)
    with (
        Program("open", kept, pump, through=through) as program,
        closing(udp_socket(namespace, ADDRESSES["left"][4])) as host,
    ):
        assert program.line() == "ready"
        assert f"\nUid:\t{OWNER}\t{OWNER}" in Path(f"/proc/{program.pid}/status").read_text()
        host.sendto(b"to an ordinary user", (PROGRAM[4], 4000))
        assert program.line() == "answered"
        host.settimeout(SOON)
        assert host.recv(100) == b"to an ordinary user"
        program.tell("end")
        assert program.wait() == 0
    assert names(namespace) == ["lo", kept]


@as_users
@pytest.mark.usefixtures("ringtun_is_readable")
@pytest.mark.parametrize(
    ("user", "mode", "command", "complaint"),
    [
        (OTHER, 0o666, "open", "kept0"),
        (OWNER, 0o600, "open", "/dev/net/tun is closed to this user"),
        (OWNER, 0o666, "create", "create adapter new0: .*CAP_NET_ADMIN"),
        (OWNER, 0o600, "create", "/dev/net/tun is closed to this user"),
    ],
    ids=["another-user", "closed-node", "owner-creates", "closed-node-creates"],
)
def test_others_are_refused(
    kept: str,
    network: NetworkNamespace,
    namespace: Namespace,
    place: Path,
    user: int,
    mode: int,
    command: str,
    complaint: str,
) -> None:
    name = kept if command == "open" else "new0"
    through = as_user(network, user, place, mode)
    with Program(command, name, "inline", through=through) as program:
        said = program.line()
        assert program.wait() == 0
    assert names(namespace) == ["lo", kept]
    assert re.fullmatch(f"AdapterPermissionError: .*{complaint}.*", said), said
