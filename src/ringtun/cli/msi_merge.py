"""``ringtun msi merge``: merge modules into a package, where a WiX snippet says."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ringtun.cli import complain, printable

__all__ = ["merge"]


def _variables(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE``, each name once."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name or name in found:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE, or is there twice")
        found[name] = text
    return found


@click.command()
@click.argument("package", type=click.Path(dir_okay=False))
@click.argument("snippet", type=click.Path(dir_okay=False))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    required=True,
    help="The package that is made; it may be PACKAGE.",
)
@click.option(
    "-d",
    "--define",
    "variables",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_variables,
    help="What $(var.NAME) in the snippet stands for; may be there several times.",
)
def merge(package: str, snippet: str, output: str, variables: dict[str, str]) -> None:
    """Merge modules into PACKAGE, an .msi, where SNIPPET says.

    SNIPPET is WiX source with DirectoryRef, Merge, Feature and MergeRef, whole or only these
    lines. A feature that it describes and PACKAGE does not have is made.
    """
    from ringtun.installer import Database
    from ringtun.installer.apply import apply
    from ringtun.installer.snippet import Snippet

    said = Snippet.read(snippet, variables)
    database = Database.read(package)
    apply(said, database).write(output)
    modules = ", ".join(module.source for module in said.merges.values())
    click.echo(f"{printable(output)}: with {printable(modules)}")
    if database.signed:
        complain(ValueError(f"{output} is not signed, as {package} was: sign it again"))
