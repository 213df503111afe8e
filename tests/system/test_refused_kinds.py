"""A kernel that does not take a kind of large packet, though it said so: it is not asked again, and
everybody learns of it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ringtun.device.embedded import Pump
from ringtun.testing.netns import NetworkNamespace
from tests.system.programs import ROOT, Program

GSO_TCPV4, GSO_UDP_L4 = 1, 5  # linux/virtio_net.h


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to be preloaded, which refuses them as such a kernel would."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NOT TRIED: it takes a C compiler")
    library = tmp_path_factory.mktemp("refusing") / "refuse.so"
    source = ROOT / "tests" / "native" / "refuse.c"
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", library, source, "-ldl"], check=True)
    return library


def preloaded(library: Path, gso_type: int) -> list[str]:
    return ["env", f"LD_PRELOAD={library}", f"REFUSED_GSO_TYPE={gso_type}"]


def offload(network: NetworkNamespace) -> dict[str, bool]:
    """As another process sees it."""
    shown = network.run(sys.executable, "-m", "ringtun", "show", "vpn0", "--json").stdout
    found: dict[str, bool] = json.loads(shown)["offload"]
    return found


@pytest.mark.parametrize(
    ("gso_type", "kinds", "left"),
    [
        (GSO_UDP_L4, 2, {"checksum": True, "tcp": True, "udp": False}),
        (GSO_TCPV4, 1, {"checksum": True, "tcp": False, "udp": True}),
    ],
)
def test_it_is_shown_while_the_session_runs(
    network: NetworkNamespace,
    refusing: Path,
    pump: Pump,
    gso_type: int,
    kinds: int,
    left: dict[str, bool],
) -> None:
    with Program("merge", "vpn0", pump, through=network.command()) as program:
        large = int(program.line())
        if large != 4:
            pytest.skip("NOT TRIED: this kernel itself takes no UDP merged")
        assert offload(network) == {"checksum": True, "tcp": True, "udp": True}
    through = network.command(*preloaded(refusing, gso_type))
    with Program("merge", "vpn0", pump, through=through) as program:
        assert int(program.line()) == 4 - kinds
        assert offload(network) == left


def test_doctor_finds_it(refusing: Path) -> None:
    done = subprocess.run(
        [*preloaded(refusing, GSO_UDP_L4), sys.executable, "-m", "ringtun", "doctor", "--json"],
        capture_output=True,
        text=True,
    )
    (found,) = [each for each in json.loads(done.stdout) if each["check"] == "offload"]
    assert found["status"] == "warning"
    assert "Large packets are of TCP alone" in found["message"]
