"""A timer with a descriptor: Linux's timerfd, which Python itself has from 3.13 on."""

from __future__ import annotations

import ctypes
import os
from typing import Final

__all__ = ["Timer"]

CLOCK_MONOTONIC: Final = 1  # linux/time.h
TFD_TIMER_ABSTIME: Final = 1  # linux/timerfd.h
TFD_NONBLOCK: Final = os.O_NONBLOCK
TFD_CLOEXEC: Final = os.O_CLOEXEC
NANOSECONDS: Final = 1_000_000_000


class _Timerspec(ctypes.Structure):
    """``struct itimerspec``: the interval, which stays 0, and the time."""

    _fields_ = (("interval", ctypes.c_long * 2), ("value", ctypes.c_long * 2))


class Timer:
    """A timer and the descriptor that it owns; close it. It runs on ``time.monotonic_ns()``."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._checked(
            self._libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        )

    def fileno(self) -> int:
        """The descriptor: readable once the time has come, until the timer is armed anew."""
        return self._fd

    def arm(self, due: int | None) -> None:
        """Run out at ``due``, in nanoseconds; None: never. One that is closed is left alone."""
        if self._fd < 0:
            return
        when = _Timerspec()
        if due is not None:
            when.value[:] = divmod(due, NANOSECONDS)
        self._checked(
            self._libc.timerfd_settime(self._fd, TFD_TIMER_ABSTIME, ctypes.byref(when), None)
        )

    def close(self) -> None:
        """Close the descriptor. More than once is fine."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result
