"""The kernel's own count of packets that it dropped before the program could read them.

A conversation with netlink's library takes a thread and descriptors of its own. This is asked for
when a session ends too, when there may be neither: at the interpreter's exit, or with no descriptor
left. So it keeps one socket, and asks by the one message that it needs.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

__all__ = ["DropCounter", "attributes"]

# linux/rtnetlink.h, linux/netlink.h, linux/if_link.h
RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
NLM_F_REQUEST: Final = 1
IFLA_STATS64: Final = 23
NLMSGHDR: Final = struct.Struct("=IHHII")
IFINFOMSG: Final = struct.Struct("=BxHiII")
RTATTR: Final = struct.Struct("=HH")
TX_DROPPED: Final = struct.Struct("=56xQ")  # the eighth counter of struct rtnl_link_stats64
ANSWER_SIZE: Final = 1 << 16


class DropCounter:
    """``tx_dropped`` of one interface. Open it in the interface's namespace; close it."""

    def __init__(self, ifindex: int) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            socket.NETLINK_ROUTE,
        )
        self._request = NLMSGHDR.pack(
            NLMSGHDR.size + IFINFOMSG.size, RTM_GETLINK, NLM_F_REQUEST, 0, 0
        ) + IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0)
        self._last = 0

    def read(self) -> int:
        """Packets dropped since the interface was made.

        The last answer, where the interface is gone or the counter closed. Never waits, never
        raises: the kernel answers within the call.
        """
        with suppress(OSError):
            self._socket.send(self._request)
            dropped = _tx_dropped(self._socket.recv(ANSWER_SIZE))
            self._last = self._last if dropped is None else dropped
        return self._last

    def close(self) -> None:
        """Close the socket. More than once is fine."""
        self._socket.close()


def _tx_dropped(answer: bytes) -> int | None:
    """The counter in the kernel's answer; None where it says something else."""
    if len(answer) < NLMSGHDR.size or NLMSGHDR.unpack_from(answer)[1] != RTM_NEWLINK:
        return None
    for kind, value in attributes(answer, NLMSGHDR.size + IFINFOMSG.size):
        if kind == IFLA_STATS64:
            dropped: int = TX_DROPPED.unpack_from(value)[0]
            return dropped
    return None


def attributes(message: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """The attributes that begin at ``at``, each with its kind; one that was cut off is left out."""
    while at + RTATTR.size <= len(message):
        size, kind = RTATTR.unpack_from(message, at)
        if not RTATTR.size <= size <= len(message) - at:
            return
        yield kind, message[at + RTATTR.size : at + size]
        at += (size + 3) & ~3
