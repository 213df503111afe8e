"""``ringtun list``: the adapters there are."""

from __future__ import annotations

import json

import click

import ringtun
from ringtun.cli import options, printable, words

__all__ = ["list"]


@click.command()
@options.netns
@options.as_json
def list(netns: str | None, as_json: bool) -> None:
    """List the TUN adapters of a network namespace, whoever made them."""
    adapters = ringtun.list_adapters(netns=netns)
    if as_json:
        click.echo(json.dumps([info.as_dict() for info in adapters], indent=2))
    elif not adapters:
        where = "this network namespace" if netns is None else f"network namespace {netns}"
        click.echo(f"there is no TUN adapter in {printable(where)}", err=True)
    else:
        words.show_adapters(adapters)
