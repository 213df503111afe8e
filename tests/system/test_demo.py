"""``ringtun demo`` as a whole: as root, without root, without a kernel TUN; and how it ends."""

from __future__ import annotations

import grp
import json
import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import ringtun
from tests.children import NOBODY, ONE_USER_ONLY
from tests.services import Service

DEMO = [sys.executable, "-c", "from ringtun.cli import main; main()", "demo"]
FIELDS = {
    "ok", "ringtun", "mode", "reason", "failures", "seconds", "left", "right",
    "ping_ipv4", "ping_ipv6", "tcp_ipv4", "tcp_ipv6", "udp_ipv4", "echo_ipv4", "echo_ipv6",
}  # fmt: skip

kernel = pytest.mark.kernel


def document(*argv: str, **options: Any) -> dict[str, Any]:
    """What a run that succeeds has in its JSON document."""
    done = subprocess.run(
        [*argv, "--json"], check=False, capture_output=True, text=True, timeout=60, **options
    )
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"]
    assert found["failures"] == {}
    assert set(found) == FIELDS
    return found


def check_kernel_run(found: dict[str, Any]) -> None:
    assert found["reason"] is None
    assert found["echo_ipv4"] is None
    for name in ("ping_ipv4", "ping_ipv6"):
        ping = found[name]
        assert ping["sent"] == ping["received"] == 10
        assert 0 < ping["rtt_min_ms"] <= ping["rtt_avg_ms"] <= ping["rtt_max_ms"]
    for name in ("tcp_ipv4", "tcp_ipv6"):
        tcp = found[name]
        assert tcp["sent_bytes"] == tcp["received_bytes"] > 1 << 20
        assert tcp["sent_sha256"] == tcp["received_sha256"]
        assert tcp["goodput_bits_per_second"] == pytest.approx(
            tcp["received_bytes"] * 8 / tcp["seconds"]
        )
    udp = found["udp_ipv4"]
    assert udp["arrived"] > 0
    assert udp["offered"] == udp["arrived"] + udp["lost"]
    assert udp["reordered"] == udp["duplicated"] == udp["damaged"] == 0
    for here, there in (("left", "right"), ("right", "left")):
        assert found[here]["adapter"] == found[here]["session"]
        assert found[here]["session"]["received_packets"] == found[there]["session"]["sent_packets"]
    crossed = found["left"]["session"]["received_bytes"]
    assert crossed > found["tcp_ipv4"]["received_bytes"] + udp["arrived"] * udp["payload_bytes"]


@kernel
def test_as_root_all_of_it_works() -> None:
    found = document(*DEMO, "--seconds", "1")
    assert found["mode"] == "root"
    check_kernel_run(found)
    assert found["seconds"] < 20


def test_in_memory_it_says_what_is_not_run() -> None:
    found = document(*DEMO, "--memory", "--seconds", "0.5")
    assert found["mode"] == "memory"
    for name in ("ping_ipv4", "ping_ipv6", "tcp_ipv4", "tcp_ipv6"):
        assert found[name] == {"not_run": "no kernel TUN"}
    for name in ("echo_ipv4", "echo_ipv6"):
        assert found[name]["sent"] == found[name]["received"] == 10
    assert found["udp_ipv4"]["offered"] == found["udp_ipv4"]["arrived"] == 10_000

    lines = subprocess.check_output([*DEMO, "--memory", "--seconds", "0.2"], text=True)
    assert "No kernel TUN: --memory asks for none." in lines
    assert lines.count("not run: no kernel TUN\n") == 4
    assert "discarded none" in lines


# ---- without root -------------------------------------------------------------------------------


def closed_to_others(path: Path) -> Path | None:
    """The topmost directory on the way to ``path`` that an ordinary user may not pass."""
    ways = [*reversed(path.parents), path]
    return next((way for way in ways if not way.stat().st_mode & 0o001), None)


