"""Who may do what with the driver service's adapters, and its configuration file.

A file says which adapters there are from the start, who may open each, who may make which, and how
much everybody may take. Without one, whoever reaches the control socket may make adapters, and has
those alone.
"""

from __future__ import annotations

import fnmatch
import grp
import pwd
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ringtun import arguments
from ringtun.arguments import Interface
from ringtun.service.peer import Peer
from ringtun.service.quota import Limits

__all__ = ["Configuration", "ConfigurationError", "Grant", "Holders", "StartAdapter", "load"]

ROOT = 0
_SPIN_MAX = 10_000  # microseconds


class ConfigurationError(ValueError):
    """The file cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Holders:
    """Users and groups, by their numbers. Root is among all."""

    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()

    def __contains__(self, peer: Peer) -> bool:
        return peer.uid == ROOT or peer.uid in self.users or bool(peer.groups & self.groups)


@dataclass(frozen=True, slots=True)
class Grant:
    """``holders`` may make adapters whose names fit one of ``create``, shell patterns."""

    holders: Holders | None
    """None: whoever reaches the control socket."""
    create: tuple[str, ...]

    def allows(self, peer: Peer, name: str) -> bool:
        """Whether this lets ``peer`` make an adapter of that name."""
        return (self.holders is None or peer in self.holders) and any(
            fnmatch.fnmatchcase(name, pattern) for pattern in self.create
        )


@dataclass(frozen=True, slots=True)
class StartAdapter:
    """An adapter that is there as long as the service."""

    name: str
    addresses: tuple[Interface, ...]
    mtu: int | None
    txqueuelen: int
    holders: Holders


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the service is told."""

    group: int | None = None
    """Whose members reach the sockets; None: the service's own user alone."""
    spin: float = 0.0
    """Seconds that a thread which has moved packets looks for more before it waits."""
    limits: Limits = field(default_factory=Limits)
    adapters: tuple[StartAdapter, ...] = ()
    grants: tuple[Grant, ...] = (Grant(None, ("*",)),)

    def may_create(self, peer: Peer, name: str) -> bool:
        """Whether ``peer`` may make an adapter called ``name``."""
        return peer.uid == ROOT or any(grant.allows(peer, name) for grant in self.grants)


def load(path: Path) -> Configuration:
    """Read a file. Raises `ConfigurationError`, ``OSError``."""
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
    try:
        return _configuration(document)
    except (ValueError, TypeError, LookupError) as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _configuration(document: Mapping[str, Any]) -> Configuration:
    _only("the file", document, {"group", "spin_us", "limits", "adapter", "grant"})
    default = Configuration()
    grants = tuple(map(_grant, _tables(document, "grant")))
    return Configuration(
        group=_group(document["group"]) if "group" in document else None,
        spin=_spin(document.get("spin_us", 0)),
        limits=_limits(document.get("limits", {})),
        adapters=tuple(map(_adapter, _tables(document, "adapter"))),
        grants=grants if "grant" in document else default.grants,
    )


def _adapter(table: Mapping[str, Any]) -> StartAdapter:
    _only("[[adapter]]", table, {"name", "addresses", "mtu", "txqueuelen", "users", "groups"})
    if "name" not in table:
        raise ValueError("an [[adapter]] has a name")
    name = table["name"]
    arguments.check_name(name)
    try:
        addresses = arguments.check_addresses(table.get("addresses", ()))
        arguments.check_mtu(table.get("mtu"), addresses)
        txqueuelen = table.get("txqueuelen", 5000)
        arguments.check_txqueuelen(txqueuelen)
        holders = _holders(table)
    except (ValueError, TypeError) as error:
        raise ValueError(f"adapter {name}: {error}") from None
    return StartAdapter(name, addresses, table.get("mtu"), txqueuelen, holders)


def _grant(table: Mapping[str, Any]) -> Grant:
    _only("[[grant]]", table, {"users", "groups", "create"})
    return Grant(_holders(table), tuple(_texts(table, "create")))


def _spin(microseconds: object) -> float:
    if isinstance(microseconds, bool) or not isinstance(microseconds, int):
        raise ValueError(f"spin_us is a number of microseconds, not {microseconds!r}")
    if not 0 <= microseconds <= _SPIN_MAX:
        raise ValueError(f"spin_us is from 0 to {_SPIN_MAX}, not {microseconds}")
    return microseconds / 1e6


def _limits(table: Mapping[str, Any]) -> Limits:
    _only("[limits]", table, {field.name for field in fields(Limits)})
    for name, value in table.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"limits.{name} is a number, not {value!r}")
    return Limits(**table)


def _holders(table: Mapping[str, Any]) -> Holders:
    return Holders(
        frozenset(map(_user, _texts(table, "users", numbers=True))),
        frozenset(map(_group, _texts(table, "groups", numbers=True))),
    )


def _user(name: str | int) -> int:
    return _number("user", name, lambda text: pwd.getpwnam(text).pw_uid)


def _group(name: str | int) -> int:
    return _number("group", name, lambda text: grp.getgrnam(text).gr_gid)


def _number(kind: str, name: str | int, find: Callable[[str], int]) -> int:
    if isinstance(name, int) and not isinstance(name, bool) and 0 <= name < 1 << 32:
        return name
    if not isinstance(name, str):
        raise ValueError(f"a {kind} is a name or a number, not {name!r}")
    try:
        return find(name)
    except KeyError:
        raise ValueError(f"there is no {kind} {name!r} on this machine") from None


def _texts(table: Mapping[str, Any], key: str, *, numbers: bool = False) -> list[Any]:
    value = table.get(key, [])
    kinds = (str, int) if numbers else (str,)
    if not isinstance(value, list) or not all(isinstance(each, kinds) for each in value):
        raise ValueError(f"{key} is a list of names, not {value!r}")
    return value


def _tables(document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(f"{key} is written [[{key}]], once for each")
    return value


def _only(where: str, table: Mapping[str, Any], known: set[str]) -> None:
    if not isinstance(table, dict):
        raise ValueError(f"{where} is a table")
    for key in table:
        if key not in known:
            names = ", ".join(sorted(known))
            raise ValueError(f"{where} has no {key!r}; there are {names}")
