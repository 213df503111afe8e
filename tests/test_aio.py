"""asyncio sessions: their suite on every backend, on asyncio's own loop and on uvloop; many in one
loop, idle ones, full rings."""

from __future__ import annotations

import asyncio
import gc
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import uvloop

from ringtun import _native, abi
from ringtun.abi import RegisterRings
from ringtun.adapter import Adapter
from ringtun.aio import AsyncSession
from ringtun.control.embedded import EmbeddedAdapter
from ringtun.device.embedded import EmbeddedDevice, Pump
from ringtun.driver.adapter import DriverAdapter
from ringtun.driver.registration import accept
from ringtun.errors import EndReason, SessionClosed
from ringtun.host.memory import link_hosts
from ringtun.ring import Consumer
from ringtun.statistics import Statistics
from ringtun.step import StepResult
from ringtun.testing import memory_link
from ringtun.testing.conformance import AsyncSessionConformance
from ringtun.testing.conformance.peer import packet
from tests.backends import KernelBackend, MemoryBackend, ServiceBackend
from tests.children import descriptors

SOON = 5.0  # seconds within which what must come has come

plain_python = [
    pytest.mark.usefixtures("pure_python"),
    pytest.mark.filterwarnings("ignore:packets are moved by plain Python:RuntimeWarning"),
]


class AsyncBackend:
    """A backend whose sessions are asyncio's."""

    def __init__(self, backend: MemoryBackend | KernelBackend | ServiceBackend) -> None:
        self._backend = backend
        self.host = backend.host

    def start_session(self, *, capacity: int = 4 << 20, spin: float = 0.0) -> AsyncSession:
        device = self._backend.adapter._opened.device(self._backend.pump)
        return AsyncSession(device, capacity, spin=spin)

    def remove(self) -> None:
        self._backend.remove()

    def close(self) -> None:
        self._backend.close()


class TestMemoryInline(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(MemoryBackend("inline"))) as backend:
            yield backend


class TestMemoryThread(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(MemoryBackend("thread"))) as backend:
            yield backend


class TestMemoryPython(TestMemoryInline):
    pytestmark = plain_python


@pytest.mark.kernel
class TestKernelInline(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(KernelBackend("inline"))) as backend:
            yield backend


@pytest.mark.kernel
class TestKernelThread(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(KernelBackend("thread"))) as backend:
            yield backend


class OnUvloop:
    @staticmethod
    def new_event_loop() -> asyncio.AbstractEventLoop:
        return uvloop.new_event_loop()


class TestMemoryInlineUvloop(OnUvloop, TestMemoryInline):
    pass


class TestMemoryThreadUvloop(OnUvloop, TestMemoryThread):
    pass


@pytest.mark.kernel
class TestKernelInlineUvloop(OnUvloop, TestKernelInline):
    pass


@pytest.mark.kernel
class TestKernelThreadUvloop(OnUvloop, TestKernelThread):
    pass


# ---- many sessions in one loop -------------------------------------------------------------------

LOOPS = [
    pytest.param(asyncio.new_event_loop, id="asyncio"),
    pytest.param(uvloop.new_event_loop, id="uvloop"),
]
NewLoop = Callable[[], asyncio.AbstractEventLoop]


@contextmanager
def small_link(queue_bytes: int = 1 << 17) -> Iterator[tuple[Adapter, Adapter]]:
    """As `memory_link`, with a queue that fits the many."""
    left, right = link_hosts(queue_bytes)
    with (
        Adapter(EmbeddedAdapter(DriverAdapter("left", left), left)) as one,
        Adapter(EmbeddedAdapter(DriverAdapter("right", right), right)) as other,
    ):
        yield one, other


@pytest.mark.parametrize("new_loop", LOOPS)
def test_thousands_of_sessions(new_loop: NewLoop) -> None:
    """2,000 of them: a packet each way through all, while a task waits in each."""
    pairs, each = 1000, 8  # descriptors: 7 a session that waits, and one an end of a link
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * pairs * each + 200:
        pytest.skip(f"NOT TRIED: this process may open {hard} descriptors only")
    with asyncio.Runner(loop_factory=new_loop) as runner:  # opens what is opened once
        runner.run(asyncio.sleep(0))
    gc.collect()
    before = descriptors()

    async def answer(session: AsyncSession) -> None:
        await session.send(await session.receive())

    async def ask(session: AsyncSession, number: int) -> bytes:
        await session.send(packet(number))
        return await session.receive()

    async def use(left: list[AsyncSession], right: list[AsyncSession]) -> None:
        answers = [asyncio.ensure_future(answer(session)) for session in right]
        await asyncio.sleep(0)
        got = await asyncio.gather(*(ask(session, i) for i, session in enumerate(left)))
        assert got == [packet(i) for i in range(pairs)]
        await asyncio.gather(*answers)
        assert descriptors() - before <= 2 * pairs * each + 20  # the loop's own included

    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with ExitStack() as stack:
            links = [stack.enter_context(small_link()) for _ in range(pairs)]
            with asyncio.Runner(loop_factory=new_loop) as runner:
                left, right = (
                    [adapter.start_async_session(capacity=1 << 17) for adapter in side]
                    for side in zip(*links, strict=True)
                )
                runner.run(use(left, right))
                for session in (*left, *right):
                    session.close()
        del links, left, right, session
        gc.collect()
        assert descriptors() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("way", ["receive", "iterate", "batches", "forward"])
