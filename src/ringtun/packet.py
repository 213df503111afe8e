"""What counts as a packet; ``native/packet.h`` says the same for the native core."""

from __future__ import annotations

__all__ = ["is_ip", "require_ip"]


def is_ip(packet: bytes | bytearray | memoryview) -> bool:
    """Whether this is version 4 and at least 20 bytes, or version 6 and at least 40.

    Nothing behind the version is looked at.
    """
    if len(packet) < 20:
        return False
    version = packet[0] >> 4
    return version == 4 or (version == 6 and len(packet) >= 40)


def require_ip(packet: bytes | bytearray | memoryview) -> None:
    """Raise ``ValueError`` for what is no IP packet."""
    if not is_ip(packet):
        kind = f"version {packet[0] >> 4}" if len(packet) else "empty"
        raise ValueError(
            f"not an IP packet: {len(packet)} bytes, {kind}; "
            "IPv4 has at least 20 bytes and IPv6 at least 40"
        )
