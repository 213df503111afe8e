"""What an offer of rings must satisfy before the driver touches it.

Everything here comes from a client, which may be hostile; the statuses are those of the contract
(docs/protocol.md). Linux: memory comes as sealed memfds, events as eventfds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ringtun import abi
from ringtun.abi import RegisterRings, RingOffer, SetSpace, Status
from ringtun.event import Event
from ringtun.mapping import map_shared

if TYPE_CHECKING:
    from ringtun._native import Space
    from ringtun.mapping import Mapping

__all__ = ["Refusal", "Registration", "accept", "accept_space"]

_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h; not in Python's fcntl
_REQUIRED_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
# The driver's own trouble, and no fault of the offer.
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_FORBIDDEN_SEALS = fcntl.F_SEAL_WRITE | _F_SEAL_FUTURE_WRITE


class Refusal(Exception):
    """The offer is refused with ``status``; the message is for people."""

    def __init__(self, status: Status, why: str) -> None:
        super().__init__(f"{why} (status 0x{status:08X} {status.name})")
        self.status = status


@dataclass(frozen=True, slots=True)
class Ring:
    """A ring that was accepted: the driver's own mapping of it, and its own copy of the event."""

    memory: Mapping
    capacity: int
    event: Event

    def close(self) -> None:
        self.event.close()
        with suppress(BufferError):  # looked into still: the mapping goes with the last look
            self.memory.close()


@dataclass(frozen=True, slots=True)
class Registration:
    """Both rings of an offer, named by where they lead; owns mappings and events until `close`."""

    to_client: Ring
    to_host: Ring

    def close(self) -> None:
        """Close what is owned; once the engine is closed, the mappings go too."""
        self.to_client.close()
        self.to_host.close()


def accept(
    code: int,
    payload: bytes,
    descriptors: Sequence[int],
    *,
    allow_holes: Callable[[int], None] = lambda size: None,
) -> Registration:
    """Check and map an offer: the request ``code``, its ``payload``, its ``descriptors``.

    ``allow_holes`` is told how many bytes there are that the client can take pages out of, which
    then are the driver's to pay for; it may raise `Refusal`.

    The descriptors stay the caller's. Raises `Refusal`, or the ``OSError`` of a driver that is out
    of descriptors or memory; nothing is kept then.
    """
    if code != abi.IOCTL_REGISTER_RINGS:
        raise Refusal(Status.INVALID_DEVICE_REQUEST, f"unknown request 0x{code:08X}")
    if len(payload) != abi.REGISTER_RINGS_SIZE:
        raise Refusal(
            Status.INVALID_PARAMETER,
            f"TUN_REGISTER_RINGS has {abi.REGISTER_RINGS_SIZE} bytes, not {len(payload)}",
        )
    offer = RegisterRings.unpack(payload)
    for name, ring in (("Send", offer.send), ("Receive", offer.receive)):
        _check_numbers(name, ring, len(descriptors))
    to_client = _take("Send", offer.send, descriptors, own_index=abi.RING_TAIL)
    try:
        to_host = _take("Receive", offer.receive, descriptors, own_index=abi.RING_HEAD)
    except BaseException:
        to_client.close()
        raise
    registration = Registration(to_client, to_host)
    try:
        # Only now: an offer that is refused for anything else can be mended and made again.
        holes = 0
        for name, ring in (("Send", offer.send), ("Receive", offer.receive)):
            if not _lock(name, descriptors[ring.ring - 1], ring.ring_size):
                holes += ring.ring_size
        if holes:
            allow_holes(holes)
    except BaseException:
        registration.close()
        raise
    return registration


def accept_space(payload: bytes, descriptors: Sequence[int]) -> tuple[Space, Space]:
    """Check and map an offer of the memory and events by which both sides wait for room.

    Returns those of to_client and to_host. The descriptors stay the caller's. Raises as `accept`.
    """
    from ringtun import _native

    try:
        offer = SetSpace.unpack(payload)
    except ValueError as error:
        raise Refusal(Status.INVALID_PARAMETER, str(error)) from None
    if not all(1 <= index <= len(descriptors) for index in offer):
        raise Refusal(Status.INVALID_PARAMETER, "an index is no descriptor that came along")
    fd = descriptors[offer.memory - 1]
    memory = _map("Space", fd, abi.SPACE_SIZE)
    if not _lock("Space", fd, abi.SPACE_SIZE):
        raise _bad_memory("Space", "must not carry F_SEAL_SEAL")
    spaces = []
    for where, index in (
        (abi.SPACE_TO_CLIENT, offer.to_client_event),
        (abi.SPACE_TO_HOST, offer.to_host_event),
    ):
        with _copy_event("Space", descriptors[index - 1]) as event:
            spaces.append(_native.Space(memory, where, event.fileno()))
    return spaces[0], spaces[1]


