"""The engine: moves packets between an adapter's host and the rings of one registration.

The native core's (``native/engine.h``) where it was built; else the same step in plain Python,
which serves the client's own calls only.
"""

from __future__ import annotations

import enum
import errno
import select
import threading
import warnings
from typing import TYPE_CHECKING, Any, Protocol

from ringtun import abi
from ringtun.errors import DriverUnavailable, SessionClosed
from ringtun.packet import is_ip
from ringtun.ring import NATIVE, twin_works_here
from ringtun.step import StepResult

if TYPE_CHECKING:
    from ringtun._native import Batch, Space
    from ringtun.driver.registration import Registration
    from ringtun.host import Host

__all__ = ["Engine", "EngineEnd", "PythonEngine", "can_offload", "make_engine"]

_CURE = (
    "ringtun's native core is not here: install a C compiler and the Python headers "
    "(python3-dev), then reinstall ringtun"
)


_NO_OPTIONS = abi.Options(0)


class EngineEnd(enum.IntEnum):
    """Why a session ended, from the driver's side; ``enum engine_end`` of the native core."""

    RUNNING = 0
    CLOSED = 1
    REMOVED = 2
    CORRUPT = 3


class Engine(Protocol):
    """One registration's engine. A step moves at most ``budget`` packets and never waits."""

    def step_to_client(self, budget: int) -> int: ...
    def wait_to_client(
        self, budget: int, stop: int, timeout: float | None = None
    ) -> int | None: ...
    def step_to_host(self, budget: int) -> int: ...
    def forward(self, batch: Batch[Any]) -> list[int] | None: ...
    def start_threads(self) -> None: ...
    def end(self, reason: int) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...
    @property
    def end_reason(self) -> int: ...
    @property
    def wakeups(self) -> int: ...
    def counters(self) -> tuple[dict[str, int], dict[str, int]]: ...


def can_offload() -> bool:
    """Whether the engines made here take large packets from the host, and give it some."""
    return NATIVE


def make_engine(
    host: Host,
    registration: Registration,
    *,
    threads: bool,
    to_client_space: Space | None = None,
    to_host_space: Space | None = None,
    options: abi.Options = _NO_OPTIONS,
    spin: float = 0.0,
    foreign: bool = False,
) -> Engine:
    """An engine for an accepted offer, run by its own threads or by whoever calls its steps.

    ``foreign``: the client is another process, which takes threads.

    Raises `DriverUnavailable` where this needs the native core and it is not there.
    """
    to_client, to_host = registration.to_client, registration.to_host
    if NATIVE:
        from ringtun import _native

        engine = _native.Engine(
            host.native(),
            to_client.memory,
            to_client.capacity,
            to_host.memory,
            to_host.capacity,
            to_client.event.fileno(),
            to_host.event.fileno(),
            to_client_space=to_client_space,
            to_host_space=to_host_space,
            options=options,
            spin=spin,
            foreign=foreign,
        )
        try:
            if threads:
                engine.start_threads()
        except BaseException:
            engine.close()
            raise
        return engine
    if not twin_works_here():
        raise DriverUnavailable(
            errno.ENOSYS, f"{_CURE}; the plain-Python rings work on x86-64 processors only"
        )
    if threads:
        raise DriverUnavailable(errno.ENOSYS, f'{_CURE}, or use pump="inline"')
    warnings.warn(
        f'packets are moved by plain Python, many times slower and without pump="thread": {_CURE}',
        RuntimeWarning,
        stacklevel=2,
    )
    return PythonEngine(host, registration)