def opened_to_others(scratch: Path) -> list[str]:
    """Shell commands that let any user reach this Python and this package, where they are."""
    needed = {
        Path(path).resolve()
        for path in (sys.base_prefix, sys.prefix, Path(ringtun.__file__).parents[1])
    }
    behind = {path: closed for path in needed if (closed := closed_to_others(path))}
    kept = {path: scratch / f"kept{number}" for number, path in enumerate(behind)}
    return [
        *(f"mkdir {keep}; mount -n --bind {path} {keep}" for path, keep in kept.items()),
        *(f"mount -n -t tmpfs -o mode=755 none {closed}" for closed in set(behind.values())),
        *(f"mkdir -p {path}; mount -n --bind {keep} {path}" for path, keep in kept.items()),
    ]


def as_nobody(scratch: Path, node_mode: str, *argv: str) -> list[str]:
    """A command that runs ``argv`` as an ordinary user, with a TUN node of that mode.

    What it mounts is seen by itself alone.
    """
    if ONE_USER_ONLY:
        pytest.skip("there is one user only in this user namespace")
    script = [
        "set -e",
        f"mount -n -t tmpfs -o mode=755 none {scratch}",
        f"mknod -m {node_mode} {scratch}/tun c 10 200",
        f"mount -n --bind {scratch}/tun /dev/net/tun",
        *opened_to_others(scratch),
        f"cd /; exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {shlex.join(argv)}",
    ]
    return ["unshare", "--mount", "sh", "-c", "\n".join(script), "sh"]


@kernel
def test_without_root_it_uses_a_user_namespace(tmp_path: Path) -> None:
    command = as_nobody(tmp_path, "666", *DEMO, "--seconds", "0.5", "--json")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    if found["mode"] == "memory":
        pytest.skip(f"THE KERNEL LETS USERS MAKE NO USER NAMESPACES: {found['reason']}")
    assert found["mode"] == "user-namespace"
    check_kernel_run(found)


@kernel
def test_without_a_right_to_the_node_it_runs_in_memory(tmp_path: Path) -> None:
    command = as_nobody(tmp_path, "600", *DEMO, "--seconds", "0.2", "--json")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["mode"] == "memory"
    assert found["reason"] == (
        "this user may not open /dev/net/tun; run as root, or allow it to everybody: "
        "chmod 0666 /dev/net/tun"
    )
    assert found["ping_ipv4"] == {"not_run": "no kernel TUN"}


@kernel
def test_with_a_driver_service_it_takes_no_right_to_the_node(tmp_path: Path) -> None:
    command = as_nobody(tmp_path, "600", *DEMO, "--seconds", "0.5", "--json")
    with TemporaryDirectory() as place:  # those of pytest are root's alone
        os.chmod(place, 0o755)
        group = grp.getgrgid(NOBODY).gr_name
        with Service(Path(place, "run"), "--group", group) as service:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    if found["mode"] == "memory" and "user_namespaces" in found["reason"]:
        pytest.skip(f"THE KERNEL LETS USERS MAKE NO USER NAMESPACES: {found['reason']}")
    assert found["mode"] == "user-namespace"
    check_kernel_run(found)
    assert sum("made for user nobody" in line for line in service.lines) == 2


@kernel
def test_where_namespaces_are_forbidden_it_runs_in_memory() -> None:
    """By the sysctl of a user namespace around it, in which it is root without any rights."""
    forbid = "echo 0 > /proc/sys/user/max_user_namespaces"
    script = f"{forbid} && exec setpriv --bounding-set=-all {shlex.join(DEMO)} --memory --json"
    script = script.replace("--memory ", "--seconds 0.2 ")
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", script]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    if "unshare" in done.stderr or "max_user_namespaces" in done.stderr:
        pytest.skip(f"a user namespace to forbid it in cannot be made: {done.stderr}")
    found = json.loads(done.stdout)
    assert (done.returncode, found["mode"]) == (0, "memory")
    assert "user.max_user_namespaces is 0" in found["reason"]


# ---- ping that is not there, or fails -----------------------------------------------------------


def path_with(directory: Path, **programs: str) -> dict[str, str]:
    """An environment whose PATH has nsenter and these shell scripts, and nothing else."""
    (directory / "nsenter").symlink_to(shutil.which("nsenter") or "/usr/bin/nsenter")
    for name, script in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)
    return {**os.environ, "PATH": str(directory)}


