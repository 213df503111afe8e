"""The suite for sessions: the promises of the API, on whatever backend."""

from __future__ import annotations

import gc
import os
import select
import signal
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial

import pytest

from ringtun.errors import AdapterBusy, ConcurrencyError, EndReason, SessionClosed
from ringtun.session import Session
from ringtun.testing.conformance.peer import Backend, packet

__all__ = ["SessionConformance"]

SOON = 5.0
"""Seconds within which what must come has come."""


class SessionConformance:
    """Inherit it, and give a fixture ``backend``: a fresh `Backend`, which cleans up."""

    # ---- both ways ------------------------------------------------------------------------------

    def test_receives_what_the_host_sends(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for size in (28, 29, 30, 31, 64, 1400):
                backend.host.send(packet(size, size))
                assert session.receive(SOON) == packet(size, size)

    def test_sends_what_the_host_receives(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for size in (28, 29, 30, 31, 64, 1400):
                session.send(packet(size, size))
                assert backend.host.receive(SOON) == packet(size, size)

    def test_both_versions(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for version in (4, 6):
                backend.host.send(packet(1, 100, version))
                assert session.receive(SOON) == packet(1, 100, version)
                session.send(packet(2, 100, version))
                assert backend.host.receive(SOON) == packet(2, 100, version)

    def test_keeps_order_over_many_wraps(self, backend: Backend) -> None:
        with backend.start_session(capacity=1 << 17) as session:
            for number in range(1000):
                backend.host.send(packet(number, 28 + number % 1300))
                assert session.receive(SOON) == packet(number, 28 + number % 1300)
                session.send(packet(number, 28 + number % 1300))
                assert backend.host.receive(SOON) == packet(number, 28 + number % 1300)

    def test_several_ways_to_send(self, backend: Backend) -> None:
        with backend.start_session() as session:
            session.send(packet(0))
            session.send(bytearray(packet(1)))
            session.send(memoryview(packet(2)))
            assert session.try_send(packet(3))
            assert session.send_many([packet(4), packet(5)]) == 2
            assert session.send_many(packet(i) for i in (6, 7)) == 2
            with session.gather():
                session.send(packet(8))
                session.send(packet(9))
            with session.reserve(1400) as slot:
                slot.view[:64] = packet(10)
                slot.commit(64)
            for number in range(11):
                assert backend.host.receive(SOON) == packet(number)

    def test_forwards_a_batch(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for number in range(5):
                backend.host.send(packet(number))
            done = 0
            while done < 5:
                with session.receive_many(timeout=SOON) as batch:
                    done += session.send_many(batch)
            for number in range(5):
                assert backend.host.receive(SOON) == packet(number)

    # ---- what is refused ------------------------------------------------------------------------

    def test_refuses_what_is_no_packet(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for bad in (b"", b"\x45" * 19, b"\x60" * 39, b"\x00" * 64, b"\x45" * 65536):
                with pytest.raises(ValueError, match=r"packet"):
                    session.send(bad)
                with pytest.raises(ValueError, match=r"packet"):
                    session.try_send(bad)
                with pytest.raises(ValueError, match=r"packet"):
                    session.send_many([bad])
            with pytest.raises(TypeError, match="use send"):
                session.send_many(packet(1))  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                session.send("text")  # type: ignore[arg-type]
            session.send(packet(1))
            assert backend.host.receive(SOON) == packet(1)

    def test_what_comes_before_a_bad_packet_is_sent(self, backend: Backend) -> None:
        with backend.start_session() as session:
            with pytest.raises(ValueError, match="not an IP packet"):
                session.send_many([packet(1), b"nonsense", packet(2)])
            session.send(packet(3))
            assert backend.host.receive(SOON) == packet(1)
            assert backend.host.receive(SOON) == packet(3)

    @pytest.mark.parametrize("capacity", [0, -1, 16, 0x10000, 0x20001, 0x30000, 0x8000000])
    def test_refuses_a_capacity(self, backend: Backend, capacity: int) -> None:
        with pytest.raises(ValueError, match="power of two"):
            backend.start_session(capacity=capacity)

    def test_one_session_at_a_time(self, backend: Backend) -> None:
        with backend.start_session() as session:
            with pytest.raises(AdapterBusy, match="close that one first"):
                backend.start_session()
            backend.host.send(packet(1))
            assert session.receive(SOON) == packet(1)
        with backend.start_session() as session:
            backend.host.send(packet(2))
            assert session.receive(SOON) == packet(2)

    # ---- time -----------------------------------------------------------------------------------

    def test_a_timeout_takes_nothing(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for timeout in (0.0, 0.01):
                with pytest.raises(TimeoutError, match="no packet"):
                    session.receive(timeout)
                with pytest.raises(TimeoutError, match="no packet"):
                    session.receive_many(timeout=timeout)
            assert session.try_receive() is None
            backend.host.send(packet(1))
            assert session.receive(SOON) == packet(1)

    def test_odd_timeouts(self, backend: Backend) -> None:
        with backend.start_session(spin=1.0) as session:
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                session.receive(0)
            assert time.monotonic() - began < 0.9, "spinning ends with the timeout"
            with pytest.raises(ValueError, match="nan"):
                session.receive(float("nan"))
            with pytest.raises(TypeError, match="seconds"):
                session.receive("1")  # type: ignore[arg-type]
        for timeout in (1e12, float("inf")):
            session = backend.start_session()
            with Background(partial(session.receive, timeout)) as receiver:
                waits_inside(session, "_receiver")
                session.close()
                with pytest.raises(SessionClosed):
                    receiver.result()

    def test_a_waiting_receive_wakes(self, backend: Backend) -> None:
        with backend.start_session() as session, Background(session.receive) as receiver:
            waits_inside(session, "_receiver")
            backend.host.send(packet(1))
            assert receiver.result() == packet(1)

    # ---- batches --------------------------------------------------------------------------------

    def test_a_batch_is_a_sequence_of_views(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for number in range(3):
                backend.host.send(packet(number))
            seen: list[bytes] = []
            while len(seen) < 3:
                with session.receive_many(timeout=SOON) as batch:
                    assert [bytes(view) for view in batch] == [
                        bytes(batch[i]) for i in range(len(batch))
                    ]
                    assert bytes(batch[-1]) == bytes(batch[len(batch) - 1])
                    with pytest.raises(IndexError):
                        batch[len(batch)]
                    seen += [bytes(view) for view in batch]
            assert seen == [packet(number) for number in range(3)]
            assert session.statistics().pinned == 0

    def test_max_packets(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for number in range(3):
                backend.host.send(packet(number))
            for number in range(3):
                with session.receive_many(1, SOON) as batch:
                    assert [bytes(view) for view in batch] == [packet(number)]
            with pytest.raises(ValueError, match="max_packets"):
                session.receive_many(0)

    def test_a_released_view_is_dead(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1))
            with session.receive_many(timeout=SOON) as batch:
                view = batch[0]
            with pytest.raises(ValueError, match="released"):
                view[0]
            with pytest.raises(ValueError, match="released"):
                batch[0]
            batch.release()

    def test_a_slice_pins_its_slot(self, backend: Backend) -> None:
        with backend.start_session(capacity=1 << 17) as session:
            backend.host.send(packet(1))
            batch = session.receive_many(timeout=SOON)
            part = batch[0][20:40]
            with pytest.warns(ResourceWarning, match="pinned"):
                batch.release()
            assert session.statistics().pinned == 1
            room = (1 << 17) // 72
            for number in range(2, 2 * room):
                backend.host.send(packet(number))
                session.try_receive()
            assert bytes(part) == packet(1)[20:40]
            del part
            gc.collect()
            assert session.statistics().pinned == 0
            drain(session)
            backend.host.send(packet(9))
            assert session.receive(SOON) == packet(9)

    def test_batches_that_are_dropped_give_room_back(self, backend: Backend) -> None:
        with backend.start_session(capacity=1 << 17) as session:
            gc.disable()
            try:
                for number in range(300):
                    backend.host.send(packet(number, 1400))
                    for view in session.receive_many(timeout=SOON):
                        assert bytes(view) == packet(number, 1400)
            finally:
                gc.enable()

    def test_releasing_while_it_is_looked_into(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1))
            batch = session.receive_many(timeout=SOON)

            class Index:
                def __index__(self) -> int:
                    batch.release()
                    return 0

            with pytest.raises(ValueError, match="released"):
                batch[Index()]  # type: ignore[call-overload]
            backend.host.send(packet(2))
            batch = session.receive_many(timeout=SOON)
            view = batch[0]
            dying = weakref.ref(view, lambda _: batch.release())
            del view
            batch.release()
            assert dying() is None

    def test_the_mapping_goes_with_the_last_slot(self, backend: Backend) -> None:
        def mappings() -> int:
            with open("/proc/self/maps") as lines:
                return sum("memfd:ringtun" in line for line in lines)

        gc.collect()
        before = mappings()
        with backend.start_session() as session:
            backend.host.send(packet(1))
            batch = session.receive_many(timeout=SOON)
            part = batch[0][4:]
            with pytest.warns(ResourceWarning, match="pinned"):
                batch.release()
        del batch
        assert bytes(part) == packet(1)[4:]
        del part
        gc.collect()
        assert mappings() == before

    def test_a_pinned_slot_outlives_the_session(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1))
            batch = session.receive_many(timeout=SOON)
            part = batch[0][4:]
            with pytest.warns(ResourceWarning, match="pinned"):
                batch.release()
        assert bytes(part) == packet(1)[4:]
        assert session.statistics().pinned == 1
        del part
        gc.collect()
        assert session.statistics().pinned == 0

    def test_a_copy_after_a_batch_keeps_order(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for number in range(3):
                backend.host.send(packet(number))
            first = session.receive_many(1, SOON)
            assert session.receive(SOON) == packet(1)
            second = session.receive_many(1, SOON)
            second.release()
            assert bytes(first[0]) == packet(0)
            first.release()
            assert session.statistics().to_client_used == 0

    def test_batches_are_released_in_turn(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1))
            batches = session.batches()
            batch = next(batches)
            assert bytes(batch[0]) == packet(1)
            batches.close()
            with pytest.raises(ValueError, match="released"):
                len(batch)

    # ---- reserve and gather ---------------------------------------------------------------------

    def test_a_slot_left_sends_nothing(self, backend: Backend) -> None:
        with backend.start_session() as session:
            with session.reserve(64) as slot:
                slot.view[:] = packet(1)
            with pytest.raises(KeyError), session.reserve(64) as slot:
                slot.view[:] = packet(2)
                raise KeyError
            with session.reserve(64) as slot:
                slot.view[:] = packet(3)
                slot.commit()
                with pytest.raises(ValueError, match="already"):
                    slot.commit()
            assert backend.host.receive(SOON) == packet(3)

    def test_a_slot_refuses(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for size in (0, -1, 65536):
                with pytest.raises(ValueError, match="byte"):
                    session.reserve(size)
            with session.reserve(64) as slot:
                with pytest.raises(ConcurrencyError, match="slot"):
                    session.send(packet(1))
                with pytest.raises(ValueError, match="cannot commit"):
                    slot.commit(65)
                with pytest.raises(ValueError, match="not an IP packet"):
                    slot.commit()
                part = slot.view[20:]
                slot.view[:] = packet(2)
                with pytest.raises(BufferError, match="slice"):
                    slot.commit()
                part.release()
                slot.commit()
            assert backend.host.receive(SOON) == packet(2)

    def test_a_slot_that_is_dropped_holds_nothing(self, backend: Backend) -> None:
        with backend.start_session() as session:
            session.reserve(64)
            gc.collect()
            session.send(packet(1))
            assert backend.host.receive(SOON) == packet(1)

    def test_a_block_that_gathers_shows_its_own_error(self, backend: Backend) -> None:
        session = backend.start_session()
        with pytest.raises(KeyError), session.gather():
            session.send(packet(1))
            session.close()
            raise KeyError
        session = backend.start_session()
        with session.gather():
            session.close()

    def test_gathered_packets_go_at_64_kib(self, backend: Backend) -> None:
        with backend.start_session() as session:
            with session.gather():
                for number in range(60):
                    session.send(packet(number, 1400))
                assert backend.host.receive(SOON) == packet(0, 1400)
            for number in range(1, 60):
                assert backend.host.receive(SOON) == packet(number, 1400)

    def test_gathered_packets_go_after_an_exception(self, backend: Backend) -> None:
        with backend.start_session() as session:
            with pytest.raises(KeyError), session.gather():
                session.send(packet(1))
                raise KeyError
            assert backend.host.receive(SOON) == packet(1)
            with session.gather(), pytest.raises(ConcurrencyError), session.gather():
                pass

    # ---- threads --------------------------------------------------------------------------------

    def test_a_second_receiver_is_refused(self, backend: Backend) -> None:
        with backend.start_session() as session, Background(session.receive) as receiver:
            waits_inside(session, "_receiver")
            for receive in (session.receive, session.try_receive, session.receive_many):
                with pytest.raises(ConcurrencyError):
                    receive()
            session.send(packet(1))
            assert backend.host.receive(SOON) == packet(1)
            backend.host.send(packet(2))
            assert receiver.result() == packet(2)

    def test_another_thread_does_not_gather(self, backend: Backend) -> None:
        with backend.start_session() as session:
            with (
                session.gather(),
                Background(lambda: session.send(packet(1))) as other,
                pytest.raises(ConcurrencyError),
            ):
                other.result()
            session.send(packet(2))
            assert backend.host.receive(SOON) == packet(2)

    # ---- the end --------------------------------------------------------------------------------

    def test_close_wakes_who_waits(self, backend: Backend) -> None:
        session = backend.start_session()
        with Background(session.receive) as receiver:
            waits_inside(session, "_receiver")
            session.close()
            with pytest.raises(SessionClosed) as caught:
                receiver.result()
        assert caught.value.reason is EndReason.CLOSED

    def test_a_closed_session_says_so(self, backend: Backend) -> None:
        session = backend.start_session()
        session.close()
        session.close()
        calls: list[Callable[[], object]] = [
            session.receive,
            session.try_receive,
            session.receive_many,
            lambda: session.send(packet(1)),
            lambda: session.try_send(packet(1)),
            lambda: session.send_many([packet(1)]),
            lambda: session.reserve(64),
            session.fileno,
        ]
        for call in calls:
            with pytest.raises(SessionClosed) as caught:
                call()
            assert caught.value.reason is EndReason.CLOSED
        assert list(session) == []
        assert list(session.batches()) == []
        session.statistics()

    def test_what_was_sent_before_the_close_goes_out(self, backend: Backend) -> None:
        with backend.start_session() as session:
            for number in range(100):
                session.send(packet(number))
        for number in range(100):
            assert backend.host.receive(SOON) == packet(number)

    def test_removal_ends_the_session(self, backend: Backend) -> None:
        with backend.start_session() as session, Background(session.receive) as receiver:
            waits_inside(session, "_receiver")
            backend.remove()
            with pytest.raises(SessionClosed) as caught:
                receiver.result()
            assert caught.value.reason is EndReason.ADAPTER_REMOVED
            with pytest.raises(SessionClosed):
                session.send(packet(1))
            with pytest.raises(SessionClosed):
                next(iter(session))

    def test_a_handler_may_close(self, backend: Backend) -> None:
        if threading.current_thread() is not threading.main_thread():
            pytest.skip("signals are handled by the main thread, and this is another one")
        session = backend.start_session()
        before = signal.signal(signal.SIGUSR1, lambda *_: session.close())
        main = threading.main_thread().ident
        assert main is not None

        def interrupt() -> None:
            waits_inside(session, "_receiver")
            signal.pthread_kill(main, signal.SIGUSR1)

        try:
            with Background(interrupt), pytest.raises(SessionClosed):
                session.receive()
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_old_packets_are_not_for_a_new_session(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1))
            assert session.receive(SOON) == packet(1)
            backend.host.send(packet(2))
        with backend.start_session() as session:
            backend.host.send(packet(3))
            assert session.receive(SOON) == packet(3)

    def test_nothing_is_left_open(self, backend: Backend) -> None:
        def cycle() -> None:
            with backend.start_session() as session:
                session.fileno()
                backend.host.send(packet(1))
                session.receive(SOON)

        cycle()
        gc.collect()
        descriptors, threads = len(os.listdir("/proc/self/fd")), os.listdir("/proc/self/task")
        for _ in range(5):
            cycle()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert len(os.listdir("/proc/self/task")) == len(threads)

    def test_a_forgotten_session_warns(self, backend: Backend) -> None:
        session = backend.start_session()
        with pytest.warns(ResourceWarning, match="unclosed session"):
            del session
            gc.collect()

    # ---- fileno ---------------------------------------------------------------------------------

    def test_fileno_is_readable_when_a_receive_would_not_wait(self, backend: Backend) -> None:
        with backend.start_session() as session:
            poll = select.poll()
            poll.register(session.fileno(), select.POLLIN)
            assert session.wait_handle == session.fileno()
            assert not poll.poll(0)
            for number in range(3):
                backend.host.send(packet(number))
            for number in range(3):
                assert poll.poll(SOON * 1000)
                assert poll.poll(0), "level-triggered"
                assert session.receive(0) == packet(number)
            assert not poll.poll(0)
            with pytest.raises(TimeoutError):
                session.receive(0)

    def test_fileno_sees_packets_that_came_before_it(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1))
            backend.host.send(packet(2))
            assert session.receive(SOON) == packet(1)
            poll = select.poll()
            poll.register(session.fileno(), select.POLLIN)
            assert poll.poll(SOON * 1000)
            assert session.receive(SOON) == packet(2)

    def test_fileno_sees_the_end(self, backend: Backend) -> None:
        with backend.start_session() as session:
            poll = select.poll()
            poll.register(session.fileno(), select.POLLIN)
            backend.remove()
            assert poll.poll(SOON * 1000)
            with pytest.raises(SessionClosed):
                session.receive(0)

    def test_fileno_is_exact_after_a_part_of_what_came(self, backend: Backend) -> None:
        with backend.start_session() as session:
            poll = select.poll()
            poll.register(session.fileno(), select.POLLIN)
            backend.host.send(packet(1))
            backend.host.send(packet(2))
            for number in (1, 2):
                assert poll.poll(SOON * 1000)
                with session.receive_many(1, SOON) as batch:
                    assert [bytes(view) for view in batch] == [packet(number)]
            assert not poll.poll(0)

    # ---- counting -------------------------------------------------------------------------------

    def test_statistics_count(self, backend: Backend) -> None:
        with backend.start_session() as session:
            backend.host.send(packet(1, 100))
            session.receive(SOON)
            session.send(packet(2, 200))
            session.send(packet(3, 300))
            backend.host.receive(SOON)
            backend.host.receive(SOON)
        counted = session.statistics()
        assert (counted.received_packets, counted.received_bytes) == (1, 100)
        assert (counted.sent_packets, counted.sent_bytes) == (2, 500)
        assert counted.discards.total == 0
        assert backend.adapter_statistics().sent_bytes == 500

    # ---- fork -----------------------------------------------------------------------------------

    def test_a_child_does_not_use_the_parents_session(self, backend: Backend) -> None:
        with backend.start_session() as session:
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    session.send(packet(1))
                except SessionClosed as error:
                    status = 0 if error.reason is EndReason.FORKED else 2
                finally:
                    os._exit(status)
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
            backend.host.send(packet(2))
            assert session.receive(SOON) == packet(2)
            session.send(packet(3))
            assert backend.host.receive(SOON) == packet(3)


class Background:
    """A call in a thread of its own; its result, or its exception, is asked for."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._value: object = None
        self._error: BaseException | None = None

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:
            self._error = error

    def result(self) -> object:
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "the call still waits"
        if self._error is not None:
            raise self._error
        return self._value

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.join(SOON)


def waits_inside(session: Session, side: str) -> None:
    """Return once a thread waits inside the session."""
    deadline = time.monotonic() + SOON
    while getattr(session, side) is None:
        assert time.monotonic() < deadline
        os.sched_yield()


def drain(session: Session) -> None:
    """Take all that is there."""
    while session.try_receive() is not None:
        pass
