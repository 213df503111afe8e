"""What every backend must pass: suites for adapters, sessions, asyncio sessions, raw rings.

A backend's tests inherit `AdapterConformance` and name it, or `SessionConformance`,
`AsyncSessionConformance` or `RingConformance` and give the ``backend`` fixture; pytest collects the
rest. They need pytest, and nothing of ringtun's own tests.
"""

from __future__ import annotations

from ringtun.testing.conformance.adapters import AdapterConformance
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
    "AdapterConformance",
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
