"""What the demonstration found, in words: a line each."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from ringtun.demo.report import (
    DatagramStream,
    Failed,
    NotRun,
    Progress,
    Report,
    RoundTrips,
    Row,
    Side,
    Transfer,
)
from ringtun.statistics import Discards, Statistics

__all__ = [
    "LABELS",
    "LABEL_WIDTH",
    "counters",
    "end",
    "failed",
    "progress",
    "result",
    "setting",
]

LABELS: Final = {
    "ping_ipv4": "ping IPv4 ->",
    "ping_ipv6": "ping IPv6 ->",
    "tcp_ipv4": "TCP IPv4 ->",
    "tcp_ipv6": "TCP IPv6 <-",
    "echo_ipv4": "echo IPv4 ->",
    "echo_ipv6": "echo IPv6 ->",
    "udp_ipv4": "UDP IPv4 ->",
    "left.adapter": "left adapter",
    "left.session": "left session",
    "right.adapter": "right adapter",
    "right.session": "right session",
}
"""What a line is about, by field of ``Report``, in the order in which to read them."""
LABEL_WIDTH: Final = max(map(len, LABELS.values()))


def setting(mode: str, reason: str | None) -> str:
    """Where it runs."""
    if mode == "memory":
        return f"In memory, without the kernel's network stack. No kernel TUN: {reason}."
    rights = "as root" if mode == "root" else "without root, in a user namespace"
    return (
        f"Two network namespaces, left and right, {rights}; an adapter in each, and a Python "
        "program that forwards packets between the two."
    )


def result(row: Row) -> str:
    """How a measurement ended."""
    match row:
        case RoundTrips():
            return _round_trips(row)
        case Transfer():
            return _transfer(row)
        case DatagramStream():
            return _stream(row)
        case NotRun():
            return f"not run: {row.not_run}"
        case Failed():
            return f"failed: {row.failed}"


def _round_trips(row: RoundTrips) -> str:
    loss = 100 * (row.sent - row.received) / row.sent
    counted = f"{row.received} of {row.sent} answered, {loss:.0f}% lost"
    if row.rtt_min_ms is None:
        return counted
    times = f"{row.rtt_min_ms:.3f}/{row.rtt_avg_ms:.3f}/{row.rtt_max_ms:.3f}"
    return f"{counted}; {times} ms min/avg/max"


def _transfer(row: Transfer) -> str:
    verdict = "SHA-256 equal at both ends" if row.failure() is None else str(row.failure())
    return (
        f"{in_bytes(row.received_bytes)} in {row.seconds:.1f} s: "
        f"{row.goodput_bits_per_second / 1e9:.2f} Gbit/s; {verdict}"
    )


def _stream(row: DatagramStream) -> str:
    lost = f"{row.lost:,} lost"
    if row.dropped_at_socket:
        lost += f" ({row.dropped_at_socket:,} at the receiver's socket)"
    damaged = f", {row.damaged:,} damaged" if row.damaged else ""
    return (
        f"{row.offered:,} of {row.payload_bytes:,} bytes offered in {row.seconds:.1f} s; "
        f"{row.arrived:,} arrived, {lost}, {row.reordered:,} reordered, "
        f"{row.duplicated:,} duplicated{damaged}"
    )


def progress(name: str, so_far: Progress) -> str:
    """How far a measurement is."""
    if name.startswith("tcp"):
        return in_bytes(so_far.amount)
    return f"{so_far.amount:,}"


def counters(name: str, side: Side) -> dict[str, str]:
    """A side's counters, by label; discards by reason where there are any."""
    return {
        LABELS[f"{name}.adapter"]: _counted(side.adapter),
        LABELS[f"{name}.session"]: _counted(side.session),
    }


def _counted(counted: Statistics) -> str:
    return (
        f"received {counted.received_packets:,} packets ({in_bytes(counted.received_bytes)}), "
        f"sent {counted.sent_packets:,} ({in_bytes(counted.sent_bytes)}); "
        f"discarded {_discards(counted.discards)}"
    )


def _discards(discards: Discards) -> str:
    found = (f"{count:,} {reason}" for reason, count in asdict(discards).items() if count)
    return ", ".join(found) or "none"


def end(report: Report) -> str:
    """The last line."""
    left = "" if report.mode == "memory" else "; nothing of it is left on this machine"
    return f"Took {report.seconds:.1f} s{left}."


def failed(report: Report) -> str:
    """All that failed."""
    found = (f"{LABELS[name]}: {failure}" for name, failure in report.failures.items())
    return "the demonstration failed: " + "; ".join(found)


def in_bytes(count: int) -> str:
    """A number of bytes with three figures or so: 1.05 GB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"
