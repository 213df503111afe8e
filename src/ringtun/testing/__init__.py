"""For testing programs that use ringtun: adapters without a kernel and without root."""

from __future__ import annotations

from ringtun.adapter import Adapter
from ringtun.driver.adapter import DriverAdapter
from ringtun.host.memory import link_hosts

__all__ = ["memory_link"]


def memory_link() -> tuple[Adapter, Adapter]:
    """Two adapters back to back, in memory: what one's session sends, the other's receives.

    They have the driver, the rings and the sessions of any other adapter, and no network stack, no
    addresses. A packet for a side without a session, or with 16 MiB waiting, is dropped and counted
    as ``discards.host_queue_full`` there. Close both.
    """
    left, right = link_hosts()
    return (
        Adapter(DriverAdapter("left", left), left),
        Adapter(DriverAdapter("right", right), right),
    )
