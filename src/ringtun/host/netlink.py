"""What an adapter needs of rtnetlink: one interface, looked at, set up, waited for.

Every call is one conversation: it opens its netlink socket inside the namespace, in a thread of its
own, and closes it there. (pyroute2 opens another socket, in whatever namespace it is, for each
thread that touches an ``IPRoute``.) pyroute2 is imported by the first conversation.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from ringtun.errors import AdapterNotFound, AdapterPermissionError
from ringtun.host.namespace import Namespace

__all__ = ["Interface", "Link", "LinkInfo", "delete", "find", "links"]

T = TypeVar("T")

Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

# linux/if.h
IFF_UP: Final = 0x1
IFF_RUNNING: Final = 0x40
IFF_LOWER_UP: Final = 0x10000
# linux/if_addr.h
IFA_F_NODAD: Final = 0x02
IFAPROT_KERNEL_LL: Final = 3
# linux/if_link.h
IN6_ADDR_GEN_MODE_NONE: Final = 1
# linux/rtnetlink.h
RTMGRP_LINK: Final = 1
RTMGRP_IPV6_ROUTE: Final = 0x400


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
    tx_packets: int
    rx_packets: int
    tx_dropped: int
    rx_dropped: int


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
        return _converse(self.namespace, self._info)

    def addresses(self) -> tuple[Interface, ...]:
        """Its addresses with their prefixes, in the kernel's order.

        Link-local ones that the kernel made by itself are left out (where it says so: Linux 5.18).
        """

        def read(netlink: Any) -> tuple[Interface, ...]:
            self._info(netlink)  # a dump of an interface that is gone is empty, and no error
            with _doing(f"read the addresses of interface {self.ifindex}"):
                return tuple(
                    ipaddress.ip_interface(
                        (
                            message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS"),
                            message["prefixlen"],
                        )
                    )
                    for message in netlink.get_addr(index=self.ifindex)
                    if message.get_attr("IFA_PROTO") != IFAPROT_KERNEL_LL
                )

        return _converse(self.namespace, read)

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
            name = self._info(netlink).name

            def set_link(doing: str, **attributes: Any) -> None:
                with _doing(doing):
                    netlink.link("set", index=self.ifindex, **attributes)

            if up is False:
                set_link(f"take {name} down", state="down")
            if alias is not None:
                set_link(f"set the alias of {name} to {alias!r}", ifalias=alias)
            if txqueuelen is not None:
                set_link(
                    f"set the queue of {name} to {txqueuelen} packets",
                    txqlen=txqueuelen,
                )
            if mtu is not None:
                set_link(f"set the MTU of {name} to {mtu} bytes", mtu=mtu)
            if addr_gen_mode_none:
                try:
                    set_link(
                        f"switch off automatic addresses on {name}",
                        **_ADDR_GEN_MODE_NONE,
                    )
                except OSError as error:
                    if error.errno != errno.EAFNOSUPPORT:  # no IPv6, no address to switch off
                        raise
            for address in addresses:
                hints, flags = (_IPV6_HINTS, IFA_F_NODAD) if address.version == 6 else (None, 0)
                with _doing(f"add {address} to {name}", hints):
                    netlink.addr(
                        "add",
                        index=self.ifindex,
                        address=str(address.ip),
                        prefixlen=address.network.prefixlen,
                        flags=flags,
                    )
            if up:
                set_link(f"bring {name} up", state="up")

        _converse(self.namespace, change)

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

        def remove(netlink: Any) -> None:
            name = self._info(netlink).name
            with _doing(f"remove {address} from {name}"):
                netlink.addr(
                    "del",
                    index=self.ifindex,
                    address=str(address.ip),
                    prefixlen=address.network.prefixlen,
                )

        _converse(self.namespace, remove)

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

        _converse(self.namespace, wait)

    def wait_receiving(self, addresses: Iterable[Interface], timeout: float) -> None:
        """Return once the kernel takes in what is sent to ``addresses``; the interface must be up.

        The way to an IPv6 address comes a moment after the address, and later on a busy machine;
        until then what is sent to it is lost. Raises ``TimeoutError``.
        """
        wanted = {address.ip.packed.hex() for address in addresses if address.version == 6}

        def wait() -> None:
            if not _happens(RTMGRP_IPV6_ROUTE, lambda: wanted <= _ipv6_host_routes(), timeout):
                raise TimeoutError(
                    errno.ETIMEDOUT,
                    f"interface {self.ifindex} has no route to its IPv6 addresses after "
                    f"{timeout:g} s",
                )

        if wanted:
            self.namespace.run(wait)

    def _info(self, netlink: Any) -> LinkInfo:
        with _doing(f"look at interface {self.ifindex}"):
            (message,) = netlink.link("get", index=self.ifindex)
            return _link_info(message)


def find(namespace: Namespace, name: str) -> int | None:
    """The index of the interface called ``name``, or None."""

    def look(netlink: Any) -> int | None:
        try:
            with _doing(f"look for interface {name}"):
                (message,) = netlink.link("get", ifname=name)
                return int(message["index"])
        except AdapterNotFound:
            return None

    return _converse(namespace, look)


def links(namespace: Namespace) -> tuple[LinkInfo, ...]:
    """Every interface of the namespace, in the order of their indices."""

    def look(netlink: Any) -> tuple[LinkInfo, ...]:
        with _doing("list the interfaces"):
            return tuple(_link_info(message) for message in netlink.get_links())

    return _converse(namespace, look)


def delete(namespace: Namespace, ifindex: int) -> None:
    """Remove an interface for good, whoever holds it; raises what `Link` does."""

    def remove(netlink: Any) -> None:
        with _doing(f"delete interface {ifindex}"):
            netlink.link("del", index=ifindex)

    _converse(namespace, remove)


_ADDR_GEN_MODE_NONE: Final = {
    "IFLA_AF_SPEC": {
        "attrs": [
            (
                "AF_INET6",
                {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", IN6_ADDR_GEN_MODE_NONE)]},
            ),
        ]
    }
}

_IPV6_HINTS: Final = {
    errno.EACCES: "IPv6 is switched off there (sysctl net.ipv6.conf.*.disable_ipv6)",
    errno.EINVAL: "the kernel refuses it; IPv6 also needs an MTU of at least 1280 bytes",
    errno.EOPNOTSUPP: "this kernel runs without IPv6",
}


def _converse(namespace: Namespace, talk: Callable[[Any], T]) -> T:
    """Call ``talk`` with an ``IPRoute`` opened, used and closed in one thread of the namespace."""

    def conversation() -> T:
        from pyroute2 import IPRoute

        with IPRoute(ext_ack=True) as netlink:
            return talk(netlink)

    return namespace.run(conversation)


def _link_info(message: Any) -> LinkInfo:
    flags = message["flags"]
    counters = message.get_attr("IFLA_STATS64")
    kind = message.get_attr("IFLA_LINKINFO")
    return LinkInfo(
        name=message.get_attr("IFLA_IFNAME"),
        ifindex=message["index"],
        kind=kind and kind.get_attr("IFLA_INFO_KIND"),
        alias=message.get_attr("IFLA_IFALIAS"),
        mtu=message.get_attr("IFLA_MTU"),
        txqueuelen=message.get_attr("IFLA_TXQLEN"),
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING and flags & IFF_LOWER_UP),
        tx_packets=counters["tx_packets"],
        rx_packets=counters["rx_packets"],
        tx_dropped=counters["tx_dropped"],
        rx_dropped=counters["rx_dropped"],
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


def _ipv6_host_routes() -> set[str]:
    """The addresses, in hexadecimal digits, to which this thread's namespace has a route alone."""
    with open("/proc/thread-self/net/ipv6_route") as routes:
        fields = (line.split() for line in routes)
        return {to for to, prefix, *_ in fields if prefix == "80"}


def _drain(events: socket.socket) -> None:
    while True:
        try:
            events.recv(1)  # the rest of the message goes with it
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # events were lost: news of its own
                raise


@contextmanager
def _doing(what: str, hints: Mapping[int, str] | None = None) -> Iterator[None]:
    """Turn a netlink error into an ``OSError`` that says what failed.

    ``hints`` gives a cause for an errno that means something else here than it says.
    """
    from pyroute2 import NetlinkError

    try:
        yield
    except NetlinkError as error:
        raise _os_error(what, error.code, str(error.args[1]), hints or {}) from error


def _os_error(what: str, code: int, kernel_says: str, hints: Mapping[int, str]) -> OSError:
    if code in hints:
        return OSError(code, f"cannot {what}: {hints[code]}")
    if code in (errno.EPERM, errno.EACCES):
        return AdapterPermissionError(
            code,
            f"no permission to {what}: it takes CAP_NET_ADMIN in its network namespace; "
            f"run as root, or start the driver service and join group ringtun",
        )
    if code == errno.ENODEV:
        return AdapterNotFound(
            code,
            f"cannot {what}: there is no such interface in this network namespace (any more)",
        )
    return OSError(code, f"cannot {what}: {kernel_says}")
