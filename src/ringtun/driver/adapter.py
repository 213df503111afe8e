"""One adapter in the driver: its host, its life, its open handles, and at most one registration."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ringtun import abi
from ringtun.abi import Status
from ringtun.driver.engine import Engine, EngineEnd, can_offload, make_engine
from ringtun.driver.lifecycle import AdapterState, LifeEvent, next_state
from ringtun.driver.registration import Refusal, Registration, accept
from ringtun.errors import AdapterNotFound
from ringtun.statistics import Discards, Statistics

if TYPE_CHECKING:
    from ringtun._native import Space
    from ringtun.host import Host

__all__ = ["DriverAdapter", "Handle"]

# What a client put into its ring before it closed still goes out, if the host takes it at once.
_LAST_STEPS = 1 << 16


class DriverAdapter:
    """An adapter, its host owned. All that clients do comes through a `Handle` from `open`.

    Calls may come from any thread.
    """

    def __init__(self, name: str, host: Host) -> None:
        self.name = name
        self._host = host
        self._lock = threading.RLock()
        self._state = AdapterState.CREATED
        self._owner: Handle | None = None
        self._holders = 1
        self._past = Statistics()

    @property
    def host(self) -> Host:
        """Where its packets come from and go to; the adapter's own."""
        return self._host

    @property
    def state(self) -> AdapterState:
        """Where it is in its life."""
        return self._state

    def open(self) -> Handle:
        """A handle on the device, as good as any other; close it.

        Raises `AdapterNotFound` where the interface is gone.
        """
        with self._lock:
            self._check_there()
            return Handle(self)

    def hold(self) -> DriverAdapter:
        """One holder more, beside the one that made it; each calls `let_go` once.

        Raises `AdapterNotFound` where the last one has just let go.
        """
        with self._lock:
            self._check_there()
            self._holders += 1
        return self

    def let_go(self) -> bool:
        """One holder less; with the last one the adapter is removed. Returns whether it was."""
        with self._lock:
            self._holders -= 1
            if self._holders:
                return False
            self.remove()
            return True

    def remove(self) -> None:
        """The end of the adapter: a session on it ends, and the host is closed. Idempotent."""
        with self._lock:
            if self._owner is not None:
                self._owner._end(EngineEnd.REMOVED)
            self._happened(LifeEvent.REMOVED)
            self._host.close()

    def statistics(self) -> Statistics:
        """Over all sessions so far."""
        with self._lock:
            owner = self._owner
            running = owner is not None and owner._final is None
            return self._past + owner.statistics() if owner and running else self._past

    def _check_there(self) -> None:
        if self._state is AdapterState.REMOVED:
            raise AdapterNotFound(errno.ENODEV, f"adapter {self.name} was removed")

    def _happened(self, event: LifeEvent) -> bool:
        following = next_state(self._state, event)
        if following is not None:
            self._state = following
        return following is not None