class PythonEngine:
    """The native engine's step in plain Python, without threads."""

    def __init__(self, host: Host, registration: Registration) -> None:
        from ringtun import _twin

        self._host = host
        to_client, to_host = registration.to_client, registration.to_host
        self._to_client = _twin.Producer(to_client.memory, to_client.capacity)
        self._to_host = _twin.Consumer(to_host.memory, to_host.capacity)
        self._send_event = to_client.event
        self._pending: bytes | None = None
        self._unsent: bytes | None = None
        self._end = EngineEnd.RUNNING
        self._locks = (threading.Lock(), threading.Lock())
        self._counters = tuple(
            dict.fromkeys(
                (
                    "packets",
                    "bytes",
                    "large",
                    "invalid_head",
                    "too_big",
                    "not_ip",
                    "malformed",
                    "host_down",
                    "refused",
                    "no_memory",
                ),
                0,
            )
            for _ in range(2)
        )

    def start_threads(self) -> None:
        """Raises `DriverUnavailable`: threads are the native core's."""
        raise DriverUnavailable(errno.ENOSYS, _CURE)

    wakeups = 0

    @property
    def end_reason(self) -> int:
        return self._end

    def counters(self) -> tuple[dict[str, int], dict[str, int]]:
        to_client, to_host = self._counters
        return dict(to_client), dict(to_host)

    def abandon(self) -> None:
        self._to_client.close()
        self._to_host.close()

    def end(self, reason: int) -> None:
        with self._locks[0], self._locks[1]:
            if self._end is EngineEnd.RUNNING:
                self._end = EngineEnd(reason)
                self._to_host.end()
                self._to_client.end()
                self._send_event.signal()
                self.abandon()

    def close(self) -> None:
        """End the session and let the memory go."""
        self.end(EngineEnd.CLOSED)

    def step_to_client(self, budget: int) -> int:
        with self._locks[0]:
            if self._end is not EngineEnd.RUNNING:
                return StepResult.OVER
            result = StepResult.MORE
            while budget and result is StepResult.MORE:
                result = self._read_packet()
                budget -= 1
            self._to_client.submit()
        if result is StepResult.OVER:
            self.end(EngineEnd.REMOVED)
        return result

    def _read_packet(self) -> StepResult:
        counters = self._counters[0]
        if self._pending is None:
            try:
                packet = self._host.read_packet()
            except OSError:
                return StepResult.OVER
            if packet is None:
                return StepResult.IDLE
            if len(packet) > abi.PACKET_MAX_SIZE:
                counters["too_big"] += 1
                return StepResult.MORE
            if not is_ip(packet):
                counters["not_ip"] += 1
                return StepResult.MORE
            self._pending = packet
        try:
            if not self._to_client.push(self._pending):
                return StepResult.BLOCKED
            counters["packets"] += 1
            counters["bytes"] += len(self._pending)
        except SessionClosed:
            counters["invalid_head"] += 1
        self._pending = None
        return StepResult.MORE

    def wait_to_client(self, budget: int, stop: int, timeout: float | None = None) -> int | None:
        poll = select.poll()
        for fd in (self._host.fileno(), stop, self._send_event.fileno()):
            poll.register(fd, select.POLLIN)
        if not poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
            return None
        return self.step_to_client(budget)

    def forward(self, batch: Batch[Any]) -> list[int] | None:
        """Everything goes through the ring here."""
        return None

    def step_to_host(self, budget: int) -> int:
        with self._locks[1]:
            if self._end is not EngineEnd.RUNNING:
                return StepResult.OVER
            result, reason = StepResult.MORE, EngineEnd.REMOVED
            try:
                while budget and result is StepResult.MORE:
                    result = self._write_packet()
                    budget -= 1
            except SessionClosed:  # of whatever kind: a client does not end its ring
                result, reason = StepResult.OVER, EngineEnd.CORRUPT
        if result is StepResult.OVER:
            self.end(reason)
        return result

    def _write_packet(self) -> StepResult:
        counters = self._counters[1]
        packet, self._unsent = self._unsent, None
        if packet is None:
            packet = self._to_host.pop()
        if packet is None:
            return StepResult.IDLE
        if not is_ip(packet):
            counters["not_ip"] += 1
            return StepResult.MORE
        try:
            self._host.write_packet(packet)
        except BlockingIOError:
            self._unsent = packet
            return StepResult.BLOCKED
        except OSError as error:
            if error.errno == errno.EBADFD:
                return StepResult.OVER
            if error.errno == errno.EIO:
                counters["host_down"] += 1
            elif error.errno in (errno.ENOMEM, errno.ENOBUFS):
                counters["no_memory"] += 1
            else:
                counters["refused"] += 1
        else:
            counters["packets"] += 1
            counters["bytes"] += len(packet)
        return StepResult.MORE
