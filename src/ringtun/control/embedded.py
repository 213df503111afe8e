"""An open adapter whose driver runs in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ringtun.control import check_change
from ringtun.device.embedded import EmbeddedDevice, Pump
from ringtun.errors import AdapterNotFound
from ringtun.events import AdapterEvent, EventKind, differences
from ringtun.info import AdapterInfo, describe
from ringtun.statistics import Statistics

if TYPE_CHECKING:
    from ringtun.arguments import Interface
    from ringtun.driver.adapter import DriverAdapter
    from ringtun.host import AdapterHost, HostInterface

__all__ = ["EmbeddedAdapter"]


class EmbeddedAdapter:
    """See `ringtun.control.OpenAdapter`. Takes over one hold on ``driver``, with ``host``."""

    def __init__(self, driver: DriverAdapter, host: AdapterHost) -> None:
        self.driver = driver
        self.host = host

    @property
    def name(self) -> str:
        """See `ringtun.control.OpenAdapter`."""
        return self.driver.name

    @property
    def ifindex(self) -> int:
        """See `ringtun.control.OpenAdapter`."""
        return self.host.ifindex

    @property
    def state(self) -> str:
        """See `ringtun.control.OpenAdapter`."""
        return self.driver.state.value

    @property
    def offloads(self) -> bool:
        """See `ringtun.control.OpenAdapter`."""
        return self.host.offloads

    def info(self) -> AdapterInfo:
        """See `ringtun.control.OpenAdapter`."""
        return describe(self.host.info(), self.host.addresses(), self.host.backend)

    def configure(
        self,
        *,
        addresses: tuple[Interface, ...] | None,
        mtu: int | None,
        up: bool | None,
        txqueuelen: int | None,
    ) -> None:
        """See `ringtun.control.OpenAdapter`."""
        check_change(self.host, addresses, mtu)
        self.host.configure(addresses=addresses, mtu=mtu, up=up, txqueuelen=txqueuelen)

    def device(self, pump: Pump) -> EmbeddedDevice:
        """See `ringtun.control.OpenAdapter`."""
        return EmbeddedDevice(self.driver, pump)

    def statistics(self) -> Statistics:
        """See `ringtun.control.OpenAdapter`."""
        return self.driver.statistics()

    def events(self) -> HostEvents:
        """See `ringtun.control.OpenAdapter`."""
        return HostEvents(self.host)

    def let_go(self) -> None:
        """See `ringtun.control.OpenAdapter`."""
        self.driver.let_go()

    def abandon(self) -> None:
        """See `ringtun.control.OpenAdapter`."""
        self.host.abandon()


class HostEvents:
    """See `ringtun.events.EventSource`: two looks at a host, and what differs."""

    def __init__(self, host: HostInterface) -> None:
        self._host = host
        self._watch = host.watch()
        try:
            self._before = self._look()
        except BaseException:
            self.close()
            raise

    @property
    def before(self) -> AdapterInfo:
        """The adapter at the last look."""
        return self._before

    def fileno(self) -> int:
        """See `ringtun.events.EventSource`."""
        return self._watch.fileno()

    def read(self) -> list[AdapterEvent]:
        """See `ringtun.events.EventSource`."""
        if not self._watch.news():
            return []
        try:
            now = self._look()
        except AdapterNotFound:
            return [AdapterEvent(EventKind.REMOVED, None)]
        events = differences(self._before, now)
        self._before = now
        return events

    def _look(self) -> AdapterInfo:
        return describe(*self._watch.look(), self._host.backend)

    def close(self) -> None:
        """See `ringtun.events.EventSource`."""
        self._host.unwatch(self._watch)

    def abandon(self) -> None:
        """See `ringtun.events.EventSource`."""
        self._watch.close()
