"""``ringtun doctor``: what stands in the way on this machine, and the cure."""

from __future__ import annotations

import json
import sys

import click

from ringtun.cli import options, printable
from ringtun.doctor import Finding, examine

__all__ = ["doctor"]

COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@options.netns
@click.option(
    "--name", shell_complete=options.adapter_names, help="Look at this adapter, and no other."
)
@options.as_json
def doctor(netns: str | None, name: str | None, as_json: bool) -> None:
    """Say what on this machine stands in the way of adapters, and the cure.

    Changes nothing: what it tries, it tries in namespaces that go at once. Exit status 1 where it
    finds a problem; a warning is none.
    """
    findings = []
    for finding in examine(netns=netns, name=name):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        click.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    problems = [finding.check for finding in findings if finding.status == "problem"]
    if problems:
        click.echo(f"ringtun: problems with: {', '.join(problems)}", err=True)
        sys.exit(1)
    if not as_json:
        warnings = sum(finding.status == "warning" for finding in findings)
        click.echo(f"No problems, {warnings} warning{'' if warnings == 1 else 's'}.")


def _show(finding: Finding) -> None:
    status = click.style(f"{finding.status:<7}", fg=COLORS[finding.status])
    click.echo(f"{status}  {finding.check}: {printable(finding.message)}")
    if finding.cure:
        click.echo(f"{'':<7}  cure: {printable(finding.cure)}")