def test_busy_sessions_take_turns(new_loop: NewLoop, way: str) -> None:
    """Two of them with all that they want to do: no lag is longer than a turn of each."""
    total, turn = 5000, 512 if way == "batches" else 256
    done = [0, 0]
    lags: list[int] = []

    async def work(which: int, source: AsyncSession, destination: AsyncSession) -> None:
        if way == "receive":
            while done[which] < total:
                await source.receive()
                done[which] += 1
        elif way == "batches":
            async for batch in source.batches():
                done[which] += len(batch)
        else:
            async for one in source:
                if way == "forward":
                    await destination.send(one)
                done[which] += 1

    async def tick() -> None:
        before = sum(done)
        while min(done) < total:
            await asyncio.sleep(0)
            lags.append(sum(done) - before)
            before = sum(done)
            assert abs(done[0] - done[1]) <= 2 * turn

    async def main() -> None:
        with (
            small_link(1 << 20) as (one, far_one),
            small_link(1 << 20) as (two, far_two),
            far_one.start_session() as feeder,
            far_two.start_session() as other_feeder,
        ):
            async with one.start_async_session() as a, two.start_async_session() as b:
                feeder.send_many([packet(0)] * total)
                other_feeder.send_many([packet(0)] * total)
                works = [
                    asyncio.ensure_future(work(0, a, b)),
                    asyncio.ensure_future(work(1, b, a)),
                ]
                await asyncio.wait_for(tick(), SOON)
                for task in works:
                    task.cancel()
                await asyncio.wait(works)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    assert len(lags) >= total // turn
    assert max(lags) <= 2 * (turn + 1)


