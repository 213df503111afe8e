"""The fixture `windows`: a Windows to install on, for the tests that ask for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from tests.installer.windows import Windows, why_not

__all__ = ["kept_windows", "windows"]


class _Kept:
    """A Windows for one test after another, and a new one after a test that left something."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._stack = ExitStack()
        self._windows: Windows | None = None

    def get(self) -> Windows:
        if self._windows is None:
            windows = Windows(self._factory.mktemp("windows"))
            self._windows = self._stack.enter_context(closing(windows))
        return self._windows

    def close(self) -> None:
        self._stack.close()
        self._windows = None


@pytest.fixture(scope="session")
def kept_windows(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Kept]:
    with closing(_Kept(tmp_path_factory)) as kept:
        yield kept


@pytest.fixture
def windows(kept_windows: _Kept) -> Iterator[Windows]:
    """A Windows without anything installed, which has to be left so."""
    why = why_not()
    if why:
        pytest.skip(why)
    windows = kept_windows.get()
    yield windows
    left = windows.left()
    if left:
        kept_windows.close()
    assert left == []
