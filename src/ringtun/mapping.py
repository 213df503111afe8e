"""Memory that two sides share, mapped without keeping a descriptor.

The standard library's ``mmap`` keeps a copy of the descriptor for each mapping (before Python 3.13
always), and a session has four mappings: with thousands of sessions that counts.
"""

from __future__ import annotations

import mmap
import sys
from typing import TYPE_CHECKING, TypeAlias

from ringtun.ring import NATIVE

if TYPE_CHECKING:
    from ringtun import _native

    Mapping: TypeAlias = _native.Mapping | mmap.mmap

__all__ = ["Mapping", "map_shared"]


def map_shared(fd: int, size: int) -> Mapping:
    """``size`` bytes of ``fd``, to read and write; a buffer, owned by the caller until its close.

    Its ``close`` raises ``BufferError`` while anything looks into it; dropped, it goes with the
    last look. Raises the ``OSError`` of mmap(2).
    """
    if NATIVE:
        from ringtun import _native

        return _native.Mapping(fd, size)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, mmap.MAP_SHARED, protection, trackfd=False)
    return mmap.mmap(fd, size, mmap.MAP_SHARED, protection)
