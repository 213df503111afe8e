"""What can keep the demonstration from measuring."""

from __future__ import annotations

from ringtun.errors import RingtunError

__all__ = ["MeasurementError", "NoKernelTun"]


class NoKernelTun(RingtunError):
    """There is no kernel TUN for this process; the message says why, and what to do."""


class MeasurementError(RingtunError):
    """A measurement could not be finished; the message says what went wrong."""
