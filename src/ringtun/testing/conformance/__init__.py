"""What every backend must pass: one suite for sessions, one for raw rings and registration.

A backend's tests inherit `SessionConformance` or `RingConformance`, and give the ``backend``
fixture; pytest collects the rest. Both need pytest, and nothing of ringtun's own tests.
"""

from __future__ import annotations

from ringtun.testing.conformance.peer import Backend, HostPeer, RawBackend, RawHandle, packet
from ringtun.testing.conformance.rings import RingConformance
from ringtun.testing.conformance.sessions import SessionConformance

__all__ = [
    "Backend",
    "HostPeer",
    "RawBackend",
    "RawHandle",
    "RingConformance",
    "SessionConformance",
    "packet",
]
