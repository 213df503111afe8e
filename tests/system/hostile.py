"""A client of the driver service that breaks the contract, in a process of its own.

``python -m tests.system.hostile PATH``, the device of an adapter. It is killed in the end.
"""

from __future__ import annotations

import os
import random
import sys
from itertools import count

from ringtun import abi
from ringtun.abi import Status
from ringtun.offer import Offer
from tests.backends import ServiceHandle

CAPACITY = abi.RING_MIN_CAPACITY
SLOTS = range(12, 12 + CAPACITY, 2048)
SIZES = (20, 100, 2000, 2044, 60000, 65535, 0xFFFF0000, 0, 3)
INDICES = (0, 4, 2048, CAPACITY - 4, CAPACITY - 2048)
WRONG = (1, CAPACITY, CAPACITY + 4, 0xFFFFFFFF, 0x80000000)
WRITES = 3000


def put(memory: memoryview, offset: int, value: int) -> None:
    memory[offset : offset + 4] = value.to_bytes(4, sys.byteorder)


def change_without_end(offer: Offer, chance: random.Random) -> None:
    """Sizes, contents and headers of packets, while the driver looks at them."""
    rings = [memoryview(ring.mapping) for ring in (offer.to_client, offer.to_host)]
    while True:
        memory, slot = chance.choice(rings), chance.choice(SLOTS)
        put(memory, slot, chance.choice(SIZES))
        memory[slot + 4] = chance.choice((0x45, 0x60, 0x4F, 0x00))
        memory[slot + 5 : slot + 25] = chance.randbytes(20)


def scribble(path: str) -> None:
    """Register again and again, and write what comes to mind into both rings."""
    chance = random.Random(5)
    for number in count():
        handle = ServiceHandle(path)
        offer = Offer(CAPACITY)
        status = Status.ALREADY_INITIALIZED
        while status == Status.ALREADY_INITIALIZED:  # the one before is being ended
            status = Status(
                handle.register(abi.IOCTL_REGISTER_RINGS, offer.rings.pack(), offer.descriptors)
            )
        assert status == Status.SUCCESS, status
        changing = os.fork()
        if not changing:
            try:
                change_without_end(offer, chance)
            finally:
                os._exit(1)
        wrong = WRONG if number % 2 else ()
        with (
            memoryview(offer.to_client.mapping) as to_client,
            memoryview(offer.to_host.mapping) as to_host,
        ):
            for i in range(WRITES):
                put(to_client, abi.RING_HEAD, chance.choice(INDICES + WRONG))
                put(to_client, abi.RING_TAIL, chance.getrandbits(32))
                put(to_host, abi.RING_TAIL, chance.choice(INDICES + (wrong if i > 500 else ())))
                put(to_host, abi.RING_HEAD, chance.getrandbits(32))
                put(to_host, abi.RING_ALERTABLE, chance.getrandbits(1))
                offer.to_host_event.signal()
        os.kill(changing, 9)
        os.waitpid(changing, 0)
        handle.drop()
        offer.close()
        print(number, flush=True)


if __name__ == "__main__":
    scribble(sys.argv[1])
