"""An ordinary user with no right at all, and the driver service that root ran."""

from __future__ import annotations

import ctypes
import grp
import os
import runpy
import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import ringtun

# What a user who may not read this virtual environment cannot load.
from ringtun import aio, session
from ringtun.control import automatic
from ringtun.device import service as device
from tests.children import NOBODY, PR_SET_DUMPABLE, as_ordinary_user
from tests.services import Service
from tests.system.programs import ROOT
from tests.system.sites import SOON
from tests.system.test_c_client import pings

pytestmark = [pytest.mark.kernel, as_ordinary_user]

LOADED = (aio, automatic, device, session)
EXAMPLES = ROOT / "examples"


@contextmanager
def as_nobody(program: Callable[[], object]) -> Iterator[int]:
    """Runs it in a forked child, as a user with one group; the block's end interrupts it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stdout = open(write, "w", closefd=False)  # noqa: SIM115 - as long as the child
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as exec() would
            signal.signal(signal.SIGINT, signal.default_int_handler)
            with suppress(KeyboardInterrupt):
                program()
            status = 0
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(status)
    os.close(write)
    try:
        with open(read, "rb", buffering=0) as said:
            assert select.select([said], [], [], SOON)[0], "it says nothing"
            assert said.readline(), "it ended without a word"
            yield child
            os.kill(child, signal.SIGINT)
            _, status = os.waitpid(child, 0)
            child = 0
            assert status == 0
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@pytest.fixture
def service() -> Iterator[Service]:
    group = grp.getgrgid(NOBODY).gr_name
    with TemporaryDirectory() as directory:  # those of pytest are root's alone
        os.chmod(directory, 0o755)
        with Service(Path(directory, "run"), "--group", group) as service:
            yield service


def test_an_example_runs_without_any_right(service: Service) -> None:
    with as_nobody(runpy.run_path(str(EXAMPLES / "echo.py"))["main"]):
        (info,) = ringtun.list_adapters(backend="service")
        assert (info.name, info.connected) == ("echo0", True)
        pings("10.7.0.9")
        pings("fd07::9")
    assert ringtun.list_adapters(backend="service") == []
    assert any("made for user nobody" in line for line in service.lines)
