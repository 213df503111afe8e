"""What an adapter needs of rtnetlink: one interface, looked at, set up, waited for.

Every call is one conversation.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from ringtun.arguments import Interface
from ringtun.errors import AdapterNotFound
from ringtun.host.changes import Changes, State, bring_to, interface_in
from ringtun.host.conversation import converse, doing
from ringtun.host.namespace import Namespace

__all__ = ["Link", "LinkInfo", "TunInfo", "all_addresses", "delete", "find", "link_info", "links"]

T = TypeVar("T")

# linux/if.h
IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40
IFF_LOWER_UP: Final = 0x10000
# linux/if_tun.h
IFF_TUN: Final = 0x1
# linux/rtnetlink.h
RTMGRP_LINK: Final = 1
RTMGRP_IPV6_IFADDR: Final = 0x100
RTMGRP_IPV6_ROUTE: Final = 0x400


@dataclass(frozen=True, slots=True)
class TunInfo:
    """What is said of a layer-3 TUN device beside what every interface has."""

    persistent: bool
    """Whether it outlives its queue."""
    owner: int | None
    """The user id that may attach to it without other rights."""
    group: int | None
    """The group id whose members may; with ``owner``, both have to fit."""


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """An interface as the kernel sees it at one moment. Counters are the kernel's, since creation.

    What the kernel transmits (tx) the program reads, and the other way round: ``tx_dropped`` counts
    packets that found the queue full or the carrier off, ``rx_dropped`` what the kernel threw away
    of what the program wrote.
    """

    name: str
    ifindex: int
    kind: str | None
    """The kernel's name for its driver: "tun", "veth"; None for hardware and loopback."""
    alias: str | None
    mtu: int
    txqueuelen: int
    up: bool
    """Set up by an administrator (``IFF_UP``)."""
    running: bool
    """Up, with a carrier, and transmitting (``IFF_RUNNING`` and ``IFF_LOWER_UP``)."""
    carrier: bool
    """With the cable plugged in, whether up or not."""
    tx_packets: int
    rx_packets: int
    tx_dropped: int
    rx_dropped: int
    tun: TunInfo | None = None
    """None for what is no layer-3 TUN device, a TAP device included."""


