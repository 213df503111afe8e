"""traceroute over four machines in a row, each joined to the next by two adapters and a program."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Self

import pytest

import ringtun
from ringtun.device.embedded import Pump
from ringtun.host.namespace import Namespace
from ringtun.testing.netns import NetworkNamespace
from tests.system.sites import SOON, forwarding, wait_for_ipv6

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("traceroute") is None, reason="NOT TRIED: install traceroute"),
]

MACHINES = ["first", "second", "third", "fourth"]
LINKS = [1, 2, 3]
MTU = {1: 1500, 2: 1500, 3: 1280}
"""By link."""

SETTINGS = {
    "ipv4/ip_forward": "1",
    "ipv6/conf/all/forwarding": "1",
    "ipv4/icmp_ratelimit": "0",
    "ipv6/icmp/ratelimit": "0",
}
"""Of every machine: it passes on what is not for it, and tells of each packet that it cannot."""


def address(link: int, end: int, version: int) -> str:
    """Of one end, 1 or 2, of a link."""
    return {4: f"10.98.{link}.{end}", 6: f"fd98:{link}::{end}"}[version]


class Machine(NetworkNamespace):
    """A network namespace that is a router."""

    def __enter__(self) -> Self:
        super().__enter__()
        with Namespace.named(self.name) as namespace:
            namespace.run(self._configure)
        return self

    @staticmethod
    def _configure() -> None:
        for name, value in SETTINGS.items():
            Path("/proc/sys/net", name).write_text(value)

    def connect(self, link: int, end: int) -> ringtun.Adapter:
        """An adapter at that end of a link, and a route to each link behind it."""
        adapter = ringtun.create_adapter(
            f"link{link}",
            addresses=[f"{address(link, end, 4)}/24", f"{address(link, end, 6)}/64"],
            mtu=MTU[link],
            netns=self.name,
        )
        try:
            with Namespace.named(self.name) as namespace:
                wait_for_ipv6(namespace, address(link, end, 6))
            for behind in LINKS[link:] if end == 1 else LINKS[: link - 1]:
                for target in (f"10.98.{behind}.0/24", f"fd98:{behind}::/64"):
                    self.run("ip", "route", "add", target, "dev", adapter.name)
        except BaseException:
            adapter.close()
            raise
        return adapter


@pytest.fixture
def first(nothing_is_left: None, pump: Pump) -> Iterator[Machine]:
    """The first in a row of machines."""
    with ExitStack() as stack:
        machines = [stack.enter_context(Machine(name)) for name in MACHINES]
        for link, pair in zip(LINKS, pairwise(machines), strict=True):
            sessions = [
                stack.enter_context(
                    stack.enter_context(machine.connect(link, end)).start_session(pump=pump)
                )
                for end, machine in enumerate(pair, 1)
            ]
            stack.enter_context(forwarding(*sessions))
        yield machines[0]


def traceroute(source: Machine, version: int, *options: str) -> list[str]:
    """What it says of each machine on the way to the last one, without the times."""
    limits = "-n", "-q", "2", "-w", f"{SOON},0,0", "-m", str(2 * len(LINKS))
    said = source.run("traceroute", *limits, *options, address(LINKS[-1], 2, version)).stdout
    _, *hops = said.splitlines()
    return [" ".join(re.sub(r"[\d.]+ ms", "", hop).split()) for hop in hops]


def test_every_machine_shows(first: Machine, version: int) -> None:
    way = [f"{link} {address(link, 2, version)}" for link in LINKS]
    for method in ("default", "udp", "icmp", "tcp"):
        assert traceroute(first, version, f"--module={method}") == way


def test_the_mtu_of_each_link(first: Machine, version: int) -> None:
    """The full size is tried first; the narrow link's machine tells what it takes."""
    assert traceroute(first, version, "--mtu") == [
        f"1 {address(1, 2, version)} F=1500",
        f"2 {address(2, 2, version)}",
        f"3 {address(3, 2, version)} F=1280",
    ]
