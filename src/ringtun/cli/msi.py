"""``ringtun msi``: packages and modules of Windows Installer."""

from __future__ import annotations

import datetime as dt
import json
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click

from ringtun.cli import options, printable
from ringtun.cli.msi_merge import merge

if TYPE_CHECKING:
    from ringtun.installer import Database
    from ringtun.installer.describe import Action
    from ringtun.installer.rules import Finding

__all__ = ["msi"]

COLORS = {"warning": "yellow", "error": "red"}
# What the bits of the summary's words say: without, and with.
SOURCE = {
    1: ("long names", "short names"),
    2: ("files not compressed", "files compressed"),
    4: ("a package", "an administrative image"),
    8: ("elevated", "without elevation"),
}


@click.group()
def msi() -> None:
    """Packages and modules of Windows Installer, on any system."""


msi.add_command(merge)


@msi.command()
@click.argument("file", type=click.Path(dir_okay=False))
@options.as_json
def inspect(file: str, as_json: bool) -> None:
    """Show what is in FILE, an .msi or .msm: summary, tables, files, sequences, streams."""
    from ringtun.installer import Database
    from ringtun.installer.describe import describe

    database = Database.read(file)
    if as_json:
        click.echo(json.dumps(describe(database), indent=2))
    else:
        _show(database)


@msi.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--strict", is_flag=True, help="Warnings count as errors do.")
@options.as_json
def check(file: str, strict: bool, as_json: bool) -> None:
    """Say what in FILE, an .msi or .msm, breaks the rules that such files keep to.

    Exit status 1 where there is an error; a warning is none, but with `--strict`.
    """
    from ringtun.installer import Database
    from ringtun.installer.rules import check, report

    findings = check(Database.read(file))
    if as_json:
        click.echo(json.dumps(report(findings), indent=2))
    else:
        _list(findings)
    if any(strict or finding.severity == "error" for finding in findings):
        sys.exit(1)


def _list(findings: Sequence[Finding]) -> None:
    for finding in findings:
        severity = click.style(f"{finding.severity:<7}", fg=COLORS[finding.severity])
        ice = f" ({finding.ice})" if finding.ice else ""
        place = [part for part in (finding.table, finding.row) if part is not None]
        where = f"{' '.join(place)}: " if place else ""
        click.echo(f"{severity}  {finding.rule}{ice}: {printable(where + finding.message)}")
    errors = sum(finding.severity == "error" for finding in findings)
    click.echo(f"{_many(errors, 'error')}, {_many(len(findings) - errors, 'warning')}.")


def _show(database: Database) -> None:
    from ringtun.installer.describe import files, is_module, sequences

    kind = "A merge module" if is_module(database) else "An installation"
    click.echo(f"{kind}, {'signed' if database.signed else 'not signed'}.")
    _section("Summary", (_property(number, value) for number, value in database.summary.items()))
    _section(
        "Tables",
        (
            (name, _many(len(table), "row"), ", ".join(column.name for column in table.columns))
            for name, table in sorted(database.tables.items())
        ),
    )
    _section(
        "Files",
        (
            (file.path, _size(file.size), "" if file.version is None else f"version {file.version}")
            for file in files(database)
        ),
    )
    for name, actions in sequences(database).items():
        _section(name, ((_when(action), str(action.action), _if(action)) for action in actions))
    streams = sorted(database.streams.items())
    _section("Streams", ((name, _size(len(data))) for name, data in streams))


def _section(title: str, rows: Iterable[Sequence[str]]) -> None:
    """A title and columns under it; nothing where there is no row."""
    lines = [[printable(cell) for cell in row] for row in rows]
    if not lines:
        return
    click.secho(f"\n{title}", bold=True)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.echo(f"  {'  '.join(cells)}".rstrip())


def _property(number: int, value: object) -> tuple[str, str]:
    """A property by what it means here, which its name does not always say."""
    from ringtun.installer import Property

    if number == Property.REVISION:
        return "package code", str(value)
    if number == Property.PAGES and isinstance(value, int):
        return "installer", f"{value // 100}.{value % 100} or later"
    if number == Property.WORDS and isinstance(value, int):
        return "source", ", ".join(text[bool(value & bit)] for bit, text in SOURCE.items())
    if isinstance(value, dt.datetime):
        value = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    known = {entry.value: entry.name.lower().replace("_", " ") for entry in Property}
    return known.get(number, f"property {number}"), str(value)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _size(size: object) -> str:
    return _many(size, "byte") if isinstance(size, int) else ""


def _when(action: Action) -> str:
    if action.sequence is not None:
        return str(action.sequence)
    if action.base is None:
        return "-"
    return f"{'after' if action.after else 'before'} {action.base}"


def _if(action: Action) -> str:
    return "" if action.condition is None else f"if {action.condition}"
