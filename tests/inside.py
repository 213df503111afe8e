"""What tests look at behind a handle on an adapter."""

from __future__ import annotations

import ringtun
from ringtun.control.embedded import EmbeddedAdapter

__all__ = ["embedded"]


def embedded(adapter: ringtun.Adapter) -> EmbeddedAdapter:
    """Its driver and host, which are in this process."""
    opened = adapter._opened
    assert isinstance(opened, EmbeddedAdapter)
    return opened
