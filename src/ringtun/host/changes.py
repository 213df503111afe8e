"""Changes of one interface, and a set of them that is undone where one fails."""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ringtun.arguments import MIN_IPV6_MTU, Interface
from ringtun.host.conversation import doing

if TYPE_CHECKING:
    from ringtun.host.netlink import LinkInfo

__all__ = ["Changes", "State", "bring_to", "interface_in"]

# linux/if_addr.h
IFA_F_NODAD: Final = 0x02
IFAPROT_KERNEL_LL: Final = 3
# linux/if_link.h
IN6_ADDR_GEN_MODE_NONE: Final = 1

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


def interface_in(message: Any) -> Interface | None:
    """The address in netlink's message; None for a link-local one of the kernel's making."""
    if message.get_attr("IFA_PROTO") == IFAPROT_KERNEL_LL:
        return None
    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    return ipaddress.ip_interface((address, message["prefixlen"]))


class Changes:
    """One interface in one conversation. Each call is one change, and its error names it."""

    def __init__(self, netlink: Any, info: LinkInfo) -> None:
        self._netlink = netlink
        self._ifindex = info.ifindex
        self._name = info.name

    def addresses(self) -> tuple[Interface, ...]:
        """As they are now, in the kernel's order; without link-local ones of its own making."""
        with doing(f"read the addresses of {self._name}"):
            found = map(interface_in, self._netlink.get_addr(index=self._ifindex))
            return tuple(address for address in found if address is not None)

    def add(self, address: Interface) -> None:
        """One address more, an IPv6 one without duplicate detection."""
        hints, flags = (_IPV6_HINTS, IFA_F_NODAD) if address.version == 6 else (None, 0)
        with doing(f"add {address} to {self._name}", hints):
            self._netlink.addr(
                "add",
                index=self._ifindex,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                flags=flags,
            )

    def remove(self, address: Interface) -> None:
        """One address less, and with an IPv4 one perhaps more of its network: the kernel's rule."""
        with doing(f"remove {address} from {self._name}"):
            self._netlink.addr(
                "del",
                index=self._ifindex,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
            )

    def set_alias(self, alias: str) -> None:
        """Set the free text; "" takes it away."""
        self._set(f"set the alias of {self._name} to {alias!r}", ifalias=alias)

    def set_txqueuelen(self, txqueuelen: int) -> None:
        """Set the packets that queue for a reader."""
        self._set(f"set the queue of {self._name} to {txqueuelen} packets", txqlen=txqueuelen)

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU, in bytes."""
        self._set(f"set the MTU of {self._name} to {mtu} bytes", mtu=mtu)

    def set_addr_gen_mode_none(self) -> None:
        """Keep the kernel from making addresses; nothing to do where there is no IPv6."""
        try:
            self._set(f"switch off automatic addresses on {self._name}", **_ADDR_GEN_MODE_NONE)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise

    def bring_up(self) -> None:
        """Let packets pass."""
        self._set(f"bring {self._name} up", state="up")

    def take_down(self) -> None:
        """Let none pass; it loses its IPv6 addresses."""
        self._set(f"take {self._name} down", state="down")

    def move(self, descriptor: int, name: str) -> None:
        """Move it into another network namespace, where it makes no addresses by itself."""
        what = f"move {name} into the network namespace asked for"
        try:
            self._set(what, net_ns_fd=descriptor, ifname=name, **_ADDR_GEN_MODE_NONE)
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:  # it has no IPv6
                raise
            self._set(what, net_ns_fd=descriptor, ifname=name)

    def _set(self, what: str, **attributes: Any) -> None:
        with doing(what):
            self._netlink.link("set", index=self._ifindex, **attributes)


@dataclass(frozen=True, slots=True)
class State:
    """What an interface is set to."""

    alias: str
    txqueuelen: int
    mtu: int
    addresses: tuple[Interface, ...]
    up: bool


def bring_to(asked: Mapping[str, Any], look: Callable[[], State], changes: Changes) -> None:
    """Bring the fields of `State` that are ``asked`` to what a ``look`` finds.

    Where a change fails, back again.

    Raises the error of the change that failed. Where something could not be undone, the message
    goes on with what.
    """
    former = look()
    try:
        _bring(replace(former, **asked), former, changes, _just_do)
    except OSError as error:
        not_undone: list[str] = []
        try:
            reached = look()
        except OSError:  # the interface is gone
            raise error from None

        def as_far_as_possible(change: Callable[[], object]) -> None:
            try:
                change()
            except OSError as failure:
                not_undone.append(str(failure.strerror or failure))

        _bring(former, reached, changes, as_far_as_possible)
        if not not_undone:
            raise
        raise type(error)(
            error.errno, f"{error.strerror}; and not all could be undone: {'; '.join(not_undone)}"
        ) from error


_Attempt: TypeAlias = Callable[[Callable[[], object]], None]


def _just_do(change: Callable[[], object]) -> None:
    change()


def _bring(wanted: State, former: State, changes: Changes, attempt: _Attempt) -> None:
    """The changes in the order in which they work.

    Down comes first and up last: no packet meets an interface half done. The addresses are looked
    at again before some are added: going down and a small MTU cost it its IPv6 addresses, and an
    IPv4 address that goes may take others with it.
    """
    here: tuple[Interface, ...] = ()

    def look() -> None:
        nonlocal here
        here = changes.addresses()

    if former.up and not wanted.up:
        attempt(changes.take_down)
    attempt(look)
    for address in here:
        if address not in wanted.addresses:
            attempt(look)
            if address in here:
                attempt(partial(changes.remove, address))
    if wanted.alias != former.alias:
        attempt(partial(changes.set_alias, wanted.alias))
    if wanted.txqueuelen != former.txqueuelen:
        attempt(partial(changes.set_txqueuelen, wanted.txqueuelen))
    if wanted.mtu != former.mtu:
        attempt(partial(changes.set_mtu, wanted.mtu))
        if former.mtu < MIN_IPV6_MTU <= wanted.mtu:
            attempt(changes.set_addr_gen_mode_none)  # IPv6 is back, with the kernel's defaults
    attempt(look)
    for address in wanted.addresses:
        if address not in here:
            attempt(partial(changes.add, address))
    if wanted.up and not former.up:
        attempt(changes.bring_up)
