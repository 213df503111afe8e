"""The network namespaces of clients: which one a descriptor is of, and whose it is."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress

from ringtun.errors import AdapterPermissionError
from ringtun.service.peer import Peer, user_name

__all__ = ["check_owner", "inode_of", "is_namespace", "own_inode"]

# linux/nsfs.h
NS_GET_USERNS = 0xB701
NS_GET_OWNER_UID = 0xB704
_UID = struct.Struct("=I")


def is_namespace(fd: int) -> bool:
    """Whether a descriptor is of a network namespace, by no call that a file system has to answer.

    Of no file that has a path, so of none that is mounted: the kernel names those ``net:[inode]``
    that come from ``/proc/PID/ns/net``, and nobody can give another file such a name.
    """
    with suppress(OSError):
        return os.readlink(f"/proc/self/fd/{fd}").startswith("net:[")
    return False


def inode_of(fd: int) -> int:
    """The number by which the system tells namespaces apart."""
    return os.fstat(fd).st_ino


def own_inode() -> int:
    """That of this process."""
    return os.stat("/proc/self/ns/net").st_ino


def check_owner(fd: int, peer: Peer) -> None:
    """Raise `AdapterPermissionError` where the network namespace is not the peer's to rule.

    It is whose user namespace it belongs to: the kernel gives that user all rights over it.
    """
    owner = _owner(fd)
    if peer.uid not in (0, owner):
        whose = "somebody else's" if owner is None else f"{user_name(owner)}'s"
        raise AdapterPermissionError(
            errno.EXDEV,
            f"that network namespace is {whose}, not yours: the driver service makes adapters for "
            "you in its own, and in those of your user namespaces (unshare -rn)",
        )


def _owner(fd: int) -> int | None:
    """The user to whom it belongs; None where this process is not to know."""
    try:
        user_namespace = fcntl.ioctl(fd, NS_GET_USERNS)
    except PermissionError:  # it is none of ours, nor of what descends from ours
        return None
    try:
        uid: int = _UID.unpack(fcntl.ioctl(user_namespace, NS_GET_OWNER_UID, bytes(_UID.size)))[0]
    finally:
        os.close(user_namespace)
    return uid
