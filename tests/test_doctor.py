"""The doctor's checks, each on a machine that is made up or on this one; and how they are shown."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

import ringtun
import ringtun.cli.doctor
from ringtun.cli import main
from ringtun.doctor import Finding, adapters, network, system, trial
from ringtun.host.namespace import Namespace
from tests.children import NOBODY, as_ordinary_user, raised_in_child


def one(findings: Iterator[Finding]) -> Finding:
    (finding,) = findings
    return finding


def sysctls(place: Path, **settings: object) -> Path:
    """A made-up /proc/sys: ``net__ipv4__ip_forward=1``."""
    for name, value in settings.items():
        path = place / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return place


# ---- the machine and the process ----------------------------------------------------------------


@pytest.mark.parametrize("release", ["5.10.0", "5.10-rc1", "6.1.0-rpi7-rpi-v8", "10.0", "odd"])
def test_kernels_that_do(release: str) -> None:
    assert system.kernel(release) == Finding("kernel", "ok", f"The kernel is {release}.")


@pytest.mark.parametrize("release", ["5.9.16", "4.19.0-21-amd64", "5.4"])
def test_kernels_that_are_too_old(release: str) -> None:
    found = system.kernel(release)
    assert (found.status, found.cure) == ("warning", "Run a newer kernel")
    assert release in found.message


def test_this_kernel() -> None:
    assert os.uname().release in system.kernel().message


def test_the_native_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert system.native_core(True).status == "ok"
    monkeypatch.setattr(system, "twin_works_here", lambda: True)
    assert system.native_core(False).status == "warning"
    assert "many times slower" in system.native_core(False).message
    monkeypatch.setattr(system, "twin_works_here", lambda: False)
    assert system.native_core(False).status == "problem"
    assert "compiler" in (system.native_core(False).cure or "")


def test_a_node_that_is_not_there(tmp_path: Path) -> None:
    found = system.node(tmp_path / "tun")
    assert (found.status, found.message) == ("problem", f"There is no {tmp_path}/tun.")
    assert "modprobe tun" in (found.cure or "")


def test_a_node_that_opens(tmp_path: Path) -> None:
    (tmp_path / "tun").touch()
    assert system.node(tmp_path / "tun").status == "ok"


def as_nobody(check: Callable[[], Finding]) -> str:
    """What a check says to an ordinary user, in a child."""

    def call() -> None:
        raise AssertionError(check())

    return raised_in_child(call, user=NOBODY)


@as_ordinary_user
def test_a_node_that_is_closed_to_the_user(tmp_path: Path) -> None:
    for directory in (tmp_path, *tmp_path.parents):
        if directory == Path(tempfile.gettempdir()):
            break
        directory.chmod(0o755)
    node = tmp_path / "tun"
    node.touch()
    node.chmod(0o600)
    said = as_nobody(lambda: system.node(node))
    assert "status='problem'" in said
    assert (
        f"{node} is closed to user nobody: its mode is 0600, its owner user 0 and group 0" in said
    )
    assert f"chmod 0666 {node}" in said


@pytest.mark.parametrize(
    ("code", "message", "cure"),
    [
        (errno.EPERM, "The container or service", "docker --device /dev/net/tun"),
        (errno.ENODEV, "the kernel has no TUN driver", "modprobe tun"),
        (errno.ENXIO, "the kernel has no TUN driver", "modprobe tun"),
        (errno.EIO, "does not open: Input/output error", "modprobe tun"),
    ],
)
def test_nodes_that_the_kernel_refuses(
    monkeypatch: pytest.MonkeyPatch, code: int, message: str, cure: str
) -> None:
    def refuse(path: object, flags: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", refuse)
    found = system.node()
    assert found.status == "problem"
    assert message in found.message
    assert cure in (found.cure or "")


def test_user_namespaces_that_are_forbidden(tmp_path: Path) -> None:
    allowed = sysctls(tmp_path, user__max_user_namespaces=100, kernel__unprivileged_userns_clone=1)
    assert one(system.user_namespaces(allowed)).status == "ok"
    forbidden = sysctls(
        tmp_path,
        user__max_user_namespaces=0,
        kernel__unprivileged_userns_clone=0,
        kernel__apparmor_restrict_unprivileged_userns=1,
    )
    found = list(system.user_namespaces(forbidden))
    assert {finding.status for finding in found} == {"warning"}
    assert [finding.cure for finding in found] == [
        "sysctl -w user.max_user_namespaces=10000",
        "sysctl -w kernel.unprivileged_userns_clone=1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ]


@pytest.mark.world
def test_rights_of_root() -> None:
    assert system.rights().status == "ok"


@as_ordinary_user
def test_rights_of_an_ordinary_user() -> None:
    said = as_nobody(system.rights)
    assert "status='warning'" in said
    assert "may not make adapters here, for want of CAP_NET_ADMIN" in said
    assert "ringtun create NAME --owner nobody" in said


@pytest.mark.world
def test_capabilities_in_a_user_namespace_do_not_reach_outside() -> None:
    """Root in a user namespace of its own, which does not own the network namespace."""
    program = "from ringtun.doctor.system import has_net_admin; print(has_net_admin())"
    for options, expected in ((["-Ur"], "False"), (["-Urn"], "True")):
        command = ["unshare", *options, sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "unshare" in done.stderr:
            pytest.skip(f"NO USER NAMESPACE CAN BE MADE HERE: {done.stderr}")
        assert (done.stdout, done.stderr) == (f"{expected}\n", "")


# ---- the trial ----------------------------------------------------------------------------------


@pytest.mark.kernel
def test_an_adapter_is_tried_and_nothing_of_it_is_left() -> None:
    before = Path("/proc/self/net/dev").read_text().count(":")
    found, offload = trial.trial()
    assert (found.check, found.status, found.cure) == ("trial", "ok", None)
    assert "a packet came through it" in found.message
    assert offload.check == "offload"
    assert offload.status in ("ok", "warning")
    assert Path("/proc/self/net/dev").read_text().count(":") == before


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("exit 3", "was to try an adapter failed: exit status 3."),
        ("echo 'Traceback' >&2; echo 'ImportError: no' >&2", "failed: ImportError: no."),
        ("exec sleep 1000", "did not end within 0.2 s."),
    ],
)
def test_a_trial_that_goes_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, message: str
) -> None:
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setattr(trial, "TIMEOUT", 0.2 if "sleep" in program else 20.0)
    found = one(trial.trial())
    assert (found.check, found.status) == ("trial", "problem")
    assert found.message.endswith(message)
    assert "-m ringtun.doctor.trial" in (found.cure or "")


def test_errors_of_the_trial_are_told_with_their_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise ringtun.DriverUnavailable(errno.ENODEV, "there is no TUN driver here; load it with X")

    monkeypatch.setattr("ringtun.testing.netns.enter_private_world", lambda: None)
    monkeypatch.setattr(ringtun, "create_adapter", refused)
    assert one(trial._try_it()) == Finding(
        "trial",
        "problem",
        "No adapter could be made in a private namespace: there is no TUN driver here.",
        "load it with X",
    )


def test_where_no_namespace_can_be_made_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise PermissionError(1, "cannot make a private network namespace (No): run as root")

    monkeypatch.setattr("ringtun.testing.netns.enter_private_world", refuse)
    assert one(trial._try_it()) == Finding(
        "trial",
        "warning",
        "No adapter was tried, since this process cannot make a private network namespace (No).",
        "Run as root",
    )


@pytest.mark.parametrize(
    ("native", "tcp", "udp", "status", "message", "cure"),
    [
        (True, True, True, "ok", "takes, large packets of TCP and UDP.", None),
        (True, True, False, "warning", "of TCP alone: this kernel takes no UDP", "Linux 6.2"),
        (True, False, False, "warning", "There is no offload", "Run a newer kernel"),
        (False, False, False, "warning", "There is no offload", "see native-core"),
    ],
)
def test_what_was_negotiated(
    native: bool, tcp: bool, udp: bool, status: str, message: str, cure: str | None
) -> None:
    found = trial._judge(native=native, tcp=tcp, udp=udp)
    assert (found.check, found.status) == ("offload", status)
    assert message in found.message
    assert (cure or "") in (found.cure or "")
    assert (cure is None) == (found.cure is None)


@pytest.mark.kernel
def test_what_is_looked_at_is_the_session_that_runs() -> None:
    with ringtun.create_adapter("vpn0") as adapter:
        assert "no offload" in trial._offload(adapter).message
        with adapter.start_session():
            assert "large packets" in trial._offload(adapter).message.lower()


# ---- the network namespace ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("for_all", "vpn0", "default", "strict"),
    [
        (0, 0, 0, []),
        (0, 1, 0, ["vpn0"]),
        (1, 0, 0, ["vpn0", "default"]),
        (1, 2, 0, ["default"]),
        (2, 1, 1, []),
        (0, 0, 1, ["default"]),
    ],
)
def test_strict_reverse_path_filters(
    tmp_path: Path, for_all: int, vpn0: int, default: int, strict: list[str]
) -> None:
    settings = sysctls(
        tmp_path,
        net__ipv4__conf__all__rp_filter=for_all,
        net__ipv4__conf__vpn0__rp_filter=vpn0,
        net__ipv4__conf__default__rp_filter=default,
    )
    found = list(network.reverse_path_filter(["vpn0"], settings))
    if not strict:
        assert one(iter(found)).status == "ok"
    else:
        assert {finding.status for finding in found} == {"warning"}
        assert [finding.cure for finding in found] == [
            f"sysctl -w net.ipv4.conf.{name}.rp_filter=2" for name in strict
        ]


def test_the_sysctl_of_an_interface_with_a_dot(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, net__ipv6__conf__default__disable_ipv6=0)
    dotted = settings / "net/ipv6/conf/vpn.1/disable_ipv6"
    dotted.parent.mkdir()
    dotted.write_text("1\n")
    found = one(network.ipv6(["vpn.1"], settings))
    assert found.message == "IPv6 is disabled for adapter vpn.1."
    assert found.cure == "sysctl -w net/ipv6/conf/vpn.1/disable_ipv6=0"


def test_ipv6_that_is_not_there(tmp_path: Path) -> None:
    found = one(network.ipv6([], tmp_path))
    assert found.status == "warning"
    assert "without IPv6" in found.message


def test_ipv6_that_is_disabled_for_new_interfaces(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, net__ipv6__conf__default__disable_ipv6=1)
    found = one(network.ipv6([], settings))
    assert found.message == "IPv6 is disabled for new interfaces."
    assert found.cure == "sysctl -w net.ipv6.conf.default.disable_ipv6=0"


@pytest.mark.world
def test_settings_of_this_namespace() -> None:
    """Those that every Linux has are found where they are looked for."""
    for path in ("net/ipv4/conf/default/rp_filter", "net/ipv4/ip_forward"):
        assert (network.SYSCTLS / path).exists()
    switch = network.SYSCTLS / "net/ipv4/conf/all/rp_filter"
    before = switch.read_text()
    try:
        switch.write_text("1")
        assert [f.status for f in network.reverse_path_filter([])] == ["warning"]
    finally:
        switch.write_text(before)


def test_forwarding_is_only_told(tmp_path: Path) -> None:
    settings = sysctls(tmp_path, net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=0)
    found = network.forwarding(settings)
    assert (found.status, found.cure) == ("ok", None)
    assert found.message == (
        "The kernel does not forward IPv6 between interfaces; a gateway needs "
        "net.ipv6.conf.all.forwarding=1."
    )
    sysctls(tmp_path, net__ipv6__conf__all__forwarding=1)
    assert "forwards IPv4 and IPv6" in network.forwarding(settings).message


# ---- adapters -----------------------------------------------------------------------------------

INFO = ringtun.AdapterInfo(
    name="vpn0",
    ifindex=7,
    guid=uuid.UUID(int=5),
    mtu=1500,
    addresses=(),
    up=True,
    connected=False,
    persistent=True,
    owner=None,
    group=None,
    txqueuelen=5000,
    host_drops=0,
    backend="embedded",
)
HERE = Namespace.current()


def test_queues() -> None:
    assert one(adapters.queues([INFO])).message == (
        "Of 1 TUN adapter here, none with a queue that is too short."
    )
    assert one(adapters.queues([])).status == "ok"
    assert one(adapters.queues([replace(INFO, txqueuelen=1000)])).status == "ok"
    found = one(adapters.queues([INFO, replace(INFO, name="tun1", txqueuelen=500)]))
    assert (found.check, found.status) == ("queue", "warning")
    assert found.message == (
        "Adapter tun1 queues 500 packets: at 1 Gbit/s a pause of 6 ms in its program loses "
        "packets of 1,500 bytes."
    )
    assert found.cure == "ip link set tun1 txqueuelen 5000"


def test_drops() -> None:
    assert one(adapters.drops([INFO])).status == "ok"
    found = one(adapters.drops([replace(INFO, host_drops=12345), INFO]))
    assert (found.check, found.status) == ("drops", "warning")
    assert "dropped 12,345 packets for adapter vpn0" in found.message
    assert "txqueuelen 10000" in (found.cure or "")


def test_an_adapter_that_is_not_there() -> None:
    found = one(adapters.one("vpn1", [INFO], HERE))
    assert (found.check, found.status) == ("adapter", "problem")
    assert found.message == "There is no TUN adapter 'vpn1' in this network namespace."
    assert "ringtun create vpn1" in (found.cure or "")


def test_an_adapter_that_may_be_opened() -> None:
    found = one(adapters.one("vpn0", [INFO], HERE))
    assert found.status == "ok"
    assert found.message == "Adapter vpn0 is up, and this process may open it."


@pytest.mark.parametrize(
    ("owner", "group", "ours"),
    [
        (os.geteuid(), None, True),
        (None, os.getegid(), True),
        (os.geteuid(), 4_000_000, False),
        (4_000_000, None, False),
        (4_000_000, os.getegid(), False),
    ],
)
def test_who_may_open_an_adapter(
    monkeypatch: pytest.MonkeyPatch, owner: int | None, group: int | None, ours: bool
) -> None:
    info = replace(INFO, owner=owner, group=group)
    assert one(adapters.one("vpn0", [info], HERE)).status == "ok", "root may"
    monkeypatch.setattr(adapters, "has_net_admin", lambda: False)
    found = one(adapters.one("vpn0", [info], HERE))
    assert found.status == ("ok" if ours else "problem")
    if owner == 4_000_000 and group is None:
        assert found.message == "Adapter vpn0 is open to user 4000000 only, and to root."


def test_an_adapter_that_is_down_and_held() -> None:
    held, down = adapters.one("vpn0", [replace(INFO, up=False, connected=True)], HERE)
    assert "AdapterBusy" in held.message
    assert (down.status, down.cure) == ("warning", "ip link set vpn0 up")


@pytest.mark.kernel
def test_the_program_that_holds_an_adapter_is_named() -> None:
    with ringtun.create_adapter("held0"):
        comm = Path("/proc/self/comm").read_text().strip()
        assert list(adapters._holders("held0")) == [f"process {os.getpid()} ({comm})"]
        assert list(adapters._holders("held")) == []
        assert list(adapters._holders("held0", HERE.inode()))
        assert list(adapters._holders("held0", HERE.inode() + 1)) == []
    assert list(adapters._holders("held0")) == []


# ---- the command --------------------------------------------------------------------------------

FINDINGS = [
    Finding("one", "ok", "All is well."),
    Finding("two", "warning", "Not so well with \x1b[2J.", "rest"),
    Finding("three", "problem", "It does not work.", "mend it"),
]


def shown(
    monkeypatch: pytest.MonkeyPatch, findings: list[Finding], *arguments: str
) -> list[object]:
    def examine(netns: str | None, name: str | None) -> list[Finding]:
        assert (netns, name) == (None, None)
        return findings

    monkeypatch.setattr(ringtun.cli.doctor, "examine", examine)
    result = CliRunner().invoke(main, ["doctor", *arguments])
    return [result.exit_code, result.stdout, result.stderr]


def test_findings_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, FINDINGS) == [
        1,
        "ok       one: All is well.\n"
        "warning  two: Not so well with \\x1b[2J.\n"
        "         cure: rest\n"
        "problem  three: It does not work.\n"
        "         cure: mend it\n",
        "ringtun: problems with: three\n",
    ]


def test_warnings_are_no_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    status, said, errors = shown(monkeypatch, FINDINGS[:2])
    assert (status, errors) == (0, "")
    assert str(said).endswith("No problems, 1 warning.\n")


def test_findings_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    status, said, errors = shown(monkeypatch, FINDINGS, "--json")
    assert (status, errors) == (1, "ringtun: problems with: three\n")
    assert json.loads(str(said)) == [
        {"check": "one", "status": "ok", "message": "All is well.", "cure": None},
        {
            "check": "two",
            "status": "warning",
            "message": "Not so well with \x1b[2J.",
            "cure": "rest",
        },
        {
            "check": "three",
            "status": "problem",
            "message": "It does not work.",
            "cure": "mend it",
        },
    ]


def test_elsewhere_there_is_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringtun.doctor import examine

    monkeypatch.setattr(sys, "platform", "plan9")
    assert one(examine()).message == "No driver of ringtun's runs on plan9."
