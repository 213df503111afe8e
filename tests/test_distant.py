"""An adapter in a network namespace that its maker does not enter."""

from __future__ import annotations

import errno
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import ringtun
from ringtun.host.distant import DistantHost
from ringtun.host.namespace import Namespace
from ringtun.testing.netns import NetworkNamespace
from tests.children import descriptors
from tests.system.sites import SOON

pytestmark = pytest.mark.kernel

NAME = "vpn0"
ALIAS = "ringtun:6ba7b810-9dad-11d1-80b4-00c04fd430c8"


@pytest.fixture
def there() -> Iterator[NetworkNamespace]:
    with NetworkNamespace("there") as there:
        yield there


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = descriptors(), socket.if_nameindex()
    yield
    assert (descriptors(), socket.if_nameindex()) == before


def create(there: NetworkNamespace, name: str = NAME, mtu: int | None = 1400) -> DistantHost:
    with Namespace.named(there.name) as namespace, namespace.open() as into:
        return DistantHost.create(name, into=into.fileno(), mtu=mtu, alias=ALIAS, txqueuelen=77)


@contextmanager
def created(there: NetworkNamespace) -> Iterator[DistantHost]:
    host = create(there)
    try:
        yield host
    finally:
        host.close()


def interfaces(there: NetworkNamespace) -> list[str]:
    """Beside the loopback."""
    said = there.run("ip", "-o", "link").stdout
    return [line.split()[1].rstrip(":") for line in said.splitlines() if " lo: " not in line]


def ip(there: NetworkNamespace, *arguments: str) -> None:
    there.run("ip", *arguments)


def test_it_is_there_and_seen_from_here(there: NetworkNamespace) -> None:
    with created(there) as host:
        (there_too,) = ringtun.list_adapters(netns=there.name, backend="embedded")
        info = host.info()
        assert (info.name, info.ifindex) == (NAME, host.ifindex) == (NAME, there_too.ifindex)
        assert (info.mtu, info.alias, info.txqueuelen) == (1400, ALIAS, 77)
        assert (info.up, info.carrier, info.running, info.kind) == (False, False, False, "tun")
        ip(there, "address", "add", "10.7.0.1/24", "dev", NAME)
        ip(there, "link", "set", NAME, "up")
        assert (host.info().up, host.info().running) == (True, False)
        host.connect(offload=False)
        assert host.info().carrier
        host.write_packet(bytes.fromhex("4500001400000000400066e50a0700020a070001"))
        assert host.info().rx_packets == 1
        assert host.info().tx_dropped == host.queue_drops() == 0
    assert interfaces(there) == []
    assert host.queue_drops() == 0


def test_it_makes_no_addresses_by_itself(there: NetworkNamespace) -> None:
    with created(there) as host:
        ip(there, "link", "set", NAME, "up")
        host.connect(offload=False)
        assert "inet6" not in there.run("ip", "address", "show", "dev", NAME).stdout


def test_drops_are_counted(there: NetworkNamespace) -> None:
    with created(there) as host:
        ip(there, "address", "add", "10.7.0.1/24", "dev", NAME)
        ip(there, "link", "set", NAME, "txqueuelen", "10", "up")
        host.connect(offload=False)
        ip(there, "link", "set", NAME, "carrier", "on")
        sent = "import socket; s = socket.socket(2, 2)\nfor _ in range(30): "
        sent += "s.sendto(b'x', ('10.7.0.2', 9))"
        there.run(sys.executable, "-c", sent)
        assert host.queue_drops() == 20
    assert host.queue_drops() == 20


def test_an_mtu_too_small_for_ipv6(there: NetworkNamespace) -> None:
    host = create(there, mtu=600)
    assert host.info().mtu == 600
    host.close()


def test_an_index_that_is_taken_there(there: NetworkNamespace) -> None:
    for number in range(30):
        ip(there, "link", "add", f"dummy{number}", "type", "veth", "peer", f"peer{number}")
    hosts = [create(there, f"vpn{number}") for number in range(3)]
    for number, host in enumerate(hosts):
        assert host.info().name == f"vpn{number}"
        host.close()


@pytest.mark.parametrize("also", [False, True])
def test_a_name_that_is_taken_there(there: NetworkNamespace, also: bool) -> None:
    """Or that an interface has beside its own."""
    ip(there, "link", "add", "veth0" if also else NAME, "type", "veth", "peer", "peer0")
    if also:
        ip(there, "link", "property", "add", "dev", "veth0", "altname", NAME)
    before = interfaces(there)
    with pytest.raises(ringtun.AdapterExists, match=f"{NAME} already in that network namespace"):
        create(there)
    assert interfaces(there) == before


def test_a_name_that_is_taken_here(there: NetworkNamespace) -> None:
    with (
        ringtun.create_adapter(NAME, backend="embedded"),
        created(there) as host,
    ):
        assert host.info().name == NAME


def test_what_is_no_namespace(there: NetworkNamespace) -> None:
    with open("/dev/null") as null, pytest.raises(OSError, match="move vpn0"):
        DistantHost.create(NAME, into=null.fileno(), mtu=None, alias=ALIAS, txqueuelen=77)


@pytest.mark.parametrize("how", ["deleted", "moved", "moved, and gone"])
def test_it_goes(there: NetworkNamespace, how: str) -> None:
    with created(there) as host:
        with NetworkNamespace("other") as other:
            if how == "deleted":
                ip(there, "link", "delete", NAME)
            else:
                ip(there, "link", "set", NAME, "netns", other.name)
            if how != "moved, and gone":
                is_gone(host)
        is_gone(host)
        assert host.queue_drops() == 0


def test_it_goes_with_its_namespace() -> None:
    with NetworkNamespace("short") as short:
        host = create(short)
    is_gone(host)  # at once, though it takes a moment to end
    poll = select.poll()
    poll.register(host.fileno(), select.POLLIN)
    assert poll.poll(SOON * 1000), "the queue keeps the namespace alive"
    is_gone(host)
    host.close()


def is_gone(host: DistantHost) -> None:
    with pytest.raises(ringtun.AdapterNotFound) as caught:
        host.info()
    assert caught.value.errno == errno.ENODEV


def test_it_is_followed_when_it_is_renamed(there: NetworkNamespace) -> None:
    with created(there) as host:
        ip(there, "link", "set", NAME, "name", "other0")
        assert host.info().name == "other0"


def test_names_beside_its_own_do_not_hide_it(there: NetworkNamespace) -> None:
    """Its owner may give it so many that the kernel's answer becomes long."""
    with created(there) as host:
        names = [f"{number:0127}" for number in range(400)]
        for start in range(0, len(names), 100):
            more = [word for name in names[start : start + 100] for word in ("altname", name)]
            ip(there, "link", "property", "add", "dev", NAME, *more)
        assert host.info().mtu == 1400


def test_the_rest_is_for_its_owner(there: NetworkNamespace) -> None:
    with created(there) as host:
        assert host.addresses() == ()
        for call in (host.configure, host.watch, lambda: host.persist(0, None)):
            with pytest.raises(OSError, match="set up and watched there") as caught:
                call()
            assert caught.value.errno == errno.EOPNOTSUPP
