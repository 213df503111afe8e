"""Writes the splitter's seeds for the fuzzer: ``python -m tests.offload.seeds``, from the root."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from tests.offload.model_segment import CWR, FIN, NONE, PSH, UDP, VnetHeader
from tests.offload.packets import ACK, DESTINATION, HOP_BY_HOP, NOP, PAD_6, TIMESTAMPS, Large

DIRECTORY = Path(__file__).resolve().parents[1] / "native" / "seeds" / "segment"

TCP4 = Large(payload_size=20, gso_size=8)
TCP6 = replace(TCP4, version=6)
UDP4 = replace(TCP4, protocol=UDP)
UDP6 = replace(UDP4, version=6)
CHAIN = ((HOP_BY_HOP, PAD_6), (DESTINATION, PAD_6 + bytes(8)))

CUT = {
    "tcp4": replace(TCP4, flags=FIN | PSH | CWR | ACK, options=TIMESTAMPS),
    "tcp4-ip-options": replace(TCP4, ip_options=NOP * 8, identification=0xFFFF),
    "tcp4-one-segment": replace(TCP4, gso_size=20),
    "tcp6": replace(TCP6, options=TIMESTAMPS, sequence=0xFFFFFFFF),
    "tcp6-extensions": replace(TCP6, extensions=CHAIN),
    "udp4": UDP4,
    "udp4-one-byte": replace(UDP4, gso_size=1),
    "udp6": UDP6,
    "udp6-extensions": replace(UDP6, extensions=CHAIN),
}
WHOLE = {"tcp4": TCP4, "tcp6-extensions": CUT["tcp6-extensions"], "udp4": UDP4, "udp6": UDP6}


def seeds() -> dict[str, bytes]:
    """Each input by its file name: the header, its fields' low bytes first, and the packet."""
    inputs = {name: (large.vnet, large.packet) for name, large in CUT.items()}
    for name, large in WHOLE.items():
        vnet = large.vnet._replace(gso_type=NONE, gso_size=0)
        inputs[f"whole-{name}"] = (vnet, large.packet)
    inputs["whole-done"] = (VnetHeader(), TCP4.packet)
    return {name: struct.pack("<BBHHHH", *vnet) + packet for name, (vnet, packet) in inputs.items()}


if __name__ == "__main__":
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (DIRECTORY / name).write_bytes(data)
