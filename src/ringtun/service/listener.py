"""A Unix socket on which the service listens, and who comes to it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from ringtun.driver.registration import Refusal
from ringtun.service.descriptors import impatient
from ringtun.service.peer import Peer, peer_of
from ringtun.service.quota import Quota

__all__ = ["Listener", "listen"]

_BACKLOG = 64
_SHORTAGE_PAUSE = 0.2  # seconds without accepting, where descriptors are short
_CONNECTIONS_FROM = 1 << 15  # the number of their first descriptor, where the limit allows it

_log = logging.getLogger("ringtun.driver")


def listen(path: Path, kind: socket.SocketKind, mode: int, group: int | None) -> socket.socket:
    """A listening socket at ``path``, which nobody may connect to before its mode is right."""
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        with suppress(FileNotFoundError):
            path.unlink()  # a driver that was killed left it: there is one in a directory
        listener.bind(os.fspath(path))
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)
        listener.listen(_BACKLOG)  # only now: whoever came before was refused
    except OSError as error:
        listener.close()
        what = f"the socket {path} cannot be made: {error.strerror}"
        raise type(error)(error.errno, what) from error
    except BaseException:
        listener.close()
        raise
    return listener


class Listener:
    """Takes connections until `close`, as far as the quota goes; belongs to the running loop.

    ``welcome`` takes over each connection, which counts as its peer's until it is given back.
    """

    def __init__(
        self,
        listening: socket.socket,
        what: str,
        quota: Quota,
        welcome: Callable[[socket.socket, Peer], None],
    ) -> None:
        """Takes over ``listening``; ``what`` is for the log."""
        self._socket = listening
        self._what = what
        self._quota = quota
        self._welcome = welcome
        self._short = False  # of descriptors, when it last looked
        self._loop = asyncio.get_running_loop()
        listening.setblocking(False)
        self._loop.add_reader(listening, self._accept)

    def _accept(self) -> None:
        try:
            connection = _raised(self._socket.accept()[0])
        except BlockingIOError:
            return
        except OSError as error:  # short of descriptors, or the client has gone
            if not self._short:
                _log.warning("%s: no connection is taken: %s", self._what, error.strerror)
            self._short = True
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_SHORTAGE_PAUSE, self._resume)
            return
        self._short = False
        with ExitStack() as stack:
            stack.callback(_drop, connection)
            try:
                peer = peer_of(connection)
                self._quota.take(peer, "connections")
                stack.callback(self._quota.give_back, peer, "connections")
                self._welcome(connection, peer)
            except (OSError, Refusal) as error:
                _log.warning("%s: a connection is refused: %s", self._what, error)
                return
            stack.pop_all()

    def _resume(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.add_reader(self._socket, self._accept)

    def close(self) -> bool:
        """Nobody new. Returns whether it was open."""
        if self._socket.fileno() < 0:
            return False
        self._loop.remove_reader(self._socket)
        with impatient():
            self._socket.close()
        return True


def _raised(connection: socket.socket) -> socket.socket:
    """The same connection by a number above all others; takes ``connection`` over.

    When a process is killed, Linux lets its descriptors go from the highest number down, and an
    interface takes about 20 ms to go: clients are to hear of the end before.
    """
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        fd = fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, min(_CONNECTIONS_FROM, limit // 2))
    except OSError:  # short of descriptors: the number that it has will do
        return connection
    connection.close()
    return socket.socket(fileno=fd)


def _drop(connection: socket.socket) -> None:
    with impatient():
        connection.close()
