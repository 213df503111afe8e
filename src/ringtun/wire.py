"""What crosses the Unix socket of an adapter's device: requests with descriptors, and answers.

One message a request, ``{u32 code, u32 length, payload}``, and one an answer, ``{u32 status, u32
information, output}``, whose information counts the bytes of the output. The socket is a
``SOCK_SEQPACKET``, which keeps messages apart.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Final

from ringtun.statistics import Discards, Statistics

__all__ = [
    *("MESSAGE_MAX", "Answer", "MalformedRequest", "Request", "close_all", "pack_statistics"),
    *("receive_request", "send_request", "unpack_statistics"),
]

_HEADER: Final = struct.Struct("=II")
MESSAGE_MAX: Final = 4096
# One that sends more is no client of ours. CMSG_SPACE rounds up, so that one more may come.
_DESCRIPTORS_MAX: Final = 8
_DESCRIPTORS_SPACE: Final = socket.CMSG_SPACE(_DESCRIPTORS_MAX * array.array("i").itemsize)


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came; ``descriptors`` are the receiver's, to be closed."""

    code: int
    payload: bytes
    descriptors: tuple[int, ...]


class MalformedRequest(ValueError):
    """A message that is none; ``descriptors`` that came along are the receiver's, to be closed.

    With ``shortage`` it may have been one: the receiver could not take all its descriptors.
    """

    def __init__(self, why: str, descriptors: tuple[int, ...], *, shortage: bool = False) -> None:
        super().__init__(why)
        self.descriptors = descriptors
        self.shortage = shortage


@dataclass(frozen=True, slots=True)
class Answer:
    """What a driver says to a request."""

    status: int
    output: bytes = b""

    def pack(self) -> bytes:
        """The message."""
        return _HEADER.pack(self.status, len(self.output)) + self.output

    @classmethod
    def unpack(cls, message: bytes) -> Answer:
        """Raises ``ValueError`` for what is no answer."""
        if len(message) < _HEADER.size:
            raise ValueError(f"an answer has at least {_HEADER.size} bytes, not {len(message)}")
        status, length = _HEADER.unpack_from(message)
        output = message[_HEADER.size :]
        if len(output) != length:
            raise ValueError(f"an answer says {length} bytes of output, and has {len(output)}")
        return cls(status, output)


def send_request(
    connection: socket.socket, code: int, payload: bytes, descriptors: Sequence[int] = ()
) -> None:
    """Send a request; the descriptors stay the caller's."""
    rights = array.array("i", descriptors).tobytes()
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
    message = [_HEADER.pack(code, len(payload)), payload]
    connection.sendmsg(message, ancillary, socket.MSG_NOSIGNAL)


def receive_request(connection: socket.socket) -> Request | None:
    """The next request; None where the other side has closed.

    Raises `MalformedRequest` for a message that is none: too short, too long, or with a wrong
    length or too many descriptors; the next one may be right.
    """
    message, ancillary, flags, _ = connection.recvmsg(
        MESSAGE_MAX, _DESCRIPTORS_SPACE, socket.MSG_CMSG_CLOEXEC
    )
    descriptors = _rights_of(ancillary)
    if not message and not descriptors and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        return None
    if flags & socket.MSG_CTRUNC and len(descriptors) < _DESCRIPTORS_MAX:
        raise MalformedRequest("no room for its descriptors here", descriptors, shortage=True)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(descriptors) > _DESCRIPTORS_MAX:
        raise MalformedRequest("the request is too long, or has too many descriptors", descriptors)
    if len(message) < _HEADER.size:
        raise MalformedRequest("the request is too short", descriptors)
    code, length = _HEADER.unpack_from(message)
    payload = message[_HEADER.size :]
    if len(payload) != length:
        why = f"the request says {length} bytes, and has {len(payload)}"
        raise MalformedRequest(why, descriptors)
    return Request(code, payload, descriptors)


# ---- statistics ----------------------------------------------------------------------------------

_COUNTERS: Final = (
    *("received_packets", "received_bytes", "sent_packets", "sent_bytes", "split", "merged"),
    "wakeups",
)
_DISCARDS: Final = tuple(entry.name for entry in fields(Discards))


def pack_statistics(end: int, statistics: Statistics) -> bytes:
    """The output of ``IOCTL_GET_STATISTICS``: u64s, first how the session ended, 0 while it runs.

    A later version may have more of them at the end.
    """
    counters = [getattr(statistics, name) for name in _COUNTERS]
    discards = [getattr(statistics.discards, name) for name in _DISCARDS]
    return struct.pack(f"={1 + len(counters) + len(discards)}Q", end, *counters, *discards)


def unpack_statistics(output: bytes) -> tuple[int, Statistics]:
    """The inverse. What an earlier version does not count is 0. Raises ``ValueError``."""
    if not output or len(output) % 8:
        raise ValueError(f"statistics are numbers of 8 bytes, and these have {len(output)}")
    end, *numbers = struct.unpack(f"={len(output) // 8}Q", output)
    counters = dict(zip(_COUNTERS, numbers, strict=False))
    discards = dict(zip(_DISCARDS, numbers[len(_COUNTERS) :], strict=False))
    return end, Statistics(**counters, discards=Discards(**discards))


# ---- descriptors ---------------------------------------------------------------------------------


def _rights_of(ancillary: Sequence[tuple[int, int, bytes]]) -> tuple[int, ...]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return tuple(found)


def close_all(descriptors: Sequence[int]) -> None:
    """Close them."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
