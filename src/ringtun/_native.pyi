"""The native core's contracts; ``_twin.py`` keeps those of the ring too.

A ring's memory is any writable buffer of exactly ``abi.ring_size(capacity)`` bytes whose indices
are zero. One thread produces and one consumes. What the other side wrote is read once and checked:
an index of 0xFFFFFFFF raises `SessionClosed`, anything else that no correct peer writes
`RingCorrupt`.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Generic, Self, overload

from typing_extensions import Buffer, TypeVar

from ringtun.event import Event
from ringtun.host.impairment import Terms

V = TypeVar("V", default=memoryview)

def guard_install() -> None:
    """Once in a process whose engines have foreign clients: what these do to their memory and
    events ends their own sessions. Takes SIGBUS, and the first of the real-time signals.
    """

class Space:
    """By this a producer waits for room without sleeping; shared by both sides beside the ring.

    Owns its event, which is signalled when a consumer releases while the producer is armed: a new
    one, or a copy of the descriptor ``event``. Two processes share it by a word of memory that
    both have mapped, at a multiple of 4; it is held until the close.
    """

    def __init__(self, memory: Buffer | None = None, offset: int = 0, event: int = -1) -> None: ...
    def fileno(self) -> int: ...
    def signal(self) -> None: ...
    def clear(self) -> None: ...
    def close(self) -> None:
        """Close the event, once no engine uses it. More than once is fine."""

class Mapping(Buffer):
    """``size`` bytes of ``fd``, shared, to read and write; it keeps no descriptor.

    Raises the ``OSError`` of mmap(2).
    """

    def __init__(self, fd: int, size: int) -> None: ...
    def __buffer__(self, flags: int) -> memoryview: ...
    def close(self) -> None:
        """Raises ``BufferError`` while anything looks into it. More than once is fine."""

class Producer:
    """The writing side of a ring. Packets are first pushed, then submitted, together.

    ``event`` is signalled by `submit` where the consumer asked for it, and by `end`. With
    ``ip_only`` what is no IP packet raises ``ValueError``. With a ``prefix`` so many bytes come
    before each IP packet, and what is pushed may be an object that has both as its ``data``.
    """

    def __init__(
        self,
        memory: Buffer,
        capacity: int,
        event: Event | None = None,
        space: Space | None = None,
        *,
        ip_only: bool = False,
        prefix: int = 0,
    ) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def room(self) -> int:
        """Bytes that packets with their headers may still take."""
    @property
    def staged(self) -> int:
        """Bytes of packets, with their headers, that were pushed and not yet submitted."""
    def check(self) -> None:
        """Raise what a push would raise now, whatever it pushed: closed, or a slot is open."""
    @property
    def ended(self) -> bool:
        """Whether the consumer wrote 0xFFFFFFFF as Head, or this side was closed."""
    def push(self, packet: object) -> bool:
        """Copy a packet, a buffer, into the ring, unseen until `submit`. False: no room now.

        Raises ``ValueError`` for one over 65,535 bytes or that never fits, `ConcurrencyError`
        while a slot is open.
        """
    def push_many(self, packets: Sequence[object], start: int = 0) -> int:
        """Push ``packets[start:]`` until one finds no room; returns how many went in."""
    def submit(self) -> None:
        """Show the consumer all that was pushed and committed; wake it if it waits."""
    def write(self, packet: object) -> bool:
        """`push`, then `submit`."""
    def reserve(self, size: int) -> Slot | None:
        """Room for a packet of up to ``size`` bytes, to be written in place. None: no room now."""
    def arm(self) -> bool:
        """Ask ``space`` to be signalled. True: no room came meanwhile, so wait now."""
    def disarm(self) -> None: ...
    def end(self) -> None:
        """Write 0xFFFFFFFF as Tail and signal the event: this is the end."""
    def close(self) -> None:
        """Let the memory go. More than once is fine."""

class Slot:
    """A packet being written in place. It holds the ring until committed or abandoned."""

    @property
    def view(self) -> memoryview: ...
    def commit(self, length: int | None = None) -> None:
        """Push the first ``length`` bytes of the view (all, by default), and release the view.

        Raises ``BufferError`` while a slice of the view lives; nothing was pushed then.
        """
    def abandon(self) -> None:
        """Push nothing. While a slice of the view lives, the ring stays held."""

class Consumer:
    """The reading side of a ring.

    ``pop`` copies; ``peek_many`` shows packets where they lie. The producer gets room back in the
    ring's order: not past a batch that is not released, nor past a pinned slot. With ``wrap`` each
    packet, bytes or a view, is handed out as what that makes of it.
    """

    def __init__(
        self,
        memory: Buffer,
        capacity: int,
        event: Event | None = None,
        space: Space | None = None,
        *,
        wrap: Callable[[Any], object] | None = None,
    ) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def content(self) -> int:
        """Bytes of packets, with their headers, that wait to be read."""
    @property
    def more(self) -> bool:
        """Whether packets were there at the last look that have not been taken."""
    @property
    def pinned(self) -> int:
        """Slots of released batches in which a slice of a view still lives."""
    def pop(self) -> bytes | None:
        """The next packet; None: there is none now."""
    def peek_many(self, max_packets: int = 256) -> Batch | None:
        """The packets that are there, at most ``max_packets``; None: there is none now."""
    def arm(self) -> bool:
        """Ask to be woken by the event. True: nothing came meanwhile, so wait now."""
    def disarm(self) -> None: ...
    def wait(self, stop: int, timeout: float | None = None) -> bool:
        """Wait by the event, which has to be there, until packets come, or the ring's end, or the
        descriptor ``stop`` is readable; then clear the event. False: ``timeout`` seconds ran out.

        A signal's handler runs, and may end it by what it raises; else it returns True.
        """
    def end(self) -> None:
        """Write 0xFFFFFFFF as Head: nothing will be read any more."""
    def close(self) -> None:
        """Let the memory go, once no slot is in use. More than once is fine."""

class Batch(Sequence[V], Generic[V]):
    """Packets in the order of the ring, as writable views into it, until `release`.

    Releasing it releases the views that it handed out. While a slice of one, or an array made from
    it, lives, its slot is pinned: the ring does not move past it, its bytes stay, and a
    ``ResourceWarning`` says so.
    """

    @property
    def whole(self) -> bool:
        """Whether its packets have offload headers."""
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> V: ...
    @overload
    def __getitem__(self, index: slice) -> list[V]: ...
    def __iter__(self) -> Iterator[V]: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def release(self) -> None:
        """Give the packets' room back to the ring. More than once is fine."""

