"""``ringtun driver``: the driver service, in the foreground; how it is, and in a system."""

from __future__ import annotations

import errno
import grp
import json
import logging
import os
import sys
from collections.abc import Iterator
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
        from ringtun.service.policy import Configuration, load
        from ringtun.service.serve import run
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


_root = click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Below this directory, with nothing run; for packages and images.",
)
_dry_run = click.option("--dry-run", is_flag=True, help="Say what it would do, and do nothing.")


@driver.command()
@_root
@_dry_run
def install(root: Path | None, dry_run: bool) -> None:
    """Install the service for systemd: units, its user, an example of a configuration.

    Below --root its program is /usr/bin/ringtun, else this one. A file that is there and is not
    this command's own is left as it is.
    """
    from ringtun.service import installation

    managed = _is_managed(root, dry_run)
    program = installation.SHIPPED_PROGRAM if root is not None else installation.program()
    _tell(
        installation.install(root or Path("/"), program=program, managed=managed, dry_run=dry_run),
        dry_run,
    )
    if root is None:
        click.echo("start it with: systemctl enable --now ringtun.socket ringtun.service")
        click.echo("let a user use it with: usermod -aG ringtun USER")
        if not managed:
            click.echo("systemd does not run here: it makes the user ringtun when it does")


@driver.command()
@_root
@_dry_run
def uninstall(root: Path | None, dry_run: bool) -> None:
    """End the service, and remove what `install` wrote and nobody has changed since."""
    from ringtun.service import installation

    managed = _is_managed(root, dry_run)
    _tell(installation.uninstall(root or Path("/"), managed=managed, dry_run=dry_run), dry_run)
    if root is None:
        click.echo("the user ringtun stays; remove it with: userdel ringtun")


def _is_managed(root: Path | None, dry_run: bool) -> bool:
    """Whether systemd is to be told. Raises ``PermissionError`` where it takes root."""
    from ringtun.service import installation

    if root is None and not dry_run and os.geteuid() != 0:
        raise PermissionError(errno.EPERM, "that takes root: run it with sudo, or with --root")
    return root is None and installation.runs_here()


def _tell(steps: Iterator[str], dry_run: bool) -> None:
    if dry_run:
        click.echo("Nothing is done. It would be:")
    for step in steps:
        click.echo(printable(step))
