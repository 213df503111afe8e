"""An adapter in words."""

from __future__ import annotations

import grp
import pwd
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import zip_longest
from typing import TYPE_CHECKING

import click

from ringtun.cli import printable

if TYPE_CHECKING:
    from ringtun import AdapterInfo
    from ringtun.host.offload import Offload

__all__ = ["addresses", "holders", "offload", "show_adapters", "state", "table"]

HEADING = ("NAME", "STATE", "ADDRESSES", "MTU", "OPEN TO", "QUEUE", "DROPPED")


def state(info: AdapterInfo) -> str:
    """Whether packets pass."""
    if not info.up:
        return "down"
    return "connected" if info.connected else "up, no session"


def addresses(info: AdapterInfo) -> str:
    """Its addresses in a line."""
    return ", ".join(map(str, info.addresses)) or "no address"


def holders(info: AdapterInfo) -> str:
    """Who may open it: whoever it was made for, by name where that can be told."""
    if not info.persistent:
        return "the program that made it"
    found = []
    if info.owner is not None:
        found.append(f"user {_user(info.owner)}")
    if info.group is not None:
        found.append(f"group {_group(info.group)}")
    return " in ".join(found) or "everybody"


def _user(uid: int) -> str:
    with suppress(KeyError, OverflowError):
        return printable(pwd.getpwuid(uid).pw_name)
    return str(uid)


def _group(gid: int) -> str:
    with suppress(KeyError, OverflowError):
        return printable(grp.getgrgid(gid).gr_name)
    return str(gid)


def offload(info: AdapterInfo, found: Offload | None) -> str:
    """What the kernel leaves to the program."""
    if found is None:
        return "the kernel does not say"
    kinds = {"TCP": found.tcp, "UDP": found.udp, "checksums": found.checksum}
    *some, last = [kind for kind, there in kinds.items() if there] or ["none"]
    if last == "none" and not info.connected:
        last = "none, as long as no session runs"
    return f"{', '.join(some)} and {last}" if some else last


def table(heading: Sequence[str], rows: Iterable[Sequence[str | Sequence[str]]]) -> list[str]:
    """Lines with columns under a heading. A cell of several texts takes as many lines."""
    lines: list[tuple[str, ...]] = [tuple(heading)]
    for row in rows:
        cells = [[cell] if isinstance(cell, str) else cell for cell in row]
        lines += zip_longest(*cells, fillvalue="")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def show_adapters(adapters: Iterable[AdapterInfo]) -> None:
    """Print a line for each."""
    heading, *rows = table(HEADING, map(_row, adapters))
    click.secho(heading, bold=True)
    click.echo("\n".join(rows))


def _row(info: AdapterInfo) -> tuple[str | tuple[str, ...], ...]:
    return (
        printable(info.name),
        state(info),
        tuple(map(str, info.addresses)) or "-",
        str(info.mtu),
        holders(info),
        f"{info.txqueuelen:,}",
        f"{info.host_drops:,}",
    )
