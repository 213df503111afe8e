"""Options that several subcommands have, and how the shell completes their values."""

from __future__ import annotations

import os
from contextlib import suppress

import click

__all__ = ["adapter_names", "as_json", "netns"]

NAMED_NAMESPACES = "/run/netns"


def adapter_names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The adapters there are, but for those already on the line; none where that cannot be told."""
    with suppress(Exception):
        import ringtun

        given = ctx.params.get(param.name or "") or ()
        adapters = ringtun.list_adapters(netns=ctx.params.get("netns"))
        names = (adapter.name for adapter in adapters if adapter.name.isprintable())
        return [name for name in names if name.startswith(incomplete) and name not in given]
    return []


def _namespaces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The namespaces that have a name."""
    with suppress(OSError):
        names = sorted(os.listdir(NAMED_NAMESPACES))
        return [name for name in names if name.startswith(incomplete) and name.isprintable()]
    return []


netns = click.option(
    "--netns",
    metavar="NS",
    shell_complete=_namespaces,
    help="The network namespace: a name, as `ip netns` has it, or a path. This one by default.",
)
as_json = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document, and nothing else."
)