class Handle:
    """The driver's side of an open device; one of an adapter's handles may register rings."""

    def __init__(self, adapter: DriverAdapter) -> None:
        self._adapter = adapter
        self._engine: Engine | None = None
        self._registration: Registration | None = None
        self._options = abi.Options(0)
        self._drained = 0
        self._drops_before = 0
        self._final: Statistics | None = None

    @property
    def engine(self) -> Engine:
        """The engine of this handle's registration, also after its end.

        Raises ``ValueError`` where there never was one.
        """
        if self._engine is None:
            raise ValueError("no rings are registered on this handle")
        return self._engine

    def set_options(self, code: int, payload: bytes) -> None:
        """Take what a client asks for of the session that it will register.

        Raises `Refusal`; nothing has changed then.
        """
        with self._adapter._lock:
            if code != abi.IOCTL_SET_OPTIONS or self._engine is not None:
                raise Refusal(Status.INVALID_DEVICE_REQUEST, f"request 0x{code:08X} is not for now")
            if len(payload) != abi.SET_OPTIONS_SIZE:
                raise Refusal(
                    Status.INVALID_PARAMETER,
                    f"options have {abi.SET_OPTIONS_SIZE} bytes, not {len(payload)}",
                )
            bits = int.from_bytes(payload, sys.byteorder)
            if bits & ~sum(abi.Options):
                raise Refusal(Status.INVALID_PARAMETER, f"there are no options 0x{bits:08X}")
            options = abi.Options(bits)
            if options & abi.Options.WHOLE_PACKETS and not (
                can_offload() and self._adapter._host.offloads
            ):
                raise Refusal(Status.NOT_SUPPORTED, "whole packets are not to be had here")
            self._options = options

    def register(
        self,
        code: int,
        payload: bytes,
        descriptors: Sequence[int],
        *,
        threads: bool = False,
        to_client_space: Space | None = None,
        to_host_space: Space | None = None,
        spin: float = 0.0,
        foreign: bool = False,
        allow_holes: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Take an offer of rings, and connect the adapter: it returns once packets flow.

        ``threads`` that have moved packets look for more for ``spin`` seconds before they wait.
        ``foreign``: it is another process's, which takes ``threads``. ``allow_holes`` as `accept`
        has it.

        Raises `Refusal`, and what the host raises; the adapter is as it was then.
        """
        adapter = self._adapter
        with adapter._lock:
            adapter._check_there()
            if next_state(adapter._state, LifeEvent.REGISTERED) is None:
                raise Refusal(
                    Status.ALREADY_INITIALIZED, f"rings are registered on {adapter.name} already"
                )
            if self._engine is not None:
                raise Refusal(
                    Status.INVALID_DEVICE_REQUEST,
                    "this handle had its registration: open the device again",
                )
            registration = accept(code, payload, descriptors, allow_holes=allow_holes)
            engine = None
            try:
                self._drained = adapter._host.connect(can_offload())
                self._drops_before = adapter._host.queue_drops()
                engine = make_engine(
                    adapter._host,
                    registration,
                    threads=threads,
                    to_client_space=to_client_space,
                    to_host_space=to_host_space,
                    options=self._options,
                    spin=spin,
                    foreign=foreign,
                )
                self._engine, self._registration, adapter._owner = engine, registration, self
                adapter._happened(LifeEvent.REGISTERED)
            except BaseException:
                self._engine = self._registration = adapter._owner = None
                if engine is not None:
                    engine.close()
                adapter._host.disconnect()
                registration.close()
                raise

    def statistics(self) -> Statistics:
        """Of this handle's registration so far; zeros where there is none."""
        with self._adapter._lock:
            if self._final is not None:
                return self._final
            if self._engine is None:
                return Statistics()
            host = self._adapter._host
            received, sent = self._engine.counters()
            drops = max(0, host.queue_drops() - self._drops_before)
            return Statistics(
                received_packets=received["packets"],
                received_bytes=received["bytes"],
                sent_packets=sent["packets"],
                sent_bytes=sent["bytes"],
                split=received["large"],
                merged=sent["large"],
                discards=Discards(
                    host_queue_full=drops,
                    drained=self._drained,
                    invalid_head=received["invalid_head"],
                    too_big=received["too_big"],
                    not_ip_from_host=received["not_ip"],
                    not_ip_from_client=sent["not_ip"],
                    malformed=received["malformed"] + sent["malformed"],
                    host_down=sent["host_down"],
                    refused=sent["refused"],
                    no_memory=sent["no_memory"],
                ),
                wakeups=self._engine.wakeups,
            )

    def close(self) -> None:
        """Close the handle; with it goes its registration, if it has one. Idempotent."""
        with self._adapter._lock:
            self._end(EngineEnd.CLOSED)

    def abandon(self) -> None:
        """In a forked child: give back what this process holds of the registration."""
        if self._engine is not None and self._registration is not None:
            self._engine.abandon()
            self._registration.close()

    def _end(self, reason: EngineEnd) -> None:
        """End the registration, under the adapter's lock.

        Each step may be done again: an exception from a signal may come between any two.
        """
        adapter, engine, registration = self._adapter, self._engine, self._registration
        if engine is None or registration is None:
            return
        if reason is EngineEnd.CLOSED:
            engine.step_to_host(_LAST_STEPS)
        engine.end(reason)
        if self._final is None:
            self._final = self.statistics()
            adapter._past += self._final
        adapter._host.disconnect()
        engine.close()
        registration.close()
        if adapter._owner is self:
            adapter._owner = None
            adapter._happened(LifeEvent.RELEASED)
        self._registration = None

    def __del__(self) -> None:
        if self._registration is not None:
            self.close()
