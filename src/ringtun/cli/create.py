"""``ringtun create``: an adapter that stays."""

from __future__ import annotations

import grp
import json
import pwd

import click

import ringtun
from ringtun.cli import options, printable, words

__all__ = ["create"]


@click.command()
@click.argument("name")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="A/P",
    help="An IPv4 or IPv6 address with its prefix, 10.7.0.1/24. May be given several times.",
)
@click.option("--mtu", type=int, help="Bytes of the largest packet: 68 to 65535, 1500 by default.")
@click.option("--guid", help="A UUID by which to know it again; a random one by default.")
@click.option("--down", is_flag=True, help="Leave it down.")
@click.option("--owner", metavar="USER", help="Who may open it: a name or a number; you, else.")
@click.option("--group", metavar="GROUP", help="Whose members may open it: a name or a number.")
@click.option(
    "--txqueuelen",
    type=int,
    default=5000,
    show_default=True,
    help="Packets that the kernel keeps for a program before it drops.",
)
@options.netns
@click.option("--exist-ok", is_flag=True, help="Where it is there, make it what this asks for.")
@options.as_json
def create(
    name: str,
    addresses: tuple[str, ...],
    mtu: int | None,
    guid: str | None,
    down: bool,
    owner: str | None,
    group: str | None,
    txqueuelen: int,
    netns: str | None,
    exist_ok: bool,
    as_json: bool,
) -> None:
    """Make a TUN adapter NAME that stays until it is deleted.

    It takes root (CAP_NET_ADMIN). The programs of its owner or group then open it without.
    """
    with ringtun.create_adapter(
        name,
        addresses=addresses,
        mtu=mtu,
        guid=guid,
        up=not down,
        exist_ok=exist_ok,
        persist=True,
        owner=None if owner is None else _user_id(owner),
        group=None if group is None else _group_id(group),
        txqueuelen=txqueuelen,
        netns=netns,
    ) as adapter:
        info = adapter.info()
    if as_json:
        click.echo(json.dumps(info.as_dict(), indent=2))
    else:
        click.echo(_made(info, netns))


def _made(info: ringtun.AdapterInfo, netns: str | None) -> str:
    where = "" if netns is None else f", netns={netns!r}"
    name = printable(info.name)
    return (
        f"{name} is there: {words.addresses(info)}, MTU {info.mtu}, "
        f"{'up' if info.up else 'down'}. Open to {words.holders(info)}: "
        f'ringtun.open_adapter("{name}"{where})'
    )


def _user_id(user: str) -> int:
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {user!r} here; a number does as well") from None


def _group_id(group: str) -> int:
    if group.isascii() and group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ValueError(f"there is no group {group!r} here; a number does as well") from None
