"""Options that several subcommands have, and how the shell completes their values."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

import click

__all__ = ["adapter_names", "as_json", "netns", "signing"]

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


def signing(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options by which what it makes is signed.

    It gets an ``identity``: a `ringtun.installer.signing.Identity`, or None without ``--sign``.
    """

    @wraps(command)
    def with_identity(
        *args: Any,
        sign: str | None,
        sign_key: str | None,
        sign_chain: str | None,
        sign_password: str | None,
        sign_timestamp: str | None,
        sign_option: tuple[str, ...],
        **others: Any,
    ) -> None:
        further = (sign_key, sign_chain, sign_password, sign_timestamp)
        identity = None
        if sign is not None:
            from ringtun.installer.signing import Identity

            identity = Identity(sign, *further, sign_option)
        elif any(value is not None for value in further) or sign_option:
            raise click.UsageError("The options of signing go with --sign.")
        command(*args, identity=identity, **others)

    existing = click.Path(exists=True, dir_okay=False)
    for option in (
        click.option(
            "--sign-option",
            metavar="OPTION",
            multiple=True,
            help="An option more for osslsigncode, such as -pkcs11module; then one for its value.",
        ),
        click.option("--sign-timestamp", metavar="URL", help="A server of timestamps (RFC 3161)."),
        click.option(
            "--sign-password", metavar="FILE", type=existing, help="A file with its password."
        ),
        click.option(
            "--sign-chain",
            metavar="FILE",
            type=existing,
            help="The certificates between it and a root (PEM).",
        ),
        click.option(
            "--sign-key", metavar="KEY", help="Its key: a file, or what a token calls it."
        ),
        click.option(
            "--sign",
            metavar="CERTIFICATE",
            type=existing,
            help="Sign by osslsigncode with this certificate: PEM, or .p12 or .pfx with its key.",
        ),
    ):
        with_identity = option(with_identity)
    return with_identity
