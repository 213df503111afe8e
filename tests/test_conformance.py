"""Every backend passes both suites: sessions, and raw rings with registration."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from ringtun.testing import Impairment
from ringtun.testing.conformance import RingConformance, SessionConformance
from tests.backends import KernelBackend, MemoryBackend, RawKernelBackend, RawMemoryBackend

plain_python = [
    pytest.mark.usefixtures("pure_python"),
    pytest.mark.filterwarnings("ignore:packets are moved by plain Python:RuntimeWarning"),
]


class TestMemoryInline(SessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with closing(MemoryBackend("inline")) as backend:
            yield backend


class TestMemoryThread(SessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with closing(MemoryBackend("thread")) as backend:
            yield backend


class TestMemoryPython(TestMemoryInline):
    pytestmark = plain_python


class TestImpairedInline(SessionConformance):
    """Nothing is the matter with the packets, but they take the way of those that are impaired."""

    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with closing(MemoryBackend("inline", Impairment())) as backend:
            yield backend


class TestImpairedThread(SessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[MemoryBackend]:
        with closing(MemoryBackend("thread", Impairment())) as backend:
            yield backend


class TestImpairedPython(TestImpairedInline):
    pytestmark = plain_python


@pytest.mark.kernel
class TestKernelInline(SessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[KernelBackend]:
        with closing(KernelBackend("inline")) as backend:
            yield backend


@pytest.mark.kernel
class TestKernelThread(SessionConformance):
    @pytest.fixture
    def backend(self) -> Iterator[KernelBackend]:
        with closing(KernelBackend("thread")) as backend:
            yield backend


@pytest.mark.kernel
class TestKernelPython(TestKernelInline):
    pytestmark = plain_python


class TestRawMemoryInline(RingConformance):
    @pytest.fixture
    def backend(self) -> Iterator[RawMemoryBackend]:
        with closing(RawMemoryBackend("inline")) as backend:
            yield backend


class TestRawMemoryThread(RingConformance):
    @pytest.fixture
    def backend(self) -> Iterator[RawMemoryBackend]:
        with closing(RawMemoryBackend("thread")) as backend:
            yield backend


class TestRawMemoryPython(TestRawMemoryInline):
    pytestmark = plain_python


@pytest.mark.kernel
class TestRawKernelInline(RingConformance):
    @pytest.fixture
    def backend(self) -> Iterator[RawKernelBackend]:
        with closing(RawKernelBackend("inline")) as backend:
            yield backend


@pytest.mark.kernel
class TestRawKernelThread(RingConformance):
    @pytest.fixture
    def backend(self) -> Iterator[RawKernelBackend]:
        with closing(RawKernelBackend("thread")) as backend:
            yield backend


@pytest.mark.kernel
class TestRawKernelPython(TestRawKernelInline):
    pytestmark = plain_python
