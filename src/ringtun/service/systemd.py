"""What a service manager and its service say to each other: sd_notify(3) and sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["notify", "take_listener"]

_FIRST = 3  # SD_LISTEN_FDS_START


def notify(*lines: str) -> None:
    """Tell the service manager, where there is one; it is not missed."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    with (
        suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection,
    ):
        connection.connect("\0" + address[1:] if address[0] == "@" else address)
        connection.sendall("\n".join(lines).encode())


def take_listener() -> socket.socket | None:
    """The socket that the service manager listens on for us, once; None where it does not.

    Raises ``ValueError`` where it passes what is no listening Unix stream socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.pop("LISTEN_FDS", "")
    for name in ("LISTEN_PID", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    if count != "1":
        raise ValueError(f"the service manager passes {count} sockets: it is to pass one")
    os.set_inheritable(_FIRST, False)
    listener = socket.socket(fileno=_FIRST)
    if (listener.family, listener.type) != (socket.AF_UNIX, socket.SOCK_STREAM) or not (
        listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    ):
        listener.detach()
        raise ValueError("the service manager passes what is no listening Unix stream socket")
    return listener
