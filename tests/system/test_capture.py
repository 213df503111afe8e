"""An outside witness: tcpdump at the kernel's side saw the packets that the program saw.

With offload the kernel's side has them before they are cut, and behind their merging: so these run
without, but for one.
"""

from __future__ import annotations

import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from ringtun.device.embedded import Pump
from ringtun.host import linux_tun
from ringtun.testing.conformance import packet
from tests.children import ONE_USER_ONLY
from tests.system.capture import capturing, read_pcap
from tests.system.conftest import MakeSite
from tests.system.packets import udp_payload
from tests.system.sites import PROGRAM, SOON, responding, until
from tests.system.test_ping import ping

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("tcpdump") is None, reason="NOT TRIED: install tcpdump"),
    pytest.mark.skipif(
        ONE_USER_ONLY,
        reason="NOT TRIED: tcpdump becomes another user, and this user namespace has one only",
    ),
]

COUNT = 300


@pytest.fixture
def no_offload(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above a kernel without offload headers."""
    monkeypatch.setattr(linux_tun, "IFF_VNET_HDR", 0)


def packets_of_all_sizes() -> list[bytes]:
    """Both versions, 28 to 65,535 bytes."""
    chance = random.Random(9)
    sizes = [48, 1500, 65535, *(int(2 ** chance.uniform(6, 15.9)) for _ in range(COUNT - 3))]
    return [packet(number, size, chance.choice((4, 6))) for number, size in enumerate(sizes)]


@pytest.mark.usefixtures("no_offload")
def test_tcpdump_saw_the_same(make_site: MakeSite, pump: Pump, tmp_path: Path) -> None:
    site = make_site("left", versions=(), mtu=65535)  # no address: the kernel answers nothing
    packets = packets_of_all_sizes()
    with site.adapter.start_session(pump=pump) as session, closing(site.packet_socket()) as host:
        with (
            capturing(site, tmp_path / "out.pcap", "out", packets),
            capturing(site, tmp_path / "in.pcap", "in", packets),
        ):
            received = []
            for number, each in enumerate(packets):
                host.send(each)
                session.send(packets[-1 - number])
                received.append(session.receive(SOON))
        assert session.statistics().sent_packets == COUNT
    assert read_pcap(tmp_path / "out.pcap") == received == packets
    assert read_pcap(tmp_path / "in.pcap") == packets[::-1]


@pytest.mark.usefixtures("no_offload")
def test_tcpdump_saw_the_same_of_a_burst(make_site: MakeSite, pump: Pump, tmp_path: Path) -> None:
    """All of it sent before any of it is read; answered in one call."""
    site = make_site("left", versions=(4,))
    payloads = [udp_payload(packet(number, 28 + number * 3)) for number in range(COUNT)]
    answers = [packet(number, 28 + number * 3) for number in range(COUNT)]
    with (
        site.adapter.start_session(pump=pump) as session,
        closing(site.udp()) as host,
        capturing(site, tmp_path / "out.pcap", "out", payloads),
        capturing(site, tmp_path / "in.pcap", "in", answers),
    ):
        for payload in payloads:
            host.sendto(payload, (PROGRAM[4], 4000))
        received: list[bytes] = []
        while len(received) < COUNT:
            with session.receive_many(timeout=SOON) as batch:
                received.extend(bytes(view) for view in batch)
        assert session.send_many(answers) == COUNT
    assert [udp_payload(each) for each in received] == payloads
    assert read_pcap(tmp_path / "out.pcap") == received
    assert read_pcap(tmp_path / "in.pcap") == answers


@pytest.mark.usefixtures("no_offload")
@pytest.mark.skipif(shutil.which("ping") is None, reason="install iputils-ping")
def test_tcpdump_saw_the_pings(make_site: MakeSite, pump: Pump, tmp_path: Path) -> None:
    site = make_site("left", versions=(4,))
    with (
        site.adapter.start_session(pump=pump) as session,
        responding(session) as answers,
        capturing(site, tmp_path / "in.pcap", "in", answers),
    ):
        ping(site, PROGRAM[4])
    assert read_pcap(tmp_path / "in.pcap") == answers


def test_tcpdump_saw_them_merged(make_site: MakeSite, pump: Pump, tmp_path: Path) -> None:
    """Packets of one flow, and of one size, that are sent together: few, with the same content."""
    site = make_site("left", versions=(), mtu=65535)
    packets = [packet(number, 1000) for number in range(COUNT)]
    large: list[int] = []
    with site.adapter.start_session(pump=pump) as session:
        with capturing(site, tmp_path / "in.pcap", "in", large):
            assert session.send_many(packets) == COUNT
            until(lambda: session.statistics().sent_packets == COUNT)
            large.extend(range(site.link.info().rx_packets))
        assert 0 < session.statistics().merged <= len(large) < COUNT // 10
    payloads = [udp_payload(each) for each in read_pcap(tmp_path / "in.pcap")]
    assert len(payloads) == len(large)
    assert b"".join(payloads) == b"".join(udp_payload(each) for each in packets)
