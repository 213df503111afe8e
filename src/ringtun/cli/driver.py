"""``ringtun driver``: the driver service, in the foreground; and how it is."""

from __future__ import annotations

import grp
import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from ringtun.cli import options, printable, words

__all__ = ["driver"]

CONFIGURATION = Path("/etc/ringtun/driver.toml")
GROUP = "ringtun"


@click.group(invoke_without_command=True)
@click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help=f"Its configuration.  [default: {CONFIGURATION}, where there is one]",
)
@click.option(
    "--runtime-directory",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="RINGTUN_RUNTIME_DIRECTORY",
    default=Path("/run/ringtun"),
    show_default=True,
    help="Where its sockets are.",
)
@click.option(
    "--group",
    metavar="GROUP",
    help=f"Who reaches its sockets.  [default: the configuration's, or {GROUP}]",
)
@click.option("--quiet", is_flag=True, help="Say what went wrong, and nothing else.")
@click.pass_context
def driver(
    ctx: click.Context, config: Path | None, directory: Path, group: str | None, quiet: bool
) -> None:
    """Run the driver service: adapters for programs without rights, until Ctrl-C.

    Its options are the service's; of the commands, `status` heeds the directory.
    """
    if ctx.invoked_subcommand is None:
        _run(config, directory, group, quiet)


def _run(config: Path | None, directory: Path, group: str | None, quiet: bool) -> None:
    try:
        from ringtun.service import run
        from ringtun.service.policy import Configuration, load
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"the driver service needs {error.name}: pip install 'ringtun[driver]'"
        ) from None
    if config is None and CONFIGURATION.exists():
        config = CONFIGURATION
    configuration = Configuration() if config is None else load(config)
    if group is not None or configuration.group is None:
        configuration = replace(configuration, group=_group(group))
    logging.basicConfig(
        stream=sys.stderr, format="%(message)s", level=logging.WARNING if quiet else logging.INFO
    )
    logging.captureWarnings(True)
    run(configuration, directory)


def _group(name: str | None) -> int | None:
    try:
        return grp.getgrnam(name or GROUP).gr_gid
    except KeyError:
        if name is None:
            return None  # the service's own user alone
        raise click.BadParameter(
            f"there is no group {name!r}: make it with groupadd --system {name}",
            param_hint="--group",
        ) from None


@driver.command()
@options.as_json
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Say whether a service answers, and which of its adapters are yours to open.

    Exit status 1 where none does, or not to you.
    """
    from ringtun.control import service

    assert ctx.parent is not None
    found = service.status(os.fspath(ctx.parent.params["directory"]))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
        return
    click.echo(f"The driver service answers at {found.socket}: ringtun {printable(found.version)}.")
    if found.adapters:
        click.echo("You may open:")
        words.show_adapters(found.adapters)
    else:
        click.echo("It has no adapter that you may open.")
