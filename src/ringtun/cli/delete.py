"""``ringtun delete``: take adapters away."""

from __future__ import annotations

import sys

import click

import ringtun
from ringtun.cli import complain, options

__all__ = ["delete"]


@click.command()
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, shell_complete=options.adapter_names
)
@click.option("--missing-ok", is_flag=True, help="One that is not there is no failure.")
@options.netns
def delete(names: tuple[str, ...], missing_ok: bool, netns: str | None) -> None:
    """Take TUN adapters away, whoever made them and whether or not a program holds them.

    Interfaces of another kind are refused. Where one fails the others still go.
    """
    failed = False
    for name in names:
        try:
            ringtun.delete_adapter(name, missing_ok=missing_ok, netns=netns)
        except (ringtun.RingtunError, OSError, ValueError) as error:
            complain(error)
            failed = True
    sys.exit(failed)