@kernel
def test_a_missing_ping_is_no_failure(tmp_path: Path) -> None:
    found = document(*DEMO, "--seconds", "0.2", env=path_with(tmp_path))
    assert found["ping_ipv4"] == {"not_run": "install iputils-ping"}
    assert found["tcp_ipv4"]["received_bytes"] > 0


@kernel
def test_a_ping_that_loses_everything_is_a_failure(tmp_path: Path) -> None:
    lost = path_with(tmp_path, ping="echo 10 packets transmitted, 0 received, 100% packet loss")
    command = [*DEMO, "--seconds", "0.2"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=lost)
    assert done.returncode == 1
    assert "ping IPv4 ->   0 of 10 answered, 100% lost\n" in done.stdout
    assert done.stderr == (
        "ringtun: the demonstration failed: "
        "ping IPv4 ->: none of 10 echo requests was answered; "
        "ping IPv6 ->: none of 10 echo requests was answered\n"
    )


# ---- a terminal ---------------------------------------------------------------------------------


def test_on_a_terminal_there_is_a_table_in_the_end() -> None:
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [*DEMO, "--memory", "--seconds", "0.3"]
    with subprocess.Popen(command, stdout=there, stderr=there, env=environment) as process:
        os.close(there)
        shown = b""
        with suppress(OSError), open(here, "rb", buffering=0) as terminal:
            while more := terminal.read(1 << 16):
                shown += more
    assert process.returncode == 0
    assert b"6,000 arrived" in shown
    assert shown.index("━".encode()) < shown.index(b"6,000 arrived")  # a bar, before the result
    assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is back


# ---- how it ends --------------------------------------------------------------------------------


class World:
    """The private world of a demonstration that runs: who is in it."""

    def __init__(self, pid: int) -> None:
        # Held open, so that its number is given to no other namespace.
        self._namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def processes(self) -> list[int]:
        """The process ids in it."""
        ours = os.fstat(self._namespace).st_ino
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/mnt").stat().st_ino == ours:
                    found.append(int(entry.name))
        return found

    def wait_until_empty(self, seconds: float) -> None:
        """Fails when there is still somebody after so long."""
        deadline = time.monotonic() + seconds
        while processes := self.processes():
            for pid in processes:
                with suppress(ProcessLookupError):
                    wait_for_end(pid, deadline)

    def close(self) -> None:
        os.close(self._namespace)


def wait_for_end(pid: int, deadline: float) -> None:
    process = os.pidfd_open(pid)
    try:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([process], [], [], left)[0]:
            pytest.fail(f"it lives on: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
    finally:
        os.close(process)


@contextmanager
def running(seen: str) -> Iterator[tuple[subprocess.Popen[str], World]]:
    """A demonstration, once it has printed a line that begins so; nothing is left of it after."""
    with subprocess.Popen(
        [*DEMO, "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert any(line.startswith(seen) for line in process.stdout)
        world = World(process.pid)
        try:
            assert len(world.processes()) > 1
            yield process, world
            world.wait_until_empty(10)
        finally:
            process.kill()
            world.close()


MOMENTS = pytest.mark.parametrize("seen", ["ringtun", "ping IPv4", "ping IPv6", "TCP IPv6"])


@kernel
@MOMENTS
def test_ctrl_c_leaves_nothing(seen: str) -> None:
    with running(seen) as (process, _):
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""


@kernel
def test_ctrl_c_reaches_no_child_before_it() -> None:
    with running("ping IPv6") as (process, world):
        assert {os.getpgid(pid) for pid in world.processes()} != {process.pid}
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


@kernel
def test_a_request_to_end_leaves_nothing() -> None:
    with running("ping IPv4") as (process, _):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert process.stderr.read() == ""


@kernel
@MOMENTS
def test_when_it_is_killed_its_children_end(seen: str) -> None:
    with running(seen) as (process, world):
        process.kill()
        process.wait()
        world.wait_until_empty(10)
