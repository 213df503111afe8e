"""nmap across two sites: hosts, ports and protocols told right, odd packets and all."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from ringtun.device.embedded import Pump
from tests.system.sites import FAMILY, SOON, Background, Site, forwarding, udp_socket

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("nmap") is None, reason="NOT TRIED: install nmap"),
]

OPEN, CLOSED = 4001, 4002
NOBODY = {4: "10.99.0.77", 6: "fd99::77"}
UNKNOWN = 200
"""A protocol that the kernel has nothing for."""


@pytest.fixture
def tunnel(left: Site, right: Site, pump: Pump) -> Iterator[None]:
    """The two sites, joined."""
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        forwarding(near, far),
    ):
        yield


def nmap(site: Site, version: int, *arguments: str) -> ElementTree.Element:
    """Its report."""
    options = "-n", "-T4", "--max-retries", "2", "--host-timeout", str(2 * SOON), "-oX", "-"
    done = site.network.run(
        *("nmap", *options, *(["-6"] if version == 6 else []), *arguments), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return ElementTree.fromstring(done.stdout)


def ports(report: ElementTree.Element) -> dict[int, str]:
    """Ports, or protocols, and what they are."""
    return {
        int(port.attrib["portid"]): state.attrib["state"]
        for port in report.iter("port")
        for state in port.iter("state")
    }


def listening(site: Site, version: int) -> socket.socket:
    """A socket that makes the port `OPEN` of TCP open; the caller closes it."""
    address = site.addresses[version], OPEN
    return site.namespace.run(lambda: socket.create_server(address, family=FAMILY[version]))


@pytest.mark.parametrize("pump", ["thread"])  # nmap waits a second for who is not there
def test_who_is_there(left: Site, right: Site, tunnel: None, version: int) -> None:
    report = nmap(left, version, "-sn", right.addresses[version], NOBODY[version])
    up = [host.find("address") for host in report.iter("host")]
    assert [address.attrib["addr"] for address in up if address is not None] == [
        right.addresses[version]
    ]
    hosts = report.find("runstats/hosts")
    assert hosts is not None
    assert hosts.attrib == {"up": "1", "down": "1", "total": "2"}


def test_tcp_ports(left: Site, right: Site, tunnel: None, version: int) -> None:
    """By connections of the kernel's, and by packets of nmap's own."""
    asked = "-p", f"{OPEN},{CLOSED}", right.addresses[version]
    with listening(right, version):
        for scan in ("-sT", "-sS"):
            report = nmap(left, version, "-Pn", scan, *asked)
            assert ports(report) == {OPEN: "open", CLOSED: "closed"}, scan


def test_udp_ports(left: Site, right: Site, tunnel: None, version: int) -> None:
    asked = "-p", f"{OPEN},{CLOSED}", right.addresses[version]
    with udp_socket(right.namespace, right.addresses[version], OPEN) as datagrams:

        def answer() -> None:
            _, sender = datagrams.recvfrom(1 << 16)
            datagrams.sendto(b"here", sender)

        with Background(answer) as answering:
            report = nmap(left, version, "-Pn", "-sU", *asked)
            answering.result()
    assert ports(report) == {OPEN: "open", CLOSED: "closed"}


def test_protocols(left: Site, right: Site, tunnel: None, version: int) -> None:
    """Each in a packet of its own, some with nothing above IP."""
    known = {4: [socket.IPPROTO_ICMP], 6: [socket.IPPROTO_ICMPV6]}[version]
    known += [socket.IPPROTO_TCP, socket.IPPROTO_UDP]
    asked = ",".join(str(int(protocol)) for protocol in [*known, UNKNOWN])
    report = nmap(left, version, "-Pn", "-sO", "-p", asked, right.addresses[version])
    assert ports(report) == {**dict.fromkeys(known, "open"), UNKNOWN: "closed"}


@pytest.mark.parametrize("data", [0, 600])
def test_tiny_fragments(left: Site, right: Site, tunnel: None, data: int) -> None:
    """TCP headers in pieces of 8 bytes; the far kernel puts them together."""
    asked = "-p", f"{OPEN},{CLOSED}", right.addresses[4]
    before = right.counters()["IpReasmOKs"]
    with listening(right, 4):
        report = nmap(left, 4, "-Pn", "-sS", "-f", "--data-length", str(data), *asked)
    assert ports(report) == {OPEN: "open", CLOSED: "closed"}
    assert right.counters()["IpReasmOKs"] >= before + 2
