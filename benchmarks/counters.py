"""What the kernel has counted in a network namespace; to look costs no process and no time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Counters"]


@dataclass(frozen=True)
class Counters:
    """The counters of a namespace's ``bench0``, and of its UDP and TCP, at one moment."""

    at: float
    """Monotonic, in seconds."""
    packets: int
    """Taken from the program; a large packet counts as one."""
    bytes: int
    """Of these, with their IP headers."""
    udp_sent: int
    """Datagrams that programs have sent, with those that found no room on their way out."""
    udp_received: int
    """Datagrams that programs have taken from their sockets."""
    retransmits: int
    """TCP segments that were sent again."""

    @classmethod
    def of(cls, pid: int) -> Counters:
        """Those of the namespace that a process is in.

        Raises ``LookupError`` where there is no ``bench0`` in it.
        """
        net = Path(f"/proc/{pid}/net")
        at = time.monotonic()
        devices = dict(
            line.strip().split(":", 1)
            for line in (net / "dev").read_text().splitlines()
            if ":" in line
        )
        received = devices["bench0"].split()
        snmp = dict(_snmp((net / "snmp").read_text()))
        return cls(
            at,
            packets=int(received[1]),
            bytes=int(received[0]),
            udp_sent=snmp["Udp OutDatagrams"] + snmp["Udp SndbufErrors"],
            udp_received=snmp["Udp InDatagrams"],
            retransmits=snmp["Tcp RetransSegs"],
        )

    def payload(self, headers: int) -> int:
        """Bytes without the headers, so many a packet: a large one has no more than a small one."""
        return self.bytes - self.packets * headers


def _snmp(text: str) -> Iterator[tuple[str, int]]:
    """What stands in ``/proc/net/snmp``: for each protocol a line of names, then one of values."""
    lines = iter(text.splitlines())
    for names, values in zip(lines, lines, strict=True):
        protocol = names.partition(":")[0]
        for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
            yield f"{protocol} {name}", int(value)
