"""Sites for every test, and a look afterwards at what it left behind."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import ringtun
from ringtun.device.embedded import Pump
from ringtun.host.namespace import Namespace
from ringtun.testing.netns import NetworkNamespace
from tests.system.sites import ADDRESSES, PREFIX, Site, descriptors

MakeSite = Callable[..., Site]


def _holdings() -> dict[str, str]:
    """What a test must leave as it found it."""
    return {
        **{f"descriptor {number}": target for number, target in descriptors().items()},
        "threads": str(len(os.listdir("/proc/self/task"))),
        "processes": Path("/proc/self/task", str(os.getpid()), "children").read_text(),
        "interfaces": " ".join(name for _, name in socket.if_nameindex()),
        "namespaces": " ".join(sorted(os.listdir("/run/netns"))),
    }


@pytest.fixture
def nothing_is_left() -> Iterator[None]:
    """Descriptors, threads, processes, interfaces, namespaces: as before.

    The fixtures that make something stand on it, so that it looks when they are done.
    """
    gc.collect()
    before = _holdings().items()
    yield
    gc.collect()
    after = _holdings().items()
    assert sorted(after - before) == []


@pytest.fixture(params=["inline", "thread"])
def pump(request: pytest.FixtureRequest) -> Pump:
    """Who moves the packets."""
    value: Pump = request.param
    return value


@pytest.fixture(params=[4, 6], ids=["v4", "v6"])
def version(request: pytest.FixtureRequest) -> int:
    """Of IP."""
    value: int = request.param
    return value


@pytest.fixture
def network(nothing_is_left: None) -> Iterator[NetworkNamespace]:
    """The namespace "left", with nothing in it."""
    with NetworkNamespace("left") as network:
        yield network


@pytest.fixture
def namespace(network: NetworkNamespace) -> Iterator[Namespace]:
    """The same, to open sockets in and to look at."""
    with Namespace.named(network.name) as namespace:
        yield namespace


@pytest.fixture
def make_site(nothing_is_left: None) -> Iterator[MakeSite]:
    """Makes the site "left" or "right": ``make_site(name, versions=(4, 6), **of_create_adapter)``.

    Where nothing may come but what the test sends, ``versions=(4,)``: IPv6 tells of its groups.
    """
    with ExitStack() as stack:

        def make(name: str, versions: tuple[int, ...] = (4, 6), **options: object) -> Site:
            network = stack.enter_context(NetworkNamespace(name))
            namespace = stack.enter_context(Namespace.named(name))
            adapter = ringtun.create_adapter(
                "vpn0",
                addresses=[f"{ADDRESSES[name][v]}/{PREFIX[v]}" for v in versions],
                netns=name,
                **options,  # type: ignore[arg-type]
            )
            site = Site(network, namespace, stack.enter_context(adapter))
            if 6 in versions and options.get("up", True):
                site.wait_for_ipv6()
            return site

        yield make


@pytest.fixture
def left(make_site: MakeSite) -> Site:
    """10.99.0.1/24 and fd99::1/64, in the namespace "left"."""
    return make_site("left")


@pytest.fixture
def right(make_site: MakeSite) -> Site:
    """10.99.0.2/24 and fd99::2/64, in the namespace "right"."""
    return make_site("right")
