"""The sequences of a package, and a module's actions in them."""

from __future__ import annotations

from typing import Any, Final

from ringtun.installer.database import Database
from ringtun.installer.errors import InstallerError
from ringtun.installer.schema import SEQUENCES, ensure
from ringtun.installer.tables import Table

__all__ = ["add_first", "merge_sequences"]

_MOST: Final = 0x7FFF


def merge_sequences(database: Database, module: Database) -> None:
    """Put a module's actions into the package's sequences.

    An action that is in one already keeps its number and condition. Standard actions get the
    number that the module has for them. Custom ones come directly after their base action, and what
    stands there moves up by one as far as it has to; or directly before it. `InstallerError` for
    one whose base action is in neither.
    """
    for name in SEQUENCES:
        rows = module.tables.get(f"Module{name}")
        if rows is None:
            continue
        sequence = ensure(database, name)
        waiting = []
        for row in map(rows.named, sorted(rows, key=rows.key_of)):
            if (row["Action"],) in sequence:
                continue
            if row["BaseAction"] is not None:
                waiting.append(row)
            elif row["Sequence"] is not None:
                _add(sequence, row["Action"], row["Condition"], row["Sequence"])
            else:
                raise InstallerError(
                    f"its action {row['Action']} has neither a number nor a base action in {name}"
                )
        while waiting:
            left = [row for row in waiting if not _placed(sequence, row)]
            if len(left) == len(waiting):
                row = left[0]
                raise InstallerError(
                    f"its action {row['Action']} goes beside {row['BaseAction']}, which the "
                    f"package's {name} does not have"
                )
            waiting = left


def add_first(database: Database, action: str) -> None:
    """Put an action that needs nothing of the others before them, in every sequence there is."""
    for name in SEQUENCES:
        sequence = database.tables.get(name)
        if sequence is not None and (action,) not in sequence:
            _add(sequence, action, None, 1)


def _placed(sequence: Table, row: dict[str, Any]) -> bool:
    """Put a custom action beside its base; False if that is not there."""
    base = None
    taken: dict[int, list[str]] = {}
    for other in map(sequence.named, sequence):
        action, number = other["Action"], other["Sequence"] or 0
        if number > 0:  # below are those that end a sequence
            taken.setdefault(number, []).append(action)
            if action == row["BaseAction"]:
                base = number
    if base is None:
        return False
    number = base + 1
    if not row["After"]:
        number = base - 1 if base > 1 and base - 1 not in taken else base
    moving = number
    while moving in taken:
        for action in taken[moving]:
            sequence.change(action, Sequence=_within(moving + 1))
        moving += 1
    _add(sequence, row["Action"], row["Condition"], number)
    return True


def _add(sequence: Table, action: str, condition: str | None, number: int) -> None:
    sequence.add(Action=action, Condition=condition, Sequence=_within(number))


def _within(number: int) -> int:
    if number > _MOST:
        raise InstallerError(f"a sequence has no number left after {_MOST}")
    return number
