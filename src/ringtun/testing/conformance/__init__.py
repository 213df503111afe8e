"""What every backend must pass: suites for sessions, for asyncio sessions, for raw rings.

A backend's tests inherit `SessionConformance`, `AsyncSessionConformance` or `RingConformance`, and
give the ``backend`` fixture; pytest collects the rest. They need pytest, and nothing of ringtun's
own tests.
"""

from __future__ import annotations

from ringtun.testing.conformance.async_sessions import AsyncSessionConformance
from ringtun.testing.conformance.peer import (
    AsyncBackend,
    Backend,
    HostPeer,
    RawBackend,
    RawHandle,
    packet,
)
from ringtun.testing.conformance.rings import RingConformance
from ringtun.testing.conformance.sessions import SessionConformance

__all__ = [
    "AsyncBackend",
    "AsyncSessionConformance",
    "Backend",
    "HostPeer",
    "RawBackend",
    "RawHandle",
    "RingConformance",
    "SessionConformance",
    "packet",
]
