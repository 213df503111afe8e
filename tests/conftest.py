"""Every test runs in a private world: network and mount namespaces of this process alone."""

from __future__ import annotations

import os
import re

import pytest

from ringtun.testing.netns import enter_private_world
from tests.installer.machines import kept_windows, windows

__all__ = ["kept_windows", "windows"]

# What is missing here, by the mark of the tests that need it; empty: it is there.
_missing = {"world": "", "kernel": ""}


def pytest_configure() -> None:
    try:
        # A worker of pytest-xdist has another thread, which talks with the controller.
        enter_private_world(this_thread_alone="PYTEST_XDIST_WORKER" in os.environ)
    except OSError as error:
        _missing["world"] = _missing["kernel"] = f"no namespaces of one's own: {error}"
        return
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        _missing["kernel"] = f"no kernel TUN: {error}"


def pytest_report_header() -> list[str]:
    lines = {f"NOT HERE, and their tests are skipped: {why}" for why in _missing.values() if why}
    return sorted(lines) or ["kernel TUN: here, in a private network namespace"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long, or a Windows, is not run unless ``-m`` speaks of it."""
    marks = {"soak", "wine"} - set(re.findall(r"\w+", config.option.markexpr or ""))
    unasked = [item for item in items if any(map(item.get_closest_marker, marks))]
    if unasked:
        config.hook.pytest_deselected(items=unasked)
        items[:] = [item for item in items if item not in unasked]


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, why in _missing.items():
        if why and item.get_closest_marker(mark):
            pytest.skip(why)


@pytest.fixture
def pure_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where nothing could be compiled: the twin and the plain-Python engine."""
    import ringtun._twin as twin
    import ringtun.device.embedded
    import ringtun.driver.engine
    import ringtun.host.memory
    import ringtun.mapping
    import ringtun.session
    import ringtun.testing.conformance.rings as rings

    for module in (
        *(ringtun.device.embedded, ringtun.driver.engine, ringtun.host.memory, ringtun.mapping),
    ):
        monkeypatch.setattr(module, "NATIVE", False)
    for module in (ringtun.session, rings):
        monkeypatch.setattr(module, "Producer", twin.Producer)
        monkeypatch.setattr(module, "Consumer", twin.Consumer)
    monkeypatch.setattr(ringtun.session, "Batch", twin.Batch)
