"""``ringtun show``: all about one adapter."""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

import ringtun
from ringtun.cli import options, printable, words

if TYPE_CHECKING:
    from ringtun.host.netlink import LinkInfo
    from ringtun.host.offload import Offload

__all__ = ["show"]

COUNTERS = ("tx_packets", "tx_dropped", "rx_packets", "rx_dropped")


@click.command()
@click.argument("name", shell_complete=options.adapter_names)
@options.netns
@options.as_json
def show(name: str, netns: str | None, as_json: bool) -> None:
    """Show all about the TUN adapter NAME: what it is set to, and what the kernel counted."""
    info = _find(name, netns)
    link, offload = _link(info, netns)
    counters = {counter: getattr(link, counter) for counter in COUNTERS}
    if as_json:
        more = {"kernel": counters, "offload": offload and offload.as_dict()}
        click.echo(json.dumps({**info.as_dict(), **more}, indent=2))
        return
    lines = _lines(info, counters, offload)
    width = max(map(len, lines))
    for label, text in lines.items():
        click.echo(f"{click.style(f'{label:<{width}}', bold=True)}  {text}")


def _find(name: str, netns: str | None) -> ringtun.AdapterInfo:
    for info in ringtun.list_adapters(netns=netns):
        if info.name == name:
            return info
    where = "this network namespace" if netns is None else f"network namespace {netns!r}"
    raise ringtun.AdapterNotFound(
        errno.ENODEV, f"there is no TUN adapter {name!r} in {where}; see: ringtun list"
    )


def _link(info: ringtun.AdapterInfo, netns: str | None) -> tuple[LinkInfo, Offload | None]:
    from ringtun.host.namespace import Namespace
    from ringtun.host.netlink import Link
    from ringtun.host.offload import offload_of

    offload = None
    with Namespace.current() if netns is None else Namespace.named(netns) as namespace:
        with suppress(OSError):
            offload = offload_of(namespace, info.name)
        return Link(namespace, info.ifindex).info(), offload


def _lines(
    info: ringtun.AdapterInfo, kernel: dict[str, Any], offload: Offload | None
) -> dict[str, str]:
    return {
        "name": f"{printable(info.name)} (interface {info.ifindex})",
        "made by": f"ringtun, as {info.guid}" if info.guid else "another program",
        "state": words.state(info),
        "addresses": words.addresses(info),
        "mtu": f"{info.mtu:,} bytes",
        "stays": "until it is deleted" if info.persistent else "as long as its program",
        "open to": words.holders(info),
        "queue": f"{info.txqueuelen:,} packets",
        "offload": words.offload(info, offload),
        "from the host": (
            f"{kernel['tx_packets']:,} packets; {kernel['tx_dropped']:,} dropped, "
            "the queue being full or no session running"
        ),
        "to the host": (
            f"{kernel['rx_packets']:,} packets; {kernel['rx_dropped']:,} that it refused"
        ),
    }
