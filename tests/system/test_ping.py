"""The system's own ping, through an adapter and through two."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from ringtun.device.embedded import Pump
from tests.system.sites import PROGRAM, SOON, Site, forwarding, responding

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("ping") is None, reason="install iputils-ping"),
]

COUNT = 20
FULL = {4: 1500 - 20 - 8, 6: 1500 - 40 - 8}
"""The payload of a ping as large as the MTU."""


def ping(source: Site, address: str, size: int = 56) -> None:
    """The first `COUNT` pings come back, once each and in order, their content unharmed.

    Where an answer is slow, ping sends more of them; it ends with the last of `COUNT` answers.
    """
    said = source.network.run(
        *("ping", "-n", "-c", str(COUNT), "-i", "0.005", "-w", str(SOON), "-s", str(size), address),
        env={**os.environ, "LC_ALL": "C"},
        check=False,
    ).stdout
    answered = [int(number) for number in re.findall(r"(?:icmp_seq|seq)=(\d+)\b.* time=", said)]
    assert answered == list(range(1, COUNT + 1)), said
    assert not re.search("DUP|wrong data|[Ee]rror|Unreachable", said), said


def test_the_program_answers(left: Site, pump: Pump, version: int) -> None:
    with left.adapter.start_session(pump=pump) as session, responding(session) as answers:
        ping(left, PROGRAM[version])
        ping(left, PROGRAM[version], FULL[version])
        assert len(answers) >= 2 * COUNT
        assert max(map(len, answers)) == 1500


def test_across_two_sites(left: Site, right: Site, pump: Pump, version: int) -> None:
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        forwarding(near, far),
    ):
        ping(left, right.addresses[version])
        ping(right, left.addresses[version], FULL[version])


def test_larger_than_the_mtu(left: Site, right: Site, pump: Pump, version: int) -> None:
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        forwarding(near, far),
    ):
        ping(left, right.addresses[version], 4000)
        statistics = near.statistics()
        assert statistics.received_packets >= 3 * COUNT, "each came as three fragments"
        assert statistics.sent_packets >= 3 * COUNT
