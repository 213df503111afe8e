"""Adapters come and go; what they took is given back."""

from __future__ import annotations

import json

import pytest

import ringtun
from ringtun import EndReason, SessionClosed
from ringtun.device.embedded import Pump
from ringtun.testing.netns import NetworkNamespace
from tests.system.programs import Program
from tests.system.sites import Site, descriptors

pytestmark = pytest.mark.kernel

RSS_TOLERANCE_KIB = 256
"""After a warm-up it is all but constant, however many cycles follow."""


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.soak)])
def test_nothing_grows(network: NetworkNamespace, pump: Pump, count: int) -> None:
    with Program("cycles", str(count), pump, through=network.command()) as program:
        said = program.line(timeout=10 + count * 0.25)
        assert said.startswith("["), said
        before, after = json.loads(said)
        assert program.wait() == 0
    grown = after.pop("rss_kib") - before.pop("rss_kib")
    assert after == before
    assert before["interfaces"] == ["lo"]
    assert before["memfds"] == 0
    assert grown <= RSS_TOLERANCE_KIB


def test_a_closed_session_holds_no_descriptor(left: Site, pump: Pump) -> None:
    """Even while the object is kept."""
    before = sorted(descriptors().values())
    kept = left.adapter.start_session(pump=pump)
    kept.close()
    assert sorted(descriptors().values()) == before


def test_a_closed_adapter_holds_no_descriptor(network: NetworkNamespace, pump: Pump) -> None:
    """Nor does the session that ended with it."""
    before = sorted(descriptors().values())
    adapter = ringtun.create_adapter("vpn0", netns=network.name)
    session = adapter.start_session(pump=pump)
    adapter.close()
    with pytest.raises(SessionClosed) as raised:
        session.receive()
    assert raised.value.reason is EndReason.ADAPTER_CLOSED
    assert sorted(descriptors().values()) == before
