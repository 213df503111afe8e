"""The ring interface between a TUN driver and its client: numbers and structs, nothing else.

The same stands in ``native/ringtun.h`` for C and in ``docs/protocol.md`` for people; a test holds
the three equal. Integers are in the machine's byte order, offsets and sizes count bytes.

*Send* is named from the host's side: what the host sends, driver to client; *Receive* is what the
host receives, client to driver. Elsewhere in ringtun a ring is named by where it leads:
``to_client`` is Send, ``to_host`` is Receive.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, NamedTuple

RING_HEADER_SIZE: Final = 12
RING_HEAD: Final = 0
RING_TAIL: Final = 4
RING_ALERTABLE: Final = 8
RING_TRAILING_BYTES: Final = 0x10000
RING_MIN_CAPACITY: Final = 0x20000
RING_MAX_CAPACITY: Final = 0x4000000
RING_CLOSED: Final = 0xFFFFFFFF

PACKET_HEADER_SIZE: Final = 4
PACKET_ALIGNMENT: Final = 4
PACKET_MAX_SIZE: Final = 0xFFFF

IOCTL_REGISTER_RINGS: Final = 0xCA6CE5C0
IOCTL_SET_OPTIONS: Final = 0xCA6CE5C4
SET_OPTIONS_SIZE: Final = 4
IOCTL_SET_SPACE: Final = 0xCA6CE5C8
SPACE_SIZE: Final = 4096
SPACE_TO_CLIENT: Final = 0
SPACE_TO_HOST: Final = 64
IOCTL_GET_STATISTICS: Final = 0xCA6CE5CC


class Options(enum.IntFlag):
    """What a client may ask for before it registers, by the request ``IOCTL_SET_OPTIONS``.

    Extensions of ringtun's: a driver without one refuses it, and all else goes on as before.
    """

    WHOLE_PACKETS = 1
    """Packets may be large, and have an offload header before them in the ring, both ways."""
    TRUSTED_PACKETS = 2
    """The client's packets are authenticated: their checksums need not be verified."""


class Status(enum.IntEnum):
    """NTSTATUS values with which a driver answers a registration."""

    SUCCESS = 0x00000000
    INVALID_PARAMETER = 0xC000000D
    INVALID_DEVICE_REQUEST = 0xC0000010
    ACCESS_DENIED = 0xC0000022
    INSUFFICIENT_RESOURCES = 0xC000009A
    NOT_SUPPORTED = 0xC00000BB
    INVALID_USER_BUFFER = 0xC00000E8
    DEVICE_REMOVED = 0xC00002B6
    ALREADY_INITIALIZED = 0xC0000510


class RingOffer(NamedTuple):
    """One ring of a `RegisterRings`: its size in memory, its memory, its event.

    ``ring`` and ``tail_moved`` are a pointer and a handle on Windows; on Linux each is the index,
    from 1, of a descriptor that travels with the struct. 0 is null everywhere.
    """

    ring_size: int
    ring: int
    tail_moved: int


class RegisterRings(NamedTuple):
    """``TUN_REGISTER_RINGS``: both rings that a client offers to the driver."""

    send: RingOffer
    receive: RingOffer

    def pack(self) -> bytes:
        """The 48 bytes that a 64-bit process sends."""
        return _REGISTER_RINGS.pack(*self.send, *self.receive)

    def pack_32(self) -> bytes:
        """The 24 bytes that a 32-bit process sends."""
        return _REGISTER_RINGS_32.pack(*self.send, *self.receive)

    @classmethod
    def unpack(cls, payload: bytes) -> RegisterRings:
        """The struct in 48 bytes (of a 64-bit process) or 24 (of a 32-bit one).

        Raises ``ValueError`` for any other length.
        """
        for layout in (_REGISTER_RINGS, _REGISTER_RINGS_32):
            if len(payload) == layout.size:
                fields = layout.unpack(payload)
                return cls(RingOffer(*fields[:3]), RingOffer(*fields[3:]))
        raise ValueError(
            f"TUN_REGISTER_RINGS has {REGISTER_RINGS_SIZE} bytes "
            f"({REGISTER_RINGS_32_SIZE} from a 32-bit process), not {len(payload)}"
        )


class SetSpace(NamedTuple):
    """By what client and driver wait for room in a full ring; before the rings are registered.

    An extension. Each is the index, from 1, of a descriptor that travels with the struct: a memfd
    of ``SPACE_SIZE`` bytes, sealed as a ring's; an event for the to_client ring, in which the
    driver waits, and one for to_host, in which the client does. A producer that waits sets the word
    at ``SPACE_TO_CLIENT`` or ``SPACE_TO_HOST``; a consumer that has released sees it, and signals.
    """

    memory: int
    to_client_event: int
    to_host_event: int

    def pack(self) -> bytes:
        """The 12 bytes that are sent."""
        return _SET_SPACE.pack(*self)

    @classmethod
    def unpack(cls, payload: bytes) -> SetSpace:
        """The struct in 12 bytes. Raises ``ValueError`` for any other length."""
        if len(payload) != SET_SPACE_SIZE:
            raise ValueError(f"TUN_SET_SPACE has {SET_SPACE_SIZE} bytes, not {len(payload)}")
        return cls(*_SET_SPACE.unpack(payload))


_SET_SPACE = struct.Struct("=III")
SET_SPACE_SIZE: Final = _SET_SPACE.size
_REGISTER_RINGS = struct.Struct("=I4xQQI4xQQ")
_REGISTER_RINGS_32 = struct.Struct("=IIIIII")
REGISTER_RINGS_SIZE: Final = _REGISTER_RINGS.size
REGISTER_RINGS_32_SIZE: Final = _REGISTER_RINGS_32.size


def ring_size(capacity: int) -> int:
    """Bytes of memory for a ring of ``capacity`` bytes."""
    return RING_HEADER_SIZE + capacity + RING_TRAILING_BYTES


def ring_capacity(size: int) -> int:
    """The capacity of a ring that takes ``size`` bytes of memory; the inverse of `ring_size`."""
    return size - RING_HEADER_SIZE - RING_TRAILING_BYTES


def packet_span(size: int) -> int:
    """Bytes that a packet of ``size`` bytes takes in a ring, its header and padding included."""
    return (PACKET_HEADER_SIZE + size + PACKET_ALIGNMENT - 1) & -PACKET_ALIGNMENT


def is_capacity(capacity: int) -> bool:
    """Whether the contract allows a ring of this capacity."""
    return RING_MIN_CAPACITY <= capacity <= RING_MAX_CAPACITY and capacity.bit_count() == 1
