"""iperf3 through two adapters: TCP and UDP, one way, the other, both; its report against ours."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ringtun import Session
from ringtun.device.embedded import Pump
from tests.system.sites import SOON, Site, forwarding, until, wait_for_words

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("iperf3") is None, reason="NOT TRIED: install iperf3"),
]

SIZE = 16 << 20
"""Bytes of a TCP run."""

RATE = 20_000_000
"""Bits per second of a UDP run, which lasts a fifth of a second."""

THERE, BACK = "", "_bidir_reverse"
"""How those keys of a report end that are about the way from the client, and the way to it if it is
the second one; where there is one way only, the first is its."""


@contextmanager
def tunnel(left: Site, right: Site, pump: Pump) -> Iterator[tuple[Session, Session]]:
    """Both sessions, joined; in the end every packet that came out of one has gone into the other.

    A test that fails has its own say first.
    """
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        forwarding(near, far),
    ):
        yield near, far

        def all_crossed() -> bool:
            here, there = near.statistics(), far.statistics()
            return (here.received_packets, here.sent_packets) == (
                there.sent_packets,
                there.received_packets,
            )

        until(all_crossed, "packets are lost between the sessions")


def iperf(client: Site, server: Site, version: int, *arguments: str) -> dict[str, Any]:
    """The end of the client's report on a run that both were content with."""
    listener = server.network.popen(
        *("iperf3", "-s", "-1", "--forceflush"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert listener.stdout is not None
    wait_for_words(listener.stdout.fileno(), "listening")
    done = client.network.run(
        *("iperf3", "--json", "-c", server.addresses[version], *arguments),
        check=False,
        timeout=3 * SOON,
    )
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, report.get("error")) == (0, None), report
    assert listener.wait(SOON) == 0, listener.stdout.read()
    end: dict[str, Any] = report["end"]
    return end


# TCP ---------------------------------------------------------------------------------------------


def carried(end: dict[str, Any], way: str) -> tuple[int, int]:
    """How many bytes were sent and received. What the receiver has not yet read when the sender is
    done is not in the second, except with ``-R``.
    """
    sent, received = end[f"sum_sent{way}"]["bytes"], end[f"sum_received{way}"]["bytes"]
    assert 0 < received <= sent
    return sent, received


@pytest.mark.parametrize("streams", [1, 8])
def test_tcp(left: Site, right: Site, pump: Pump, version: int, streams: int) -> None:
    with tunnel(left, right, pump) as (near, _):
        end = iperf(left, right, version, "-n", str(SIZE), "-P", str(streams))
        sent, received = carried(end, THERE)
        assert sent >= SIZE
        assert len(end["streams"]) == streams
        assert all(stream["receiver"]["bytes"] > 0 for stream in end["streams"])
        assert near.statistics().received_bytes > received


def test_tcp_reversed(left: Site, right: Site, pump: Pump, version: int) -> None:
    with tunnel(left, right, pump) as (near, _):
        sent, received = carried(iperf(left, right, version, "-n", str(SIZE), "-R"), THERE)
        assert sent >= received >= SIZE
        assert near.statistics().sent_bytes > SIZE


def test_tcp_both_ways(left: Site, right: Site, pump: Pump, version: int) -> None:
    """The run ends when one way has carried all of it."""
    with tunnel(left, right, pump) as (near, _):
        end = iperf(left, right, version, "-n", str(SIZE), "--bidir")
        there, back = carried(end, THERE), carried(end, BACK)
        assert max(there[0], back[0]) >= SIZE
        assert near.statistics().received_bytes > there[1]
        assert near.statistics().sent_bytes > back[1]


# UDP ---------------------------------------------------------------------------------------------


def no_room(site: Site) -> int:
    """How many datagrams came to a socket of the site that had no room for them."""
    counters = site.counters()
    return counters["UdpRcvbufErrors"] + counters["Udp6RcvbufErrors"]


def check_datagrams(
    end: dict[str, Any], way: str, source: Session, destination: Site, size: int
) -> None:
    """What left one socket came out of the session, and what misses is counted.

    Each loss has one of two reasons: the queue of the source's adapter, the receiving socket. Both
    may have lost a packet more than iperf3 knows of, its last or one of its TCP connection.
    """
    datagrams = end[f"sum{way}"]
    assert datagrams["bytes"] == datagrams["packets"] * size > 0
    statistics = source.statistics()
    discards = statistics.discards
    assert discards.total == discards.host_queue_full
    assert statistics.received_packets + discards.host_queue_full > datagrams["packets"]
    assert datagrams["lost_packets"] <= discards.host_queue_full + no_room(destination)
    assert [stream["udp"]["out_of_order"] for stream in end["streams"]] == [0] * len(end["streams"])


@pytest.mark.parametrize("size", [64, 1400])
@pytest.mark.parametrize("both_ways", [False, True], ids=["there", "both"])
def test_udp(left: Site, right: Site, pump: Pump, version: int, both_ways: bool, size: int) -> None:
    options = ("--bidir",) if both_ways else ()
    udp = "-u", "-b", str(RATE), "-l", str(size), "-n", str(RATE // 8 // 5)
    with tunnel(left, right, pump) as (near, far):
        end = iperf(left, right, version, *udp, *options)
        check_datagrams(end, THERE, near, right, size)
        if both_ways:
            check_datagrams(end, BACK, far, left, size)
