"""What databases have to keep to: the rules, and what a database breaks of them.

A rule is a function that asks a question, of which the docstring says what it is. Those with the
name of an ICE ask what Microsoft's check of that name asks, as far as it matters to files without
dialogs; the others are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from ringtun.installer.database import Database
from ringtun.installer.rules import (
    columns,
    components,
    files,
    module,
    product,
    sequences,
    summary,
)
from ringtun.installer.rules.rule import Finding, Rule

__all__ = ["RULES", "Finding", "Rule", "check", "report"]

RULES: Final[tuple[Rule, ...]] = (
    *summary.RULES,
    *columns.RULES,
    *components.RULES,
    *files.RULES,
    *sequences.RULES,
    *product.RULES,
    *module.RULES,
)


def check(database: Database) -> list[Finding]:
    """What is wrong with a database, rule by rule; nothing where it keeps to all of them.

    Whatever is in the database becomes findings, and never an error. Time is a small multiple of
    what there is to look at; of memory it takes what a cabinet's files are.
    """
    return [
        finding
        for entry in RULES
        if entry.applies(database)
        for finding in entry.findings(database)
    ]


def report(findings: Sequence[Finding]) -> dict[str, Any]:
    """Findings for JSON, with how many of each severity there are."""
    severities = [finding.severity for finding in findings]
    return {
        "errors": severities.count("error"),
        "warnings": severities.count("warning"),
        "findings": [asdict(finding) for finding in findings],
    }
