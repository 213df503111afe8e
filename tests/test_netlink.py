"""`ringtun.host.netlink`: one interface looked at, set up, waited for."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from ringtun.errors import AdapterNotFound, AdapterPermissionError
from ringtun.host import netlink
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, LinkInfo, TunInfo
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY, as_ordinary_user, descriptors, raised_in_child

pytestmark = pytest.mark.world

NOT_THERE = 4242


@pytest.fixture
def network() -> Iterator[NetworkNamespace]:
    with NetworkNamespace("blue") as network:
        yield network


@pytest.fixture
def namespace(network: NetworkNamespace) -> Iterator[Namespace]:
    with Namespace.named("blue") as namespace:
        yield namespace


@pytest.fixture
def tun(namespace: Namespace) -> Iterator[LinuxTun]:
    with LinuxTun.create("vpn0", namespace=namespace) as tun:
        yield tun


@pytest.fixture
def link(tun: LinuxTun) -> Link:
    return Link(tun.namespace, tun.ifindex)


class Meddled(Link):
    """A link to which something happens right after it was first looked at."""

    __slots__ = ("happens", "looks")

    def __init__(self, link: Link, happens: Callable[[], object]) -> None:
        super().__init__(link.namespace, link.ifindex)
        self.looks = 0
        self.happens: Callable[[], object] | None = happens

    def _info(self, netlink: Any) -> LinkInfo:
        info = super()._info(netlink)
        self.looks += 1
        if self.happens is not None:
            self.happens()
            self.happens = None
        return info


def test_loopback_looks_as_it_should(namespace: Namespace) -> None:
    index = netlink.find(namespace, "lo")
    assert index is not None
    info = Link(namespace, index).info()
    assert (info.name, info.ifindex, info.kind, info.alias) == ("lo", index, None, None)
    assert info.up
    assert info.running
    assert Link(namespace, index).addresses() == (ip_interface("127.0.0.1/8"), ip_interface("::1"))


def test_links_lists_all_of_them(namespace: Namespace) -> None:
    assert "lo" in [info.name for info in netlink.links(namespace)]


def test_find_knows_what_is_not_there(namespace: Namespace) -> None:
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
def test_the_current_namespace_is_another(tun: LinuxTun) -> None:
    assert netlink.find(tun.namespace, "vpn0") == tun.ifindex
    with Namespace.current() as current:
        assert netlink.find(current, "vpn0") is None


@pytest.mark.kernel
def test_configure_does_all_in_one_go(link: Link) -> None:
    link.configure(
        alias="ringtun:42",
        txqueuelen=5000,
        mtu=1420,
        addr_gen_mode_none=True,
        addresses=[ip_interface("10.7.0.1/24"), ip_interface("fd07::1/64")],
        up=True,
    )
    assert link.info() == LinkInfo(
        name="vpn0",
        ifindex=link.ifindex,
        kind="tun",
        alias="ringtun:42",
        mtu=1420,
        txqueuelen=5000,
        up=True,
        running=False,
        carrier=False,
        tx_packets=0,
        rx_packets=0,
        tx_dropped=0,
        rx_dropped=0,
        tun=TunInfo(persistent=False, owner=None, group=None),
    )
    assert link.addresses() == (ip_interface("10.7.0.1/24"), ip_interface("fd07::1/64"))


@pytest.mark.kernel
def test_each_setter_sets_its_own(link: Link) -> None:
    link.set_mtu(1300)
    link.set_txqueuelen(7)
    link.set_alias("a")
    link.set_addr_gen_mode_none()
    link.set_up(True)
    link.add_address(ip_interface("10.7.0.1/24"))
    info = link.info()
    assert (info.mtu, info.txqueuelen, info.alias, info.up) == (1300, 7, "a", True)
    link.remove_address(ip_interface("10.7.0.1/24"))
    link.set_up(False)
    link.set_alias("")
    assert link.addresses() == ()
    assert not link.info().up
    assert link.info().alias is None


@pytest.mark.kernel
def test_only_addresses_that_the_kernel_made_are_left_out(
    network: NetworkNamespace, tun: LinuxTun, link: Link
) -> None:
    link.configure(addresses=[ip_interface("fe80::1/64")], up=True)
    tun.carrier(True)
    link.wait_running(5)
    assert network.run("ip", "-6", "-o", "addr", "show", "vpn0").stdout.count("fe80::") == 2
    assert link.addresses() == (ip_interface("fe80::1/64"),)


@pytest.mark.kernel
def test_without_addr_gen_mode_the_kernel_makes_none(
    network: NetworkNamespace, tun: LinuxTun, link: Link
) -> None:
    link.configure(addr_gen_mode_none=True, up=True)
    tun.carrier(True)
    link.wait_running(5)
    assert network.run("ip", "-6", "-o", "addr", "show", "vpn0").stdout == ""


@pytest.mark.kernel
def test_an_ipv6_address_is_usable_at_once(network: NetworkNamespace, link: Link) -> None:
    link.configure(addresses=[ip_interface("fd07::1/64")], up=True)
    shown = network.run("ip", "addr", "show", "vpn0").stdout
    assert "nodad" in shown
    assert "tentative" not in shown


@pytest.mark.kernel
def test_addr_gen_mode_is_no_error_without_ipv6(link: Link) -> None:
    link.configure(mtu=1000, addr_gen_mode_none=True)
    assert link.info().mtu == 1000


@pytest.mark.kernel
def test_the_mtu_comes_before_what_needs_ipv6(link: Link) -> None:
    link.set_mtu(1000)
    link.configure(mtu=1280, addr_gen_mode_none=True, addresses=[ip_interface("fd07::1/64")])
    assert link.addresses() == (ip_interface("fd07::1/64"),)


@pytest.mark.kernel
def test_errors_name_the_change_and_keep_errno(link: Link) -> None:
    with pytest.raises(OSError, match="cannot set the MTU of vpn0 to 67 bytes: ") as caught:
        link.set_mtu(67)
    assert caught.value.errno == errno.EINVAL
    link.add_address(ip_interface("10.7.0.1/24"))
    with pytest.raises(FileExistsError, match=r"cannot add 10\.7\.0\.1/24 to vpn0: "):
        link.add_address(ip_interface("10.7.0.1/24"))
    with pytest.raises(OSError, match=r"cannot remove 10\.7\.0\.9/24 from vpn0: ") as caught:
        link.remove_address(ip_interface("10.7.0.9/24"))
    assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.kernel
def test_ipv6_that_cannot_be_says_why(link: Link) -> None:
    link.set_mtu(1000)
    with pytest.raises(OSError, match="IPv6 also needs an MTU of at least 1280 bytes"):
        link.add_address(ip_interface("fd07::1/64"))
    link.set_mtu(1500)
    switch = Path("/proc/sys/net/ipv6/conf/vpn0/disable_ipv6")
    link.namespace.run(lambda: switch.write_text("1"))
    with pytest.raises(PermissionError, match="IPv6 is switched off there") as caught:
        link.add_address(ip_interface("fd07::1/64"))
    assert not isinstance(caught.value, AdapterPermissionError)


def test_what_is_gone_is_not_found(namespace: Namespace) -> None:
    gone = Link(namespace, NOT_THERE)
    calls: list[Callable[[], object]] = [
        gone.info,
        gone.addresses,
        lambda: gone.set_mtu(1500),
        lambda: gone.wait_running(5),
        lambda: netlink.delete(namespace, NOT_THERE),
    ]
    for call in calls:
        with pytest.raises(AdapterNotFound, match="interface 4242: there is no such") as caught:
            call()
        assert caught.value.errno == errno.ENODEV


@pytest.mark.kernel
def test_delete_removes_it_under_its_holder(tun: LinuxTun) -> None:
    netlink.delete(tun.namespace, tun.ifindex)
    assert netlink.find(tun.namespace, "vpn0") is None


@pytest.mark.kernel
def test_running_is_waited_for_by_events(tun: LinuxTun, link: Link) -> None:
    link.set_up(True)
    assert not link.info().running
    Meddled(link, lambda: tun.carrier(True)).wait_running(5)
    assert link.info().running
    link.wait_running(0)
    tun.carrier(False)
    assert not link.info().running


@pytest.mark.kernel
def test_other_news_does_not_end_the_wait(tun: LinuxTun, link: Link) -> None:
    link.set_up(True)

    def happen() -> None:
        for mtu in range(1400, 1450):
            link.set_mtu(mtu)
        tun.carrier(True)

    Meddled(link, happen).wait_running(5)
    assert link.info().running


@pytest.mark.kernel
def test_a_wait_does_not_spin_on_old_news(link: Link) -> None:
    waiting = Meddled(link, lambda: link.set_mtu(1400))
    with pytest.raises(TimeoutError):
        waiting.wait_running(0.1)
    assert waiting.looks <= 2


@pytest.mark.kernel
def test_a_wait_that_is_too_long_says_what_for(tun: LinuxTun, link: Link) -> None:
    with pytest.raises(TimeoutError, match=r"vpn0 did not start to run within 0 s: it is down"):
        link.wait_running(0)
    link.set_up(True)
    with pytest.raises(TimeoutError, match=r"within 0\.01 s: it has no carrier"):
        link.wait_running(0.01)


@pytest.mark.kernel
def test_a_wait_ends_with_the_interface(link: Link) -> None:
    link.set_up(True)
    with pytest.raises(AdapterNotFound):
        Meddled(link, lambda: netlink.delete(link.namespace, link.ifindex)).wait_running(5)


@pytest.mark.kernel
def test_nothing_stays_open(tun: LinuxTun, link: Link) -> None:
    link.info()
    before = descriptors()
    link.configure(up=True, addresses=[ip_interface("10.7.0.1/24")])
    link.addresses()
    with pytest.raises(TimeoutError):
        link.wait_running(0)
    with pytest.raises(OSError, match="MTU"):
        link.set_mtu(1)
    assert descriptors() == before


@pytest.mark.kernel
def test_it_works_under_a_running_event_loop(link: Link) -> None:
    async def main() -> LinkInfo:
        link.configure(mtu=1400)
        return link.info()

    assert asyncio.run(main()).mtu == 1400


@as_ordinary_user
def test_an_ordinary_user_may_look_but_not_touch() -> None:
    with Namespace.current() as namespace:
        index = netlink.find(namespace, "lo")
        assert index is not None
        link = Link(namespace, index)

        def look_then_touch() -> None:
            link.info()
            link.set_mtu(1500)

        raised = raised_in_child(look_then_touch, NOBODY)
    assert raised.startswith("AdapterPermissionError: [Errno 1] no permission to set the MTU of lo")
    assert "CAP_NET_ADMIN" in raised
