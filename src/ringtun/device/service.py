"""The device of an adapter of the driver service: a Unix socket, and rings in shared memory.

A driver that ends in order poisons both rings and says why. One that is killed cannot: its socket
is closed by the kernel, and then what it left to do is done here, by a thread that all devices of
this process share. So whoever waits for a ring, in whatever way, sees the end.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from ringtun import abi
from ringtun.abi import RegisterRings, SetSpace, Status
from ringtun.device.refusals import options_refused, registration_refused
from ringtun.errors import (
    AdapterNotFound,
    AdapterPermissionError,
    DriverUnavailable,
    EndReason,
)
from ringtun.event import Event
from ringtun.mapping import map_shared
from ringtun.offer import SharedMemory
from ringtun.ring import NATIVE
from ringtun.statistics import Statistics
from ringtun.step import IDLE
from ringtun.wire import MESSAGE_MAX, Answer, send_request, unpack_statistics

if TYPE_CHECKING:
    from ringtun._native import Batch, Space
    from ringtun.host.interface import LinuxInterface
    from ringtun.mapping import Mapping

__all__ = ["ServiceDevice"]

_PATIENCE = 30.0  # seconds for an answer: a registration waits for the kernel
_LAST_WORDS = 5.0  # seconds for the driver to end a session
_PAGE = 4096

_REMOVED, _CORRUPT = 2, 3  # how a session ended, as the driver says it


class ServiceDevice:
    """A handle on an adapter of the driver service; see `ringtun.device.Device`."""

    host_fd: int | None = None

    def __init__(self, name: str, path: str, interface: LinuxInterface | None = None) -> None:
        """Open the device of the adapter ``name``, at ``path``.

        ``interface`` is for one that the service cannot look at as it comes and goes: the caller's.

        Raises `AdapterNotFound`, `AdapterPermissionError`.
        """
        self.name = name
        self.to_client_space: Space | None = None
        self.to_host_space: Space | None = None
        self._lock = threading.Lock()  # one request at a time
        self._rings: _Rings | None = None
        self._gone = False  # the driver: whatever it was asked is not answered
        self._end = 0
        self._statistics = Statistics()
        self._interface = interface
        self._socket = _connect(name, path)

    # ---- requests -------------------------------------------------------------------------------

    def set_options(self, options: abi.Options) -> None:
        """See `ringtun.device.Device`."""
        payload = options.to_bytes(abi.SET_OPTIONS_SIZE, sys.byteorder)
        if self._ask(abi.IOCTL_SET_OPTIONS, payload).status != Status.SUCCESS:
            raise options_refused(self.name)

    def register_rings(self, offer: RegisterRings, descriptors: Sequence[int]) -> None:
        """See `ringtun.device.Device`."""
        if NATIVE:
            self._offer_space()
        # Mapped before the driver forbids new mappings.
        rings = _Rings(offer, descriptors)
        try:
            answer = self._ask(abi.IOCTL_REGISTER_RINGS, offer.pack(), descriptors)
            if answer.status != Status.SUCCESS:
                raise registration_refused(self.name, answer.status)
            if self._interface is not None:
                self._interface.wait_running()
                self._interface.tell()
        except BaseException:
            rings.close()
            raise
        self._rings = rings
        _watcher.watch(self)

    def _offer_space(self) -> None:
        from ringtun import _native

        with closing(SharedMemory(abi.SPACE_SIZE)) as memory:
            spaces = (
                _native.Space(memory.mapping, abi.SPACE_TO_CLIENT),
                _native.Space(memory.mapping, abi.SPACE_TO_HOST),
            )
            descriptors = (memory.fd, *(space.fileno() for space in spaces))
            answer = self._ask(abi.IOCTL_SET_SPACE, SetSpace(1, 2, 3).pack(), descriptors)
        if answer.status == Status.SUCCESS:
            self.to_client_space, self.to_host_space = spaces

    def _ask(self, code: int, payload: bytes = b"", descriptors: Sequence[int] = ()) -> Answer:
        """Raises `DriverUnavailable` where the driver does not answer, or not as one."""
        with self._lock:
            try:
                send_request(self._socket, code, payload, descriptors)
                message = self._socket.recv(MESSAGE_MAX)
                if not message:
                    raise BrokenPipeError(errno.EPIPE, "it has closed the connection")
                return Answer.unpack(message)
            except (OSError, ValueError) as error:
                self._break()
                why = getattr(error, "strerror", None) or str(error)
                raise DriverUnavailable(
                    errno.EPIPE,
                    f"the driver service does not answer for adapter {self.name}: {why}; "
                    "see whether it runs: ringtun driver status",
                ) from error
            except BaseException:  # what comes now is the answer to this, and to nothing else
                self._break()
                raise

    def _break(self) -> None:
        """Nothing can be asked any more, and the session ends; the descriptor stays our own."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    # ---- no engine here -------------------------------------------------------------------------

    def pump_to_client(self, budget: int) -> int:
        """See `ringtun.device.Device`."""
        return IDLE

    def wait_to_client(self, budget: int, stop: int, timeout: float | None) -> int | None:
        """See `ringtun.device.Device`."""
        raise NotImplementedError("the engine is the driver's")

    def pump_to_host(self, budget: int) -> int:
        """See `ringtun.device.Device`."""
        return IDLE

    def forward(self, batch: Batch[Any]) -> list[int] | None:
        """See `ringtun.device.Device`."""
        return None

    # ---- the end --------------------------------------------------------------------------------

    def end_reason(self) -> EndReason:
        """See `ringtun.device.Device`."""
        self._look()
        if self._end == _REMOVED:
            return EndReason.ADAPTER_REMOVED
        return EndReason.RING_CORRUPT if self._end == _CORRUPT else EndReason.DRIVER_ENDED

    def statistics(self) -> Statistics:
        """See `ringtun.device.Device`."""
        self._look()
        return self._statistics

    def _look(self) -> None:
        if self._gone or self._socket.fileno() < 0:
            return
        with suppress(DriverUnavailable):
            self._learn(self._ask(abi.IOCTL_GET_STATISTICS))

    def _learn(self, answer: Answer) -> None:
        if answer.status == Status.SUCCESS:
            with suppress(ValueError):
                self._end, self._statistics = unpack_statistics(answer.output)

    def driver_ended(self) -> None:
        """The socket was closed at the other end: end the session as the driver would have."""
        self._gone = True
        rings = self._rings
        if rings is not None:
            rings.end()
        if self.to_host_space is not None:
            self.to_host_space.signal()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """See `ringtun.device.Device`. Returns once the driver has ended the session."""
        _watcher.forget(self)
        if self._rings is not None and not self._gone:
            with self._lock, suppress(OSError, ValueError):
                self._socket.shutdown(socket.SHUT_WR)
                self._socket.settimeout(_LAST_WORDS)
                self._learn(Answer.unpack(self._socket.recv(MESSAGE_MAX)))
        if self._rings is not None:
            self._rings.close()
        self._close_descriptors()
        if self._interface is not None:
            self._interface.tell()

    def abandon(self) -> None:
        """See `ringtun.device.Device`."""
        if self._rings is not None:
            self._rings.abandon()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        self._socket.close()
        for space in (self.to_client_space, self.to_host_space):
            if space is not None:
                space.close()


