"""How a step of the engine ended."""

from __future__ import annotations

import enum

__all__ = ["BLOCKED", "IDLE", "MORE", "OVER", "StepResult"]


class StepResult(enum.IntEnum):
    """What the step that moves packets says; ``enum engine_result`` of the native core."""

    MORE = 0
    """The budget is spent: there may be more."""
    IDLE = 1
    """Nothing more where the packets come from."""
    BLOCKED = 2
    """No room where they go; the packet waits."""
    OVER = 3
    """The session has ended."""


# For the ways of each packet: to look one up in its enum takes as long as to look into a ring.
MORE, IDLE, BLOCKED, OVER = StepResult
