"""The suite for asyncio sessions: the promises of the API, on whatever backend and event loop."""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import random
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from ringtun.aio import AsyncSession
from ringtun.errors import AdapterBusy, ConcurrencyError, EndReason, SessionClosed
from ringtun.testing.conformance.peer import AsyncBackend, packet

if TYPE_CHECKING:
    from ringtun.ring import Batch

__all__ = ["AsyncSessionConformance"]

SOON = 5.0
"""Seconds within which what must come has come."""

S = TypeVar("S", bound="AsyncSessionConformance")
Test = Callable[[S, AsyncBackend], Coroutine[Any, Any, None]]


def in_loop(test: Test[S]) -> Callable[[S, AsyncBackend], None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def run(self: S, backend: AsyncBackend) -> None:
        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test(self, backend), 4 * SOON))

    return run


class AsyncSessionConformance:
    """Inherit it, and give a fixture ``backend``: a fresh `AsyncBackend`, which cleans up."""

    @staticmethod
    def new_event_loop() -> asyncio.AbstractEventLoop:
        """The loop to run on; override it for another kind."""
        return asyncio.new_event_loop()

    # ---- both ways ------------------------------------------------------------------------------

    @in_loop
    async def test_both_ways(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for size in (28, 29, 30, 31, 64, 1400):
                backend.host.send(packet(size, size))
                assert await soon(session.receive()) == packet(size, size)
                await session.send(packet(size, size))
                assert backend.host.receive(SOON) == packet(size, size)

    @in_loop
    async def test_both_versions(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for version in (4, 6):
                backend.host.send(packet(1, 100, version))
                assert await soon(session.receive()) == packet(1, 100, version)
                await session.send(packet(2, 100, version))
                assert backend.host.receive(SOON) == packet(2, 100, version)

    @in_loop
    async def test_keeps_order_over_many_wraps(self, backend: AsyncBackend) -> None:
        async with backend.start_session(capacity=1 << 17) as session:
            for number in range(1000):
                backend.host.send(packet(number, 28 + number % 1300))
                assert await soon(session.receive()) == packet(number, 28 + number % 1300)
                await session.send(packet(number, 28 + number % 1300))
                assert backend.host.receive(SOON) == packet(number, 28 + number % 1300)

    @in_loop
    async def test_several_ways_to_send(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            await session.send(packet(0))
            await session.send(bytearray(packet(1)))
            await session.send(memoryview(packet(2)))
            assert session.try_send(packet(3))
            assert await session.send_many([packet(4), packet(5)]) == 2
            assert await session.send_many(packet(i) for i in (6, 7)) == 2
            async with session.gather():
                await session.send(packet(8))
                assert await session.send_many([packet(9)]) == 1
                async with session.reserve(64) as slot:
                    slot.view[:] = packet(10)
                    slot.commit()
            async with session.reserve(1400) as slot:
                slot.view[:64] = packet(11)
                slot.commit(64)
            for number in range(12):
                assert backend.host.receive(SOON) == packet(number)

    @in_loop
    async def test_several_ways_to_receive(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            assert session.try_receive() is None
            for number in range(6):
                backend.host.send(packet(number))
            assert await soon(session.receive()) == packet(0)
            with await soon(session.receive_many(1)) as batch:
                assert [bytes(view) for view in batch] == [packet(1)]
            async for one in session:
                assert one == packet(2)
                break
            async for batch in session.batches(1):
                assert [bytes(view) for view in batch] == [packet(3)]
                break
            for number in (4, 5):
                while (taken := session.try_receive()) is None:
                    await asyncio.sleep(0)
                assert taken == packet(number)
            with pytest.raises(ValueError, match="max_packets"):
                await session.receive_many(0)

    @in_loop
    async def test_a_batch_goes_with_its_loop(self, backend: AsyncBackend) -> None:
        """However the loop ends; while the names in it live on."""
        async with backend.start_session() as session:
            for number in range(6):
                backend.host.send(packet(number))

            taken: list[Batch] = []
            async for batch in session.batches(1):
                taken.append(batch)
                break
            assert_released(taken.pop())
            with pytest.raises(KeyError):
                async for batch in session.batches(1):
                    taken.append(batch)
                    raise KeyError
            assert_released(taken.pop())

            async def hold() -> None:
                async for batch in session.batches(1):
                    taken.append(batch)
                    await asyncio.Event().wait()

            holder = await waiting(hold())
            while not taken:
                await asyncio.sleep(0)
            holder.cancel()
            await asyncio.wait([holder])
            assert_released(taken[0])

            async with aclosing(session.batches(1)) as batches:
                last = await anext(batches)
            assert_released(last)
            batches = session.batches(1)
            earlier = await anext(batches)
            last = await anext(batches)
            assert_released(earlier)
            assert bytes(last[0]) == packet(5)
            await batches.aclose()

    @in_loop
    async def test_forwards_batches(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for number in range(50):
                backend.host.send(packet(number))
            done = 0
            async for batch in session.batches(7):
                done += await session.send_many(batch)
                if done == 50:
                    break
            for number in range(50):
                assert backend.host.receive(SOON) == packet(number)
        assert session.statistics().pinned == 0

    # ---- what is refused ------------------------------------------------------------------------

    @in_loop
    async def test_refuses_what_is_no_packet(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for bad in (b"", b"\x45" * 19, b"\x60" * 39, b"\x00" * 64, b"\x45" * 65536):
                with pytest.raises(ValueError, match="packet"):
                    await session.send(bad)
                with pytest.raises(ValueError, match="packet"):
                    session.try_send(bad)
            with pytest.raises(ValueError, match="packet"):
                await session.send_many([packet(1), b"nonsense", packet(2)])
            with pytest.raises(TypeError, match="use send"):
                await session.send_many(packet(1))  # type: ignore[arg-type]
            await session.send(packet(3))
            assert backend.host.receive(SOON) == packet(1)
            assert backend.host.receive(SOON) == packet(3)

    @in_loop
    async def test_one_session_at_a_time(self, backend: AsyncBackend) -> None:
        async with backend.start_session():
            with pytest.raises(AdapterBusy, match="close that one first"):
                backend.start_session()
        async with backend.start_session() as session:
            backend.host.send(packet(1))
            assert await soon(session.receive()) == packet(1)

    # ---- waiting --------------------------------------------------------------------------------

    @in_loop
    async def test_a_waiting_receive_wakes(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for number in range(20):
                receiver = await waiting(session.receive())
                backend.host.send(packet(number))
                assert await soon(receiver) == packet(number)

    @in_loop
    async def test_what_is_there_is_taken_without_awaiting(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for number in range(3):
                backend.host.send(packet(number))
            await soon(session.receive())
            while not session.statistics().to_client_used:  # another thread moves them, perhaps
                await asyncio.sleep(0)
            assert at_once(session.receive()) == packet(1)
            at_once(session.send(packet(2)))
            await asyncio.sleep(0)  # while there is more to be received it may wait for that
            assert backend.host.receive(SOON) == packet(2)

    @in_loop
    async def test_a_timeout_takes_nothing(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for timeout in (0, 0.001, 0.02):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await session.receive()
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(session.receive_many(), timeout)
            backend.host.send(packet(1))
            assert await soon(session.receive()) == packet(1)

    @in_loop
    async def test_a_cancelled_receive_takes_nothing(self, backend: AsyncBackend) -> None:
        """At random moments, or timed out, while packets come: all arrive, in order, once."""
        chance = random.Random(1)
        async with backend.start_session() as session:
            got: list[bytes] = []
            ways = [
                receive_one, receive_next, receive_batch, receive_next_batch, receive_in_time,
                receive_before_its_timeout,
            ]  # fmt: skip
            sent = 0
            while len(got) < 400:
                for _ in range(chance.randrange(4)):
                    backend.host.send(packet(sent))
                    sent += 1
                receiver = asyncio.ensure_future(chance.choice(ways)(session, got))
                for _ in range(chance.randrange(6)):
                    await asyncio.sleep(0)
                receiver.cancel()
                await asyncio.wait([receiver])
            while len(got) < sent:
                got.append(await soon(session.receive()))
            assert got == [packet(number) for number in range(sent)]
            assert session.statistics().pinned == 0

    @in_loop
    async def test_a_second_receiver_is_refused_whatever_came(self, backend: AsyncBackend) -> None:
        """Also before the one that waits has its packet."""
        async with backend.start_session() as session:
            receiver = await waiting(session.receive())
            backend.host.send(packet(1))
            with pytest.raises(ConcurrencyError):
                await session.receive()
            with pytest.raises(ConcurrencyError):
                await anext(session)
            with pytest.raises(ConcurrencyError):
                await session.receive_many()
            assert await soon(receiver) == packet(1)

    @in_loop
    async def test_a_second_receiver_is_refused(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            receiver = await waiting(session.receive())
            with pytest.raises(ConcurrencyError):
                await session.receive()
            with pytest.raises(ConcurrencyError):
                await session.receive_many()
            with pytest.raises(ConcurrencyError):
                session.try_receive()
            await session.send(packet(1))
            assert backend.host.receive(SOON) == packet(1)
            backend.host.send(packet(2))
            assert await soon(receiver) == packet(2)

    @in_loop
    async def test_another_loop_is_refused(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            receiver = await waiting(session.receive())
            backend.host.send(packet(1))
            await soon(receiver)

            def elsewhere() -> None:
                with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
                    runner.run(session.receive())

            with pytest.raises(RuntimeError, match="another event loop"):
                await asyncio.to_thread(elsewhere)

    @in_loop
    async def test_spins_without_stopping_the_loop(self, backend: AsyncBackend) -> None:
        async with backend.start_session(spin=1.0) as session:
            receiver = asyncio.ensure_future(session.receive())
            for _ in range(10):
                await asyncio.sleep(0)
            backend.host.send(packet(1))
            assert await soon(receiver) == packet(1)

    # ---- fairness -------------------------------------------------------------------------------

    @in_loop
    async def test_a_busy_session_lets_others_run(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            task = asyncio.ensure_future(other())
            for number in range(2000):
                await session.send(packet(number))
                backend.host.receive(SOON)
            sent, turns = turns, 0
            for number in range(2000):
                backend.host.send(packet(number))
                while session.try_receive() is None:
                    pass
                backend.host.send(packet(number))
                await session.receive()
            assert sent >= 4
            assert turns >= 4
            task.cancel()

    @in_loop
    async def test_no_wake_up_for_who_does_not_wait(self, backend: AsyncBackend) -> None:
        """With a full ring, and packets coming, a program that does not receive is left alone."""
        async with backend.start_session() as session:
            receiver = await waiting(session.receive())
            backend.host.send(packet(0))
            await soon(receiver)
            wakes = 0
            watch = session._arrivals

            def count(ready: Callable[[], None] = watch._ready) -> None:
                nonlocal wakes
                wakes += 1
                ready()

            loop = asyncio.get_running_loop()
            if watch._loop is not None:
                assert watch._epoll is not None
                loop.remove_reader(watch._epoll.fileno())
                loop.add_reader(watch._epoll.fileno(), count)
            for number in range(200):
                backend.host.send(packet(number))
                await asyncio.sleep(0)
            assert wakes <= 2
            for number in range(200):
                assert await soon(session.receive()) == packet(number)

    @in_loop
    async def test_wakes_once_a_batch(self, backend: AsyncBackend) -> None:
        """20 bursts of 50 packets: a wake-up each; a driver's own threads may need a few more."""
        async with backend.start_session() as session:
            wakes, ready = 0, session._arrivals._ready

            def count() -> None:
                nonlocal wakes
                wakes += 1
                ready()

            session._arrivals._ready = count  # type: ignore[method-assign]
            number = 0
            for _ in range(20):
                receiver = await waiting(session.receive())
                for burst in range(50):
                    backend.host.send(packet(number + burst))
                assert await soon(receiver) == packet(number)
                for burst in range(1, 50):
                    assert await soon(session.receive()) == packet(number + burst)
                number += 50
            assert wakes <= 20 * 5

    # ---- senders --------------------------------------------------------------------------------

    @in_loop
    async def test_senders_queue_in_order(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            async with session.gather():
                others = [asyncio.ensure_future(session.send(packet(i))) for i in range(1, 6)]
                await asyncio.sleep(0)
                assert session.try_send(packet(0)), "the one whose turn it is"
                assert not any(other.done() for other in others)
                refused = await asyncio.create_task(attempt(session, packet(9)))
                assert refused is False
            late = asyncio.ensure_future(session.send(packet(6)))
            await asyncio.gather(*others, late)
            for number in range(7):
                assert backend.host.receive(SOON) == packet(number)
            assert session.statistics().send_full == 1

    @in_loop
    async def test_a_cancelled_sender_sends_nothing(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            async with session.reserve(64) as slot:
                others = [asyncio.ensure_future(session.send(packet(i))) for i in range(3)]
                await asyncio.sleep(0)
                others[1].cancel()
                with pytest.raises(ConcurrencyError, match="slot"):
                    await session.send(packet(9))
                slot.view[:] = packet(8)
                slot.commit()
            await asyncio.wait(others)
            assert others[1].cancelled()
            for number in (8, 0, 2):
                assert backend.host.receive(SOON) == packet(number)

    @in_loop
    async def test_cancelled_senders_send_nothing(self, backend: AsyncBackend) -> None:
        """At random moments: what went out is what was not cancelled, in order."""
        chance = random.Random(2)
        async with backend.start_session() as session:
            total = 0
            for turn in range(0, 500, 5):
                done: list[int] = []
                ways = [chance.choice([send_one, send_slot, send_gathered]) for _ in range(5)]
                senders = [
                    asyncio.ensure_future(way(session, turn + i, done))
                    for i, way in enumerate(ways)
                ]
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
                for sender in chance.sample(senders, 2):
                    sender.cancel()
                await asyncio.wait(senders)
                total += len(done)
                assert session.try_send(packet(1000))
                for number in (*done, 1000):
                    assert backend.host.receive(SOON) == packet(number)
            assert total >= 300

    @in_loop
    async def test_a_cancelled_block_gives_its_turn_back(self, backend: AsyncBackend) -> None:
        """Cancelled inside, and on the way in."""
        async with backend.start_session() as session:

            async def gather_for_ever() -> None:
                async with session.gather():
                    await session.send(packet(0))
                    await asyncio.Event().wait()

            async def reserve_for_ever() -> None:
                async with session.reserve(64) as slot:
                    slot.view[:] = packet(9)
                    await asyncio.Event().wait()

            for work in (gather_for_ever, reserve_for_ever):
                inside = await waiting(work())
                on_the_way = [await waiting(work()) for work in (gather_for_ever, reserve_for_ever)]
                for task in (*on_the_way, inside):
                    task.cancel()
                await asyncio.wait([*on_the_way, inside])
                assert session.try_send(packet(1)), "nobody has the turn any more"
                await soon(session.send(packet(2)))
            for number in (0, 1, 2, 1, 2):
                assert backend.host.receive(SOON) == packet(number)

    @in_loop
    async def test_a_slot_left_sends_nothing(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            async with session.reserve(64) as slot:
                slot.view[:] = packet(1)
            with pytest.raises(KeyError):
                async with session.reserve(64) as slot:
                    slot.view[:] = packet(2)
                    raise KeyError
            for size in (0, 65536):
                with pytest.raises(ValueError, match="byte"):
                    async with session.reserve(size):
                        pass
            await session.send(packet(3))
            assert backend.host.receive(SOON) == packet(3)

    @in_loop
    async def test_gathering(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            with pytest.raises(KeyError):
                async with session.gather():
                    await session.send(packet(0))
                    with pytest.raises(ConcurrencyError):
                        async with session.gather():
                            pass
                    raise KeyError
            assert backend.host.receive(SOON) == packet(0)
            async with session.gather():
                for number in range(60):
                    await session.send(packet(number, 1400))
                assert backend.host.receive(SOON) == packet(0, 1400), "64 KiB go at once"
            for number in range(1, 60):
                assert backend.host.receive(SOON) == packet(number, 1400)

    # ---- the end --------------------------------------------------------------------------------

    @in_loop
    async def test_close_wakes_who_waits(self, backend: AsyncBackend) -> None:
        session = backend.start_session()
        receiver = await waiting(session.receive())
        session.close()
        with pytest.raises(SessionClosed) as caught:
            await soon(receiver)
        assert caught.value.reason is EndReason.CLOSED

    @in_loop
    async def test_close_from_another_thread(self, backend: AsyncBackend) -> None:
        session = backend.start_session()
        receiver = await waiting(session.receive())
        await asyncio.to_thread(session.close)
        with pytest.raises(SessionClosed) as caught:
            await soon(receiver)
        assert caught.value.reason is EndReason.CLOSED

    @in_loop
    async def test_close_at_any_moment(self, backend: AsyncBackend) -> None:
        """From another thread, while a task begins to wait: it ends, whichever was first."""
        for _ in range(50):
            session = backend.start_session()
            closing = threading.Thread(target=session.close)
            closing.start()
            receiver = asyncio.ensure_future(session.receive())
            with pytest.raises(SessionClosed) as caught:
                await soon(receiver)
            assert caught.value.reason is EndReason.CLOSED
            closing.join()

    @in_loop
    async def test_the_end_of_the_block_is_the_end_of_the_session(
        self, backend: AsyncBackend
    ) -> None:
        """By an error, or because the task was cancelled: who waits in it is woken."""
        for end in (KeyError(), asyncio.CancelledError()):
            with pytest.raises(type(end)):
                async with backend.start_session() as session:
                    receiver = await waiting(session.receive())
                    raise end
            with pytest.raises(SessionClosed):
                await soon(receiver)

        async def use() -> None:
            async with backend.start_session() as session:
                await session.receive()

        user = await waiting(use())
        user.cancel()
        await asyncio.wait([user])
        assert user.cancelled()
        async with backend.start_session() as session:
            backend.host.send(packet(1))
            assert await soon(session.receive()) == packet(1)

    @in_loop
    async def test_close_wakes_senders(self, backend: AsyncBackend) -> None:
        session = backend.start_session()
        async with session.gather():
            others = [asyncio.ensure_future(session.send(packet(i))) for i in range(3)]
            await asyncio.sleep(0)
            session.close()
        for other in others:
            with pytest.raises(SessionClosed):
                await soon(other)

    @in_loop
    async def test_a_closed_session_says_so(self, backend: AsyncBackend) -> None:
        session = backend.start_session()
        session.close()
        session.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            session.receive,
            session.receive_many,
            lambda: session.send(packet(1)),
            lambda: session.send_many([packet(1)]),
            lambda: session.reserve(64).__aenter__(),
        ]
        for call in calls:
            with pytest.raises(SessionClosed) as caught:
                await call()
            assert caught.value.reason is EndReason.CLOSED
        with pytest.raises(SessionClosed):
            session.try_receive()
        with pytest.raises(SessionClosed):
            session.try_send(packet(1))
        assert [one async for one in session] == []
        assert [batch async for batch in session.batches()] == []
        session.statistics()

    @in_loop
    async def test_iteration_ends_with_the_close(self, backend: AsyncBackend) -> None:
        session = backend.start_session()

        async def count() -> int:
            return len([one async for one in session])

        counter = await waiting(count())
        backend.host.send(packet(1))
        while not session.statistics().received_packets:
            await asyncio.sleep(0.001)
        session.close()
        assert await soon(counter) <= 1

    @in_loop
    async def test_removal_ends_the_session(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            receiver = await waiting(session.receive())
            await asyncio.to_thread(backend.remove)
            with pytest.raises(SessionClosed) as caught:
                await soon(receiver)
            assert caught.value.reason is EndReason.ADAPTER_REMOVED
            with pytest.raises(SessionClosed):
                await session.send(packet(1))
            with pytest.raises(SessionClosed):
                async for _ in session:
                    pass

    @in_loop
    async def test_what_was_sent_before_the_close_goes_out(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            for number in range(100):
                await session.send(packet(number))
        for number in range(100):
            assert backend.host.receive(SOON) == packet(number)

    @in_loop
    async def test_nothing_is_left_open(self, backend: AsyncBackend) -> None:
        async def cycle() -> None:
            async with backend.start_session() as session:
                receiver = await waiting(session.receive())
                backend.host.send(packet(1))
                await soon(receiver)
                receiver = await waiting(session.receive())
            with pytest.raises(SessionClosed):
                await receiver

        await cycle()
        gc.collect()
        descriptors, threads = len(os.listdir("/proc/self/fd")), os.listdir("/proc/self/task")
        for _ in range(5):
            await cycle()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert len(os.listdir("/proc/self/task")) == len(threads)

    @in_loop
    async def test_a_forgotten_session_warns(self, backend: AsyncBackend) -> None:
        session = backend.start_session()
        receiver = await waiting(session.receive())
        receiver.cancel()
        await asyncio.wait([receiver])
        del receiver
        await asyncio.sleep(0)  # the loop lets its last handle go
        descriptors = len(os.listdir("/proc/self/fd"))
        with pytest.warns(ResourceWarning, match="unclosed session"):
            del session
            gc.collect()
        assert len(os.listdir("/proc/self/fd")) < descriptors

    @in_loop
    async def test_statistics_count(self, backend: AsyncBackend) -> None:
        async with backend.start_session() as session:
            backend.host.send(packet(1, 100))
            await soon(session.receive())
            await session.send(packet(2, 200))
            backend.host.receive(SOON)
            assert session.capacity == 4 << 20
        counted = session.statistics()
        assert (counted.received_packets, counted.received_bytes) == (1, 100)
        assert (counted.sent_packets, counted.sent_bytes) == (1, 200)
        assert counted.discards.total == 0

    # ---- one loop after the other ---------------------------------------------------------------

    def test_two_loops_one_after_the_other(self, backend: AsyncBackend) -> None:
        """What was left waiting, or queueing, in the first one is not in the way of the second."""
        session = backend.start_session()

        async def use(number: int) -> None:
            left = [asyncio.ensure_future(session.receive())]
            backend.host.send(packet(number))
            assert await soon(left[0]) == packet(number)
            async with session.gather():
                others = [asyncio.ensure_future(session.send(packet(i))) for i in (1, 2)]
                await asyncio.sleep(0)
                await session.send(packet(0))
            await asyncio.gather(*others)
            for i in range(3):
                assert backend.host.receive(SOON) == packet(i)
            left.append(await waiting(session.receive()))

        for number in range(3):
            with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
                runner.run(asyncio.wait_for(use(number), SOON))
        session.close()

    def test_the_session_outlives_its_loop(self, backend: AsyncBackend) -> None:
        """A loop that ends under a task that waits: the session can be closed all the same."""
        session = backend.start_session()
        loop = self.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # it says that the task is still pending
        receiver = loop.run_until_complete(waiting(session.receive()))
        loop.close()
        session.close()
        assert session.statistics().pinned == 0
        del receiver
        gc.collect()

    def test_a_fork_leaves_the_parents_loop_alone(self, backend: AsyncBackend) -> None:
        with asyncio.Runner(loop_factory=self.new_event_loop) as runner:
            session = backend.start_session()
            receiver = runner.get_loop().create_task(session.receive())

            async def begin() -> None:
                while receiver._fut_waiter is None:  # type: ignore[attr-defined]
                    await asyncio.sleep(0)

            runner.run(begin())
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    session.try_send(packet(1))
                except SessionClosed as error:
                    status = 0 if error.reason is EndReason.FORKED else 2
                    session.close()
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            backend.host.send(packet(2))
            assert runner.run(soon(receiver)) == packet(2)
            session.close()


async def receive_one(session: AsyncSession, got: list[bytes]) -> None:
    got.append(await session.receive())


async def receive_next(session: AsyncSession, got: list[bytes]) -> None:
    async for one in session:
        got.append(one)


async def receive_batch(session: AsyncSession, got: list[bytes]) -> None:
    with await session.receive_many(2) as batch:
        got.extend(bytes(view) for view in batch)


async def receive_next_batch(session: AsyncSession, got: list[bytes]) -> None:
    async for batch in session.batches(2):
        got.extend(bytes(view) for view in batch)


async def receive_in_time(session: AsyncSession, got: list[bytes]) -> None:
    got.append(await asyncio.wait_for(session.receive(), SOON))


async def receive_before_its_timeout(session: AsyncSession, got: list[bytes]) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(0):
            got.append(await session.receive())


async def send_one(session: AsyncSession, number: int, done: list[int]) -> None:
    await session.send(packet(number))
    done.append(number)


async def send_slot(session: AsyncSession, number: int, done: list[int]) -> None:
    async with session.reserve(1400) as slot:
        await asyncio.sleep(0)
        slot.view[:64] = packet(number)
        slot.commit(64)
        done.append(number)


async def send_gathered(session: AsyncSession, number: int, done: list[int]) -> None:
    async with session.gather():
        await asyncio.sleep(0)
        await session.send(packet(number))
        done.append(number)


def assert_released(batch: Batch) -> None:
    with pytest.raises(ValueError, match="released"):
        len(batch)


T = TypeVar("T")


async def soon(awaitable: Awaitable[T]) -> T:
    """What it gives, within `SOON`."""
    return await asyncio.wait_for(awaitable, SOON)


async def waiting(coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """The coroutine as a task, which by now waits inside its session."""
    task = asyncio.ensure_future(coroutine)
    deadline = time.monotonic() + 0.05
    while not task.done() and time.monotonic() < deadline:
        await asyncio.sleep(0)
        if task._fut_waiter is not None:  # type: ignore[attr-defined]
            return task
    return task


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("it had to wait")


async def attempt(session: AsyncSession, what: bytes) -> bool:
    """From another task."""
    return session.try_send(what)
