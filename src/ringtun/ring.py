"""One ring from either side: `Producer` and `Consumer`.

Native where the extension was built, else the plain-Python twin of the same calls.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

__all__ = ["NATIVE", "TWIN_WORKS_HERE", "Batch", "Consumer", "Producer", "Slot"]

# The twin has no fences: it is correct where stores are seen in their order.
TWIN_WORKS_HERE = platform.machine().lower() in {"x86_64", "amd64"}

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
