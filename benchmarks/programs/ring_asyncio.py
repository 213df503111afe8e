"""A task at a ring that a C loop fills: ``ring_asyncio asyncio|uvloop WAY SIZE PACKETS BATCH``.

As ``ring``, with `AsyncSession` in the place of the ring's consumer: its driver is ``ring_peer``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.programs.process import end_with_parent, new_loop
from benchmarks.programs.ring import CAPACITY, answer, start_peer
from ringtun.abi import Options, RegisterRings
from ringtun.aio import AsyncSession
from ringtun.errors import EndReason
from ringtun.statistics import Statistics
from ringtun.step import StepResult

if TYPE_CHECKING:
    from ringtun._native import Space


class PeerDevice:
    """A device whose driver fills the to_client ring, and no more; see `ringtun.device.Device`."""

    name = "ring_peer"
    to_client_space: Space | None = None
    to_host_space: Space | None = None
    host_fd: int | None = None

    def set_options(self, options: Options) -> None: ...
    def register_rings(self, offer: RegisterRings, descriptors: Sequence[int]) -> None:
        self.memfd, self.event = os.dup(descriptors[0]), os.dup(descriptors[1])

    def pump_to_client(self, budget: int) -> int:
        return StepResult.IDLE

    def pump_to_host(self, budget: int) -> int:
        return StepResult.IDLE

    def wait_to_client(self, budget: int, stop: int, timeout: float | None) -> int | None:
        raise AssertionError("a loop waits by itself")

    def forward(self, batch: object) -> None: ...
    def end_reason(self) -> EndReason:
        return EndReason.DRIVER_ENDED

    def statistics(self) -> Statistics:
        return Statistics()

    def close(self) -> None: ...
    def abandon(self) -> None: ...


async def receive(session: AsyncSession, packets: int, _most: int) -> None:
    async for _ in session:
        packets -= 1
        if not packets:
            return


async def batches(session: AsyncSession, packets: int, most: int) -> None:
    async for batch in session.batches(most):
        packets -= len(batch)
        if not packets:
            return


WAYS = {"receive": receive, "batches": batches}


def main(kind: str, way: str, *numbers: str) -> None:
    end_with_parent()
    size, packets, most = map(int, numbers)
    device, loop = PeerDevice(), new_loop(kind)
    session = AsyncSession(device, CAPACITY)
    run = start_peer(
        "produce", size, packets, most, device.memfd, device.event,
        work=lambda: loop.run_until_complete(WAYS[way](session, packets, most)),
    )  # fmt: skip
    answer(run, packets)


if __name__ == "__main__":
    main(*sys.argv[1:])