class Link:
    """One interface in one namespace. It owns nothing: the interface lives on without it.

    Every method raises `AdapterNotFound` where the interface is gone, `AdapterPermissionError`
    where the caller may not do this, and otherwise an ``OSError`` that says which change of which
    interface failed, with the kernel's errno.
    """

    __slots__ = ("ifindex", "namespace")

    def __init__(self, namespace: Namespace, ifindex: int) -> None:
        self.namespace = namespace
        self.ifindex = ifindex

    def info(self) -> LinkInfo:
        """The interface as it is now."""
        return converse(self.namespace, self._info)

    def addresses(self) -> tuple[Interface, ...]:
        """Its addresses with their prefixes, in the kernel's order.

        Link-local ones that the kernel made by itself are left out (where it says so: Linux 5.18).
        """

        def read(netlink: Any) -> tuple[Interface, ...]:
            # The look is for an interface that is gone: its dump would be empty, and no error.
            return Changes(netlink, self._info(netlink)).addresses()

        return converse(self.namespace, read)

    def configure(
        self,
        *,
        alias: str | None = None,
        txqueuelen: int | None = None,
        mtu: int | None = None,
        addr_gen_mode_none: bool = False,
        addresses: Iterable[Interface] = (),
        up: bool | None = None,
    ) -> None:
        """Change what is given, in one conversation, in the order in which it works.

        Down comes first and up last: no packet meets an interface half done. The MTU comes before
        what needs IPv6, which the kernel takes away below 1,280 bytes and gives back with its
        defaults. The first failure ends it; what was changed before stays changed.

        ``txqueuelen`` counts packets, ``mtu`` bytes. ``addresses`` are added to those there are.
        Taking an interface down costs it its IPv6 addresses: the kernel's rule.

        Raises ``FileExistsError`` for an address that it already has, besides what the class says.
        """

        def change(netlink: Any) -> None:
            changes = Changes(netlink, self._info(netlink))
            if up is False:
                changes.take_down()
            if alias is not None:
                changes.set_alias(alias)
            if txqueuelen is not None:
                changes.set_txqueuelen(txqueuelen)
            if mtu is not None:
                changes.set_mtu(mtu)
            if addr_gen_mode_none:
                changes.set_addr_gen_mode_none()
            for address in addresses:
                changes.add(address)
            if up:
                changes.bring_up()

        converse(self.namespace, change)

    def reconfigure(
        self,
        *,
        alias: str | None = None,
        txqueuelen: int | None = None,
        mtu: int | None = None,
        addresses: Iterable[Interface] | None = None,
        up: bool | None = None,
    ) -> None:
        """Bring what is given to the interface as it is now, and leave the rest as it is.

        ``addresses`` are all that it is to have: one that stays keeps its routes. Its addresses
        outlast its going down, and are there when it comes up.

        A failure is undone as far as possible: the error says what was not.
        """

        def change(netlink: Any) -> None:
            changes = Changes(netlink, self._info(netlink))

            def look() -> State:
                info = self._info(netlink)
                return State(
                    info.alias or "", info.txqueuelen, info.mtu, changes.addresses(), info.up
                )

            given = {"alias": alias, "txqueuelen": txqueuelen, "mtu": mtu, "up": up}
            asked: dict[str, Any] = {key: new for key, new in given.items() if new is not None}
            if addresses is not None:
                asked["addresses"] = tuple(addresses)
            bring_to(asked, look, changes)

        converse(self.namespace, change)

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU in bytes: 68 to 65,535 for a TUN; below 1,280 the interface loses IPv6."""
        self.configure(mtu=mtu)

    def set_up(self, up: bool) -> None:
        """Bring it up, or take it down, which costs it its IPv6 addresses."""
        self.configure(up=up)

    def set_txqueuelen(self, txqueuelen: int) -> None:
        """Set how many packets queue for a reader before the kernel drops them."""
        self.configure(txqueuelen=txqueuelen)

    def set_alias(self, alias: str) -> None:
        """Set the free text that the kernel keeps with it; "" takes it away."""
        self.configure(alias=alias)

    def set_addr_gen_mode_none(self) -> None:
        """Keep the kernel from making a link-local address when it comes up.

        Does nothing where the interface has no IPv6.
        """
        self.configure(addr_gen_mode_none=True)

    def add_address(self, address: Interface) -> None:
        """Add an address with its prefix; an IPv6 one without duplicate detection.

        See `wait_receiving` for when it is usable. Raises ``FileExistsError`` where the interface
        has it.
        """
        self.configure(addresses=[address])

    def remove_address(self, address: Interface) -> None:
        """Take an address away. Raises ``OSError`` (EADDRNOTAVAIL) where it is not there."""

        converse(
            self.namespace,
            lambda netlink: Changes(netlink, self._info(netlink)).remove(address),
        )

    def move(self, descriptor: int, name: str) -> None:
        """Move it into the network namespace that ``descriptor`` is of, to be ``name`` there.

        It has to be down, and arrives without addresses, and makes none by itself. Raises
        ``FileExistsError`` where the name is taken there; it may have gone by then, under its own.
        """

        def move(netlink: Any) -> None:
            Changes(netlink, self._info(netlink)).move(descriptor, name)

        converse(self.namespace, move)

    def wait_running(self, timeout: float) -> None:
        """Return once the interface transmits; it must be up, with its carrier on.

        Raises ``TimeoutError`` where it does not within ``timeout`` seconds.
        """

        def wait(netlink: Any) -> None:
            info = self._info(netlink)

            def running() -> bool:
                nonlocal info
                info = self._info(netlink)
                return info.running

            if not info.running and not _happens(RTMGRP_LINK, running, timeout):
                state = "it has no carrier yet" if info.up else "it is down"
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"{info.name} did not start to run within {timeout:g} s: {state}",
                )

        converse(self.namespace, wait)

    def wait_receiving(self, addresses: Iterable[Interface], timeout: float) -> None:
        """Return once the kernel takes in what is sent to ``addresses``; the interface must be up.

        The way to an IPv6 address comes a moment after the address, and later on a busy machine;
        until then what is sent to it is lost. Where somebody takes the interface down meanwhile, or
        an address away, none comes, and none is waited for. Raises ``TimeoutError``.
        """
        wanted = {address for address in addresses if address.version == 6}

        def wait(netlink: Any) -> None:
            def arrived() -> bool:
                if _have_routes(wanted):
                    return True
                info = self._info(netlink)
                return not info.up or _have_routes(
                    wanted.intersection(Changes(netlink, info).addresses())
                )

            news = RTMGRP_LINK | RTMGRP_IPV6_IFADDR | RTMGRP_IPV6_ROUTE
            if not _happens(news, arrived, timeout):
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"interface {self.ifindex} has no route to its IPv6 addresses after "
                    f"{timeout:g} s",
                )

        if wanted and not self.namespace.run(lambda: _have_routes(wanted)):
            converse(self.namespace, wait)

    def _info(self, netlink: Any) -> LinkInfo:
        with doing(f"look at interface {self.ifindex}"):
            (message,) = netlink.link("get", index=self.ifindex)
            return link_info(message)


def find(namespace: Namespace, name: str) -> int | None:
    """The index of the interface called ``name``, or None."""

    def look(netlink: Any) -> int | None:
        try:
            with doing(f"look for interface {name}"):
                (message,) = netlink.link("get", ifname=name)
                return int(message["index"])
        except AdapterNotFound:
            return None

    return converse(namespace, look)


def links(namespace: Namespace) -> tuple[LinkInfo, ...]:
    """Every interface of the namespace, in the order of their indices."""

    def look(netlink: Any) -> tuple[LinkInfo, ...]:
        with doing("list the interfaces"):
            return tuple(link_info(message) for message in netlink.get_links())

    return converse(namespace, look)


def all_addresses(namespace: Namespace) -> dict[int, tuple[Interface, ...]]:
    """The addresses of every interface that has one, by its index; as `Link.addresses` has them."""

    def look(netlink: Any) -> dict[int, tuple[Interface, ...]]:
        found: dict[int, tuple[Interface, ...]] = {}
        with doing("list the addresses"):
            for message in netlink.get_addr():
                address = interface_in(message)
                if address is not None:
                    index = message["index"]
                    found[index] = (*found.get(index, ()), address)
        return found

    return converse(namespace, look)


def delete(namespace: Namespace, ifindex: int) -> None:
    """Remove an interface for good, whoever holds it; raises what `Link` does."""

    def remove(netlink: Any) -> None:
        with doing(f"delete interface {ifindex}"):
            netlink.link("del", index=ifindex)

    converse(namespace, remove)


def link_info(message: Any) -> LinkInfo:
    """The interface in netlink's message."""
    flags = message["flags"]
    counters = message.get_attr("IFLA_STATS64")
    kind = message.get_attr("IFLA_LINKINFO")
    return LinkInfo(
        name=message.get_attr("IFLA_IFNAME"),
        ifindex=message["index"],
        kind=kind and kind.get_attr("IFLA_INFO_KIND"),
        tun=_tun_info(kind),
        alias=message.get_attr("IFLA_IFALIAS"),
        mtu=message.get_attr("IFLA_MTU"),
        txqueuelen=message.get_attr("IFLA_TXQLEN"),
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING and flags & IFF_LOWER_UP),
        carrier=bool(message.get_attr("IFLA_CARRIER")),
        tx_packets=counters["tx_packets"],
        rx_packets=counters["rx_packets"],
        tx_dropped=counters["tx_dropped"],
        rx_dropped=counters["rx_dropped"],
    )


