"""Every packet goes back with its addresses turned round: all of two networks answers.

A ping comes back as a ping from the address that was called; the kernel answers that, and its
answer comes back the same way. Try it:

    unshare -rn
    python examples/echo.py &
    ping -c 3 10.7.0.9
    ping -c 3 fd07::9
"""

from contextlib import suppress

import ringtun


def turned(packet: bytes) -> bytes:
    """The packet on its way back. Its checksums hold: they are sums over the same words."""
    source, size = (12, 4) if packet[0] >> 4 == 4 else (8, 16)
    target, end = source + size, source + 2 * size
    return packet[:source] + packet[target:end] + packet[source:target] + packet[end:]


def main() -> None:
    with (
        ringtun.create_adapter("echo0", addresses=["10.7.0.1/24", "fd07::1/64"]) as adapter,
        adapter.start_session() as session,
    ):
        print("echo0 answers for 10.7.0.0/24 and fd07::/64", flush=True)
        for packet in session:
            session.send(turned(packet))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
