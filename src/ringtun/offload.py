"""Large packets as they are: what ``start_session(offload=True)`` gives and takes.

A host with offload hands over up to 64 KiB of a TCP stream, or of datagrams, as one packet with one
set of headers; beside it stands how to cut it, and which checksum is still to be done. Who passes
it on whole saves most of what a packet costs.
"""

from __future__ import annotations

import enum
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["HEADER_SIZE", "GsoType", "OffloadPacket"]

# struct virtio_net_hdr_v1 of linux/virtio_net.h
_HEADER: Final = struct.Struct("=BBHHHHH")
HEADER_SIZE: Final = _HEADER.size
_NEEDS_CSUM: Final = 1
_ECN: Final = 0x80


class GsoType(enum.IntEnum):
    """What a packet is to be cut into."""

    NONE = 0
    """Nothing: it is no larger than the MTU."""
    TCP4 = 1
    TCP6 = 4
    UDP = 5


class OffloadPacket:
    """An IP packet, which may be larger than the MTU, with what is said of it beside.

    ``data`` is a 12-byte header (``struct virtio_net_hdr_v1``) and the packet, in the caller's
    memory: bytes from `Session.receive`; from a batch a view into the ring, which ends with the
    batch, and this with it (``ValueError``). Nothing is copied. Fields come from the other side:
    `segments` checks them.
    """

    __slots__ = ("data",)

    def __init__(self, data: Buffer) -> None:
        self.data = data

    @classmethod
    def ordinary(cls, packet: bytes) -> OffloadPacket:
        """A packet that is as it is: no larger than the MTU, its checksums done."""
        return cls(bytes(HEADER_SIZE) + packet)

    @property
    def view(self) -> memoryview:
        """The IP packet, where it lies; writable in a ring."""
        return memoryview(self.data)[HEADER_SIZE:]

    @property
    def gso_type(self) -> GsoType:
        """What it is to be cut into. Raises ``ValueError`` for a type that there is not."""
        return GsoType(self._header()[1] & ~_ECN)

    @property
    def ecn(self) -> bool:
        """Whether a TCP segment with CWR is among what it stands for."""
        return bool(self._header()[1] & _ECN)

    @property
    def segment_size(self) -> int:
        """Bytes of payload in each segment but perhaps the last; 0 where it is not to be cut."""
        return self._header()[3] if self.gso_type else 0

    @property
    def needs_checksum(self) -> bool:
        """Whether its transport checksum is still to be done.

        The field holds the sum of the pseudo-header alone then; IPv4's own checksum is done.
        """
        return bool(self._header()[0] & _NEEDS_CSUM)

    def segments(self) -> list[bytes]:
        """The ordinary packets that it stands for, of the MTU's size, with all checksums done.

        Raises ``ValueError`` where header and packet do not fit together.
        """
        from ringtun import _native

        return _native.cut(bytes(self.data))

    def _header(self) -> tuple[int, ...]:
        try:
            return _HEADER.unpack_from(self.data)
        except struct.error:
            size = memoryview(self.data).nbytes
            raise ValueError(
                f"an offload packet begins with a header of {HEADER_SIZE} bytes, and it has "
                f"{size} bytes"
            ) from None

    def __len__(self) -> int:
        """Bytes of the IP packet."""
        return max(0, memoryview(self.data).nbytes - HEADER_SIZE)

    def __bytes__(self) -> bytes:
        """The IP packet."""
        return bytes(self.view)

    def __repr__(self) -> str:
        try:
            size = len(self)
        except ValueError:
            return "<OffloadPacket released>"
        try:
            flags, gso, _, segment_size, *_ = self._header()
        except ValueError:
            return "<OffloadPacket without a header>"
        kind = gso & ~_ECN
        try:
            cut = f", {GsoType(kind).name} in segments of {segment_size}" if kind else ""
        except ValueError:
            cut = f", of unknown type {kind}"
        checksum = ", checksum to be done" if flags & _NEEDS_CSUM else ""
        return f"<OffloadPacket of {size} bytes{cut}{checksum}>"