# ---- who does nothing costs nothing --------------------------------------------------------------


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("pump", ["inline", "thread"])
def test_an_idle_program_with_a_full_ring_uses_no_cpu(new_loop: NewLoop, pump: Pump) -> None:
    """It has received before, and does something else now."""

    async def main() -> None:
        with small_link() as (near, far), far.start_session() as feeder:
            async with near.start_async_session(capacity=1 << 17, pump=pump) as session:
                receiver = asyncio.ensure_future(session.receive())
                await asyncio.sleep(0)
                feeder.send(packet(0))
                await asyncio.wait_for(receiver, SOON)
                while not near.statistics().discards.host_queue_full:  # ring and queue are full
                    feeder.send(packet(1, 1400))
                await asyncio.sleep(0.05)  # the last edge, perhaps
                before, wakes = cpu_seconds(), session.statistics().wakeups
                await asyncio.sleep(0.3)
                assert cpu_seconds() - before < 0.03
                assert session.statistics().wakeups == wakes
                assert await session.receive() == packet(1, 1400)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def cpu_seconds() -> float:
    """Of this process, the kernel's work for it included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# ---- a full ring ---------------------------------------------------------------------------------


class SlowDevice:
    """A driver that takes packets when the test says so: `Device`, and the driver's side of it.

    Inline, it writes them to a socket that is soon full; else they lie in the ring until `take`.
    """

    name = "slow0"
    to_client_space: _native.Space | None = None

    def __init__(self, *, inline: bool) -> None:
        self.to_host_space: _native.Space | None = None if inline else _native.Space()
        self.pumps = 0
        self._sockets: tuple[socket.socket, ...] = ()
        self.host_fd: int | None = None
        if inline:
            self._sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            host = self._sockets[0]
            host.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            for end in self._sockets:
                end.setblocking(False)
            self.host_fd = host.fileno()
        self._unsent: bytes | None = None
        self._over = False

    def set_options(self, options: abi.Options) -> None:
        raise AssertionError("nobody asks for any")

    def wait_to_client(self, budget: int, stop: int, timeout: float | None) -> int | None:
        raise AssertionError("a loop waits by itself")

    def forward(self, batch: object) -> None:
        """Everything goes through the ring."""

    def register_rings(self, offer: RegisterRings, descriptors: Sequence[int]) -> None:
        self._registration = accept(abi.IOCTL_REGISTER_RINGS, offer.pack(), descriptors)
        ring = self._registration.to_host
        self._ring = Consumer(ring.memory, ring.capacity, ring.event, self.to_host_space)

    def take(self) -> bytes | None:
        """The oldest packet in the ring."""
        return self._ring.pop()

    async def next_taken(self) -> bytes:
        """The next packet that the driver takes."""
        if self.host_fd is not None:
            return await asyncio.get_running_loop().sock_recv(self._sockets[1], 1 << 16)
        while (one := self.take()) is None:
            await asyncio.sleep(0)
        return one

    def pump_to_client(self, budget: int) -> int:
        return StepResult.IDLE

    def pump_to_host(self, budget: int) -> int:
        self.pumps += 1
        if self._over:
            return StepResult.OVER
        while self.host_fd is not None and (one := self._unsent or self.take()) is not None:
            self._unsent = one
            try:
                self._sockets[0].send(one)
            except BlockingIOError:
                return StepResult.BLOCKED
            self._unsent = None
        return StepResult.IDLE

    def end_reason(self) -> EndReason:
        return EndReason.DRIVER_ENDED

    def statistics(self) -> Statistics:
        return Statistics()

    def close(self) -> None:
        self._over = True
        self._ring.close()
        self._registration.close()
        for end in self._sockets:
            end.close()
        if self.to_host_space is not None:
            self.to_host_space.close()

    def abandon(self) -> None: ...


async def senders_of(session: AsyncSession, count: int) -> list[asyncio.Task[None]]:
    """A task a packet, in order; most of them wait for room, or for their turn."""
    senders = [asyncio.ensure_future(session.send(packet(i, 1400))) for i in range(count)]
    for _ in range(10):
        await asyncio.sleep(0)
    return senders


FULL = 400  # packets of 1,400 bytes, which neither a ring of 128 KiB nor a socket has room for


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_send_waits_for_room_without_looking(
    new_loop: NewLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With threads of the driver's own: woken when a packet was taken, and not before."""

    async def main() -> None:
        device = SlowDevice(inline=False)
        async with AsyncSession(device, 1 << 17) as session:
            senders = await senders_of(session, FULL)
            waiting = sum(not sender.done() for sender in senders)
            assert 0 < waiting < FULL
            looks, look = 0, session._await_room

            async def count() -> None:
                nonlocal looks
                looks += 1
                await look()

            monkeypatch.setattr(session, "_await_room", count)
            await asyncio.sleep(0.05)
            assert looks == 0
            for number in range(FULL):
                assert await asyncio.wait_for(device.next_taken(), SOON) == packet(number, 1400)
            await asyncio.wait_for(asyncio.gather(*senders), SOON)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_slow_host_is_waited_for_without_looking(new_loop: NewLoop) -> None:
    """Inline: until the host's descriptor is writable; what has room in the ring does not wait."""

    async def main() -> None:
        device = SlowDevice(inline=True)
        async with AsyncSession(device, 1 << 17) as session:
            for number in range(20):
                await asyncio.wait_for(session.send(packet(number, 1400)), SOON)
            senders = [
                asyncio.ensure_future(session.send(packet(i, 1400))) for i in range(20, FULL)
            ]
            for _ in range(10):
                await asyncio.sleep(0)
            assert not all(sender.done() for sender in senders)
            before = device.pumps
            await asyncio.sleep(0.05)
            assert device.pumps == before
            for number in range(FULL):
                assert await asyncio.wait_for(device.next_taken(), SOON) == packet(number, 1400)
            await asyncio.wait_for(asyncio.gather(*senders), SOON)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("inline", [True, False])
def test_a_send_cancelled_in_a_full_ring_sends_nothing(inline: bool) -> None:
    """The one whose turn it is, and the next in the queue; the rest go on."""

    async def main() -> None:
        device = SlowDevice(inline=inline)
        async with AsyncSession(device, 1 << 17) as session:
            senders = await senders_of(session, FULL)
            number = next(i for i, sender in enumerate(senders) if not sender.done())
            cancelled = senders[number : number + 2]
            for sender in cancelled:
                sender.cancel()
            await asyncio.wait(cancelled)
            for expected in (*range(number), *range(number + 2, FULL)):
                assert await asyncio.wait_for(device.next_taken(), SOON) == packet(expected, 1400)
            await asyncio.wait_for(asyncio.wait(senders), SOON)
            assert [sender for sender in senders if sender.cancelled()] == cancelled

    asyncio.run(main())


