"""What the demonstration found: frozen records, whose field names ``--json`` promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias

from ringtun.statistics import Statistics

__all__ = [
    "DatagramStream",
    "Failed",
    "NotRun",
    "Observer",
    "Progress",
    "Report",
    "RoundTrips",
    "Row",
    "Side",
    "Transfer",
    "failures",
]


@dataclass(frozen=True, slots=True)
class NotRun:
    """Stands where a measurement would."""

    not_run: str
    """Why, or what to do about it."""

    def failure(self) -> None:
        """It is none."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands where a measurement would, that could not be finished."""

    failed: str
    """What went wrong."""

    def failure(self) -> str:
        """What makes it a failure."""
        return self.failed


@dataclass(frozen=True, slots=True)
class RoundTrips:
    """Echo requests and their replies. Times in milliseconds, null where nothing came back."""

    sent: int
    received: int
    rtt_min_ms: float | None
    rtt_avg_ms: float | None
    rtt_max_ms: float | None

    def failure(self) -> str | None:
        """What makes it a failure, if anything does."""
        return None if self.received else f"none of {self.sent} echo requests was answered"


@dataclass(frozen=True, slots=True)
class Transfer:
    """One TCP connection's data. The time is the receiver's, from its first byte to the end."""

    sent_bytes: int
    received_bytes: int
    seconds: float
    goodput_bits_per_second: float
    sent_sha256: str
    received_sha256: str

    def failure(self) -> str | None:
        """What makes it a failure, if anything does."""
        if not self.received_bytes:
            return "no data arrived"
        if self.sent_bytes != self.received_bytes:
            return f"{self.sent_bytes} bytes were sent, and {self.received_bytes} arrived"
        if self.sent_sha256 != self.received_sha256:
            return "the data that arrived is not the data that was sent: the SHA-256 differ"
        return None


@dataclass(frozen=True, slots=True)
class DatagramStream:
    """Numbered datagrams, offered at a fixed rate. A datagram counts as arrived once."""

    offered: int
    arrived: int
    lost: int
    reordered: int
    """Arrived after one with a higher number (RFC 4737)."""
    duplicated: int
    damaged: int
    """Arrived with other content than was sent; these are not in ``arrived``."""
    dropped_at_socket: int
    """Lost because the receiving program was late: its socket's buffer was full."""
    payload_bytes: int
    """Of one datagram."""
    seconds: float
    """How long they were offered."""

    def failure(self) -> str | None:
        """What makes it a failure, if anything does. A lost datagram does not: UDP may lose."""
        if not self.arrived:
            return f"none of {self.offered} datagrams arrived"
        return f"{self.damaged} datagrams arrived damaged" if self.damaged else None


@dataclass(frozen=True, slots=True)
class Side:
    """One side's counters at the end: its adapter's, and its session's."""

    adapter: Statistics
    session: Statistics


Row: TypeAlias = RoundTrips | Transfer | DatagramStream | NotRun | Failed
Echo: TypeAlias = RoundTrips | NotRun | Failed
Tcp: TypeAlias = Transfer | NotRun | Failed
Udp: TypeAlias = DatagramStream | Failed


def failures(measured: Mapping[str, Row | Side]) -> dict[str, str]:
    """What failed, by field name."""
    rows = ((name, row.failure()) for name, row in measured.items() if not isinstance(row, Side))
    return {name: failure for name, failure in rows if failure is not None}


@dataclass(frozen=True, slots=True)
class Report:
    """One run of the demonstration."""

    ringtun: str
    """The version."""
    mode: str
    """How it ran: "root", "user-namespace", or "memory" (no kernel TUN)."""
    reason: str | None
    """In mode "memory": why there is no kernel TUN, and what to do about it."""
    ping_ipv4: Echo
    """The system's ping, from left to right."""
    ping_ipv6: Echo
    tcp_ipv4: Tcp
    """From left to right."""
    tcp_ipv6: Tcp
    """From right to left."""
    udp_ipv4: Udp
    """From left to right."""
    left: Side
    right: Side
    failures: dict[str, str]
    """What failed, by field name, a sentence each; empty when all is well."""
    seconds: float
    """How long all of it took, start and cleaning up included."""
    echo_ipv4: RoundTrips | None = None
    """In mode "memory": ICMP echo, both ends of it in Python; null otherwise."""
    echo_ipv6: RoundTrips | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; ``ok`` says whether nothing failed."""
        return {"ok": not self.failures, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a measurement that runs: the part of it that is done (0 to 1), and what came so far."""

    part: float
    amount: int
    """Replies, bytes, or datagrams."""


class Observer(Protocol):
    """Is told what happens, as it happens."""

    def began(self, mode: str, reason: str | None) -> None:
        """Measuring begins; ``mode`` and ``reason`` as in `Report`."""

    def saw(self, name: str, what: Progress | Row | Side) -> None:
        """News of a field of `Report`: progress, any number of times, then its value."""
