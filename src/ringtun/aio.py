"""A session for asyncio: the same rings, the same names, tasks in the place of threads.

A call first tries, as a blocking session does, and awaits nothing where that is enough; only one
that has to wait gives a descriptor to the event loop. Works on any loop that has ``add_reader``.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from ringtun.errors import ConcurrencyError, EndReason, SessionClosed
from ringtun.ring import Batch
from ringtun.session import (
    GATHER_BYTES,
    MOST_PACKETS,
    NO_OPTIONS,
    RECEIVE_BUDGET,
    ROOM_LOOK,
    SEND_BUDGET,
    UNFINISHED,
    PacketT,
    ReservedSlot,
    Session,
)
from ringtun.step import BLOCKED, IDLE, MORE, OVER

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike
    from typing_extensions import Buffer

    from ringtun import abi
    from ringtun.device import Device
    from ringtun.offload import OffloadPacket
    from ringtun.ring import Slot
    from ringtun.statistics import Statistics

__all__ = ["AsyncSession"]

T = TypeVar("T")

# So many packets may pass through a session before other tasks of the loop have their turn.
_TURN = 256
# So many packets that are sent one by one go to the host together, while more come.
_BURST = 64


class AsyncSession(Generic[PacketT]):
    """Packets to and from one adapter, for asyncio. Made by ``Adapter.start_async_session``.

    Of bytes, or with ``offload=True`` of `OffloadPacket`, as `Session` is.

    Everything but `close` is for the thread of the event loop in which the session is used first;
    another loop may follow once that one is closed, else it gets ``RuntimeError``. One task
    receives at a time; a second one gets `ConcurrencyError`. Tasks that send queue in order.
    Packets of one direction keep their order.

    What can be done at once is done without awaiting anything; but after some 256 packets a session
    lets the loop's other tasks run first. While packets that came together are taken one by one,
    what is sent for each goes out together: once it is much, or the program waits for something.
    For a time limit use ``asyncio.timeout()``: a receive that is cancelled has taken nothing, a
    send that is cancelled has sent nothing.

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
        """As `Session`, whose rings and whose end it shares."""
        session: Session[PacketT] = Session(device, capacity, options=options)
        self._session = session
        self._device = device
        self._consumer = session._consumer
        self._producer = session._producer
        self._inline = session._inline
        self._spin = spin
        self._receive_turn = self._send_turn = _TURN  # packets until the other tasks' next turn
        self._receiving = False
        self._senders = 0  # tasks that hold `_sending`, or queue for it
        self._sending = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it is held
        self._holder: asyncio.Task[object] | None = None  # of `_sending`
        self._gathering = False
        self._rest: asyncio.Task[None] | None = None  # moves what a slow host left in the ring
        self._burst: _Burst | None = None  # of the loop in which this is used
        self._unflushed = 0  # packets that were sent in a burst, and wait in the ring for more
        self._arrivals = _Watch((session._event, select.EPOLLIN), (device.host_fd, select.EPOLLIN))
        self._room = _Watch((session._space, select.EPOLLIN), (device.host_fd, select.EPOLLOUT))

    # ---- receiving ------------------------------------------------------------------------------

    async def receive(self) -> PacketT:
        """Wait for a packet, and take it."""
        self._receive_turn -= 1
        if self._receive_turn < 0:
            await self._let_others()
        packet = self._take(self._consumer.pop)
        if packet is None:
            packet = await self._await_packet(self._consumer.pop)
        if self._burst is not None:
            self._burst.goes_on = self._consumer.more
        return cast("PacketT", packet)

    def try_receive(self) -> PacketT | None:
        """Take a packet if there is one; None otherwise. Never waits."""
        return self._take(self._session.try_receive)

    @overload
    async def receive_many(
        self: AsyncSession[OffloadPacket], max_packets: int = 512
    ) -> Batch[OffloadPacket]: ...
    @overload
    async def receive_many(
        self: AsyncSession[bytes], max_packets: int = 512
    ) -> Batch[memoryview]: ...
    async def receive_many(self, max_packets: int = 512) -> Batch[Any]:
        """Wait for packets, and take all that are there, at most ``max_packets``, without a copy.

        The batch is that of `Session.receive_many`: use it in a ``with``, or release it.
        """
        if self._receive_turn <= 0:
            await self._let_others()
        max_packets = min(max_packets, MOST_PACKETS)

        def take() -> Batch | None:
            return self._consumer.peek_many(max_packets)

        batch = self._take(take)
        if batch is None:
            batch = await self._await_packet(take, max_packets)
        self._receive_turn -= len(batch)
        return batch

    @overload
    def batches(
        self: AsyncSession[OffloadPacket], max_packets: int = 512
    ) -> _Batches[OffloadPacket]: ...
    @overload
    def batches(self: AsyncSession[bytes], max_packets: int = 512) -> _Batches[memoryview]: ...
    def batches(self: AsyncSession[Any], max_packets: int = 512) -> _Batches[Any]:
        """`receive_many`, one after the other, each released before the next, the last one with
        the loop, however that ends.

        Ends after this session's own `close`; any other end raises.
        """
        return _Batches(self, max_packets)

    def __aiter__(self) -> Self:
        """Packets as they come. Ends after this session's own `close`; any other end raises."""
        return self

    async def __anext__(self) -> PacketT:
        self._receive_turn -= 1
        if self._receive_turn < 0:
            await self._let_others()
        try:
            packet = self._take(self._consumer.pop)
            if packet is None:
                packet = await self._await_packet(self._consumer.pop)
        except SessionClosed:
            self._end_iteration()
            raise
        if self._burst is not None:
            self._burst.goes_on = self._consumer.more
        return cast("PacketT", packet)

    def _end_iteration(self) -> None:
        if self._session._reason is EndReason.CLOSED:
            raise StopAsyncIteration

    def _take(self, take: Callable[[], T | None]) -> T | None:
        if self._receiving:
            raise ConcurrencyError("another task receives from this session just now")
        try:
            return take()
        except SessionClosed as error:
            raise self._session._end_error(error) from None

    async def _await_packet(self, take: Callable[[], T | None], budget: int = RECEIVE_BUDGET) -> T:
        session = self._session
        spin_until = time.monotonic() + self._spin if self._spin else 0.0
        if self._burst is None:
            self._burst = _burst_of(asyncio.get_running_loop())
        self._burst.end()
        self._receiving = True
        try:
            while True:
                result = self._device.pump_to_client(budget)
                taken = take()
                if taken is not None:
                    return taken
                if result == MORE or (spin_until and time.monotonic() < spin_until):
                    await self._let_others()
                elif result == BLOCKED:  # pinned slots fill the ring
                    await asyncio.sleep(ROOM_LOOK)
                elif self._consumer.arm():
                    try:
                        await self._wait(self._arrivals)
                    finally:
                        self._consumer.disarm()
                    self._receive_turn = _TURN
                session._check_running()
        except SessionClosed as error:
            raise session._end_error(error) from None
        finally:
            self._receiving = False

    async def _let_others(self) -> None:
        """The other tasks' turn, in receiving."""
        self._receive_turn = _TURN
        await asyncio.sleep(0)

    async def _wait(self, watch: _Watch) -> None:
        try:
            await watch.wait()
        except (OSError, ValueError):
            self._session._check_running()  # a close came first: its descriptors are gone
            raise

    # ---- sending --------------------------------------------------------------------------------

    async def send(self, packet: Buffer | PacketT) -> None:
        """Send a packet: an IP packet of at most 65,535 bytes. Waits for room.

        Raises ``ValueError`` for what is no IP packet.
        """
        self._send_turn -= 1
        if self._senders or self._send_turn < 0:  # this task gathers, or has to queue
            if self._send_turn < 0 or self._is_others_turn() or not self._push(packet):
                await self._push_in_turn(packet)
            self._show()
            return
        try:
            sent = self._producer.write(packet)
        except SessionClosed as error:
            raise self._session._end_error(error) from None
        if not sent:
            await self._push_in_turn(packet)
            self._producer.submit()
        if not (self._inline and self._goes_on()):
            self._flush()

    def _goes_on(self) -> bool:
        """Whether more is likely to be sent soon, so that this may wait for it in the ring: a
        session of this loop has more packets to be received, and the program has not waited since.
        """
        burst = self._burst
        if burst is None:
            burst = self._burst = _burst_of(asyncio.get_running_loop())
        if not burst.goes_on:
            return False
        self._unflushed += 1
        if self._unflushed == 1:
            burst.add(self)
        return self._unflushed < _BURST

    async def _push_in_turn(self, packet: Buffer | PacketT) -> None:
        async with self._in_turn():
            while not self._push(packet):
                await self._await_room()

    def try_send(self, packet: Buffer | PacketT) -> bool:
        """Send a packet if there is room for it now; False, and counted, otherwise. Never waits.

        There is no room either while another task waits to send, or gathers packets.
        """
        if self._is_others_turn():
            self._session._send_full += 1
            return False
        return self._session.try_send(packet)

    async def send_many(self, packets: Iterable[Buffer | PacketT]) -> int:
        """Send packets, shown to the driver together; returns how many: all of them.

        A batch, of this session or another, goes as in `Session.send_many`. Where a packet is no IP
        packet, those before it are sent and ``ValueError`` is raised; cancelled, it may have sent
        the first of them.
        """
        if isinstance(packets, (bytes, bytearray, memoryview)):
            raise TypeError("send_many takes several packets: for one, use send")
        if not isinstance(packets, Sequence):
            packets = list(packets)
        total, done = len(packets), 0
        at_once = self._send_turn >= 0 and not self._is_others_turn()
        if at_once and self._inline and not self._gathering and isinstance(packets, Batch):
            packets = self._session._forward(packets)
            if not packets:
                self._send_turn -= total
                return total
            done = total - len(packets)
        start = done

        def push() -> bool:
            nonlocal done
            try:
                done += self._producer.push_many(packets, done - start)
            except SessionClosed as error:
                raise self._session._end_error(error) from None
            return done == total

        try:
            if not at_once or not push():
                async with self._in_turn():
                    while not push():
                        await self._await_room()
        except BaseException:
            with suppress(SessionClosed):  # what went wrong before is what is to be seen
                self._show()
            raise
        self._send_turn -= total
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
        self._send_turn -= 1
        async with self._in_turn():
            while (slot := self._reserve(size)) is None:
                await self._await_room()
            with ReservedSlot(self, slot) as reserved:
                yield reserved

    def _push(self, packet: Buffer | PacketT) -> bool:
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
        """One task sends, those that came later wait; also while it lets other tasks run."""
        task = asyncio.current_task()
        if self._holder is task:
            await self._pause()
            yield
            return
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            _check_free(self._loop)
            self._loop, self._sending = loop, asyncio.Lock()
        self._senders += 1
        try:
            async with self._sending:
                self._holder = task
                try:
                    await self._pause()
                    yield
                finally:
                    self._holder = None
        finally:
            self._senders -= 1

    async def _pause(self) -> None:
        """Let other tasks run, when it is their turn."""
        if self._send_turn < 0:
            self._send_turn = _TURN
            await asyncio.sleep(0)

    def _show(self) -> None:
        """Show the driver what was pushed; inside `gather`, only once it is much."""
        if not self._gathering or self._producer.staged >= GATHER_BYTES:
            self._producer.submit()
            self._flush()

    def _flush(self) -> None:
        """With an inline engine: move what is in the ring to the host, as soon as it takes it."""
        self._unflushed = 0
        if self._inline:
            result = self._device.pump_to_host(SEND_BUDGET)
            if result == IDLE:
                return
            if result != OVER:
                if self._rest is None:
                    self._rest = asyncio.ensure_future(self._flush_rest())
                return
        elif not self._producer.ended:
            return
        raise self._session._end_error(SessionClosed(EndReason.DRIVER_ENDED))

    async def _flush_rest(self) -> None:
        try:
            while (result := self._device.pump_to_host(SEND_BUDGET)) in UNFINISHED:
                if result == MORE:
                    await asyncio.sleep(0)
                else:
                    await self._wait(self._room)
        except SessionClosed:
            pass  # who calls next learns of it
        finally:
            self._rest = None

    async def _await_room(self) -> None:
        """Return once there may be more room than there was."""
        self._producer.submit()
        if self._inline:
            self._flush()
            if self._rest is None:
                await asyncio.sleep(0)
            else:
                await asyncio.wait([self._rest])
        elif self._session._space is None:
            await asyncio.sleep(ROOM_LOOK)
        elif self._producer.arm():
            try:
                await self._wait(self._room)
            except SessionClosed as error:
                raise self._session._end_error(error) from None
            finally:
                self._producer.disarm()

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
        self._arrivals.close()
        self._room.close()

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
        if hasattr(self, "_room"):  # else it never began
            self._arrivals.close()
            self._room.close()


