"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import array
import errno
import pwd
import socket
import struct
from dataclasses import dataclass

__all__ = ["Peer", "peer_of", "user_name"]

_SO_PEERGROUPS = 59  # asm-generic/socket.h; not in Python's socket
_UCRED = struct.Struct("=iII")
_NONE = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Peer:
    """A process as the kernel knew it when it connected."""

    pid: int
    uid: int
    groups: frozenset[int]
    """Its primary and supplementary groups."""

    def __str__(self) -> str:
        return f"user {user_name(self.uid)} (process {self.pid})"


def user_name(uid: int) -> str:
    """A user's name, or the number of one who has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def peer_of(connection: socket.socket) -> Peer:
    """Raises ``OSError`` where the kernel does not say."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    if uid == _NONE:
        raise OSError(errno.EACCES, "the peer has no credentials here")
    return Peer(pid, uid, frozenset({gid, *_groups_of(connection)}))


def _groups_of(connection: socket.socket) -> list[int]:
    size = 64 * 4
    while True:
        try:
            raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, size)
        except OSError as error:
            if error.errno != errno.ERANGE or size > 1 << 20:
                raise
            size *= 4
        else:
            return array.array("I", raw).tolist()
