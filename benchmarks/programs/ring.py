"""The Python side of a ring whose other end is a C loop: ``ring WAY SIZE PACKETS BATCH``.

The other end is ``ring_peer``, in a process of its own. After a first run that does not count, it
says ``ready``, and at a line of standard input does it again and says ``{"rate": packets a
second}``. The way ``slice`` has no other end: it says ``{"ns": …}`` of ``bytes(view[a:b])``.
"""

from __future__ import annotations

import atexit
import json
import mmap
import os
import signal
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from functools import partial

from benchmarks.child import compiled
from benchmarks.programs.process import end_with_parent
from ringtun import abi
from ringtun.ring import Batch, Consumer, Producer

CAPACITY = 4 << 20
SLICE_SIZE = 1400


# ---- reading: `packets` of them, at most `most` together ---------------------------------------


def untouched(consumer: Consumer, packets: int, most: int) -> None:
    while packets:
        batch = consumer.peek_many(most)
        if batch is not None:
            packets -= len(batch)
            batch.release()


def views(consumer: Consumer, packets: int, most: int) -> None:
    while packets:
        batch = consumer.peek_many(most)
        if batch is not None:
            packets -= len(batch)
            with batch:
                for view in batch:
                    view[0]  # as the C loop does


def pop(consumer: Consumer, packets: int, _most: int) -> None:
    while packets:
        if consumer.pop() is not None:
            packets -= 1


# ---- writing -----------------------------------------------------------------------------------


def write(producer: Producer, packets: int, content: Sequence[bytes]) -> None:
    packet = content[0]
    while packets:
        if producer.write(packet):
            packets -= 1


def push_list(producer: Producer, packets: int, content: Sequence[bytes]) -> None:
    push_all(producer, packets, content)


def push_batch(producer: Producer, packets: int, content: Sequence[bytes]) -> None:
    capacity = 1 << 20  # of another ring, which the batch lies in
    memory = mmap.mmap(-1, abi.ring_size(capacity))
    source = Producer(memory, capacity)
    source.push_many(content)
    source.submit()
    batch = Consumer(memory, capacity).peek_many(len(content))
    assert batch is not None
    with batch:
        push_all(producer, packets, batch)


def push_all(producer: Producer, packets: int, content: Sequence[bytes] | Batch) -> None:
    while packets >= len(content):
        packets -= producer.push_many(content)
        producer.submit()
    rest = content[:packets]
    while rest:
        rest = rest[producer.push_many(rest) :]
        producer.submit()


# ---- both ends in one thread, in turns -----------------------------------------------------------


def both(producer: Producer, consumer: Consumer, packets: int, content: Sequence[bytes]) -> None:
    while packets:
        count = min(packets, len(content))
        write(producer, count, content)
        pop(consumer, count, 0)
        packets -= count


def both_batches(
    producer: Producer, consumer: Consumer, packets: int, content: Sequence[bytes]
) -> None:
    while packets:
        count = min(packets, len(content))
        push_all(producer, count, content)
        untouched(consumer, count, count)
        packets -= count


# ---- the run -----------------------------------------------------------------------------------

READING = {"untouched": untouched, "views": views, "pop": pop}
WRITING = {"write": write, "push-list": push_list, "push-batch": push_batch}
BOTH = {"both": both, "both-batches": both_batches}


def start(way: str, size: int, packets: int, most: int) -> Callable[[], None]:
    """Start the other end; returns one run of both."""
    fd = os.memfd_create("bench", os.MFD_CLOEXEC)
    os.ftruncate(fd, abi.ring_size(CAPACITY))
    memory = mmap.mmap(fd, abi.ring_size(CAPACITY))
    content = [b"\x45" + bytes(size - 1)] * most
    if way in BOTH:
        ends = Producer(memory, CAPACITY), Consumer(memory, CAPACITY)
        return partial(BOTH[way], *ends, packets, content)
    if way in READING:
        consumer = Consumer(memory, CAPACITY)
        work = partial(READING[way], consumer, packets, most)
    else:
        producer = Producer(memory, CAPACITY)
        work = partial(WRITING[way], producer, packets, content)
    mode = "produce" if way in READING else "consume"
    return start_peer(mode, size, packets, most, fd, work=work)


def start_peer(
    mode: str, size: int, packets: int, most: int, memfd: int, event: int = -1, *,
    work: Callable[[], None],
) -> Callable[[], None]:  # fmt: skip
    """Start the C loop, ``work`` being this end's part; returns one run of both."""
    peer = subprocess.Popen(
        compiled(
            "ring_peer", mode,
            f"--capacity={CAPACITY}", f"--size={size}", f"--packets={packets}", f"--batch={most}",
            f"--memfd={memfd}", *([f"--event={event}"] if event >= 0 else []),
        ),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        pass_fds=[fd for fd in (memfd, event) if fd >= 0],
    )  # fmt: skip
    separate(peer.pid)
    atexit.register(end, peer)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    def run() -> None:
        assert peer.stdin is not None
        assert peer.stdout is not None
        peer.stdin.write(b"\n")
        work()
        if not peer.stdout.readline():  # with which the other end, too, is through
            raise RuntimeError("the other end of the ring has ended")

    return run


def end(peer: subprocess.Popen[bytes]) -> None:
    """End the other end, and wait: what it has used counts as this process's."""
    peer.kill()
    peer.wait()


def separate(peer: int) -> None:
    """This process and the other one each on a CPU of its own, as ``ring_peer both`` does it."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) > 1:
        os.sched_setaffinity(0, cpus[:1])
        os.sched_setaffinity(peer, cpus[1:2])


def slice_ns(count: int) -> float:
    view = memoryview(bytearray(65536))
    code = f"bytes(view[100:{100 + SLICE_SIZE}])"
    return timeit.timeit(code, number=count, globals={"view": view}) / count * 1e9


def answer(run: Callable[[], None], packets: int) -> None:
    """A first run, then one for each line of standard input."""
    run()
    print("ready", flush=True)
    for _ in sys.stdin:
        before = time.perf_counter()
        run()
        print(json.dumps({"rate": packets / (time.perf_counter() - before)}), flush=True)


def main(way: str, size: int, packets: int, most: int) -> None:
    end_with_parent()
    if way != "slice":
        answer(start(way, size, packets, most), packets)
        return
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({"ns": slice_ns(packets)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
