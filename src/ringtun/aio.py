"""A session for asyncio: the same rings, the same names, tasks in the place of threads.

A call first tries, as a blocking session does, and awaits nothing where that is enough; only one
that has to wait gives a descriptor to the event loop. Works on any loop that has ``add_reader``.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from ringtun.errors import ConcurrencyError, EndReason, SessionClosed
from ringtun.session import (
    GATHER_BYTES,
    MOST_PACKETS,
    RECEIVE_BUDGET,
    ROOM_LOOK,
    SEND_BUDGET,
    UNFINISHED,
    ReservedSlot,
    Session,
)
from ringtun.step import StepResult

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ringtun.device import Device
    from ringtun.ring import Batch, Slot
    from ringtun.statistics import Statistics

__all__ = ["AsyncSession"]

T = TypeVar("T")

# So many packets may pass through a session before other tasks of the loop have their turn.
_TURN = 256


class AsyncSession:
    """Packets to and from one adapter, for asyncio. Made by ``Adapter.start_async_session``.

    Everything but `close` is for the thread of the event loop in which the session is used first.
    One task receives at a time; a second one gets `ConcurrencyError`. Tasks that send queue in
    order. Packets of one direction keep their order.

    What can be done at once is done without awaiting anything; but after some 256 packets a session
    lets the loop's other tasks run first. For a time limit use ``asyncio.timeout()``: a receive
    that is cancelled has taken nothing, a send that is cancelled has sent nothing.

    Once the session is over, every call raises `SessionClosed` (its ``reason`` says why) or, where
    the rings hold what no correct peer writes, `RingCorrupt`.
    """

    def __init__(self, device: Device, capacity: int, *, spin: float = 0.0) -> None:
        """As `Session`, whose rings and whose end it shares."""
        self._session = session = Session(device, capacity)
        self._device = device
        self._consumer = session._consumer
        self._producer = session._producer
        self._spin = spin
        self._turn = _TURN  # packets until the other tasks' next turn
        self._receiving = False
        self._senders = 0  # tasks that hold `_sending`, or queue for it
        self._sending = asyncio.Lock()
        self._holder: asyncio.Task[object] | None = None  # of `_sending`
        self._gathering = False
        self._arrivals = _Watch((session._event.fileno(), select.EPOLLIN))
        if device.host_fd is not None:
            self._arrivals.add(device.host_fd, select.EPOLLIN)
        self._room: _Watch | None = None  # made by the first send that has to wait

    # ---- receiving ------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """Wait for a packet, and take it."""
        self._turn -= 1
        if self._turn < 0:
            await self._let_others()
        packet = self._session._take(self._consumer.pop)
        if packet is None:
            packet = await self._await_packet(self._consumer.pop)
        return packet

    def try_receive(self) -> bytes | None:
        """Take a packet if there is one; None otherwise. Never waits."""
        self._check_receiver()
        return self._session.try_receive()

    async def receive_many(self, max_packets: int = 256) -> Batch:
        """Wait for packets, and take all that are there, at most ``max_packets``, without a copy.

        The batch is that of `Session.receive_many`: use it in a ``with``, or release it.
        """
        if self._turn <= 0:
            await self._let_others()
        max_packets = min(max_packets, MOST_PACKETS)

        def take() -> Batch | None:
            return self._consumer.peek_many(max_packets)

        batch = self._session._take(take)
        if batch is None:
            batch = await self._await_packet(take, max_packets)
        self._turn -= len(batch)
        return batch

    def batches(self, max_packets: int = 256) -> AsyncIterator[Batch]:
        """`receive_many`, one after the other, each released before the next.

        Ends after this session's own `close`; any other end raises.
        """
        return _Batches(self, max_packets)

    def __aiter__(self) -> Self:
        """Packets as they come. Ends after this session's own `close`; any other end raises."""
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.receive()
        except SessionClosed:
            self._end_iteration()
            raise

    def _end_iteration(self) -> None:
        if self._session._reason is EndReason.CLOSED:
            raise StopAsyncIteration

    def _check_receiver(self) -> None:
        if self._receiving:
            raise ConcurrencyError("another task receives from this session just now")

    async def _await_packet(self, take: Callable[[], T | None], budget: int = RECEIVE_BUDGET) -> T:
        self._check_receiver()
        session = self._session
        spin_until = time.monotonic() + self._spin if self._spin else 0.0
        self._receiving = True
        try:
            while True:
                result = self._device.pump_to_client(budget)
                taken = take()
                if taken is not None:
                    return taken
                if result == StepResult.MORE or (spin_until and time.monotonic() < spin_until):
                    await self._let_others()
                elif result == StepResult.BLOCKED:  # pinned slots fill the ring
                    await asyncio.sleep(ROOM_LOOK)
                elif self._consumer.arm():
                    try:
                        await self._arrivals.wait()
                    finally:
                        self._consumer.disarm()
                    self._turn = _TURN
                session._check_running()
        except SessionClosed as error:
            raise session._end_error(error) from None
        finally:
            self._receiving = False

    async def _let_others(self) -> None:
        """The other tasks' turn."""
        self._turn = _TURN
        await asyncio.sleep(0)

    # ---- sending --------------------------------------------------------------------------------

    async def send(self, packet: Buffer) -> None:
        """Send a packet: an IP packet of at most 65,535 bytes. Waits for room.

        Raises ``ValueError`` for what is no IP packet.
        """
        self._turn -= 1
        if self._turn < 0:
            await self._let_others()
        if self._is_others_turn() or not self._push(packet):
            async with self._in_turn():
                while not self._push(packet):
                    await self._await_room()
        self._show()

    def try_send(self, packet: Buffer) -> bool:
        """Send a packet if there is room for it now; False, and counted, otherwise. Never waits.

        There is no room either while another task waits to send, or gathers packets.
        """
        if self._is_others_turn():
            self._session._send_full += 1
            return False
        return self._session.try_send(packet)

    async def send_many(self, packets: Batch | Iterable[Buffer]) -> int:
        """Send packets, shown to the driver together; returns how many: all of them.

        A batch, of this session or another, is copied from ring to ring. Where a packet is no IP
        packet, those before it are sent and ``ValueError`` is raised; cancelled, it may have sent
        the first of them.
        """
        if isinstance(packets, (bytes, bytearray, memoryview)):
            raise TypeError("send_many takes several packets: for one, use send")
        if not isinstance(packets, Sequence):
            packets = list(packets)
        if self._turn < 0:
            await self._let_others()
        total, done = len(packets), 0
        self._turn -= total

        def push() -> bool:
            nonlocal done
            try:
                done += self._producer.push_many(packets, done)
            except SessionClosed as error:
                raise self._session._end_error(error) from None
            return done == total

        try:
            if self._is_others_turn() or not push():
                async with self._in_turn():
                    while not push():
                        await self._await_room()
        finally:
            self._show()
        return done

    @asynccontextmanager
    async def gather(self) -> AsyncIterator[None]:
        """What this task sends inside goes out together: at 64 KiB, or at the block's end,
        whichever ends it. Other tasks that send wait until then.

        Raises `ConcurrencyError` where this task gathers already.
        """
        if self._gathering and not self._is_others_turn():
            raise ConcurrencyError("packets are gathered in this session already")
        async with self._in_turn():
            self._gathering = True
            try:
                yield
            except BaseException:
                self._gathering = False
                with suppress(SessionClosed):  # the block's own error is the one to see
                    self._show()
                raise
            self._gathering = False
            if self._producer.staged:
                self._show()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[ReservedSlot]:
        """Room in the ring for a packet of up to ``size`` bytes, to be written in place.

        ``async with session.reserve(1400) as slot:`` write into ``slot.view``, then
        ``slot.commit(length)``. Without a commit, or after an exception, nothing is sent. Other
        tasks that send wait until the block ends; this one cannot send anything else meanwhile.
        """
        async with self._in_turn():
            while (slot := self._reserve(size)) is None:
                await self._await_room()
            with ReservedSlot(self, slot) as reserved:
                yield reserved

    def _push(self, packet: Buffer) -> bool:
        try:
            return self._producer.push(packet)
        except SessionClosed as error:
            raise self._session._end_error(error) from None

    def _reserve(self, size: int) -> Slot | None:
        try:
            return self._producer.reserve(size)
        except SessionClosed as error:
            raise self._session._end_error(error) from None

    def _commit(self, slot: Slot, length: int | None) -> None:
        try:
            slot.commit(length)
        except SessionClosed as error:
            raise self._session._end_error(error) from None
        self._show()

    def _is_others_turn(self) -> bool:
        return self._senders > 0 and self._holder is not asyncio.current_task()

    @asynccontextmanager
    async def _in_turn(self) -> AsyncIterator[None]:
        """One task sends, those that came later wait."""
        task = asyncio.current_task()
        if self._holder is task:
            yield
            return
        self._senders += 1
        try:
            async with self._sending:
                self._holder = task
                try:
                    yield
                finally:
                    self._holder = None
        finally:
            self._senders -= 1

    def _show(self) -> None:
        """Show the driver what was pushed; inside `gather`, only once it is much."""
        if not self._gathering or self._producer.staged >= GATHER_BYTES:
            self._producer.submit()
            self._flush()

    def _flush(self) -> None:
        """With an inline engine: move what is in the ring to the host, the rest a little later."""
        session = self._session
        if not session._inline:
            if self._producer.ended:
                raise session._end_error(SessionClosed(EndReason.DRIVER_ENDED))
            return
        result = self._device.pump_to_host(SEND_BUDGET)
        if result == StepResult.OVER:
            raise session._end_error(SessionClosed(EndReason.DRIVER_ENDED))
        if result in UNFINISHED:
            asyncio.get_running_loop().call_later(ROOM_LOOK, self._flush_later)

    def _flush_later(self) -> None:
        with suppress(SessionClosed):  # who calls next learns of it
            self._flush()

    async def _await_room(self) -> None:
        """Return once there may be more room than there was."""
        session = self._session
        self._producer.submit()
        self._device.pump_to_host(SEND_BUDGET)
        space = session._space
        if session._inline or space is None:
            await asyncio.sleep(ROOM_LOOK)
        elif self._producer.arm():
            if self._room is None:
                self._room = _Watch((space.fileno(), select.EPOLLIN))
            try:
                await self._room.wait()
            finally:
                self._producer.disarm()
        try:
            session._check_running()
        except SessionClosed as error:
            raise session._end_error(error) from None

    # ---- the rest -------------------------------------------------------------------------------

    @property
    def capacity(self) -> int:
        """Bytes that each of the two rings holds."""
        return self._session.capacity

    def statistics(self) -> Statistics:
        """What went through this session so far, and what lies in its rings."""
        return self._session.statistics()

    def close(self) -> None:
        """End the session, from any thread; tasks that wait in it get `SessionClosed`. Idempotent.

        What was sent before still goes out, as far as the host takes it at once. Pinned slots keep
        their bytes, and their memory goes with the last of them.
        """
        self._close(EndReason.CLOSED)

    def _close(self, reason: EndReason) -> None:
        self._session._close(reason)
        for watch in (self._arrivals, self._room):
            if watch is not None:
                watch.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Async{repr(self._session)[1:]}"

    def __del__(self) -> None:
        if hasattr(self, "_arrivals"):  # else it never began
            self._arrivals.close()
            if self._room is not None:
                self._room.close()


