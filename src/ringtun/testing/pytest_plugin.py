"""Fixtures for pytest, there wherever ringtun is installed: ``ringtun_link``, ``ringtun_netns``.

A link in memory tests a program's packets in milliseconds, without a kernel and without root::

    @pytest.mark.ringtun_link(loss=0.05, delay=0.01)
    def test_the_handshake_survives_loss(ringtun_link):
        left, right = ringtun_link
        ...

Network namespaces test it against the kernel, see `ringtun_netns`. A run that uses neither is not
touched: nothing but this file is loaded.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

if TYPE_CHECKING:
    from ringtun.testing.link import MemoryLink
    from ringtun.testing.netns import NetworkNamespace

__all__ = ["NamespaceFactory", "ringtun_link", "ringtun_netns"]

NOT_TRIED: Final = "ringtun_netns: NOT TRIED: "

# Why there are no namespaces here; empty: there are. Not there: nobody has asked yet.
_obstacle = pytest.StashKey[str]()
# What became of the wish for a private world; not there: nobody wished for one.
_world = pytest.StashKey[str]()


# ---- a link in memory ----------------------------------------------------------------------------


@pytest.fixture
def ringtun_link(request: pytest.FixtureRequest) -> Iterator[MemoryLink]:
    """A `MemoryLink` of the test's own, closed at its end: ``left, right = ringtun_link``.

    It is perfect, unless the test, its class or its module has the mark
    ``@pytest.mark.ringtun_link(…)``, the closest of which counts. The mark takes the fields of
    `Impairment` by name; ``back={…}``, with fields too, is for the way from right to left where
    that differs.

    Where no ``seed`` is given, it is made from the test's name: a test meets the same impairments
    in each run, and each test its own. A failure's report shows the seed that was used; written
    into the mark it stays, also when the test is renamed.

    An error in the mark is the test's error: ``TypeError`` or ``ValueError``, as `Impairment`'s.
    """
    from ringtun.testing.link import memory_link

    mark = request.node.get_closest_marker("ringtun_link")
    with memory_link() if mark is None else _marked_link(request.node, mark) as link:
        yield link


def _marked_link(item: pytest.Item, mark: pytest.Mark) -> MemoryLink:
    from ringtun.testing import Impairment, memory_link

    fields = dict(mark.kwargs)
    back = fields.pop("back", None)
    if mark.args or not isinstance(back, Mapping | None):
        raise TypeError(
            "ringtun_link takes the fields of Impairment by name, and back={…} with fields; not "
            + (f"{mark.args[0]!r}" if mark.args else f"back={back!r}")
        )
    fields = {**fields, "seed": fields.get("seed", _seed_of(item.nodeid))}
    there = Impairment(**fields)
    if back is not None:
        back = {**back, "seed": back.get("seed", there.seed)}
        fields["back"] = back
    shown = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    item.add_report_section(
        "setup", "ringtun_link", f"the same again: @pytest.mark.ringtun_link({shown})\n"
    )
    return memory_link(there, back=None if back is None else Impairment(**back))


def _seed_of(name: str) -> int:
    """The same on every machine, and one that can be typed."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4])


# ---- network namespaces --------------------------------------------------------------------------


class NamespaceFactory(Protocol):
    """What `ringtun_netns` gives: makes namespaces that are gone at the test's end."""

    def __call__(self, name: str | None = None) -> NetworkNamespace:
        """A `ringtun.testing.netns.NetworkNamespace`, entered already.

        Without a ``name`` it gets one that no other has. Raises ``FileExistsError`` where the name
        is taken.
        """


