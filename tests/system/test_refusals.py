"""Calls that cannot succeed: one clear line with the cause and the cure, and nothing left behind.

Each table is what one kind of user gets for his calls: the class of the error, and words that have
to be in it. The command line's refusals are in `tests.system.test_cli`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

import ringtun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import links
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY
from tests.system.sites import SOON
from tests.system.test_demo import as_nobody

pytestmark = pytest.mark.kernel

Table: TypeAlias = Sequence[tuple[str, str, str]]

# Makes the calls of its argument, and says what each raised, and whether it left something behind.
CHILD = """
import gc, json, os, sys, threading
import ringtun
from ringtun import create_adapter as create, delete_adapter as delete, open_adapter as open_
from ringtun import list_adapters as list_

def mine(call):
    with open_("mine0") as adapter:
        call(adapter)

def held():
    gc.collect()
    return sorted(os.listdir("/proc/self/fd")), threading.active_count()

def answer(call):
    before = held()
    try:
        eval(call)
        said = ["nothing", ""]
    except Exception as error:
        said = [type(error).__name__, str(error)]
    return [*said, held() == before]

list_()  # what the first call costs is no loss
print(json.dumps([answer(call) for call in json.loads(sys.argv[1])]))
"""

# Of nobody in particular, with whatever rights.
ANYBODY: Table = [
    *(
        (call.format(name), "ValueError", words)
        for name, words in (
            ("''", "0 bytes, not 1 to 15"),
            ("'x' * 16", "16 bytes, not 1 to 15"),
            ("'a/b'", "contains '/'"),
            ("'tun%d'", "contains '%'"),
            ("'all'", "no interface name"),
            (r"'\ud800'", "no name can have"),
        )
        for call in ("create({})", "create({}, exist_ok=True)", "open_({})", "delete({})")
    ),
    ("create(None)", "TypeError", "name is a string"),
    ("create('new0', addresses=['10.7.0.300/24'])", "ValueError", "is none"),
    ("create('new0', addresses=['10.7.0.1'])", "ValueError", "write 10.7.0.1/24"),
    ("create('new0', addresses=['fd07::1/64'], mtu=1279)", "ValueError", "at least 1280"),
    ("create('new0', mtu=67)", "ValueError", "68 to 65535"),
    ("create('new0', txqueuelen=0)", "ValueError", "1 to 524288"),
    ("create('new0', guid='5')", "ValueError", "32 hexadecimal digits"),
    ("create('new0', owner=0)", "ValueError", "persist=True"),
    ("create('new0', backend='kernel')", "ValueError", '"embedded"'),
    (
        "create('new0', backend='service')",
        "DriverUnavailable",
        "start one, as root: ringtun driver",
    ),
    ("create('new0', netns='none')", "FileNotFoundError", "ip netns add none"),
    ("open_('new0', netns='/etc/passwd')", "ValueError", "is not a network namespace"),
    ("delete('new0', netns='..')", "ValueError", "ip netns"),
    ("list_(netns='none')", "FileNotFoundError", "ip netns add none"),
    ("open_('none0')", "AdapterNotFound", "ringtun list"),
    ("delete('none0')", "AdapterNotFound", "ringtun list"),
    ("delete('lo')", "AdapterNotFound", "no TUN device"),
    ("delete('none0', missing_ok=True)", "nothing", ""),
    ("list_()", "nothing", ""),
]
# Of whoever may open the node.
WITH_NODE: Table = [
    ("open_('lo')", "AdapterNotFound", "no TUN device"),
    ("create('kept0')", "AdapterExists", "take another name, or open it"),
    ("create('lo')", "AdapterExists", "take another name"),
    ("create('lo', exist_ok=True)", "AdapterExists", "take another name"),
    ("open_('held0')", "AdapterBusy", "ringtun doctor --name held0"),
    ("create('held0', exist_ok=True)", "AdapterBusy", "ringtun doctor --name held0"),
    ("mine(lambda adapter: adapter.start_session(capacity=100_000))", "ValueError", "power of two"),
    ("mine(lambda adapter: adapter.start_session(capacity=1 << 27))", "ValueError", "131072"),
    ("mine(lambda adapter: adapter.start_session(pump='x'))", "ValueError", '"inline"'),
    ("mine(lambda adapter: adapter.configure(mtu=67))", "ValueError", "68 to 65535"),
    ("mine(lambda adapter: adapter.configure(addresses=['no/24']))", "ValueError", "is none"),
    ("mine(lambda adapter: (adapter.close(), adapter.info()))", "AdapterNotFound", "is closed"),
    ("mine(lambda adapter: adapter.start_session().close())", "nothing", ""),
    ("mine(lambda adapter: adapter.start_async_session().close())", "nothing", ""),
    ("create('mine0', exist_ok=True, addresses=['10.7.0.1/24']).close()", "nothing", ""),
]
# What takes a right, of a user who has none.
USER: Table = [
    ("create('new0')", "AdapterPermissionError", "run as root"),
    ("create('new0', persist=True)", "AdapterPermissionError", "run as root"),
    ("create('new0', exist_ok=True)", "AdapterPermissionError", "run as root"),
    ("create('kept0', exist_ok=True)", "AdapterPermissionError", "belongs to another user"),
    ("create('mine0', exist_ok=True, mtu=1400)", "AdapterPermissionError", "run as root"),
    ("open_('kept0')", "AdapterPermissionError", "belongs to another user"),
    ("delete('kept0')", "AdapterPermissionError", "run as root"),
    ("delete('mine0')", "AdapterPermissionError", "run as root"),
    ("delete('held0', missing_ok=True)", "AdapterPermissionError", "run as root"),
    ("list_(netns='left')", "AdapterPermissionError", "run as root"),
    ("open_('mine0', netns='left')", "AdapterPermissionError", "run as root"),
    *(
        (f"mine(lambda adapter: adapter.configure({change}))", "AdapterPermissionError", "as root")
        for change in ("mtu=1400", "up=False", "addresses=[]", "txqueuelen=9")
    ),
]
CLOSED_NODE: Table = [
    *(
        (call, "AdapterPermissionError", "/dev/net/tun is closed to this user")
        for call in ("create('new0')", "open_('mine0')", "create('mine0', exist_ok=True)")
    ),
    ("delete('mine0')", "AdapterPermissionError", "run as root"),
]
NO_NODE: Table = [
    *(
        (call, "DriverUnavailable", "modprobe tun")
        for call in ("create('new0')", "open_('mine0')", "create('mine0', exist_ok=True)")
    ),
]


@pytest.fixture(autouse=True)
def adapters(network: NetworkNamespace, namespace: Namespace) -> Iterator[None]:
    """Of root, of the ordinary user, and one that a program holds; they are as before."""
    addresses = ["10.7.0.1/24"]
    ringtun.create_adapter("kept0", persist=True, owner=0, netns="left").close()
    ringtun.create_adapter(
        "mine0", persist=True, owner=NOBODY, addresses=addresses, netns="left"
    ).close()
    with ringtun.create_adapter("held0", netns="left"):
        before = there(namespace)
        yield
        after = there(namespace)
    for name in ("kept0", "mine0"):
        ringtun.delete_adapter(name, netns="left")
    assert after == before


def there(namespace: Namespace) -> object:
    infos = [info.as_dict() | {"host_drops": 0} for info in ringtun.list_adapters(netns="left")]
    return infos, [link.name for link in links(namespace)]


def check(command: Sequence[str], table: Table) -> None:
    """``command`` runs the child."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * SOON, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for (call, kind, words), (raised, said, clean) in zip(
        table, json.loads(done.stdout), strict=True
    ):
        assert (raised, words in said) == (kind, True), f"{call}: {raised}: {said}"
        assert said.isprintable(), f"{call}: {said}"
        assert clean, f"{call} left something behind"


def child(table: Table) -> list[str]:
    return [sys.executable, "-W", "error", "-c", CHILD, json.dumps([call for call, _, _ in table])]


def as_user(network: NetworkNamespace, scratch: Path, table: Table, mode: str) -> list[str]:
    return network.command(*as_nobody(scratch, mode, *child(table)))


def test_root(network: NetworkNamespace) -> None:
    table = [*ANYBODY, *WITH_NODE]
    check(network.command(*child(table)), table)


def test_an_ordinary_user(network: NetworkNamespace, tmp_path: Path) -> None:
    table = [*ANYBODY, *WITH_NODE, *USER]
    check(as_user(network, tmp_path, table, "666"), table)


def test_where_the_node_is_closed(network: NetworkNamespace, tmp_path: Path) -> None:
    table = [*ANYBODY, *CLOSED_NODE]
    check(as_user(network, tmp_path, table, "600"), table)


def test_where_there_is_no_node(network: NetworkNamespace) -> None:
    table = [*ANYBODY, *NO_NODE]
    hide = 'mount -n -t tmpfs none /dev/net && exec "$@"'
    check(network.command("unshare", "--mount", "sh", "-c", hide, "sh", *child(table)), table)
