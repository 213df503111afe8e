"""What a driver's statuses mean to who asked: the errors of ringtun."""

from __future__ import annotations

import errno

from ringtun.abi import Status
from ringtun.errors import (
    AdapterBusy,
    AdapterNotFound,
    AdapterPermissionError,
    DriverUnavailable,
    RegistrationError,
)

__all__ = ["options_refused", "registration_refused"]

_ERRNO = {
    Status.INVALID_PARAMETER: errno.EINVAL,
    Status.INVALID_USER_BUFFER: errno.EFAULT,
    Status.INVALID_DEVICE_REQUEST: errno.ENOTTY,
    Status.INSUFFICIENT_RESOURCES: errno.ENOMEM,
}


def registration_refused(name: str, status: int, why: str = "") -> OSError:
    """The error for a registration on adapter ``name`` that was refused."""
    if status == Status.ALREADY_INITIALIZED:
        return AdapterBusy(
            errno.EBUSY, f"adapter {name} has a session already: close that one first"
        )
    if status == Status.DEVICE_REMOVED:
        return AdapterNotFound(errno.ENODEV, f"adapter {name} was removed")
    if status == Status.ACCESS_DENIED:
        return AdapterPermissionError(
            errno.EACCES,
            f"adapter {name} is not yours: whoever made it, or the driver's configuration, "
            "says who may open it",
        )
    if not why:
        why = f"the driver refuses the rings offered to adapter {name} (status 0x{status:08X})"
        if status == Status.INSUFFICIENT_RESOURCES:
            why += ": it is short of memory or descriptors, or you have reached its limit for you"
    known = status in _ERRNO
    return RegistrationError(_ERRNO[Status(status)] if known else errno.EIO, why, status)


def options_refused(name: str) -> DriverUnavailable:
    """The error for options that adapter ``name`` has not."""
    return DriverUnavailable(
        errno.EOPNOTSUPP,
        f"adapter {name} has no offload=True: it takes ringtun's native core, and an "
        "adapter of the kernel's with offload headers",
    )