@pytest.fixture
def ringtun_netns(request: pytest.FixtureRequest) -> Iterator[NamespaceFactory]:
    """Makes real network namespaces, all of them gone at the test's end::

        def test_across_the_kernel(ringtun_netns):
            here, there = ringtun_netns(), ringtun_netns()
            adapter = ringtun.create_adapter("vpn0", netns=there.name)

    The processes that were started through a namespace are killed at its end.

    It needs rights: root's, or those of a *private world*, network and mount namespaces which the
    whole run of pytest moves into, and where an ordinary user is root. In it there is ``lo`` and no
    other network; whatever the run leaves behind there goes with it. A run asks for it:

    - ``ringtun_private_world = true`` in pytest's configuration: where the system allows it. So
      everybody can run the tests; where it is not allowed, those that need it are skipped.
    - ``pytest --ringtun-netns``: it must be. Where the system does not allow it, the run ends with
      an error before the first test. For continuous integration.

    Without the rights a test that uses this fixture is skipped, and the run's summary says how many
    were, why, and how to cure it, with or without ``-r``.

    The world is entered before the first test and cannot be left. Plugins must not have started a
    thread by then; the workers of pytest-xdist share their controller's.
    """
    config = request.config
    if _obstacle not in config.stash:
        config.stash[_obstacle] = _find_obstacle(config)
    if config.stash[_obstacle]:
        pytest.skip(NOT_TRIED + config.stash[_obstacle])
    from ringtun.testing.netns import NetworkNamespace

    with ExitStack() as stack:
        made = 0

        def make(name: str | None = None) -> NetworkNamespace:
            nonlocal made
            made += 1
            name = f"ringtun-{os.getpid()}-{made}" if name is None else name
            return stack.enter_context(NetworkNamespace(name))

        yield make


def _find_obstacle(config: pytest.Config) -> str:
    """Why no namespace can be made; empty where one can, which is tried."""
    if sys.platform != "linux":
        return "network namespaces are Linux's"
    from ringtun.testing.netns import NetworkNamespace

    try:
        with NetworkNamespace(f"ringtun-{os.getpid()}-0"):
            return ""
    except OSError as error:
        why = f"cannot make a network namespace here ({error})"
    return f"{why}; {config.stash.get(_world, 'run pytest with --ringtun-netns, or as root')}"


def _enter_private_world() -> None:
    if sys.platform != "linux":
        raise OSError("network namespaces are Linux's")
    from ringtun.testing.netns import enter_private_world

    enter_private_world()


# ---- pytest's hooks ------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("ringtun").addoption(
        "--ringtun-netns",
        action="store_true",
        help="run in network and mount namespaces of its own, for the fixture ringtun_netns; "
        "an error where the system does not allow it",
    )
    parser.addini(
        "ringtun_private_world",
        "as --ringtun-netns, but where the system does not allow it, tests that use the fixture "
        "ringtun_netns are skipped",
        type="bool",
        default=False,
    )


@pytest.hookimpl(tryfirst=True)  # before others start threads
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "ringtun_link(loss=0, delay=0, ..., seed=None, back=None): the impairments of the fixture "
        "ringtun_link; see ringtun.testing.Impairment",
    )
    required: Any = config.getoption("--ringtun-netns")
    if not required and not config.getini("ringtun_private_world"):
        return
    if hasattr(config, "workerinput"):
        return  # a worker of pytest-xdist: its controller entered, and it was started inside
    try:
        _enter_private_world()
    except (OSError, RuntimeError) as error:
        if required:
            raise pytest.UsageError(f"--ringtun-netns: {error}") from error
        config.stash[_world] = f"no private world: {error}"
    else:
        config.stash[_world] = "in network and mount namespaces of its own"


def pytest_report_header(config: pytest.Config) -> str | None:
    world = config.stash.get(_world, None)
    return world and f"ringtun: {world}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [
        report.longrepr[2].partition(NOT_TRIED)[2]
        for report in terminalreporter.stats.get("skipped", ())
        if isinstance(report.longrepr, tuple) and NOT_TRIED in report.longrepr[2]
    ]
    if reasons:
        terminalreporter.section("ringtun_netns")
        for reason in dict.fromkeys(reasons):
            terminalreporter.line(f"{reasons.count(reason)} NOT TRIED: {reason}", yellow=True)
