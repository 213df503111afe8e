"""The driver in this process: the only place where client and driver meet without a boundary.

What crosses is the offer, as it would cross a socket; and, where the engine has threads of its own,
the two `Space` objects by which each side waits for room.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from ringtun import abi
from ringtun.abi import RegisterRings
from ringtun.device.refusals import options_refused, registration_refused
from ringtun.driver.engine import EngineEnd
from ringtun.driver.registration import Refusal
from ringtun.errors import EndReason
from ringtun.ring import NATIVE
from ringtun.statistics import Statistics
from ringtun.step import StepResult

if TYPE_CHECKING:
    from ringtun._native import Batch, Space
    from ringtun.driver.adapter import DriverAdapter

__all__ = ["EmbeddedDevice", "Pump"]

Pump = Literal["inline", "thread"]

_END_REASON = {
    EngineEnd.CLOSED: EndReason.CLOSED,
    EngineEnd.REMOVED: EndReason.ADAPTER_REMOVED,
    EngineEnd.CORRUPT: EndReason.RING_CORRUPT,
}


class EmbeddedDevice:
    """A handle on an adapter whose driver runs in this process; see `ringtun.device.Device`."""

    def __init__(self, adapter: DriverAdapter, pump: Pump) -> None:
        self._adapter = adapter
        self.name = adapter.name
        self._handle = adapter.open()
        self._inline = pump == "inline"
        self.host_fd = adapter.host.fileno() if self._inline else None
        self.to_client_space: Space | None = None
        self.to_host_space: Space | None = None
        if not self._inline and NATIVE:
            from ringtun import _native

            self.to_client_space, self.to_host_space = _native.Space(), _native.Space()

    def set_options(self, options: abi.Options) -> None:
        """See `ringtun.device.Device`."""
        payload = options.to_bytes(abi.SET_OPTIONS_SIZE, sys.byteorder)
        try:
            self._handle.set_options(abi.IOCTL_SET_OPTIONS, payload)
        except Refusal as refusal:
            raise options_refused(self.name) from refusal

    def register_rings(self, offer: RegisterRings, descriptors: Sequence[int]) -> None:
        """See `ringtun.device.Device`."""
        try:
            self._handle.register(
                abi.IOCTL_REGISTER_RINGS,
                offer.pack(),
                descriptors,
                threads=not self._inline,
                to_client_space=self.to_client_space,
                to_host_space=self.to_host_space,
            )
        except Refusal as refusal:
            raise registration_refused(self.name, refusal.status, str(refusal)) from refusal
        self._engine = self._handle.engine

    def pump_to_client(self, budget: int) -> int:
        """See `ringtun.device.Device`."""
        if self._inline:
            return self._engine.step_to_client(budget)
        return StepResult.IDLE

    def wait_to_client(self, budget: int, stop: int, timeout: float | None) -> int | None:
        """See `ringtun.device.Device`."""
        return self._handle.engine.wait_to_client(budget, stop, timeout)

    def pump_to_host(self, budget: int) -> int:
        """See `ringtun.device.Device`."""
        if self._inline:
            return self._engine.step_to_host(budget)
        return StepResult.IDLE

    def forward(self, batch: Batch[Any]) -> list[int] | None:
        """See `ringtun.device.Device`."""
        if not self._inline or not NATIVE:
            return None
        return self._handle.engine.forward(batch)

    def end_reason(self) -> EndReason:
        """See `ringtun.device.Device`."""
        end = EngineEnd(self._handle.engine.end_reason)
        return _END_REASON.get(end, EndReason.DRIVER_ENDED)

    def statistics(self) -> Statistics:
        """See `ringtun.device.Device`."""
        return self._handle.statistics()

    def close(self) -> None:
        """See `ringtun.device.Device`."""
        self._handle.close()
        self._close_spaces()

    def abandon(self) -> None:
        """See `ringtun.device.Device`."""
        self._handle.abandon()
        self._close_spaces()

    def _close_spaces(self) -> None:
        for space in (self.to_client_space, self.to_host_space):
            if space is not None:
                space.close()