def _check_numbers(name: str, ring: RingOffer, descriptors: int) -> None:
    capacity = abi.ring_capacity(ring.ring_size)
    if not abi.is_capacity(capacity):
        raise Refusal(
            Status.INVALID_PARAMETER,
            f"{name}.RingSize {ring.ring_size} is no ring: 12 + capacity + 65536 bytes, "
            "the capacity a power of two from 128 KiB to 64 MiB",
        )
    for field, index in (("Ring", ring.ring), ("TailMoved", ring.tail_moved)):
        if not 1 <= index <= descriptors:
            raise Refusal(
                Status.INVALID_PARAMETER,
                f"{name}.{field} is {'null' if index == 0 else 'no descriptor that came along'}",
            )


def _take(name: str, ring: RingOffer, descriptors: Sequence[int], own_index: int) -> Ring:
    memory = _map(name, descriptors[ring.ring - 1], ring.ring_size)
    try:
        capacity = abi.ring_capacity(ring.ring_size)
        # By a call, which fails where memory is not there, and no touch, which would kill.
        index = int.from_bytes(os.pread(descriptors[ring.ring - 1], 4, own_index), sys.byteorder)
        if index >= capacity or index % abi.PACKET_ALIGNMENT:
            raise Refusal(
                Status.INVALID_PARAMETER, f"{name} starts at {index}: zeroed indices are expected"
            )
        return Ring(memory, capacity, _copy_event(name, descriptors[ring.tail_moved - 1]))
    except BaseException:
        memory.close()
        raise


def _map(name: str, fd: int, size: int) -> Mapping:
    """Map a memfd of exactly this size that nobody can truncate any more."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        status = os.fstat(fd)
    except OSError as error:
        raise _bad_memory(name, "is no memfd that can be sealed") from error
    if seals & _REQUIRED_SEALS != _REQUIRED_SEALS:
        raise _bad_memory(name, "must carry F_SEAL_SHRINK and F_SEAL_GROW")
    if seals & _FORBIDDEN_SEALS:
        raise _bad_memory(name, "is sealed against writing")
    if status.st_size != size:
        raise _bad_memory(name, f"has {status.st_size} bytes, and RingSize says {size}")
    _refuse_holes(name, fd, size)
    try:
        return map_shared(fd, size)
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        raise _bad_memory(name, f"cannot be mapped: {error.strerror}") from error


def _lock(name: str, fd: int, size: int) -> bool:
    """From here on nobody can punch holes into the memory; mappings that are there stay writable.

    False: the client's own F_SEAL_SEAL forbids that, and so it keeps the power to punch.
    """
    locked = True
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
    except PermissionError:
        locked = False
    _refuse_holes(name, fd, size)
    return locked


def _refuse_holes(name: str, fd: int, size: int) -> None:
    if os.fstat(fd).st_blocks * 512 < size:
        raise _bad_memory(name, "has holes: allocate it whole")


def _bad_memory(name: str, why: str) -> Refusal:
    return Refusal(Status.INVALID_USER_BUFFER, f"{name}.Ring {why}")


def _copy_event(name: str, fd: int) -> Event:
    """A descriptor of our own for an event, after a look at what it is."""
    refusal = Refusal(Status.INVALID_PARAMETER, f"{name}.TailMoved is no plain eventfd")
    try:
        kind = os.readlink(f"/proc/self/fd/{fd}")
        with open(f"/proc/self/fdinfo/{fd}") as lines:
            semaphore = any(line.split() == ["eventfd-semaphore:", "1"] for line in lines)
    except OSError as error:
        if error.errno in _SHORTAGES:
            raise
        raise refusal from error
    if kind != "anon_inode:[eventfd]" or semaphore:
        raise refusal
    event = Event(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))
    os.set_blocking(event.fileno(), False)  # for the signal: it must not wait for a full counter
    return event
