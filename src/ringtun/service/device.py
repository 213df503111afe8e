"""The device of an adapter in the driver service: a socket, each connection to which is a handle.

What comes from a client is taken apart in `ringtun.wire` and `ringtun.driver.registration`; here it
is brought to the adapter's handle, in a thread, since a registration waits for the kernel. A
connection that is closed takes its handle with it; one that is closed half is told the last counts.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ringtun import abi
from ringtun.abi import RegisterRings, Status
from ringtun.driver.adapter import DriverAdapter, Handle
from ringtun.driver.registration import Refusal, accept_space
from ringtun.errors import AdapterNotFound
from ringtun.service.descriptors import close_apart, impatient
from ringtun.service.listener import Listener, listen
from ringtun.service.peer import Peer
from ringtun.service.quota import Kind, Quota
from ringtun.wire import Answer, MalformedRequest, Request, pack_statistics, receive_request

if TYPE_CHECKING:
    from ringtun._native import Space

__all__ = ["DeviceServer"]

_log = logging.getLogger("ringtun.driver")


class DeviceServer:
    """Serves an adapter's device at ``path`` until `close`; belongs to the running event loop.

    ``may_open`` says who gets a registration. The socket is as good as its mode: whoever reaches it
    may ask.
    """

    def __init__(
        self,
        adapter: DriverAdapter,
        path: Path,
        *,
        mode: int,
        group: int | None,
        may_open: Callable[[Peer], bool],
        quota: Quota,
        executor: Executor,
        spin: float,
    ) -> None:
        """Raises ``OSError`` where the socket cannot be made."""
        self.adapter = adapter
        self.path = path
        self.may_open = may_open
        self.quota = quota
        self.executor = executor
        self.spin = spin
        self.connections: set[_Connection] = set()
        self._listener = Listener(
            listen(path, socket.SOCK_SEQPACKET, mode, group), adapter.name, quota, self._welcome
        )

    def _welcome(self, connection: socket.socket, peer: Peer) -> None:
        self.connections.add(_Connection(self, connection, peer))

    def close_socket(self) -> None:
        """Nobody new; who is connected stays, to be told of the end."""
        if self._listener.close():
            with suppress(FileNotFoundError):
                self.path.unlink()

    async def close(self) -> None:
        """End every handle."""
        self.close_socket()
        await asyncio.gather(*(connection.close() for connection in list(self.connections)))


class _Connection:
    """A handle that a client has open."""

    def __init__(self, server: DeviceServer, connection: socket.socket, peer: Peer) -> None:
        self._server = server
        self._socket = connection
        self._peer = peer
        self._handle = Handle(server.adapter)
        self._spaces: tuple[Space, Space] | None = None
        self._charges: list[tuple[Kind, int]] = []  # to the peer's quota
        self._closing_apart = False  # descriptors of the last request: until then none is read
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        connection.setblocking(False)
        self._loop.add_reader(connection, self._readable)

    def _readable(self) -> None:
        try:
            with impatient():
                request = receive_request(self._socket)
        except (BlockingIOError, InterruptedError):
            return
        except MalformedRequest as malformed:
            short = Status.INSUFFICIENT_RESOURCES
            self._answer(Answer(short if malformed.shortage else Status.INVALID_PARAMETER))
            self._loop.remove_reader(self._socket)
            self._give_up(malformed.descriptors)
            return
        except OSError:
            request = None
        if request is None:
            self._closing = asyncio.ensure_future(self.close(last_words=True))
            return
        self._loop.remove_reader(self._socket)  # one request at a time
        self._task = asyncio.ensure_future(self._serve(request))

    async def _serve(self, request: Request) -> None:
        answer = await self._loop.run_in_executor(self._server.executor, self._do, request)
        self._answer(answer)
        self._give_up(request.descriptors)

    def _give_up(self, descriptors: tuple[int, ...]) -> None:
        """Close what came along, and then read on."""

        def closed() -> None:
            self._loop.call_soon_threadsafe(self._gave_up)

        with impatient():
            self._closing_apart = close_apart(descriptors, closed)
        if not self._closing_apart:
            self._gave_up()

    def _gave_up(self) -> None:
        self._closing_apart = False
        if self._closed:
            self._server.quota.give_back(self._peer, "connections")
        elif self in self._server.connections:  # else it is being closed
            self._loop.add_reader(self._socket, self._readable)

    def _answer(self, answer: Answer) -> None:
        try:
            self._socket.send(answer.pack(), socket.MSG_NOSIGNAL)
        except OSError:  # who does not read what was asked for wants nothing more
            if self._closing is None:
                self._closing = asyncio.ensure_future(self.close())

    # ---- in a thread --------------------------------------------------------------------------

    def _do(self, request: Request) -> Answer:
        try:
            return Answer(Status.SUCCESS, self._request(request))
        except Refusal as refusal:
            _log.info("%s: %s: %s", self._server.adapter.name, self._peer, refusal)
            return Answer(refusal.status)
        except AdapterNotFound:
            return Answer(Status.DEVICE_REMOVED)
        except (OSError, MemoryError) as error:
            _log.warning("%s: a request failed: %s", self._server.adapter.name, error)
            return Answer(Status.INSUFFICIENT_RESOURCES)

    def _request(self, request: Request) -> bytes:
        if request.code == abi.IOCTL_GET_STATISTICS:
            return self._statistics()
        if request.code == abi.IOCTL_REGISTER_RINGS:
            self._register(request)
        elif request.code == abi.IOCTL_SET_SPACE:
            self._set_space(request)
        else:
            self._handle.set_options(request.code, request.payload)
        return b""

    def _register(self, request: Request) -> None:
        server = self._server
        if not server.may_open(self._peer):
            raise Refusal(Status.ACCESS_DENIED, f"{self._peer} may not open it")
        to_client, to_host = self._spaces or (None, None)
        try:
            self._charge("memory", _ring_bytes(request.payload))
            self._handle.register(
                request.code,
                request.payload,
                request.descriptors,
                threads=True,
                to_client_space=to_client,
                to_host_space=to_host,
                spin=server.spin,
                foreign=True,
                allow_holes=partial(self._charge, "sealed"),
            )
        except BaseException:
            self._give_back()
            raise
        _log.info("%s: connected to %s", server.adapter.name, self._peer)

    def _charge(self, kind: Kind, amount: int) -> None:
        self._server.quota.take(self._peer, kind, amount)
        self._charges.append((kind, amount))

    def _give_back(self) -> None:
        while self._charges:
            self._server.quota.give_back(self._peer, *self._charges.pop())

    def _set_space(self, request: Request) -> None:
        if self._spaces is not None or self._charges:
            raise Refusal(Status.INVALID_DEVICE_REQUEST, "it comes once, before the rings")
        self._spaces = accept_space(request.payload, request.descriptors)

    def _statistics(self) -> bytes:
        try:
            end = self._handle.engine.end_reason
        except ValueError:
            end = 0
        return pack_statistics(end, self._handle.statistics())

    def _end(self) -> bytes:
        self._handle.close()
        for space in self._spaces or ():
            space.close()
        return self._statistics()

    # ---- the end --------------------------------------------------------------------------------

    async def close(self, *, last_words: bool = False) -> None:
        """End the handle; with ``last_words``, tell the client what it came to."""
        server = self._server
        if self not in server.connections:
            return
        server.connections.discard(self)
        self._loop.remove_reader(self._socket)
        if self._task is not None and not self._task.done():
            with suppress(Exception):
                await self._task
        statistics = await self._loop.run_in_executor(server.executor, self._end)
        if last_words:
            with suppress(OSError):
                self._socket.send(Answer(Status.SUCCESS, statistics).pack(), socket.MSG_NOSIGNAL)
        with impatient():
            self._socket.close()
        if self._charges:
            self._give_back()
            _log.info("%s: disconnected from %s", server.adapter.name, self._peer)
        self._closed = True
        if not self._closing_apart:
            server.quota.give_back(self._peer, "connections")


def _ring_bytes(payload: bytes) -> int:
    """Bytes of memory that an offer is of; one that is none is refused later."""
    try:
        offer = RegisterRings.unpack(payload)
    except ValueError:
        return 0
    return offer.send.ring_size + offer.receive.ring_size