class _Batches:
    """The batches of a session, each released before the next."""

    def __init__(self, session: AsyncSession, max_packets: int) -> None:
        self._session = session
        self._max_packets = max_packets
        self._batch: Batch | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        if self._batch is not None:
            self._batch.release()
            self._batch = None
        try:
            self._batch = await self._session.receive_many(self._max_packets)
        except SessionClosed:
            self._session._end_iteration()
            raise
        return self._batch


class _Watch:
    """By this one task waits for descriptors that are not its own to close.

    They lie edge-triggered in an epoll, and the loop watches that: a wait costs no registration,
    and descriptors that others close leave nothing stale in the loop. The first edge that nobody
    waits for takes the epoll out of the loop: who does not wait is not woken.
    """

    def __init__(self, *descriptors: tuple[int, int]) -> None:
        self._epoll = select.epoll()
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it is watched
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        for descriptor, events in descriptors:
            self.add(descriptor, events)

    def add(self, descriptor: int, events: int) -> None:
        """Wait for these ``EPOLL…`` events of the descriptor too."""
        self._epoll.register(descriptor, events | select.EPOLLET)

    async def wait(self) -> None:
        """Return after an edge since the last wait, or the close."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._move_to(loop)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed:
            raise SessionClosed
        if self._loop is not None and not self._loop.is_closed():
            raise RuntimeError("this session is used in another event loop")
        loop.add_reader(self._epoll.fileno(), self._ready)
        self._loop = loop

    def _ready(self) -> None:
        if self._waiter is None:
            self._leave_loop()
            return
        self._epoll.poll(0)  # the edges are known now
        if not self._waiter.done():
            self._waiter.set_result(None)

    def _leave_loop(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._epoll.fileno())
        self._loop = None

    def close(self) -> None:
        """Wake who waits, and give the epoll back; from any thread. Idempotent."""
        loop = self._loop
        if loop is not None and loop.is_running() and loop is not _running_loop():
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._close)
                return
        self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._leave_loop()
        self._epoll.close()
        if self._waiter is not None and not self._waiter.done():
            with suppress(RuntimeError):  # its loop is closed
                self._waiter.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
