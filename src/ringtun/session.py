"""A session: the rings of one registration, with blocking calls above them.

The way of a packet to the program: the driver's engine puts it into the to_client ring, a receive
takes it out; with an inline engine the receive runs the engine's step itself when the ring is
empty. A send is the same in reverse. A call first tries without a lock and without a wait; only
one that has to wait claims its side of the session.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, cast, overload

from ringtun import abi
from ringtun.errors import ConcurrencyError, EndReason, RingCorrupt, SessionClosed
from ringtun.event import Event
from ringtun.offer import Offer
from ringtun.ring import Batch, Consumer, Producer, Slot
from ringtun.statistics import Statistics
from ringtun.step import BLOCKED, IDLE, MORE, OVER

if TYPE_CHECKING:
    from typing_extensions import Buffer, TypeVar

    from ringtun._native import Space
    from ringtun.device import Device
    from ringtun.offload import OffloadPacket

    PacketT = TypeVar("PacketT", default=bytes)
else:
    from typing import TypeVar

    PacketT = TypeVar("PacketT")

__all__ = ["PacketT", "ReservedSlot", "Session"]

T = TypeVar("T")

RECEIVE_BUDGET = 256
# Where packets come one at a time, a receive asks the host for one: to ask for more is a system
# call that brings nothing. Each so many waits it asks for more all the same.
LONE_WAITS = 16
SEND_BUDGET = 1 << 16
GATHER_BYTES = 1 << 16
# A driver that does not tell of room is asked this often, in seconds.
ROOM_LOOK = 0.001
# A wait of fewer seconds may be over before it has begun: what is there is looked for first.
SHORT_WAIT = 0.001
# A wait is cut into pieces of so many seconds: the kernel's clock takes no larger ones.
_LONGEST_WAIT = 86400.0
NO_OPTIONS = abi.Options(0)
MOST_PACKETS = 1 << 16
UNFINISHED = (MORE, BLOCKED)


class Session(Generic[PacketT]):
    """Packets to and from one adapter, by blocking calls. Made by ``Adapter.start_session``.

    A ``Session[bytes]`` receives bytes, or views of a batch. A ``Session[OffloadPacket]``, of
    ``offload=True``, receives and sends `OffloadPacket` in their place.

    One thread receives and one sends at a time, each without disturbing the other; a second one
    gets `ConcurrencyError`. Packets of one direction keep their order. Timeouts are in seconds:
    None waits for ever, 0 does not wait; time that runs out is a ``TimeoutError``, and nothing was
    taken.

    Once the session is over, every call raises `SessionClosed` (its ``reason`` says why) or, where
    the rings hold what no correct peer writes, `RingCorrupt`.
    """

    def __init__(
        self,
        device: Device,
        capacity: int,
        *,
        spin: float = 0.0,
        options: abi.Options = NO_OPTIONS,
    ) -> None:
        """Register rings of ``capacity`` bytes with ``device``, which the session owns from now on.

        Raises what `Offer`, ``Device.set_options`` and ``Device.register_rings`` raise; the device
        is closed then.
        """
        self._over = threading.Event()  # everything was given back
        self._over.set()
        try:
            offer = Offer(capacity)
            try:
                if options:
                    device.set_options(options)
                device.register_rings(offer.rings, offer.descriptors)
                self._stop = Event()
            except BaseException:
                offer.close()
                raise
        except BaseException:
            device.close()
            raise
        self._over.clear()
        self._device = device
        self._offer = offer
        self._capacity = capacity
        self._spin = spin
        self._reason: EndReason | None = None  # set once it is closed, from this side
        self._corrupt = False
        self._claims = threading.RLock()
        self._receiver: _Claim | None = None  # who waits to receive
        self._sender: _Claim | None = None  # who waits to send
        self._gatherer: int | None = None  # the thread inside `gather`
        self._dry = False  # the host had nothing more, when it was looked at
        self._lone = 0  # waits, one after the other, that brought a single packet
        self._send_full = 0
        self._final: Statistics | None = None
        self._adapter: object = None  # kept as long as the session runs
        self._epoll: select.epoll | None = None
        self._event = offer.to_client_event
        self._space = device.to_host_space
        self._inline = device.host_fd is not None
        self._whole = bool(options & abi.Options.WHOLE_PACKETS)
        wrapping, prefixing = _whole() if options & abi.Options.WHOLE_PACKETS else ({}, {})
        self._consumer = Consumer(
            offer.to_client.mapping, capacity, self._event, device.to_client_space, **wrapping
        )
        self._producer = Producer(
            offer.to_host.mapping,
            capacity,
            offer.to_host_event,
            self._space,
            ip_only=True,
            **prefixing,
        )
        offer.forget_memory_descriptors()
        self._send_poll = _poll(self._stop, self._space)
        if device.host_fd is not None:
            self._send_poll.register(device.host_fd, select.POLLOUT)
        _sessions.add(self)

    # ---- receiving ------------------------------------------------------------------------------

    def receive(self, timeout: float | None = None) -> PacketT:
        """Wait for a packet, and take it."""
        packet = self._take(self._consumer.pop)
        if packet is None:
            packet = self._await_packet(self._consumer.pop, timeout)
        if self._epoll is not None:
            self._keep_level()
        return cast("PacketT", packet)

    def try_receive(self) -> PacketT | None:
        """Take a packet if there is one; None otherwise. Never waits."""
        packet = self._take(self._consumer.pop)
        if packet is None:
            self._device.pump_to_client(RECEIVE_BUDGET)
            packet = self._take(self._consumer.pop)
        if self._epoll is not None:
            self._keep_level()
        return cast("PacketT | None", packet)

    @overload
    def receive_many(
        self: Session[OffloadPacket], max_packets: int = 512, timeout: float | None = None
    ) -> Batch[OffloadPacket]: ...
    @overload
    def receive_many(
        self: Session[bytes], max_packets: int = 512, timeout: float | None = None
    ) -> Batch[memoryview]: ...
    def receive_many(self, max_packets: int = 512, timeout: float | None = None) -> Batch[Any]:
        """Wait for packets, and take all that are there, at most ``max_packets``, without a copy.

        The batch is a sequence of writable views into the ring; use it in a ``with``, or release
        it. While a slice of a view, or an array made from one, lives on, its slot stays pinned: see
        `Batch`.
        """

        max_packets = min(max_packets, MOST_PACKETS)

        def take() -> Batch | None:
            return self._consumer.peek_many(max_packets)

        batch = self._take(take)
        if batch is None:
            batch = self._await_packet(take, timeout, max_packets)
        if self._epoll is not None:
            self._keep_level()
        return batch

    @overload
    def batches(
        self: Session[OffloadPacket], max_packets: int = 512
    ) -> Generator[Batch[OffloadPacket], None, None]: ...
    @overload
    def batches(
        self: Session[bytes], max_packets: int = 512
    ) -> Generator[Batch[memoryview], None, None]: ...
    def batches(self: Session[Any], max_packets: int = 512) -> Generator[Batch[Any], None, None]:
        """`receive_many`, one after the other, each released before the next.

        Ends after this session's own `close`; any other end raises.
        """
        while True:
            try:
                batch = self.receive_many(max_packets)
            except SessionClosed:
                if self._reason is EndReason.CLOSED:
                    return
                raise
            with batch:
                yield batch

    def __iter__(self) -> Iterator[PacketT]:
        """Packets as they come. Ends after this session's own `close`; any other end raises."""
        while True:
            try:
                packet = self.receive()
            except SessionClosed:
                if self._reason is EndReason.CLOSED:
                    return
                raise
            yield packet

    def _take(self, take: Callable[[], T | None]) -> T | None:
        if self._receiver is not None:
            raise ConcurrencyError("another thread receives from this session just now")
        try:
            return take()
        except SessionClosed as error:
            raise self._end_error(error) from None

    def _await_packet(
        self, take: Callable[[], T | None], timeout: float | None, budget: int | None = None
    ) -> T:
        if budget is None:
            budget = 1 if self._lone % LONE_WAITS else RECEIVE_BUDGET
        deadline = _deadline(timeout)
        spin_until = time.monotonic() + self._spin if self._spin else 0.0
        if deadline is not None:
            spin_until = min(spin_until, deadline)
        # Where the host had nothing more at the last look, the wait itself looks first.
        look = not self._dry or (timeout is not None and timeout < SHORT_WAIT) or spin_until > 0
        result: int | None = IDLE
        waited = False
        with _Claim(self, "_receiver"):
            while True:
                if look and self._inline:
                    result = self._device.pump_to_client(budget)
                self._dry = result == IDLE
                taken = take()
                if taken is not None:
                    self._lone = 0 if self._consumer.more else self._lone + 1
                    return taken
                look = True
                if result == BLOCKED:  # batches that are not released fill the ring
                    self._pause(deadline)
                    continue
                if result == MORE:  # all that came was discarded
                    self._check_running()
                    if deadline is None or time.monotonic() < deadline:
                        continue
                if spin_until and time.monotonic() < spin_until:
                    self._check_running()
                    continue
                if self._inline:
                    if waited:
                        self._event.clear()  # it may have been set for what was there before
                    result, look, waited = self._wait_for_host(deadline, budget), False, True
                else:
                    self._consumer.wait(self._stop.fileno(), _left(deadline, "no packet came"))
                    self._check_running()

    # ---- sending --------------------------------------------------------------------------------

    def send(self, packet: Buffer | PacketT, timeout: float | None = None) -> None:
        """Send a packet: an IP packet of at most 65,535 bytes. Waits for room.

        Raises ``ValueError`` for what is no IP packet.
        """
        self._check_sender()
        if self._gatherer is not None:
            self._gather(packet, timeout)
            return
        try:
            sent = self._producer.write(packet)
        except SessionClosed as error:
            raise self._end_error(error) from None
        if not sent:
            self._await_room(lambda: self._producer.write(packet), timeout)
        self._flush(timeout)

    def try_send(self, packet: Buffer | PacketT) -> bool:
        """Send a packet if there is room for it now; False, and counted, otherwise. Never waits."""
        self._check_sender()
        try:
            sent = self._producer.write(packet)
            if not sent and self._inline:
                self._device.pump_to_host(SEND_BUDGET)
                sent = self._producer.write(packet)
        except SessionClosed as error:
            raise self._end_error(error) from None
        if sent:
            self._flush(0)
        else:
            self._send_full += 1
        return sent

    def send_many(self, packets: Iterable[Buffer | PacketT], timeout: float | None = None) -> int:
        """Send packets, shown to the driver together; returns how many: all, unless time ran out.

        A batch, of this session or another, goes to the host without a copy where both are
        ``pump="inline"`` and nothing waits before it, and is copied from ring to ring otherwise.
        Where a packet is no IP packet, those before it are sent and ``ValueError`` is raised.
        """
        self._check_sender()
        if isinstance(packets, (bytes, bytearray, memoryview)):
            raise TypeError("send_many takes several packets: for one, use send")
        if not isinstance(packets, Sequence):
            packets = list(packets)
        total, done = len(packets), 0
        if self._inline and isinstance(packets, Batch):
            packets = self._forward(packets)
            if not packets:
                return total
            done = total - len(packets)
        start = done

        def push() -> bool:
            nonlocal done
            done += self._producer.push_many(packets, done - start)
            return done == total

        try:
            if not push():
                with suppress(TimeoutError):
                    self._await_room(push, timeout)
        except SessionClosed as error:
            raise self._end_error(error) from None
        finally:
            self._show(timeout)
        return done

    def _forward(self, batch: Batch[Any]) -> Sequence[Any]:
        """Give the host a batch past the ring; returns what of it has to go through the ring."""
        if batch.whole != self._whole or self._producer.staged or self._gatherer is not None:
            return batch
        try:
            self._producer.check()
        except SessionClosed as error:
            raise self._end_error(error) from None
        left = self._device.forward(batch)
        return batch if left is None else [batch[number] for number in left]

    @contextmanager
    def gather(self) -> Iterator[None]:
        """What is sent inside goes out together: at 64 KiB, or at the block's end, whichever ends
        it.

        Raises `ConcurrencyError` where a block is open already.
        """
        with self._claims:
            self._check_sender()
            if self._gatherer is not None:
                raise ConcurrencyError("packets are gathered in this session already")
            self._gatherer = threading.get_ident()
        try:
            yield
        except BaseException:
            self._gatherer = None
            with suppress(SessionClosed):  # the block's own error is the one to see
                self._show(None)
            raise
        self._gatherer = None
        if self._producer.staged:
            self._show(None)

    def _gather(self, packet: Buffer | PacketT, timeout: float | None) -> None:
        try:
            pushed = self._producer.push(packet)
        except SessionClosed as error:
            raise self._end_error(error) from None
        if not pushed:
            self._await_room(lambda: self._producer.push(packet), timeout)
        self._show(timeout)

    def reserve(self, size: int, timeout: float | None = None) -> ReservedSlot:
        """Room in the ring for a packet of up to ``size`` bytes, to be written in place.

        ``with session.reserve(1400) as slot:`` write into ``slot.view``, then
        ``slot.commit(length)``. Without a commit, or after an exception, nothing is sent. Until
        the block ends nothing else can be sent. Waits for room.
        """
        self._check_sender()
        reserved: list[Slot] = []

        def reserve() -> bool:
            slot = self._producer.reserve(size)
            if slot is not None:
                reserved.append(slot)
            return slot is not None

        try:
            if not reserve():
                self._await_room(reserve, timeout)
        except SessionClosed as error:
            raise self._end_error(error) from None
        return ReservedSlot(self, reserved[0])

    def _check_sender(self) -> None:
        if self._sender is not None:
            raise ConcurrencyError("another thread sends to this session just now")
        if self._gatherer is not None and self._gatherer != threading.get_ident():
            raise ConcurrencyError("another thread gathers packets in this session just now")

    def _commit(self, slot: Slot, length: int | None) -> None:
        try:
            slot.commit(length)
        except SessionClosed as error:
            raise self._end_error(error) from None
        self._show(None)

    def _show(self, timeout: float | None) -> None:
        """Show the driver what was pushed; inside `gather`, only once it is much."""
        if self._gatherer is None or self._producer.staged >= GATHER_BYTES:
            self._producer.submit()
            self._flush(timeout)

    def _flush(self, timeout: float | None) -> None:
        """With an inline engine: move what is in the ring to the host."""
        if not self._inline:
            if self._producer.ended:
                raise self._end_error(SessionClosed(EndReason.DRIVER_ENDED))
            return
        result = self._device.pump_to_host(SEND_BUDGET)
        if result == OVER:
            raise self._end_error(SessionClosed(EndReason.DRIVER_ENDED))
        if result == IDLE or timeout == 0:
            return
        # The host is slow to take what is in the ring: it goes on with the next call at the latest.
        deadline = _deadline(timeout)
        with _Claim(self, "_sender"), suppress(TimeoutError):
            while (result := self._device.pump_to_host(SEND_BUDGET)) in UNFINISHED:
                if result == BLOCKED:
                    self._wait(self._send_poll, deadline, "")

    def _await_room(self, attempt: Callable[[], bool], timeout: float | None) -> None:
        deadline = _deadline(timeout)
        with _Claim(self, "_sender"):
            while True:
                self._producer.submit()
                self._device.pump_to_host(SEND_BUDGET)
                if attempt():
                    return
                if self._inline:
                    self._wait(self._send_poll, deadline, "the host takes no packets")
                elif self._space is None:
                    look = time.monotonic() + ROOM_LOOK
                    if deadline is None or look < deadline:
                        self._wait(self._send_poll, look, "")
                    else:
                        self._wait(self._send_poll, deadline, "the ring is full")
                elif self._producer.arm():
                    try:
                        self._wait(self._send_poll, deadline, "the ring stays full")
                    finally:
                        self._producer.disarm()
                    self._space.clear()

    # ---- waiting --------------------------------------------------------------------------------

    def _wait_for_host(self, deadline: float | None, budget: int) -> int | None:
        """Wait for the host, the end, or the deadline, and move what the host has into the ring."""
        timeout = _left(deadline, "no packet came")
        result = self._device.wait_to_client(budget, self._stop.fileno(), timeout)
        self._check_running()
        return result

    def _wait(self, poll: select.poll, deadline: float | None, what: str) -> None:
        """Wait for the work, the end, or the deadline."""
        left = _left(deadline, what)
        poll.poll(None if left is None else left * 1000)
        self._check_running()

    def _pause(self, deadline: float | None) -> None:
        """Where nothing tells of what is awaited: until a little later, or the end."""
        _left(deadline, "no packet came")
        _poll(self._stop, None).poll(ROOM_LOOK * 1000)
        self._check_running()

    def _check_running(self) -> None:
        if self._reason is not None:
            raise SessionClosed(self._reason)

    def fileno(self) -> int:
        """A descriptor for other event loops, the session's own: readable exactly when a receive
        would not wait, packets in the ring and the end of the session included.

        Asked for once, it costs each receive a system call or two, and lives as long as the session
        object: a loop in another thread learns of the close.
        """
        with self._claims:
            self._check_running()
            if self._epoll is None:
                epoll = select.epoll()
                epoll.register(self._stop.fileno(), select.EPOLLIN)
                epoll.register(self._event.fileno(), select.EPOLLIN)
                if self._device.host_fd is not None:
                    epoll.register(self._device.host_fd, select.EPOLLIN)
                self._epoll = epoll
                self._keep_level()
            return self._epoll.fileno()

    @property
    def wait_handle(self) -> int:
        """What the operating system waits for: on Linux, `fileno`."""
        return self.fileno()

    def _keep_level(self) -> None:
        """Keep the event set exactly while the ring has something to say."""
        with self._claims:
            if self._reason is not None:
                return
            if not self._consumer.content:
                self._event.clear()
                # What the host has may be nothing for a receive: look, and let the ring say.
                self._device.pump_to_client(RECEIVE_BUDGET)
                if self._consumer.arm():
                    return
            self._event.signal()

    # ---- the rest -------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Bytes that each of the two rings holds."""
        return self._capacity

    def statistics(self) -> Statistics:
        """What went through this session so far, and what lies in its rings."""
        if self._final is not None:
            return replace(self._final, pinned=self._consumer.pinned)
        try:
            waiting = self._capacity - 4 - self._producer.room
        except (SessionClosed, ConcurrencyError):
            waiting = 0
        return replace(
            self._device.statistics(),
            send_full=self._send_full,
            pinned=self._consumer.pinned,
            to_client_used=self._consumer.content,
            to_host_used=waiting,
        )

    def close(self) -> None:
        """End the session, from any thread; who waits in it gets `SessionClosed`. Idempotent.

        What was sent before still goes out, as far as the host takes it at once. Pinned slots keep
        their bytes, and their memory goes with the last of them.
        """
        self._close(EndReason.CLOSED)

    def _close(self, reason: EndReason) -> None:
        with self._claims:
            if self._reason is None:
                self._reason = reason
            inside = {claim.thread for claim in (self._receiver, self._sender) if claim}
            if not self._over.is_set():
                self._stop.signal()
            self._give_back()
        if threading.get_ident() not in inside:
            self._over.wait()

    def _give_back(self) -> None:
        """Close everything, once nobody waits inside: the last one out does it.

        Each step may be done again: an exception from a signal may come between any two.
        """
        if self._receiver is not None or self._sender is not None:
            return
        if not self._over.is_set():
            self._device.close()
            if self._final is None:
                self._final = self.statistics()
            self._consumer.close()
            self._producer.close()
            self._offer.close()
            self._adapter = None
            self._over.set()
        if self._epoll is None:  # else an event loop may look at it, in another thread too
            self._close_fileno()

    def _close_fileno(self) -> None:
        if self._epoll is not None:
            self._epoll.close()
        self._stop.close()

    def _abandon(self) -> None:
        """In a forked child: give back what this process holds; the session is the parent's."""
        if self._over.is_set():
            return
        self._reason = EndReason.FORKED
        self._claims = threading.RLock()
        self._receiver = self._sender = None
        self._final = Statistics()
        self._device.abandon()
        self._consumer.close()
        self._producer.close()
        self._offer.close()
        self._close_fileno()
        self._over.set()

    def _end_error(self, error: SessionClosed) -> SessionClosed:
        """The error that says why the session is over."""
        if self._reason is not None:
            return SessionClosed(self._reason)
        if isinstance(error, RingCorrupt) and not self._corrupt:
            self._corrupt = True  # whatever the ring says from now on
            self._consumer.close()
            self._producer.close()
        if self._corrupt or self._device.end_reason() is EndReason.RING_CORRUPT:
            return RingCorrupt()
        return SessionClosed(self._device.end_reason())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "running" if self._reason is None else f"over: {self._reason.value}"
        return f"<Session on {self._device.name}, {state}>"

    def __del__(self) -> None:
        if not hasattr(self, "_final"):
            return  # it never began
        try:
            if not self._over.is_set():
                warnings.warn(f"unclosed session {self!r}", ResourceWarning, source=self)
        finally:  # the warning may be an error
            self.close()
            self._close_fileno()


