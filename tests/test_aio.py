"""asyncio sessions pass their suite on every backend, on asyncio's own loop and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing

import pytest
import uvloop

from ringtun.aio import AsyncSession
from ringtun.device.embedded import EmbeddedDevice
from ringtun.testing.conformance import AsyncSessionConformance
from tests.backends import KernelBackend, MemoryBackend

plain_python = [
    pytest.mark.usefixtures("pure_python"),
    pytest.mark.filterwarnings("ignore:packets are moved by plain Python:RuntimeWarning"),
]


class AsyncBackend:
    """A backend whose sessions are asyncio's."""

    def __init__(self, backend: MemoryBackend | KernelBackend) -> None:
        self._backend = backend
        self.host = backend.host

    def start_session(self, *, capacity: int = 4 << 20, spin: float = 0.0) -> AsyncSession:
        device = EmbeddedDevice(self._backend.adapter._driver, self._backend._pump)
        return AsyncSession(device, capacity, spin=spin)

    def remove(self) -> None:
        self._backend.remove()

    def close(self) -> None:
        self._backend.close()


class TestMemoryInline(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(MemoryBackend("inline"))) as backend:
            yield backend


class TestMemoryThread(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(MemoryBackend("thread"))) as backend:
            yield backend


class TestMemoryPython(TestMemoryInline):
    pytestmark = plain_python


@pytest.mark.kernel
class TestKernelInline(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(KernelBackend("inline"))) as backend:
            yield backend


@pytest.mark.kernel
class TestKernelThread(AsyncSessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[AsyncBackend]:
        with closing(AsyncBackend(KernelBackend("thread"))) as backend:
            yield backend


class OnUvloop:
    @staticmethod
    def new_event_loop() -> asyncio.AbstractEventLoop:
        return uvloop.new_event_loop()


class TestMemoryInlineUvloop(OnUvloop, TestMemoryInline):
    pass


class TestMemoryThreadUvloop(OnUvloop, TestMemoryThread):
    pass


@pytest.mark.kernel
class TestKernelInlineUvloop(OnUvloop, TestKernelInline):
    pass


@pytest.mark.kernel
class TestKernelThreadUvloop(OnUvloop, TestKernelThread):
    pass
