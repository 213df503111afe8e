"""Checks of the adapters there are."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringtun.doctor.finding import OK, PROBLEM, WARNING, Finding
from ringtun.doctor.system import TUN_NODE, has_net_admin

if TYPE_CHECKING:
    from ringtun import AdapterInfo
    from ringtun.host.namespace import Namespace

__all__ = ["drops", "one", "queues"]

SHORT_QUEUE: Final = 1000
LONG_QUEUE: Final = 5000
RATE: Final = 1e9  # bits per second, by which a queue is judged


def queues(adapters: Sequence[AdapterInfo]) -> Iterator[Finding]:
    """Queues that a short pause of the program overflows."""
    short = [info for info in adapters if info.txqueuelen < SHORT_QUEUE]
    for info in short:
        lasts = info.txqueuelen * info.mtu * 8 / RATE
        yield Finding(
            "queue",
            WARNING,
            f"Adapter {info.name} queues {info.txqueuelen:,} packets: at 1 Gbit/s a pause of "
            f"{lasts * 1000:.2g} ms in its program loses packets of {info.mtu:,} bytes.",
            f"ip link set {info.name} txqueuelen {LONG_QUEUE}",
        )
    if not short:
        message = f"{_adapters(len(adapters))} with a queue that is too short."
        yield Finding("queue", OK, message)


def drops(adapters: Sequence[AdapterInfo]) -> Iterator[Finding]:
    """Packets that the kernel dropped before a program could read them."""
    lossy = [info for info in adapters if info.host_drops]
    for info in lossy:
        yield Finding(
            "drops",
            WARNING,
            f"The kernel dropped {_packets(info.host_drops)} for adapter {info.name} since it was "
            f"made: its queue of {_packets(info.txqueuelen)} was full, or no session ran.",
            "Start the session before the traffic, receive in batches, use "
            f'pump="thread", or: ip link set {info.name} txqueuelen {2 * info.txqueuelen}',
        )
    if not lossy:
        yield Finding("drops", OK, f"{_adapters(len(adapters))} with packets that were dropped.")


def one(name: str, adapters: Sequence[AdapterInfo], namespace: Namespace) -> Iterator[Finding]:
    """Whether this process could open the adapter ``name``, and whether packets would pass."""
    info = next((info for info in adapters if info.name == name), None)
    if info is None:
        yield Finding(
            "adapter",
            PROBLEM,
            f"There is no TUN adapter {name!r} in {namespace}.",
            f"ringtun create {name} --address 10.7.0.1/24",
        )
        return
    found = [*_closed_to_us(info, namespace), *_held(info, namespace), *_down(info)]
    yield from found
    if not found:
        yield Finding("adapter", OK, f"Adapter {name} is up, and this process may open it.")


def _closed_to_us(info: AdapterInfo, namespace: Namespace) -> Iterator[Finding]:
    ours = info.owner in (None, os.geteuid())
    groups = info.group is None or info.group in (os.getegid(), *os.getgroups())
    if not (ours and groups) and not namespace.run(has_net_admin):
        to = [f"user {info.owner}"] if info.owner is not None else []
        to += [f"group {info.group}"] if info.group is not None else []
        yield Finding(
            "adapter",
            PROBLEM,
            f"Adapter {info.name} is open to {' in '.join(to)} only, and to root.",
            "Run as that user or as root, or have root make it anew: "
            f"ringtun create {info.name} --owner USER",
        )


def _held(info: AdapterInfo, namespace: Namespace) -> Iterator[Finding]:
    held = info.connected or not info.persistent
    # Of an adapter that may be free, a program elsewhere may have a namesake.
    programs = list(_holders(info.name, None if held else namespace.inode()))
    if programs or held:
        by = f": {', '.join(programs)}" if programs else ""
        yield Finding(
            "adapter",
            WARNING,
            f"A program has adapter {info.name} open{by}; another one gets AdapterBusy meanwhile.",
            "End that program, or take another adapter",
        )


def _holders(name: str, inode: int | None = None) -> Iterator[str]:
    """The programs with an adapter of that name open, as far as this user may see.

    With ``inode``, only those that run in that network namespace.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if inode not in (None, (process / "ns/net").stat().st_ino):
                continue
            if _holds(process, name):
                yield f"process {process.name} ({(process / 'comm').read_text().strip()})"


def _holds(process: Path, name: str) -> bool:
    for descriptor in os.listdir(process / "fd"):
        with suppress(OSError):
            if os.readlink(process / "fd" / descriptor) == str(TUN_NODE):
                said = (process / "fdinfo" / descriptor).read_bytes()
                if b"iff:\t" + os.fsencode(name) in said.splitlines():
                    return True
    return False


def _down(info: AdapterInfo) -> Iterator[Finding]:
    if not info.up:
        yield Finding(
            "adapter",
            WARNING,
            f"Adapter {info.name} is down: no packet passes.",
            f"ip link set {info.name} up",
        )


def _adapters(count: int) -> str:
    return f"Of {count} TUN adapter{'' if count == 1 else 's'} here, none"


def _packets(count: int) -> str:
    return f"{count:,} packet{'' if count == 1 else 's'}"
