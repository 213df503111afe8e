"""The errors of ringtun: one tree, by who is to blame.

Misuse by the caller is a ``ValueError`` (a bad argument) or a `ConcurrencyError`. A peer that
breaks the ring's contract is `RingCorrupt`. What comes from the operating system keeps its
``errno`` and says what to do about it. A ring that is empty or full is no error.
"""

from __future__ import annotations

import enum

__all__ = [
    "AdapterBusy",
    "AdapterExists",
    "AdapterNotFound",
    "AdapterPermissionError",
    "ConcurrencyError",
    "DriverUnavailable",
    "EndReason",
    "RegistrationError",
    "RingCorrupt",
    "RingtunError",
    "SessionClosed",
]


class RingtunError(Exception):
    """Everything that ringtun raises of its own but ``ValueError`` and ``TimeoutError``."""


class AdapterExists(RingtunError, FileExistsError):
    """An interface of that name is there already."""


class AdapterNotFound(RingtunError, FileNotFoundError):
    """There is no adapter of that name, or it has been removed."""


class AdapterBusy(RingtunError, OSError):
    """Somebody else holds the adapter: its rings are registered, or its queue is attached."""


class AdapterPermissionError(RingtunError, PermissionError):
    """The caller has no right to do this; the message names the right and how to get it."""


class DriverUnavailable(RingtunError, OSError):
    """No driver can serve this call here; the message says what to install or start."""


class RegistrationError(RingtunError, OSError):
    """The driver refused an offer of rings.

    ``status`` is the NTSTATUS of the refusal, one of `ringtun.abi.Status`.
    """

    def __init__(self, errno: int, message: str, status: int) -> None:
        super().__init__(errno, message)
        self.status = status


class ConcurrencyError(RingtunError, RuntimeError):
    """Two callers did at once what one may do at a time.

    One thread receives and one sends; a thread that receives does not disturb one that sends.
    """


class EndReason(enum.Enum):
    """Why a session is over."""

    CLOSED = "the session was closed"
    ADAPTER_REMOVED = "the adapter was removed"
    ADAPTER_CLOSED = "the adapter was closed"
    RING_CORRUPT = "the ring holds what no correct peer writes"
    DRIVER_ENDED = "the driver ended the session"
    FORKED = "the session belongs to the parent process, and this is its child after fork()"


class SessionClosed(RingtunError):
    """The session is over; ``reason`` says why. To go on, start a new one."""

    def __init__(self, reason: EndReason = EndReason.CLOSED) -> None:
        super().__init__(reason.value)
        self.reason = reason


class RingCorrupt(SessionClosed):
    """The other side broke the ring's contract, which ended the session and nothing else."""

    def __init__(self, reason: EndReason = EndReason.RING_CORRUPT) -> None:
        super().__init__(reason)
