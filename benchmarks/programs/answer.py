"""What the echo programs in Python answer; ``benchmarks/c/echo.c`` does the same."""

from __future__ import annotations

__all__ = ["answer"]

_ICMP, _UDP = 1, 17


def answer(packet: bytes) -> bytes | None:
    """The answer to a UDP datagram or an echo request in IPv4; None: it is neither."""
    if len(packet) < 28 or packet[0] >> 4 != 4:
        return None
    at = (packet[0] & 15) * 4
    # Exchanging what a checksum covers leaves it as it is.
    header = packet[:12] + packet[16:20] + packet[12:16] + packet[20:at]
    if packet[9] == _UDP:
        return header + packet[at + 2 : at + 4] + packet[at : at + 2] + packet[at + 4 :]
    if packet[9] == _ICMP and packet[at] == 8:
        checksum = int.from_bytes(packet[at + 2 : at + 4]) + 0x0800  # the type becomes 0: RFC 1624
        checksum = (checksum & 0xFFFF) + (checksum >> 16)
        return header + b"\0\0" + checksum.to_bytes(2) + packet[at + 4 :]
    return None
