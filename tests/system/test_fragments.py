"""Datagrams larger than the MTU: the program sees fragments, the far kernel puts them together."""

from __future__ import annotations

import random
import struct
from contextlib import closing

import pytest

from ringtun import Session
from ringtun.device.embedded import Pump
from tests.system.sites import Site, next_packet

pytestmark = pytest.mark.kernel

MTU = 1500
FRAGMENT_HEADER = 44  # of IPv6, as a "next header"


def offset_and_more(fragment: bytes) -> tuple[int, bool]:
    """Where its data stands in the datagram's, and whether there is more behind it."""
    if fragment[0] >> 4 == 4:
        (field,) = struct.unpack_from("!H", fragment, 6)
        return (field & 0x1FFF) * 8, bool(field & 0x2000)
    assert fragment[6] == FRAGMENT_HEADER
    (field,) = struct.unpack_from("!H", fragment, 40 + 2)
    return field & ~7, bool(field & 1)


def test_a_large_datagram(left: Site, right: Site, pump: Pump, version: int) -> None:
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        closing(left.udp(version)) as here,
        closing(right.udp(version)) as there,
    ):
        for size in (1473, 4000, 65000):
            for in_order in (True, False):
                data = random.Random(size).randbytes(size)
                here.sendto(data, there.getsockname())
                fragments = fragments_of(near, data)
                far.send_many(fragments if in_order else fragments[::-1])
                assert there.recvfrom(1 << 16) == (data, here.getsockname())
        assert far.statistics().discards.total == 0


def fragments_of(session: Session, data: bytes) -> list[bytes]:
    """The datagram as it comes; checked."""
    fragments = [next_packet(session)]
    headers = {4: 20, 6: 40 + 8}[fragments[0][0] >> 4]
    room = (MTU - headers) // 8 * 8
    count = -(-(8 + len(data)) // room)
    fragments += [next_packet(session) for _ in range(count - 1)]
    assert max(map(len, fragments)) <= MTU
    assert [offset_and_more(fragment) for fragment in fragments] == [
        (number * room, number < count - 1) for number in range(count)
    ]
    assert b"".join(fragment[headers:] for fragment in fragments)[8:] == data
    return fragments
