"""Rules about sequences and the actions in them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from ringtun.installer.database import Database
from ringtun.installer.describe import is_module
from ringtun.installer.rules.actions import CHAINS, CHANGING, NEEDED_BY, REQUIRED, STANDARD
from ringtun.installer.rules.rule import Problem, Record, records, rule
from ringtun.installer.schema import SEQUENCES

__all__ = ["RULES", "numbered"]

EXECUTE: Final = "InstallExecuteSequence"
# Of an action's type: where its source is by the lowest six bits, and that it runs deferred.
_KIND: Final = 0x3F
_DEFERRED: Final = 0x400
_SOURCES: Final = {
    "Binary": (1, 2, 5, 6),
    "File": (17, 18, 21, 22),
    "Directory": (34, 35),
    None: (7, 23, 19, 37, 38, 50, 51, 53, 54),
}
_SOURCE_OF: Final = {kind: table for table, kinds in _SOURCES.items() for kind in kinds}
_ADVERTISED: Final = (19, 35, 51)  # kinds that may be in the sequence of that


def numbered(database: Database, sequence: str) -> dict[str, int]:
    """The actions of a sequence that run, with their numbers, in that order."""
    rows = [(row.number("Sequence") or 0, row.key) for row in records(database, sequence)]
    return {action: number for number, action in sorted(rows) if number > 0}


def _deferred(database: Database) -> set[str]:
    return {row.key for row in records(database, "CustomAction") if row.bits("Type") & _DEFERRED}


@rule("unknown-action", "ICE27")
def unknown_action(database: Database) -> Iterator[Problem]:
    """Every action of a sequence is a standard one, a custom one of the file, or a dialog."""
    own = {row.key for name in ("CustomAction", "Dialog") for row in records(database, name)}
    for name in SEQUENCES:
        for sequence in (name, f"Module{name}"):
            for row in records(database, sequence):
                if row.key not in STANDARD | own:
                    yield row, "it is no standard action, and no row of CustomAction or Dialog"


@rule("custom-action", "ICE68")
def custom_action(database: Database) -> Iterator[Problem]:
    """A custom action is of a kind that there is, and what it runs is there."""
    here = {name: {row.key for row in records(database, name)} for name in _SOURCES if name}
    for action in records(database, "CustomAction"):
        kind, source = action.bits("Type") & _KIND, action.text("Source")
        if kind not in _SOURCE_OF:
            yield action, f"its type {action.number('Type')} is that of no action"
            continue
        where = _SOURCE_OF[kind]
        if where is not None and source not in here[where]:
            yield action, f"its source {source!r:.80} is no row of {where}"


@rule("required-action", "ICE26", about="installation")
def required_action(database: Database) -> Iterator[Problem]:
    """The sequence that installs has the actions without which nothing is installed."""
    here = numbered(database, EXECUTE)
    missing = [action for action in REQUIRED if action not in here]
    if missing:
        yield EXECUTE, f"it has no {', '.join(missing)}"


@rule("idle-table")
def idle_table(database: Database) -> Iterator[Problem]:
    """The rows of a table have the standard actions that make something of them."""
    sequences = (f"Module{EXECUTE}", EXECUTE) if is_module(database) else (EXECUTE,)
    here = {row.key for sequence in sequences for row in records(database, sequence)}
    for name, actions in NEEDED_BY.items():
        missing = [action for action in actions if action not in here]
        if records(database, name) and missing:
            yield name, f"it has rows, and {sequences[0]} has no {' and no '.join(missing)}"


@rule("action-order", "ICE27")
def action_order(database: Database) -> Iterator[Problem]:
    """Standard actions are in the order that they depend on one another in."""
    for sequence in (EXECUTE, "AdminExecuteSequence"):
        here = numbered(database, sequence)
        chains = [*CHAINS, *(("InstallInitialize", a, "InstallFinalize") for a in sorted(CHANGING))]
        for one, other in dict.fromkeys(
            pair for chain in chains for pair in pairwise(a for a in chain if a in here)
        ):
            if here[one] >= here[other]:
                yield sequence, f"{one} is at {here[one]}, and {other} at {here[other]}"


@rule("action-number", "ICE82", severity="warning")
def action_number(database: Database) -> Iterator[Problem]:
    """No two actions of a sequence have the same number, which would leave their order open."""
    for sequence in SEQUENCES:
        owners: dict[int, str] = {}
        for row in records(database, sequence):
            number = row.number("Sequence") or 0
            if number > 0 and owners.setdefault(number, row.key) != row.key:
                yield row, f"its number {number} is that of {owners[number]} too"


@rule("deferred-action", "ICE77", about="installation")
def deferred_action(database: Database) -> Iterator[Problem]:
    """A deferred action runs between InstallInitialize and InstallFinalize."""
    deferred = _deferred(database)
    for sequence in SEQUENCES:
        here = numbered(database, sequence)
        first, last = here.get("InstallInitialize"), here.get("InstallFinalize")
        for row in records(database, sequence):
            number = here.get(row.key)
            if row.key not in deferred or number is None:
                continue
            if first is None or last is None or not first < number < last:
                yield row, "it is deferred, and not between InstallInitialize and InstallFinalize"


@rule("advertised-action", "ICE72")
def advertised_action(database: Database) -> Iterator[Problem]:
    """What is done to advertise a product runs nothing: it sets properties, or refuses."""
    kinds = {row.key: row.bits("Type") & _KIND for row in records(database, "CustomAction")}
    for name in ("AdvtExecuteSequence", "ModuleAdvtExecuteSequence"):
        for row in records(database, name):
            if row.key in kinds and kinds[row.key] not in _ADVERTISED:
                yield row, "it runs a program, in the sequence that advertises"


@rule("removal", "ICE63", about="installation")
def removal(database: Database) -> Iterator[Problem]:
    """Former versions are removed where nothing is half done: before InstallInitialize or right
    after it, right after InstallExecute, or after InstallFinalize.
    """
    here = numbered(database, EXECUTE)
    at = here.get("RemoveExistingProducts")
    if at is None:
        return
    changing = CHANGING | _deferred(database)
    pending = False  # whether something is written down that is to be done
    begun = False
    for action, number in here.items():
        if number >= at:
            break
        begun = begun or action == "InstallValidate"
        pending = action in changing or (
            pending and action not in ("InstallExecute", "InstallExecuteAgain", "InstallFinalize")
        )
    row = _row(database, EXECUTE, "RemoveExistingProducts")
    if not begun:
        yield row, f"it is at {at}, before InstallValidate"
    elif pending:
        yield row, f"it is at {at}, among actions that are not done yet"


@rule("late-removal", about="installation", severity="warning")
def late_removal(database: Database) -> Iterator[Problem]:
    """A product with modules in it removes former versions when it is installed itself, so that
    what both have stays counted all the time.
    """
    here = numbered(database, EXECUTE)
    at = here.get("RemoveExistingProducts")
    if at is not None and records(database, "ModuleSignature") and at < here.get("InstallFiles", 0):
        row = _row(database, EXECUTE, "RemoveExistingProducts")
        yield (
            row,
            f"it is at {at}, where the last product with a module may go before it comes again",
        )


def _row(database: Database, table: str, key: str) -> Record:
    return next(row for row in records(database, table) if row.key == key)


RULES: Final = (
    *(unknown_action, custom_action, required_action, idle_table, action_order, action_number),
    *(deferred_action, advertised_action, removal, late_removal),
)
