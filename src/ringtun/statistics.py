"""What went through a session or an adapter: one frozen record."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

__all__ = ["Discards", "Statistics"]


@dataclass(frozen=True, slots=True)
class Discards:
    """Packets that went nowhere, by reason."""

    host_queue_full: int = 0
    """The host's own queue (txqueuelen packets) was full; the kernel dropped them unread."""
    drained: int = 0
    """Left in the host's queue from before the session, and thrown away when it began."""
    invalid_head: int = 0
    """From the host, for a client whose Head was no offset in its ring."""
    too_big: int = 0
    """From the host, over 65,535 bytes."""
    not_ip_from_host: int = 0
    """From the host, neither IPv4 nor IPv6."""
    not_ip_from_client: int = 0
    """From the client, neither IPv4 nor IPv6."""
    malformed: int = 0
    """Either way, with an offload header that does not fit the packet."""
    host_down: int = 0
    """From the client, while the interface was down."""
    refused: int = 0
    """From the client; the host would not have them."""
    no_memory: int = 0
    """From the client; the host was short of memory."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(getattr(self, entry.name) for entry in fields(self))

    def __add__(self, other: Discards) -> Discards:
        return Discards(
            *(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(self))
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counted from the start of the session, or over all sessions of the adapter by this driver."""

    received_packets: int = 0
    """From the host into the ring, for the program to receive."""
    received_bytes: int = 0
    """Of those packets."""
    sent_packets: int = 0
    """From the ring to the host, which took them."""
    sent_bytes: int = 0
    """Of those packets."""
    split: int = 0
    """Large packets from the host that became several of the received ones."""
    merged: int = 0
    """Large packets for the host that were made of several of the sent ones."""
    discards: Discards = field(default_factory=Discards)
    """What went nowhere, by reason."""
    send_full: int = 0
    """Times that ``try_send`` found no room."""
    pinned: int = 0
    """Slots of released batches in which a slice of a view still lives."""
    to_client_used: int = 0
    """Bytes in the ring that wait to be received."""
    to_host_used: int = 0
    """Bytes in the ring that wait for the host."""
    wakeups: int = 0
    """Times that a thread of the engine woke."""

    def __add__(self, other: Statistics) -> Statistics:
        return Statistics(
            *(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(self))
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; the names are promised."""
        return asdict(self)
