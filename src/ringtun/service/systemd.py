"""What a service manager and its service say to each other: sd_notify(3) and sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import quote

__all__ = ["Passed", "forget", "notify", "store", "take_passed", "tun_label"]

_FIRST = 3  # SD_LISTEN_FDS_START
_TUN = "tun-"  # and the adapter's name: a queue of its device


def notify(*lines: str, descriptors: Sequence[int] = ()) -> bool:
    """Tell the service manager, where there is one; it is not missed. Returns whether it was."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection,
    ):
        connection.connect("\0" + address[1:] if address[0] == "@" else address)
        socket.send_fds(connection, ["\n".join(lines).encode()], descriptors)
        return True
    return False


def store(label: str, fd: int) -> bool:
    """Let the service manager keep a copy of ``fd`` over a restart; returns whether it was asked.

    One that has hung up it drops by itself.
    """
    return notify("FDSTORE=1", f"FDNAME={label}", descriptors=[fd])


def forget(label: str) -> None:
    """Let the service manager close its copy of what was stored so."""
    notify("FDSTOREREMOVE=1", f"FDNAME={label}")


def tun_label(name: str) -> str:
    """Under which the queue of an adapter is stored: ASCII without colons, whatever the name."""
    return _TUN + quote(os.fsencode(name), safe="")


@dataclass(slots=True)
class Passed:
    """What the service manager passed; ours to close."""

    listener: socket.socket | None = None
    """The control socket, where it listens for us."""
    tuns: list[tuple[str, int]] = field(default_factory=list)
    """Queues that an earlier service stored, by their labels."""


def take_passed() -> Passed:
    """Take what the service manager passed, once.

    Raises ``ValueError`` where something is neither a queue nor a listening Unix stream socket, or
    there are two of those.
    """
    passed = Passed()
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return passed
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    labels = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    del os.environ["LISTEN_PID"]
    for fd in range(_FIRST, _FIRST + count):
        os.set_inheritable(fd, False)
        label = labels[fd - _FIRST] if fd - _FIRST < len(labels) else ""
        if label.startswith(_TUN):
            passed.tuns.append((label, fd))
        elif passed.listener is None:
            passed.listener = _listener(fd)
        else:
            raise ValueError("the service manager passes two sockets: it is to pass one")
    return passed


def _listener(fd: int) -> socket.socket:
    with suppress(OSError):
        listener = socket.socket(fileno=fd)
        if (listener.family, listener.type) == (socket.AF_UNIX, socket.SOCK_STREAM) and (
            listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        ):
            return listener
        listener.detach()
    raise ValueError("the service manager passes what is no listening Unix stream socket")
