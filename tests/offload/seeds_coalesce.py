"""Writes the coalescer's seeds for the fuzzer: ``python -m tests.offload.seeds_coalesce``.

Their form is that of `tests/native/coalesce_check.h`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.offload.clients import ACK, PSH, tcp, udp

DIRECTORY = Path(__file__).resolve().parents[1] / "native" / "seeds" / "coalesce"

ADDRESSES: dict[int, dict[str, Any]] = {
    4: {"source": "10.0.0.1", "target": "10.0.0.2"},
    6: {"source": "fd00::1", "target": "fd00::2"},
}
ALL, UNVERIFIED, RESET = 0x0F, 0x80, 0x80
RAW, COMPLETED, CONTINUED, BROKEN = range(4)


def begin(kinds: int = ALL, most: int = 64) -> bytes:
    return bytes([kinds, most])


def raw(packet: bytes, what: int = RAW) -> bytes:
    return bytes([what]) + len(packet).to_bytes(2, "little") + packet


def more(back: int = 0, size: int = 0, changes: bytes = b"", what: int = CONTINUED) -> bytes:
    return bytes([what, back, size, len(changes) // 2]) + changes


def seeds() -> dict[str, bytes]:
    """Each input by its file name."""
    first = {
        "tcp4": tcp(b"payload", **ADDRESSES[4]),
        "tcp6": tcp(b"payload", **ADDRESSES[6]),
        "udp4": udp(b"payload", **ADDRESSES[4]),
        "udp6": udp(b"payload", **ADDRESSES[6]),
    }
    options = tcp(b"payload", options=b"\x01" * 12, fragment=0, seq=2**32 - 10, **ADDRESSES[4])
    inputs = {name: begin() + raw(packet) + more() * 3 for name, packet in first.items()}
    inputs |= {
        "tcp4-options": begin() + raw(options) + more() * 3,
        "tcp6-push": begin()
        + raw(first["tcp6"])
        + more(changes=bytes([53, PSH]))
        + more(changes=bytes([53, PSH]))
        + more(),
        "udp4-short-tail": begin() + raw(first["udp4"]) + more() + more(size=3) + more() * 2,
        "udp6-two-datagrams": begin(most=2) + raw(first["udp6"]) + more() * 4,
        "unverified": begin(ALL | UNVERIFIED)
        + raw(first["tcp4"])
        + more(what=BROKEN, changes=bytes([45, 1]))
        + more(),
        "broken": begin()
        + raw(first["udp4"])
        + more()
        + more(what=BROKEN, changes=bytes([30, 1]))
        + more(),
        "taking-turns": begin() + b"".join(map(raw, first.values())) + more(back=3) * 8,
        "fragment-between": begin()
        + raw(first["tcp4"])
        + more()
        + more(changes=bytes([6, 0x20]))
        + more(changes=bytes([6, 0x20]))
        + more(),
        "extension-between": begin()
        + raw(first["udp6"])
        + more()
        + more(changes=bytes([6, 17]))
        + more(changes=bytes([6, 17]))
        + more(),
        "finished": begin()
        + raw(first["tcp4"])
        + more()
        + raw(tcp(b"", flags=ACK | 1, **ADDRESSES[4]), COMPLETED)
        + more(back=1),
        "again": begin() + raw(first["tcp4"]) + more() + raw(first["udp4"], RAW | RESET) + more(),
    }
    return inputs


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (DIRECTORY / name).write_bytes(data)
