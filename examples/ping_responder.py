"""Two whole networks answer pings, and nothing else. Packets change where they lie, in the ring.

unshare -rn
python examples/ping_responder.py &
ping -c 3 10.7.0.9
ping -c 3 fd07::9
"""

import struct
from contextlib import suppress

import ringtun


def answer(packet: memoryview) -> bool:
    """Make an echo request its own reply; False, and nothing changed, for what is none."""
    if packet[0] == 0x45 and packet[9] == 1 and not (packet[6] & 0x3F or packet[7]):  # no fragment
        source, target, icmp, request, reply = slice(12, 16), slice(16, 20), 20, 8, 0
    elif packet[0] >> 4 == 6 and packet[6] == 58:
        source, target, icmp, request, reply = slice(8, 24), slice(24, 40), 40, 128, 129
    else:
        return False
    if len(packet) < icmp + 8 or packet[icmp] != request:
        return False
    packet[source], packet[target] = bytes(packet[target]), bytes(packet[source])
    packet[icmp] = reply
    (checksum,) = struct.unpack_from("!H", packet, icmp + 2)
    struct.pack_into("!H", packet, icmp + 2, (checksum + (request - reply) * 256) % 0xFFFF)
    return True


def main() -> None:
    with (
        ringtun.create_adapter("ping0", addresses=["10.7.0.1/24", "fd07::1/64"]) as adapter,
        adapter.start_session() as session,
    ):
        print("ping0 answers for 10.7.0.0/24 and fd07::/64", flush=True)
        for batch in session.batches():
            session.send_many([packet for packet in batch if answer(packet)])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