def _tun_info(kind: Any) -> TunInfo | None:
    if not kind or kind.get_attr("IFLA_INFO_KIND") != "tun":
        return None
    data = kind.get_attr("IFLA_INFO_DATA")
    if not data or data.get_attr("IFLA_TUN_TYPE") != IFF_TUN:
        return None
    return TunInfo(
        persistent=bool(data.get_attr("IFLA_TUN_PERSIST")),
        owner=data.get_attr("IFLA_TUN_OWNER"),
        group=data.get_attr("IFLA_TUN_GROUP"),
    )


def _happens(group: int, happened: Callable[[], bool], timeout: float) -> bool:
    """Whether it happens within ``timeout`` seconds; looked for again after each event."""
    deadline = time.monotonic() + timeout
    with socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        socket.NETLINK_ROUTE,
    ) as events:
        events.bind((0, group))
        poll = select.poll()
        poll.register(events, select.POLLIN)
        while not happened():
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(math.ceil(left * 1000)):
                return False
            _drain(events)
    return True


def _have_routes(addresses: Iterable[Interface]) -> bool:
    """Whether this thread's namespace has a route to each of these IPv6 addresses alone."""
    with open("/proc/thread-self/net/ipv6_route") as routes:
        fields = (line.split() for line in routes)
        hosts = {to for to, prefix, *_ in fields if prefix == "80"}
    return hosts.issuperset(address.ip.packed.hex() for address in addresses)


def _drain(events: socket.socket) -> None:
    while True:
        try:
            events.recv(1)  # the rest of the message goes with it
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # events were lost: news of its own
                raise
