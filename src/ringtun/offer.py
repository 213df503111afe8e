"""What a client offers to a driver: the memory of two rings, and their events."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from types import TracebackType
from typing import Self

from ringtun import abi
from ringtun.abi import RegisterRings, RingOffer
from ringtun.event import Event
from ringtun.mapping import map_shared

__all__ = ["Offer", "SharedMemory"]


class SharedMemory:
    """Memory in a memfd: exactly its size, allocated whole, sealed against truncation."""

    def __init__(self, size: int) -> None:
        self.fd = os.memfd_create("ringtun", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(self.fd, 0, size)
            fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.mapping = map_shared(self.fd, size)
        except BaseException:
            self.close_descriptor()
            raise

    def close_descriptor(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        self.close_descriptor()
        if hasattr(self, "mapping"):
            with suppress(BufferError):
                self.mapping.close()
            del self.mapping  # one that is looked into goes with the last look


class Offer:
    """Both rings of a registration, named by where they lead; owned until `close`.

    ``rings`` is the struct to register; its indices count ``descriptors`` from 1. The descriptors
    of the memory may be closed once a driver has taken the offer (`forget_memory_descriptors`): the
    mappings stay. A mapping goes with the last look into it, after `close`.

    Raises ``ValueError`` for a capacity that the contract does not allow, ``OSError`` where the
    memory or a descriptor is not to be had.
    """

    def __init__(self, capacity: int) -> None:
        if not abi.is_capacity(capacity):
            raise ValueError(
                "capacity is a power of two from 131072 (128 KiB) to 67108864 (64 MiB), "
                f"not {capacity}"
            )
        self._owned: list[Event] = []
        self._memories: list[SharedMemory] = []
        try:
            self.to_client = self._own_memory(capacity)
            self.to_host = self._own_memory(capacity)
            self.to_client_event = self._own_event()
            self.to_host_event = self._own_event()
        except BaseException:
            self.close()
            raise
        size = abi.ring_size(capacity)
        self.rings = RegisterRings(RingOffer(size, 1, 2), RingOffer(size, 3, 4))

    def _own_memory(self, capacity: int) -> SharedMemory:
        memory = SharedMemory(abi.ring_size(capacity))
        self._memories.append(memory)
        return memory

    def _own_event(self) -> Event:
        event = Event()
        self._owned.append(event)
        return event

    @property
    def descriptors(self) -> tuple[int, int, int, int]:
        """What travels with ``rings``: memory and event of to_client, then of to_host."""
        return (
            self.to_client.fd,
            self.to_client_event.fileno(),
            self.to_host.fd,
            self.to_host_event.fileno(),
        )

    def forget_memory_descriptors(self) -> None:
        """Close the memfds; mappings do not need them."""
        for memory in self._memories:
            memory.close_descriptor()

    def close(self) -> None:
        """Close descriptors and mappings; one that is looked into goes later. Idempotent."""
        for memory in self._memories:
            memory.close()
        for event in self._owned:
            event.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
