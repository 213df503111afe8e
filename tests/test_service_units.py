"""The units for systemd, as far as can be told where systemd does not run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ringtun
from ringtun.service import installation
from ringtun.testing.conformance import packet
from ringtun.testing.netns import NetworkNamespace
from tests.services import Service

ROOT = Path(__file__).parents[1]
UNITS = ROOT / "packaging" / "systemd"

with_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="NOT TRIED: install systemd"
)


def analyze(*arguments: str) -> str:
    done = subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@with_systemd
def test_the_service_is_hardened() -> None:
    threshold = ("--offline=true", "--threshold=20")
    said = analyze("security", *threshold, str(UNITS / "ringtun.service"))
    assert "Overall exposure level for ringtun.service: 1." in said


@with_systemd
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """As installed, with a program that is here."""
    list(installation.install(tmp_path, program=sys.executable))
    units = [str(path) for path in (tmp_path / "etc/systemd/system").iterdir()]
    assert len(units) == 2
    assert analyze("verify", "--man=no", *units) == ""


@with_systemd
def test_the_user_can_be_made(tmp_path: Path) -> None:
    list(installation.install(tmp_path))
    done = subprocess.run(["systemd-sysusers", "--root", tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search("^ringtun:", (tmp_path / "etc/passwd").read_text(), re.M)
    assert re.search("^ringtun:", (tmp_path / "etc/group").read_text(), re.M)


# ---- system calls -------------------------------------------------------------------------------


def expand(group: str) -> Iterator[str]:
    """The system calls of one of systemd's groups, "@" and a name."""
    for word in analyze("syscall-filter", group).splitlines()[1:]:
        word = word.split("#")[0].strip()
        if word.startswith("@"):
            yield from expand(word)
        elif word:
            yield word


def allowed() -> set[str]:
    """What the service's filter lets through: the first line allows, a tilde takes away."""
    calls = set(expand("@default"))
    unit = (UNITS / "ringtun.service").read_text()
    for line in re.findall(r"^SystemCallFilter=(.*)", unit, re.M):
        groups = {call for group in line.lstrip("~").split() for call in expand(group)}
        calls = calls - groups if line.startswith("~") else calls | groups
    return calls


@pytest.mark.kernel
@with_systemd
@pytest.mark.skipif(shutil.which("strace") is None, reason="NOT TRIED: install strace")
def test_it_makes_no_call_that_its_filter_forbids(tmp_path: Path) -> None:
    traced = tmp_path / "calls"
    strace = ("strace", "-D", "-f", "-qq", "-s0", "-o", str(traced))
    if subprocess.run([*strace, "true"], capture_output=True).returncode:
        pytest.skip("NOT TRIED: nothing can be traced here")
    configuration = tmp_path / "driver.toml"
    configuration.write_text('group = 0\n[[adapter]]\nname = "conf1"\naddresses = ["fd09::1/64"]\n')
    try:
        for _ in range(2):
            with Service(tmp_path / "run", "--config", str(configuration), before=strace):
                with (
                    ringtun.create_adapter("vpn0", persist=True, exist_ok=True) as adapter,
                    adapter.start_session() as session,
                ):
                    session.send(packet(1))
                    adapter.configure(mtu=1300, addresses=["10.7.0.1/24", "fd07::1/64"])
                    adapter.statistics()
                ringtun.create_adapter("vpn1").close()
                with NetworkNamespace("there"):
                    ringtun.create_adapter("vpn1", netns="there", backend="service").close()
        calls = set(re.findall(r"^\d+ +(\w+)\(", traced.read_text(), re.M))
    finally:
        ringtun.delete_adapter("vpn0", backend="embedded", missing_ok=True)
    assert {"ioctl", "sendmsg", "chown"} <= calls
    assert calls - allowed() == set()