class _Burst:
    """Packets that came together, and are answered or passed on one by one, go out together.

    One for each loop. A send waits in the ring for more while the packet that was received last has
    others behind it; at the latest until the program waits for a packet, or for anything else.
    """

    def __init__(self) -> None:
        self.goes_on = False
        self._sessions: list[AsyncSession[Any]] = []

    def add(self, session: AsyncSession[Any]) -> None:
        """This session has packets that wait."""
        self._sessions.append(session)
        if len(self._sessions) == 1:
            asyncio.get_running_loop().call_soon(self.end)

    def end(self) -> None:
        """Nothing waits any longer."""
        self.goes_on = False
        if self._sessions:
            sessions, self._sessions = self._sessions, []
            for session in sessions:
                if session._unflushed:
                    with suppress(SessionClosed):  # who calls next learns of it
                        session._flush()


_bursts: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Burst] = weakref.WeakKeyDictionary()


def _burst_of(loop: asyncio.AbstractEventLoop) -> _Burst:
    burst = _bursts.get(loop)
    if burst is None:
        burst = _bursts[loop] = _Burst()
    return burst


class _Batches(Generic[T]):
    """The batches of a session, each released before the next, and with the iterator."""

    def __init__(self, session: AsyncSession[Any], max_packets: int) -> None:
        self._session = session
        self._max_packets = max_packets
        self._batch: Batch[T] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch[T]:
        self._release()
        try:
            batch: Batch[Any] = await self._session.receive_many(self._max_packets)
        except SessionClosed:
            self._session._end_iteration()
            raise
        self._batch = batch
        return batch

    async def aclose(self) -> None:
        """Release the last batch; for ``contextlib.aclosing``."""
        self._release()

    def _release(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.release()

    def __del__(self) -> None:
        self._release()


class _Watch:
    """By this one task waits for descriptors that are not its own to close.

    They lie edge-triggered in an epoll, and the loop watches that: a wait costs no registration,
    and descriptors that others close leave nothing stale in the loop. The first edge that nobody
    waits for takes the epoll out of the loop: who does not wait is not woken.
    """

    def __init__(self, *sources: tuple[FileDescriptorLike | None, int]) -> None:
        """For these ``EPOLL…`` events of each that is there."""
        self._sources = [(source, events) for source, events in sources if source is not None]
        self._epoll: select.epoll | None = None  # made by the first wait
        self._loop: asyncio.AbstractEventLoop | None = None  # in which it is watched
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self._moving = threading.RLock()  # into the loop, or out of it

    async def wait(self) -> None:
        """Return after an edge since the last wait, or the close.

        Raises `SessionClosed` after that; ``OSError`` or ``ValueError`` where a descriptor is gone.
        """
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()  # first, for a close that comes from a signal's handler
        try:
            if self._loop is not loop:
                self._move_to(loop)
            await self._waiter
        finally:
            self._waiter = None

    def _move_to(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._moving:
            if self._closed:
                raise SessionClosed
            _check_free(self._loop)
            if self._epoll is None:
                self._epoll = self._make_epoll()
                _watches.add(self)
            self._loop = loop
            loop.add_reader(self._epoll.fileno(), self._ready)

    def _make_epoll(self) -> select.epoll:
        epoll = select.epoll()
        try:
            for source, events in self._sources:
                epoll.register(source, events | select.EPOLLET)
        except BaseException:
            epoll.close()
            raise
        return epoll

    def _ready(self) -> None:
        if self._waiter is None:
            self._leave_loop()
            return
        assert self._epoll is not None
        self._epoll.poll(0)  # the edges are known now
        if not self._waiter.done():
            self._waiter.set_result(None)

    def _leave_loop(self) -> None:
        with self._moving:
            loop, self._loop = self._loop, None
            if loop is not None and not loop.is_closed():
                assert self._epoll is not None
                loop.remove_reader(self._epoll.fileno())

    def close(self) -> None:
        """Wake who waits, and give the epoll back; from any thread. Idempotent."""
        with self._moving:
            self._closed = True
            loop = self._loop
        if loop is not None and loop.is_running() and loop is not _running_loop():
            with suppress(RuntimeError):  # it was closed just now
                loop.call_soon_threadsafe(self._give_back)
                return
        self._give_back()

    def _give_back(self) -> None:
        if self._epoll is None or self._epoll.closed:
            return
        self._leave_loop()
        self._epoll.close()
        if self._waiter is not None and not self._waiter.done():
            with suppress(RuntimeError):  # its loop is closed
                self._waiter.set_result(None)

    def _abandon(self) -> None:
        """In a forked child: the loop's registrations are the parent's too."""
        self._moving = threading.RLock()
        self._closed = True
        self._loop = self._waiter = None
        if self._epoll is not None:
            self._epoll.close()


def _check_free(loop: asyncio.AbstractEventLoop | None) -> None:
    """Raises ``RuntimeError`` while this loop, which is another one, may still need the session."""
    if loop is not None and not loop.is_closed():
        raise RuntimeError("this session is used in another event loop, which is not closed")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_watches: weakref.WeakSet[_Watch] = weakref.WeakSet()


def _abandon_watches() -> None:
    for watch in list(_watches):
        watch._abandon()


os.register_at_fork(after_in_child=_abandon_watches)
