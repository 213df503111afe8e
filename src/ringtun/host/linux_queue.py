"""The packets' side of an adapter of the kernel's: the queue of a TUN device."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

from ringtun.errors import AdapterNotFound
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.offload import Coalesces

if TYPE_CHECKING:
    from ringtun import _native

__all__ = ["LinuxQueue"]


class LinuxQueue:
    """What a host does with packets, wherever the interface is. Owns the queue."""

    def __init__(self, tun: LinuxTun) -> None:
        self._tun = tun
        self.coalesces = Coalesces.ALL if tun.vnet else Coalesces(0)
        self._native: _native.TunHost | None = None  # of the session that runs

    @property
    def name(self) -> str:
        """The interface's name when it was made or found."""
        return self._tun.name

    @property
    def offloads(self) -> bool:
        """See `ringtun.host.Host`."""
        return self._tun.vnet

    def fileno(self) -> int:
        """See `ringtun.host.Host`."""
        return self._tun.fileno()

    def native(self) -> _native.Host:
        """See `ringtun.host.Host`."""
        from ringtun import _native

        self._native = _native.TunHost(self._tun.fileno(), self._tun.vnet, self.coalesces)
        return self._native

    def read_packet(self) -> bytes | None:
        """See `ringtun.host.Host`."""
        return self._tun.read_packet()

    def write_packet(self, packet: bytes) -> None:
        """See `ringtun.host.Host`."""
        self._tun.write_packet(packet)

    def connect(self, offload: bool) -> int:
        """See `ringtun.host.Host`. The interface runs a moment later."""
        try:
            if offload:
                self.coalesces = self._tun.offload(self.coalesces)
            else:
                self._tun.offload(Coalesces(0))
            drained = self._tun.drain()
            self._tun.carrier(True)
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise AdapterNotFound(
                    errno.ENODEV, f"adapter {self.name} was removed from the system"
                ) from error
            raise
        return drained

    def disconnect(self) -> None:
        """See `ringtun.host.Host`."""
        if self._native is not None:
            self.coalesces &= Coalesces(self._native.coalesces)
            self._native = None
        with suppress(OSError, ValueError):
            self._tun.carrier(False)
            # Whoever opens a persistent one next may not know of it.
            self._tun.offload(Coalesces(0))