class _Commits(Protocol):
    def _commit(self, slot: Slot, length: int | None) -> None: ...


class ReservedSlot:
    """A packet being written in place; see `Session.reserve`."""

    def __init__(self, session: _Commits, slot: Slot) -> None:
        self._session = session
        self._slot = slot

    @property
    def view(self) -> memoryview:
        """Where to write: writable, of the size that was reserved. It ends with the commit."""
        return self._slot.view

    def commit(self, length: int | None = None) -> None:
        """Send the first ``length`` bytes of the view; all of them by default.

        Raises ``ValueError`` for what is no IP packet, ``BufferError`` while a slice of the view
        lives; nothing was sent then.
        """
        self._session._commit(self._slot, length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._slot.abandon()

    def __del__(self) -> None:
        self._slot.abandon()


def _whole() -> tuple[dict[str, Any], dict[str, Any]]:
    """What consumer and producer of whole packets are made with."""
    from ringtun.offload import HEADER_SIZE, OffloadPacket

    return {"wrap": OffloadPacket}, {"prefix": HEADER_SIZE}


def _poll(stop: Event, event: Event | Space | None) -> select.poll:
    poll = select.poll()
    poll.register(stop.fileno(), select.POLLIN)
    if event is not None:
        poll.register(event.fileno(), select.POLLIN)
    return poll


class _Claim:
    """One side of a session is the calling thread's inside the block, in which it waits.

    A class, since a wait for each packet is much of what that costs.
    """

    __slots__ = ("_session", "_side", "thread")

    def __init__(self, session: Session[Any], side: Literal["_receiver", "_sender"]) -> None:
        self._session = session
        self._side = side
        self.thread = threading.get_ident()

    def __enter__(self) -> None:
        session, side = self._session, self._side
        try:
            with session._claims:
                if getattr(session, side) is not None:
                    doing = "receives from" if side == "_receiver" else "sends to"
                    raise ConcurrencyError(f"another thread {doing} this session just now")
                setattr(session, side, self)
        except BaseException:  # a signal's handler may raise too
            self._let_go()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._let_go()
        if isinstance(exc, SessionClosed):
            raise self._session._end_error(exc) from None

    def _let_go(self) -> None:
        session = self._session
        with session._claims:
            if getattr(session, self._side) is self:
                setattr(session, self._side, None)
            if session._reason is not None:
                session._give_back()


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a number of seconds, or None, not {timeout!r}")
    if timeout != timeout:
        raise ValueError("timeout is a number of seconds, or None, not nan")
    return time.monotonic() + timeout


def _left(deadline: float | None, what: str) -> float | None:
    """Seconds to wait for now. Raises ``TimeoutError`` where the deadline has come."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"{what} in time")
    return min(left, _LONGEST_WAIT)


_sessions: weakref.WeakSet[Session[Any]] = weakref.WeakSet()


def _close_sessions() -> None:
    """At the interpreter's exit, while everything still works."""
    for session in list(_sessions):
        session.close()


def _abandon_sessions() -> None:
    for session in list(_sessions):
        session._abandon()


atexit.register(_close_sessions)
os.register_at_fork(after_in_child=_abandon_sessions)
