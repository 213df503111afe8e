"""A client in C, by nothing but the ring protocol: examples/c/echo.c at a driver service."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import ringtun
from tests.services import Service
from tests.system.programs import ROOT
from tests.system.sites import SOON, until

pytestmark = pytest.mark.kernel

ADDRESSES = ["10.7.0.1/24", "fd07::1/64"]


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, compiled as its own words say."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TRIED: it takes a C compiler")
    program = tmp_path_factory.mktemp("c") / "echo"
    flags = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    source = ROOT / "examples" / "c" / "echo.c"
    header = Path(ringtun.__file__).parent / "native"
    subprocess.run([compiler, *flags, f"-I{header}", "-o", program, source], check=True)
    return program


@contextmanager
def running(echo: Path, device: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([echo, device], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def pings(address: str) -> None:
    done = subprocess.run(
        ["ping", "-n", "-c", "20", "-i", "0.005", "-w", str(SOON), address],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert " 0% packet loss" in done.stdout, done.stdout + done.stderr


def test_it_answers_and_sees_every_end(echo: Path, tmp_path: Path) -> None:
    with Service(tmp_path / "run") as service:
        device = service.directory / "devices" / "echo0"
        with ringtun.create_adapter("echo0", addresses=ADDRESSES, backend="service") as adapter:
            with running(echo, device) as process:
                pings("10.7.0.9")
                pings("fd07::9")
                with pytest.raises(ringtun.AdapterBusy):
                    adapter.start_session()
                process.kill()
                process.wait(SOON)
            until(lambda: not adapter.info().connected)  # the first has gone, however it went
            with running(echo, device) as process:
                pings("10.7.0.9")
                ringtun.delete_adapter("echo0", backend="service")
                assert process.wait(SOON) == 0
        with (
            ringtun.create_adapter("echo0", addresses=ADDRESSES, backend="service"),
            running(echo, device) as process,
        ):
            service.stop(signal.SIGKILL)
            assert process.wait(SOON) == 0


def test_it_says_what_is_wrong(echo: Path, tmp_path: Path) -> None:
    done = subprocess.run([echo, tmp_path / "nothing"], capture_output=True, text=True)
    assert (done.returncode, "No such file" in done.stderr) == (1, True)
