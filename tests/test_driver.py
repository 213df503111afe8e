"""``ringtun driver`` as a service: what it says of itself."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import ringtun
from ringtun.cli import main
from tests.services import Service

pytestmark = pytest.mark.kernel


def ringtun_driver(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["driver", *arguments])
    return result.exit_code, result.stdout, result.stderr


# ---- status -------------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path / "run") as service:
        yield service


def test_status_names_the_adapters_there_are(service: Service) -> None:
    line = f"The driver service answers at {service.directory}/control: ringtun {{}}.\n"
    line = line.format(ringtun.__version__)
    assert ringtun_driver("status") == (0, line + "It has no adapter that you may open.\n", "")
    with ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"], backend="service"):
        status, said, errors = ringtun_driver("status")
    assert (status, errors) == (0, "")
    assert said.startswith(line + "You may open:\nNAME ")
    assert "\nvpn0  up, no session  10.7.0.1/24  1500 " in said


def test_status_as_json(service: Service) -> None:
    with ringtun.create_adapter("vpn0", backend="service") as adapter:
        status, said, errors = ringtun_driver("status", "--json")
        assert json.loads(said) == {
            "socket": f"{service.directory}/control",
            "version": ringtun.__version__,
            "adapters": [adapter.info().as_dict()],
        }
    assert (status, errors) == (0, "")


def test_status_of_another_directory(service: Service, tmp_path: Path) -> None:
    elsewhere = ["--runtime-directory", str(tmp_path / "none"), "status"]
    status, said, errors = ringtun_driver(*elsewhere)
    assert (status, said, errors.count("\n")) == (1, "", 1)
    assert errors.startswith(f"ringtun: no driver service answers at {tmp_path}/none/control")


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_status_after_a_kill(service: Service, arguments: list[str]) -> None:
    service.stop(signal.SIGKILL)
    status, said, errors = ringtun_driver("status", *arguments)
    assert (status, said, errors.count("\n")) == (1, "", 1)
    assert "Connection refused" in errors
    assert "start one, as root: ringtun driver" in errors


def test_status_of_what_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ringtun.control.service._STATUS_PATIENCE", 0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "control"))
        listener.listen()
        status, said, errors = ringtun_driver("--runtime-directory", str(tmp_path), "status")
    assert (status, said, errors.count("\n")) == (1, "", 1)
    assert "the driver service does not answer: timed out" in errors
