"""One ring from either side: `Producer` and `Consumer`.

Native where the extension was built, else the plain-Python twin of the same calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["NATIVE", "Batch", "Consumer", "Producer", "Slot", "twin_works_here"]

if TYPE_CHECKING:
    from ringtun._native import Batch, Consumer, Producer, Slot

    NATIVE: bool
else:
    try:
        from ringtun._native import Batch, Consumer, Producer, Slot

        NATIVE = True
    except ImportError:
        from ringtun._twin import Batch, Consumer, Producer, Slot

        NATIVE = False


def twin_works_here() -> bool:
    """Whether the twin, which has no fences, is correct: where stores are seen in their order."""
    import platform

    return platform.machine().lower() in {"x86_64", "amd64"}
