"""Arguments of the public calls on adapters, checked before anything is done.

Each raises ``TypeError`` for a value of another type, ``ValueError`` for one that cannot be; both
say what would be right.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, TypeAlias

from ringtun import abi

if TYPE_CHECKING:
    import uuid

__all__ = [
    "MIN_IPV6_MTU",
    "Address",
    "Interface",
    "check_addresses",
    "check_flags",
    "check_guid",
    "check_identity",
    "check_mtu",
    "check_name",
    "check_netns",
    "check_offload_mtu",
    "check_session",
    "check_txqueuelen",
]

MAX_TXQUEUELEN: Final = 1 << 19  # the kernel keeps an array of so many pointers, of 4 MiB at most
MAX_ID: Final = 0xFFFFFFFE
MIN_MTU: Final = 68
MAX_MTU: Final = 65535
MAX_OFFLOAD_MTU: Final = 65520  # with its header, a packet still fits a slot
MIN_IPV6_MTU: Final = 1280  # RFC 8200; with a smaller one the kernel takes IPv6 away
MAX_NAME: Final = 15  # IFNAMSIZ of linux/if.h, less its end

Interface: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address: TypeAlias = str | Interface


def check_name(name: str) -> None:
    """An interface's name, which the kernel takes literally.

    That is 1 to 15 bytes without "/", ":", white space, and not "." or "..", nor "all" or
    "default", which stand for interfaces in sysctls. "%" is refused too: to the kernel "tun%d" is a
    template for a name of its own choice.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is a string, not {name!r}")
    if not _encodes(name):
        raise ValueError(f"interface name {name!r} has characters that no name can have")
    size = len(os.fsencode(name))
    if not 0 < size <= MAX_NAME:
        raise ValueError(f"interface name {name!r} has {size} bytes, not 1 to {MAX_NAME}")
    if name in (".", "..", "all", "default"):
        raise ValueError(f"{name!r} is no interface name")
    for character in name:
        if character in "/:%\0" or character.isspace():
            raise ValueError(f"interface name {name!r} contains {character!r}")


def check_netns(netns: str | None) -> None:
    """The name or path of a network namespace."""
    if netns is None:
        return
    if not isinstance(netns, str):
        raise TypeError(f"netns is a string, not {netns!r}")
    if netns in ("", ".", "..") or "\0" in netns or not _encodes(netns):
        raise ValueError(f"netns {netns!r} is neither a name, as of `ip netns`, nor a path")


def check_addresses(addresses: Iterable[Address]) -> tuple[Interface, ...]:
    """Addresses with their prefixes, each once; as interfaces."""
    if isinstance(addresses, (str, ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
        raise TypeError(f'addresses is a list: ["{addresses}"]')
    if not isinstance(addresses, Iterable):
        raise TypeError(f'addresses is a list, as in ["10.7.0.1/24"], not {addresses!r}')
    interfaces = tuple(_interface(address) for address in addresses)
    seen: set[object] = set()
    for interface in interfaces:
        # The kernel has an IPv6 address once, an IPv4 one once with each prefix.
        key = interface.ip if interface.version == 6 else interface
        if key in seen:
            raise ValueError(f"address {interface} is there twice")
        seen.add(key)
    return interfaces


def _interface(address: Address) -> Interface:
    if not isinstance(address, (str, ipaddress.IPv4Interface, ipaddress.IPv6Interface)):
        raise TypeError(f"an address is a string with its prefix, or an interface, not {address!r}")
    if isinstance(address, str) and "/" not in address:
        prefix = 64 if ":" in address else 24
        raise ValueError(f"address {address!r} lacks its prefix: write {address}/{prefix}, say")
    try:
        interface = ipaddress.ip_interface(address)
    except ValueError as error:
        raise ValueError(f"address {address!r} is none: {error}") from None
    if isinstance(interface, ipaddress.IPv6Interface) and interface.scope_id:
        raise ValueError(f"address {interface} names an interface: leave %{interface.scope_id} out")
    if interface.ip.is_unspecified or interface.ip.is_multicast:
        raise ValueError(f"address {interface} is none that a host can have")
    return interface


def check_mtu(mtu: int | None, addresses: Iterable[Interface]) -> None:
    """Bytes of the largest packet, for an adapter with these addresses."""
    if mtu is None:
        return
    _check_number("mtu", mtu, MIN_MTU, MAX_MTU, "bytes")
    if mtu < MIN_IPV6_MTU and any(interface.version == 6 for interface in addresses):
        raise ValueError(
            f"IPv6 needs an mtu of at least {MIN_IPV6_MTU} bytes, not {mtu}: "
            "a larger one, or no IPv6 address"
        )


def check_txqueuelen(txqueuelen: int) -> None:
    """Packets that the kernel keeps for a reader."""
    _check_number("txqueuelen", txqueuelen, 1, MAX_TXQUEUELEN, "packets")


def check_identity(persist: bool, owner: int | None, group: int | None) -> None:
    """Whose an adapter is to be."""
    for kind, identity in (("owner", owner), ("group", group)):
        if identity is not None:
            _check_number(kind, identity, 0, MAX_ID, "as a numeric id")
            if not persist:
                raise ValueError(f"{kind} is for an adapter with persist=True")


def check_guid(guid: str | uuid.UUID | None) -> uuid.UUID | None:
    """An adapter's fixed identity."""
    import uuid

    if guid is None or isinstance(guid, uuid.UUID):
        return guid
    if not isinstance(guid, str):
        raise TypeError(f"guid is a UUID or a string of one, not {guid!r}")
    try:
        return uuid.UUID(guid)
    except ValueError:
        raise ValueError(
            f"guid {guid!r} is no UUID: 32 hexadecimal digits, "
            "as in 6ba7b810-9dad-11d1-80b4-00c04fd430c8"
        ) from None


def check_flags(**flags: bool) -> None:
    """Whether each is True or False, nothing else."""
    for flag, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(f"{flag} is True or False, not {value!r}")


def check_session(capacity: int | None, pump: str, spin: float) -> None:
    """What a session is started with."""
    if pump not in ("inline", "thread"):
        raise ValueError(f'pump is "inline" or "thread", not {pump!r}')
    if not isinstance(spin, (int, float)) or not 0 <= spin <= 1:
        raise ValueError(f"spin is a time from 0 to 1 second, not {spin!r}")
    if capacity is None:
        return
    if not isinstance(capacity, int) or not abi.is_capacity(capacity):
        raise ValueError(
            "capacity is a power of two from 131072 (128 KiB) to 67108864 (64 MiB), "
            f"not {capacity!r}"
        )


def _encodes(text: str) -> bool:
    """Whether the system has bytes for it: of the surrogates, for those of its own making alone."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def check_offload_mtu(mtu: int) -> None:
    """The MTU of an adapter whose packets have an offload header before them in a slot."""
    if mtu > MAX_OFFLOAD_MTU:
        raise ValueError(
            f"offload=True takes an mtu of at most {MAX_OFFLOAD_MTU} bytes, and it is {mtu}"
        )


def _check_number(argument: str, value: object, least: int, most: int, unit: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} is an integer, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{argument} is {least} to {most} {unit}, not {value}")
