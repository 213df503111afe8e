"""The examples, as their own words say to run them: on the kernel, with the system's own tools."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ringtun.testing.netns import NetworkNamespace
from tests.system.programs import ROOT
from tests.system.sites import SOON

pytestmark = pytest.mark.kernel

EXAMPLES = ROOT / "examples"
SCREENFUL = 50  # lines

DIG = """
import socket, sys
from scapy.layers.dns import DNS, DNSQR
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
    query.settimeout(10)
    query.connect((sys.argv[1], 53))
    query.send(bytes(DNS(id=7, rd=1, qd=[DNSQR(qname="ringtun.example")])))
    answer = DNS(query.recv(1 << 16))
print(answer.id, answer.an[0].rrname.decode(), answer.an[0].rdata)
"""


@contextmanager
def running(example: str, *arguments: str, inside: NetworkNamespace | None = None) -> Iterator[str]:
    """An example that is ready, and what it said; at the end Ctrl-C ends it, without a word."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / example), *arguments]
    process = subprocess.Popen(
        inside.command(*command) if inside else command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            pytest.fail(process.communicate(timeout=SOON)[1])
        yield said
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SOON)
        assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()


def pings(network: NetworkNamespace, address: str, *options: str) -> None:
    """Three pings are answered."""
    command = ("ping", "-n", "-c", "3", "-i", "0.01", "-w", str(SOON), *options, address)
    done = network.run(*command, env={**os.environ, "LC_ALL": "C"}, check=False)
    assert " 0% packet loss" in done.stdout, done.stdout + done.stderr


@pytest.fixture
def both(nothing_is_left: None) -> Iterator[tuple[NetworkNamespace, NetworkNamespace]]:
    """Two empty namespaces, "left" and "right"."""
    with NetworkNamespace("left") as left, NetworkNamespace("right") as right:
        yield left, right


def test_every_example_is_a_screenful_and_tried_here() -> None:
    here = Path(__file__).read_text()
    found = sorted(EXAMPLES.glob("*.py"))
    assert len(found) == 7
    for example in found:
        assert f'running("{example.name}"' in here
        assert len(example.read_text().splitlines()) <= SCREENFUL, example.name


def test_echo(network: NetworkNamespace) -> None:
    with running("echo.py", inside=network):
        pings(network, "10.7.0.9")
        pings(network, "fd07::9", "-s", "1400")


def test_ping_responder(network: NetworkNamespace) -> None:
    with running("ping_responder.py", inside=network):
        for size in ("0", "56", "1200"):
            pings(network, "10.7.0.9", "-s", size)
            pings(network, "fd07::9", "-s", size)


def test_asyncio_echo(network: NetworkNamespace) -> None:
    with running("asyncio_echo.py", inside=network):
        for number in (1, 2, 3):
            pings(network, f"10.7.{number}.9")


def test_trio_echo(network: NetworkNamespace) -> None:
    with running("trio_echo.py", "60", inside=network):
        pings(network, "10.7.0.9")


def test_trio_echo_ends_after_its_time(network: NetworkNamespace) -> None:
    done = network.run(sys.executable, "-W", "error", str(EXAMPLES / "trio_echo.py"), "0.2")
    assert done.stdout == "0 packets went back\n"
    assert done.stderr == ""


def test_forward(both: tuple[NetworkNamespace, NetworkNamespace]) -> None:
    left, right = both
    with running("forward.py", "left", "right") as said:
        assert said == "left and right are joined\n"
        pings(left, "10.8.0.2")
        pings(right, "10.8.0.1", "-s", "1400")
        pings(right, "fd08::1")


def test_udp_tunnel(both: tuple[NetworkNamespace, NetworkNamespace]) -> None:
    """Over the other example, as it says itself; an IPv6 address goes through as well."""
    left, right = both
    addresses = {left: ("10.9.0.1/24", "fd09::1/64"), right: ("10.9.0.2/24", "fd09::2/64")}
    with ExitStack() as stack:
        stack.enter_context(running("forward.py", "left", "right"))
        for end, here, there in ((left, "10.8.0.1", "10.8.0.2"), (right, "10.8.0.2", "10.8.0.1")):
            tunnel = running("udp_tunnel.py", here, there, *addresses[end], inside=end)
            assert stack.enter_context(tunnel) == "the tunnel is up, with an MTU of 1472\n"
        pings(left, "10.9.0.2")
        pings(right, "fd09::1")
        pings(left, "10.9.0.2", "-s", "1444", "-M", "do")  # as much as fits
        shown = left.run("ip", "-j", "link", "show", "tunnel0").stdout
        assert json.loads(shown)[0]["mtu"] == 1472


@pytest.mark.skipif(shutil.which("curl") is None, reason="NOT TRIED: there is no curl")
def test_scapy_bridge(network: NetworkNamespace) -> None:
    with running("scapy_bridge.py", inside=network):
        pings(network, "10.7.0.2")
        page = network.run("curl", "-sS", "--max-time", str(SOON), "http://10.7.0.2/")
        assert page.stdout == "hello from scapy\n"
        answer = network.run(sys.executable, "-c", DIG, "10.7.0.2")
        assert answer.stdout == "7 ringtun.example. 10.7.0.2\n"
        refused = network.run(
            "curl", "-sS", "--max-time", str(SOON), "http://10.7.0.2:81/", check=False
        )
        assert refused.returncode == 7, "a port that is closed says so"