def _connect(name: str, path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(_PATIENCE)
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
            raise AdapterNotFound(
                errno.ENODEV, f"adapter {name} is not there any more, nor its device {path}"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise AdapterPermissionError(
                errno.EACCES, f"no permission to open the device of adapter {name}, {path}"
            ) from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


class _Rings:
    """What it takes to end both rings of an offer from this side."""

    def __init__(self, offer: RegisterRings, descriptors: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._memories: list[Mapping] = []
        self._event = Event(
            fcntl.fcntl(descriptors[offer.send.tail_moved - 1], fcntl.F_DUPFD_CLOEXEC, 0)
        )
        try:
            for ring in (offer.send, offer.receive):
                self._memories.append(map_shared(descriptors[ring.ring - 1], _PAGE))
        except BaseException:
            self.close()
            raise

    def end(self) -> None:
        """As a driver that ends: poison the index of each that is the driver's, and wake."""
        with self._lock:
            for memory, offset in zip(self._memories, (abi.RING_TAIL, abi.RING_HEAD), strict=False):
                with memoryview(memory) as view, view.cast("I") as words:
                    words[offset // 4] = abi.RING_CLOSED
            self._event.signal()

    def close(self) -> None:
        with self._lock:
            while self._memories:
                self._memories.pop().close()
            self._event.close()

    def abandon(self) -> None:
        """In a forked child, where whoever held the lock is not."""
        self._lock = threading.Lock()
        self.close()


class _Watcher:
    """One thread that looks at the sockets of all devices, as long as there are some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._devices: dict[int, ServiceDevice] = {}
        self._thread: threading.Thread | None = None
        self._wake: Event | None = None  # of the thread that is to go on

    def watch(self, device: ServiceDevice) -> None:
        with self._lock:
            self._devices[device.fileno()] = device
            if self._wake is not None:
                self._wake.signal()
                return
            self._wake = Event()
            self._thread = threading.Thread(
                target=self._run, args=[self._wake], name="ringtun-watcher", daemon=True
            )
            self._thread.start()

    def forget(self, device: ServiceDevice) -> None:
        with self._lock:
            if self._devices.get(device.fileno()) is not device:
                return
            del self._devices[device.fileno()]
            thread, wake = self._thread, self._wake
            assert thread is not None
            assert wake is not None
            wake.signal()
            if self._devices:
                return
            self._thread = self._wake = None
        thread.join()
        wake.close()

    def _run(self, wake: Event) -> None:
        while True:
            poll = select.poll()
            poll.register(wake.fileno(), select.POLLIN)
            with self._lock:
                if self._wake is not wake:
                    return
                wake.clear()
                for fd in self._devices:
                    poll.register(fd, select.POLLRDHUP)
            ready = poll.poll()
            with self._lock:
                if self._wake is not wake:
                    return
                ended = [self._devices.pop(fd) for fd, _ in ready if fd in self._devices]
                last = not self._devices
                if last:
                    self._thread = self._wake = None
            for device in ended:
                device.driver_ended()
            if last:
                wake.close()
                return


_watcher = _Watcher()


def _forget_all() -> None:
    """In a forked child: the thread is the parent's."""
    global _watcher
    _watcher = _Watcher()


os.register_at_fork(after_in_child=_forget_all)
