"""Every test runs in a private world: network and mount namespaces of this process alone."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ringtun.testing.netns import enter_private_world

_why_no_kernel_tun = ""


def pytest_configure() -> None:
    global _why_no_kernel_tun
    try:
        enter_private_world()
        os.close(os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        _why_no_kernel_tun = str(error)


def pytest_report_header() -> str:
    if _why_no_kernel_tun:
        return f"kernel TUN: NOT HERE, its tests are skipped: {_why_no_kernel_tun}"
    return "kernel TUN: here, in a private network namespace"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _why_no_kernel_tun and item.get_closest_marker("kernel"):
        pytest.skip(f"no kernel TUN: {_why_no_kernel_tun}")


@pytest.fixture
def pure_python(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where nothing could be compiled: the twin and the plain-Python engine."""
    import ringtun._twin as twin
    import ringtun.device.embedded
    import ringtun.driver.engine
    import ringtun.host.memory
    import ringtun.session
    import ringtun.testing.conformance.rings as rings

    for module in (ringtun.device.embedded, ringtun.driver.engine, ringtun.host.memory):
        monkeypatch.setattr(module, "NATIVE", False)
    for module in (ringtun.session, rings):
        monkeypatch.setattr(module, "Producer", twin.Producer)
        monkeypatch.setattr(module, "Consumer", twin.Consumer)
    monkeypatch.setattr(ringtun.session, "Batch", twin.Batch)
    yield