def cut(packet: bytes) -> list[bytes]:
    """The ordinary packets for which a large one stands: an offload header and an IP packet.

    Raises ``ValueError`` where the two do not fit together.
    """

class ImpairedQueue:
    """The queue of an impaired `Link`, by itself; the times, in nanoseconds, are its caller's.

    The twin in plain Python is ``host/impaired.py``, where the contract stands.
    """

    def __init__(self, terms: Terms) -> None: ...
    def set(self, terms: Terms) -> None: ...
    def put(self, packet: bytes, now: int) -> None: ...
    def take(self, now: int) -> bytes | None: ...
    @property
    def due(self) -> int | None: ...
    def drain(self) -> int: ...
    @property
    def counters(self) -> dict[str, int]: ...

class Link:
    """One direction of a link in memory: a queue of ``capacity`` bytes that drops when full."""

    def __init__(self, capacity: int) -> None: ...
    def connect(self) -> int:
        """The reading end comes: throws away what is queued, and returns how many packets."""
    def disconnect(self) -> None:
        """The reading end goes: what is written from now on is dropped and counted."""
    def impair(self, terms: Terms) -> None:
        """Impair what is written from now on."""
    @property
    def counters(self) -> dict[str, int]:
        """The fields of `ringtun.host.impairment.DirectionStatistics`."""
    @property
    def dropped(self) -> int:
        """What overflowed or found nobody connected."""

class Host:
    """Where packets come from and go to."""

    def fileno(self) -> int: ...

class TunHost(Host):
    """A queue of the Linux TUN device, by a copy of ``fd``, which is non-blocking.

    ``vnet``: its packets have headers of ``native/vnet.h``; ``coalesces``: what it takes merged.
    """

    def __init__(self, fd: int, vnet: bool = False, coalesces: int = 0) -> None: ...
    @property
    def coalesces(self) -> int:
        """What it takes still: less, once the kernel has refused some."""

class LinkHost(Host):
    """One end of a link in memory."""

    def __init__(self, incoming: Link, outgoing: Link) -> None: ...
    def set_up(self, up: bool) -> None:
        """Down, it takes no packet, and what is sent to it is dropped."""

class Engine:
    """Moves packets between a host and the two rings of one registration; see ``engine.h``.

    It borrows the events, which stay open as long as it lives, and holds the memory. With a
    ``foreign`` client, one of another process, threads have to be started, and only they touch its
    events: see `guard_install`. A thread that has moved packets looks for more for ``spin`` seconds
    before it waits.
    """

    def __init__(
        self,
        host: Host,
        to_client: Buffer,
        to_client_capacity: int,
        to_host: Buffer,
        to_host_capacity: int,
        send_event: int,
        receive_event: int,
        *,
        to_client_space: Space | None = None,
        to_host_space: Space | None = None,
        options: int = 0,
        spin: float = 0.0,
        foreign: bool = False,
    ) -> None: ...
    def step_to_client(self, budget: int) -> int:
        """Move at most ``budget`` packets; returns a `ringtun.step.StepResult`."""
    def wait_to_client(self, budget: int, stop: int, timeout: float | None = None) -> int | None:
        """Wait until the host has something, the session ends, or the descriptor ``stop`` is
        readable; then a step. None where ``timeout`` seconds run out first.

        A signal's handler runs, and may end it by what it raises; else it returns ``IDLE``.
        """
    def step_to_host(self, budget: int) -> int: ...
    def forward(self, batch: Batch[Any]) -> list[int] | None:
        """Packets of another session's batch to the host, without a way through the to_host ring.

        None, and nothing done: what lies in that ring has to go first. Else which packets of the
        batch the host did not take, in the order in which they are to go into the ring.
        """
    def start_threads(self) -> None:
        """Run both steps by native threads until the session ends."""
    def end(self, reason: int) -> None: ...
    def close(self) -> None:
        """End the session, wait for the threads, let the memory go. More than once is fine."""
    def abandon(self) -> None:
        """In a forked child: forget the engine, whose threads are the parent's."""
    @property
    def end_reason(self) -> int:
        """A `ringtun.driver.engine.EngineEnd`."""
    @property
    def wakeups(self) -> int: ...
    def counters(self) -> tuple[dict[str, int], dict[str, int]]:
        """Of to_client and to_host: packets, bytes, and discards by reason."""
