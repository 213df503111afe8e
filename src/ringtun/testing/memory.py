"""Programs that make their own adapters, tested without a kernel: the test plays the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ringtun import arguments
from ringtun.adapter import Adapter
from ringtun.control import backend_as_default, memory

__all__ = ["far_end", "in_memory"]


@contextmanager
def in_memory() -> Iterator[None]:
    """Inside the block, whoever asks for no backend gets adapters in memory: in all of the process.

    They have names of their own: the kernel's interfaces are not seen, and see nothing. Adapters
    that are there still when the block ends are taken away; sessions on them end.
    """
    with backend_as_default("memory"):
        try:
            yield
        finally:
            memory.delete_all()


def far_end(name: str, *, netns: str | None = None) -> Adapter:
    """The adapter at the other end of ``name``, an adapter in memory that somebody made.

    What its sessions send the adapter's sessions receive, and the other way round: where the kernel
    would have its network stack, the test has this. Close it. When the adapter goes, what is sent
    here is dropped.

    Raises `ringtun.AdapterNotFound` where there is no such adapter (yet).
    """
    arguments.check_name(name)
    arguments.check_netns(netns)
    return Adapter(memory.far_end(name, netns))