@pytest.mark.parametrize("inline", [True, False])
def test_close_from_another_thread_wakes_all_that_wait(inline: bool) -> None:
    async def main() -> None:
        device = SlowDevice(inline=inline)
        session = AsyncSession(device, 1 << 17)

        async def reserve() -> None:
            async with session.reserve(1400):
                raise AssertionError("there is room")

        senders = await senders_of(session, FULL)
        tasks = [sender for sender in senders if not sender.done()]
        assert len(tasks) > 10
        tasks.append(asyncio.ensure_future(reserve()))
        many: asyncio.Task[object] = asyncio.ensure_future(session.send_many([packet(0)] * 10))
        one: asyncio.Task[object] = asyncio.ensure_future(session.receive())
        await asyncio.sleep(0)
        await asyncio.to_thread(session.close)
        for task in (*tasks, many, one):
            with pytest.raises(SessionClosed) as caught:
                await asyncio.wait_for(task, SOON)
            assert caught.value.reason is EndReason.CLOSED

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before", "after"])
def test_close_while_a_wait_begins(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from a signal's handler, around the step that has the loop watch."""

    async def main() -> None:
        session = AsyncSession(SlowDevice(inline=False), 1 << 17)
        loop = asyncio.get_running_loop()
        add_reader = loop.add_reader

        def add_and_close(*arguments: Any) -> None:
            if when == "before":
                session.close()
            add_reader(*arguments)
            session.close()

        monkeypatch.setattr(loop, "add_reader", add_and_close)
        with pytest.raises(SessionClosed) as caught:
            await asyncio.wait_for(session.receive(), SOON)
        assert caught.value.reason is EndReason.CLOSED

    asyncio.run(main())


@pytest.mark.parametrize("new_loop", LOOPS)
def test_another_loop_is_refused_by_senders_too(new_loop: NewLoop) -> None:
    device = SlowDevice(inline=False)
    with closing(AsyncSession(device, 1 << 17)) as session:
        with asyncio.Runner(loop_factory=new_loop) as first:
            senders = first.run(senders_of(session, FULL))
            with (
                asyncio.Runner(loop_factory=new_loop) as second,
                pytest.raises(RuntimeError, match="another event loop"),
            ):
                second.run(session.send(packet(0)))
        assert senders[-1].cancelled()


# ---- what is sent while packets come ------------------------------------------------------------


@pytest.fixture
def pumps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The adapters whose packets a session's call moved to the host, call by call."""
    seen: list[str] = []
    original = EmbeddedDevice.pump_to_host

    def pump(self: EmbeddedDevice, budget: int) -> int:
        seen.append(self.name)
        return original(self, budget)

    monkeypatch.setattr(EmbeddedDevice, "pump_to_host", pump)
    return seen


def test_what_is_sent_in_a_burst_goes_out_together(pumps: list[str]) -> None:
    """100 packets lie there; each is passed on by itself, and 64 go at a time."""

    async def main() -> None:
        (a, near), (out, far) = memory_link(), memory_link()
        with a, near, out, far, a.start_session() as feed, far.start_session() as sink:
            async with near.start_async_session() as source, out.start_async_session() as target:
                feed.send_many([packet(number) for number in range(100)])
                pumps.clear()

                async def pass_on() -> None:
                    async for each in source:
                        await target.send(each)

                task = asyncio.ensure_future(pass_on())
                while target.statistics().sent_packets < 100:
                    await asyncio.sleep(0)
                task.cancel()
                assert [sink.receive(1) for _ in range(100)] == [packet(n) for n in range(100)]
                assert pumps.count("left") <= 4

    asyncio.run(main())


def test_what_waits_goes_out_when_the_program_waits_for_anything(pumps: list[str]) -> None:
    async def main() -> None:
        left, right = memory_link()
        with left, right, right.start_session() as host:
            async with left.start_async_session() as session:
                for number in range(3):
                    host.send(packet(number))
                pumps.clear()
                await session.send(await session.receive())
                assert pumps == [], "there is more to come"
                await asyncio.sleep(0)
                assert pumps == ["left"]
                assert host.try_receive() == packet(0)
                await session.send(await session.receive())
                await session.send(await session.receive())
                assert pumps == ["left", "left"], "that was the last one: it does not wait"
                assert [host.try_receive(), host.try_receive()] == [packet(1), packet(2)]

    asyncio.run(main())


def test_what_waits_goes_out_at_the_close(pumps: list[str]) -> None:
    async def main() -> None:
        left, right = memory_link()
        with left, right, right.start_session() as host:
            async with left.start_async_session() as session:
                for number in range(3):
                    host.send(packet(number))
                await session.send(await session.receive())
            assert host.try_receive() == packet(0)

    asyncio.run(main())
