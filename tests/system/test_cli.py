"""The command line as processes: on real adapters, as root, as an ordinary user, without TUN."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import ringtun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, delete, links
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY
from tests.system.sites import SOON
from tests.system.test_demo import as_nobody

pytestmark = pytest.mark.kernel

RINGTUN = [sys.executable, "-m", "ringtun"]
ADAPTER_FIELDS = [
    "name", "ifindex", "guid", "mtu", "addresses", "up", "connected", "persistent", "owner",
    "group", "txqueuelen", "host_drops", "backend",
]  # fmt: skip
ECHO_FIELDS = [
    "name", "made", "addresses", "answered", "pingers", "ignored", "seconds", "statistics",
]  # fmt: skip

needs_ping = pytest.mark.skipif(shutil.which("ping") is None, reason="install iputils-ping")
Done = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def empty(namespace: Namespace) -> Iterator[None]:
    """Persistent adapters of a test that failed go with it."""
    yield
    for link in links(namespace):
        if link.kind == "tun":
            delete(namespace, link.ifindex)


def run(network: NetworkNamespace, *arguments: str, status: int = 0) -> Done:
    """Run it inside; where it is to fail, see that it says so in one line, and nothing else."""
    return check([*network.command(*RINGTUN), *arguments], status)


def check(command: Sequence[str], status: int = 0) -> Done:
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * SOON)
    assert done.returncode == status, done
    if status == 1:
        assert re.fullmatch(r"ringtun: .+\n", done.stderr), done.stderr
    return done


def document(network: NetworkNamespace, *arguments: str) -> Any:
    done = run(network, *arguments, "--json")
    assert done.stderr == ""
    return json.loads(done.stdout)


def names(namespace: Namespace) -> list[str]:
    return [link.name for link in links(namespace)]


# ---- create, list, show, delete -----------------------------------------------------------------


def test_an_adapters_life(network: NetworkNamespace, namespace: Namespace) -> None:
    made = document(
        network,
        *("create", "vpn0", "--address", "10.7.0.1/24", "--address", "fd07::1/64"),
        *("--mtu", "1420", "--txqueuelen", "77", "--owner", "0", "--group", "0"),
        *("--guid", str(uuid.UUID(int=5))),
    )
    assert list(made) == ADAPTER_FIELDS
    ifindex = links(namespace)[-1].ifindex
    assert made == {
        "name": "vpn0",
        "ifindex": ifindex,
        "guid": "00000000-0000-0000-0000-000000000005",
        "mtu": 1420,
        "addresses": ["10.7.0.1/24", "fd07::1/64"],
        "up": True,
        "connected": False,
        "persistent": True,
        "owner": 0,
        "group": 0,
        "txqueuelen": 77,
        "host_drops": made["host_drops"],
        "backend": "embedded",
    }
    (listed,) = document(network, "list")
    assert list(listed) == ADAPTER_FIELDS
    assert {**listed, "host_drops": 0} == {**made, "host_drops": 0}
    shown = document(network, "show", "vpn0")
    kernel = shown.pop("kernel")
    assert shown.pop("offload") == {"checksum": False, "tcp": False, "udp": False}
    assert list(shown) == ADAPTER_FIELDS
    assert {**shown, "host_drops": 0} == {**made, "host_drops": 0}
    assert list(kernel) == ["tx_packets", "tx_dropped", "rx_packets", "rx_dropped"]
    assert all(isinstance(count, int) for count in kernel.values())

    assert run(network, "delete", "vpn0").stdout == ""
    assert names(namespace) == ["lo"]
    assert document(network, "list") == []


def test_what_people_read(network: NetworkNamespace) -> None:
    done = run(network, "create", "vpn0", "--address", "10.7.0.1/24", "--down")
    assert done.stdout == (
        "vpn0 is there: 10.7.0.1/24, MTU 1500, down. Open to user root: "
        'ringtun.open_adapter("vpn0")\n'
    )
    done = run(network, "list")
    heading, row = done.stdout.splitlines()
    assert heading.split()[:3] == ["NAME", "STATE", "ADDRESSES"]
    assert row.split()[:4] == ["vpn0", "down", "10.7.0.1/24", "1500"]
    lines = run(network, "show", "vpn0").stdout.splitlines()
    assert re.fullmatch(r"name +vpn0 \(interface \d+\)", lines[0])
    assert re.fullmatch(r"made by +ringtun, as [0-9a-f-]{36}", lines[1])
    assert re.fullmatch(r"state +down", lines[2])
    assert "\x1b" not in done.stdout


def test_offload_is_shown_while_a_session_runs(network: NetworkNamespace) -> None:
    with ringtun.create_adapter("vpn0", netns="left") as adapter:
        assert re.search(r"\noffload +none, as long as no session runs\n", shown(network))
        with adapter.start_session():
            offload = document(network, "show", "vpn0")["offload"]
            assert offload == {"checksum": True, "tcp": True, "udp": offload["udp"]}
            kinds = "TCP, UDP" if offload["udp"] else "TCP"
            assert re.search(rf"\noffload +{kinds} and checksums\n", shown(network))
    network.run("ip", "tuntap", "add", "other0", "mode", "tun")
    assert document(network, "show", "other0")["offload"]["tcp"] is False


def shown(network: NetworkNamespace) -> str:
    return run(network, "show", "vpn0").stdout


def test_an_empty_list_says_so(network: NetworkNamespace) -> None:
    done = run(network, "list")
    assert (done.stdout, done.stderr) == ("", "there is no TUN adapter in this network namespace\n")


def test_another_network_namespace(network: NetworkNamespace, namespace: Namespace) -> None:
    """By its name, from outside."""
    here = [*RINGTUN]
    done = check([*here, "create", "vpn0", "--netns", "left"])
    assert "ringtun.open_adapter(\"vpn0\", netns='left')" in done.stdout
    assert names(namespace) == ["lo", "vpn0"]
    (listed,) = json.loads(check([*here, "list", "--netns", "left", "--json"]).stdout)
    assert listed["name"] == "vpn0"
    assert "up, no session" in check([*here, "show", "vpn0", "--netns", "left"]).stdout
    assert "no TUN adapter 'vpn0'" in check([*here, "show", "vpn0"], 1).stderr
    check([*here, "delete", "vpn0", "--netns", "left"])
    assert names(namespace) == ["lo"]


def test_a_name_that_is_taken(network: NetworkNamespace, namespace: Namespace) -> None:
    run(network, "create", "vpn0", "--address", "10.7.0.1/24")
    assert "vpn0" in run(network, "create", "vpn0", status=1).stderr
    again = document(network, "create", "vpn0", "--exist-ok", "--address", "10.8.0.1/24")
    assert again["addresses"] == ["10.8.0.1/24"]
    assert "lo" in run(network, "create", "lo", status=1).stderr
    assert "lo" in run(network, "create", "lo", "--exist-ok", status=1).stderr
    assert names(namespace) == ["lo", "vpn0"]


def test_deleting_what_is_not_there(network: NetworkNamespace, namespace: Namespace) -> None:
    run(network, "create", "vpn0")
    run(network, "create", "vpn1")
    assert "vpn9" in run(network, "delete", "vpn0", "vpn9", "vpn1", status=1).stderr
    assert names(namespace) == ["lo"], "the others went"
    assert run(network, "delete", "vpn9", "--missing-ok").stderr == ""
    assert "lo" in run(network, "delete", "lo", status=1).stderr
    assert names(namespace) == ["lo"]


def test_what_another_program_holds(network: NetworkNamespace, namespace: Namespace) -> None:
    with ringtun.create_adapter("vpn0", netns="left") as adapter, adapter.start_session():
        (listed,) = document(network, "list")
        assert (listed["connected"], listed["persistent"]) == (True, False)
        assert "connected" in run(network, "list").stdout
        assert "vpn0" in run(network, "echo", "--name", "vpn0", status=1).stderr
        run(network, "delete", "vpn0")
        assert names(namespace) == ["lo"]


# ---- echo ---------------------------------------------------------------------------------------


@contextmanager
def echoing(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """It runs, and answers; the block's end kills it. In JSON mode its words are on stderr."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    try:
        words = process.stderr if "--json" in command else process.stdout
        assert words is not None
        first = words.readline()
        assert first.startswith("answering pings to "), process.communicate(timeout=SOON)
        yield process
    finally:
        process.kill()
        process.communicate()


def end(process: subprocess.Popen[str], number: int | None = None) -> tuple[int, str, str]:
    if number is not None:
        process.send_signal(number)
    said, errors = process.communicate(timeout=SOON)
    return process.returncode, said, errors


def ping(network: NetworkNamespace, address: str, *options: str) -> str:
    command = ("ping", "-n", "-c", "3", "-i", "0.01", "-w", str(SOON), *options, address)
    environment = {**os.environ, "LC_ALL": "C"}
    return network.run(*command, env=environment, check=False).stdout


@needs_ping
def test_pings_are_answered_and_counted(network: NetworkNamespace, namespace: Namespace) -> None:
    addresses = ("--address", "10.7.0.1/24", "--address", "fd07::1/64")
    with echoing(network.command(*RINGTUN, "echo", *addresses, "--json")) as process:
        assert " 0% packet loss" in ping(network, "10.7.0.9")
        assert " 0% packet loss" in ping(network, "fd07::9", "-s", "1400")
        assert " 0% packet loss" in ping(network, "10.7.0.254", "-s", "0")
        fragments = ("ping", "-n", "-c", "3", "-i", "0.01", "-W", "0.1", "-s", "4000", "10.7.0.9")
        assert "100% packet loss" in network.run(*fragments, check=False).stdout
        status, said, errors = end(process, signal.SIGTERM)
    assert status == 0, errors
    found = json.loads(said)
    assert list(found) == ECHO_FIELDS
    assert (found["name"], found["made"], found["answered"]) == ("echo0", True, 9)
    assert found["addresses"] == ["10.7.0.1/24", "fd07::1/64"]
    assert sorted(found["pingers"], key=str) == [
        {"source": "10.7.0.1", "destination": "10.7.0.254", "answered": 3},
        {"source": "10.7.0.1", "destination": "10.7.0.9", "answered": 3},
        {"source": "fd07::1", "destination": "fd07::9", "answered": 3},
    ]
    assert list(found["ignored"]) == ["fragments", "not_echo", "other_address", "damaged"]
    assert found["ignored"]["fragments"] == 9
    assert found["ignored"]["damaged"] == 0
    assert 0 < found["seconds"] < 30
    assert found["statistics"]["sent_packets"] == 9
    assert found["statistics"]["received_packets"] == 9 + sum(found["ignored"].values())
    assert list(found["statistics"]) == list(ringtun.Statistics().as_dict())
    assert "10.7.0.1 pings 10.7.0.9\n" in errors
    assert names(namespace) == ["lo"], "what it made went with it"


@needs_ping
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_summary_for_people(network: NetworkNamespace, number: int) -> None:
    with echoing(network.command(*RINGTUN, "echo")) as process:
        assert " 0% packet loss" in ping(network, "10.7.0.9", "-c", "1")
        status, said, errors = end(process, number)
    assert (status, errors) == (0, "")
    lines = said.splitlines()
    assert lines[0] == "10.7.0.1 pings 10.7.0.9"
    assert re.fullmatch(r"answered 1 pings in \d+\.\d s", lines[1])
    assert lines[2] == "  10.7.0.1 pinged 10.7.0.9: 1"
    assert lines[3].startswith("ignored ")
    assert lines[4] == "received 1 packets, sent 1; discarded none"


@needs_ping
def test_it_ends_after_a_number_of_answers(network: NetworkNamespace) -> None:
    run(network, "create", "kept0", "--address", "10.7.0.1/24")
    command = network.command(*RINGTUN, "echo", "--name", "kept0", "--count", "3", "--json")
    with echoing(command) as process:
        assert " 0% packet loss" in ping(network, "10.7.0.9")
        status, said, errors = end(process)
    assert (status, errors) == (0, "10.7.0.1 pings 10.7.0.9\n")
    found = json.loads(said)
    assert (found["answered"], found["made"], found["name"]) == (3, False, "kept0")
    assert document(network, "list")[0]["name"] == "kept0", "it was there before, and stays"


def test_adapters_on_which_no_ping_can_come(network: NetworkNamespace) -> None:
    echo = ("echo", "--name", "kept0")
    run(network, "create", "kept0")
    assert "has no address" in run(network, *echo, status=1).stderr
    address = ("--address", "10.7.0.1/24")
    assert "leave out --address" in run(network, *echo, *address, status=1).stderr
    run(network, "create", "kept0", *address, "--down", "--exist-ok")
    assert "is down; bring it up" in run(network, *echo, status=1).stderr
    assert "lo" in run(network, "echo", "--name", "lo", status=1).stderr


def test_an_adapter_that_is_taken_away(network: NetworkNamespace) -> None:
    with echoing(network.command(*RINGTUN, "echo")) as process:
        network.run("ip", "link", "delete", "echo0")
        assert end(process) == (1, "", "ringtun: the adapter was removed\n")


# ---- without rights, and without TUN ------------------------------------------------------------


def user(network: NetworkNamespace, scratch: Path, *arguments: str, mode: str = "666") -> list[str]:
    """The command as an ordinary user."""
    return network.command(*as_nobody(scratch, mode, *RINGTUN, *arguments))


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "new0", "--address", "10.9.0.1/24"),
        ("delete", "kept0"),
        ("echo",),
        ("echo", "--name", "kept0"),
        ("create", "kept0", "--exist-ok", "--mtu", "1400"),
    ],
    ids=" ".join,
)
def test_what_an_ordinary_user_may_not_do(
    network: NetworkNamespace, namespace: Namespace, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    run(network, "create", "kept0", "--address", "10.7.0.1/24")
    before = document(network, "list")
    done = check(user(network, tmp_path, *arguments), 1)
    assert done.stdout == ""
    assert "ermission" in done.stderr
    assert "root" in done.stderr, "the cure"
    assert document(network, "list") == before


def test_what_an_ordinary_user_may_do(
    network: NetworkNamespace, namespace: Namespace, tmp_path: Path
) -> None:
    run(network, "create", "kept0", "--address", "10.7.0.1/24", "--owner", str(NOBODY))
    (listed,) = json.loads(check(user(network, tmp_path, "list", "--json")).stdout)
    assert (listed["name"], listed["owner"]) == ("kept0", NOBODY)
    assert "user nobody" in check(user(network, tmp_path, "show", "kept0")).stdout
    found = doctor(user(network, tmp_path, "doctor", "--name", "kept0", "--json"))
    assert found["rights"]["status"] == "warning"
    assert found["adapter"]["status"] == "ok"
    command = user(network, tmp_path, "echo", "--name", "kept0", "--count", "3")
    with echoing(command) as process:
        assert " 0% packet loss" in ping(network, "10.7.0.9")
        assert end(process)[0] == 0


def test_a_node_that_is_closed_to_the_user(network: NetworkNamespace, tmp_path: Path) -> None:
    done = check(user(network, tmp_path, "create", "new0", mode="600"), 1)
    assert "/dev/net/tun is closed to this user" in done.stderr
    found = doctor(user(network, tmp_path, "doctor", "--json", mode="600"), 1)
    assert found["tun-node"]["status"] == "problem"
    assert "its mode is 0600" in found["tun-node"]["message"]
    assert found["tun-node"]["cure"] is not None


def without_tun(network: NetworkNamespace, *arguments: str) -> list[str]:
    """The command where there is no /dev/net/tun."""
    hide = 'mount -n -t tmpfs none /dev/net && exec "$@"'
    return network.command("unshare", "--mount", "sh", "-c", hide, "sh", *RINGTUN, *arguments)


def test_without_a_tun_device(network: NetworkNamespace, namespace: Namespace) -> None:
    for arguments in (("create", "new0"), ("echo",)):
        done = check(without_tun(network, *arguments), 1)
        assert "modprobe tun" in done.stderr
        assert done.stdout == ""
    assert json.loads(check(without_tun(network, "list", "--json")).stdout) == []
    found = doctor(without_tun(network, "doctor", "--json"), 1)
    assert found["tun-node"]["message"] == "There is no /dev/net/tun."
    assert "modprobe tun" in found["tun-node"]["cure"]
    assert "trial" not in found
    assert names(namespace) == ["lo"]


# ---- doctor -------------------------------------------------------------------------------------


def doctor(command: Sequence[str], status: int = 0) -> dict[str, dict[str, Any]]:
    """The last finding of each check."""
    findings = json.loads(check(command, status).stdout)
    for finding in findings:
        assert list(finding) == ["check", "status", "message", "cure"]
        assert finding["status"] in ("ok", "warning", "problem")
        assert (finding["cure"] is None) == (finding["status"] == "ok")
    return {finding["check"]: finding for finding in findings}


def test_a_machine_on_which_all_is_well(network: NetworkNamespace, namespace: Namespace) -> None:
    found = doctor(network.command(*RINGTUN, "doctor", "--json"))
    assert list(found) == [
        "kernel", "native-core", "tun-node", "user-namespaces", "trial", "offload", "rights",
        "queue", "drops", "rp-filter", "ipv6", "forwarding",
    ]  # fmt: skip
    assert found["trial"]["status"] == "ok"
    assert found["rights"]["status"] == "ok"
    assert names(namespace) == ["lo"]
    done = check(network.command(*RINGTUN, "doctor"))
    assert re.search(r"No problems, \d warnings?\.\n\Z", done.stdout)


def test_adapters_that_lose_packets(network: NetworkNamespace, namespace: Namespace) -> None:
    run(network, "create", "vpn0", "--address", "10.7.0.1/24", "--txqueuelen", "10")
    network.run("ping", "-c", "1", "-W", "0.05", "10.7.0.9", check=False)  # no session: it is lost
    network.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/vpn0/rp_filter")
    network.run("sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/vpn0/disable_ipv6")
    found = doctor([*RINGTUN, "doctor", "--netns", "left", "--name", "vpn0", "--json"])
    drops = Link(namespace, links(namespace)[-1].ifindex).info().tx_dropped
    assert drops > 0
    assert f"dropped {drops:,} packet" in found["drops"]["message"]
    assert "queues 10 packets" in found["queue"]["message"]
    assert found["adapter"]["status"] == "ok"
    for check_name in ("drops", "queue"):
        assert found[check_name]["status"] == "warning"
    said = check([*RINGTUN, "doctor", "--netns", "left"]).stdout
    assert "cure: sysctl -w net.ipv4.conf.vpn0.rp_filter=2\n" in said
    assert "cure: sysctl -w net.ipv6.conf.vpn0.disable_ipv6=0\n" in said


def test_an_adapter_that_cannot_be_opened(network: NetworkNamespace) -> None:
    command = network.command(*RINGTUN, "doctor", "--name", "vpn0", "--json")
    assert doctor(command, 1)["adapter"]["status"] == "problem"
    with ringtun.create_adapter("vpn0", netns="left"):
        assert f"process {os.getpid()} (" in doctor(command)["adapter"]["message"]


# ---- completion ---------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="NOT TRIED: there is no bash")
def test_bash_completes_the_names_of_adapters(network: NetworkNamespace, tmp_path: Path) -> None:
    script = tmp_path / "ringtun"
    script.write_text(f"#!{sys.executable}\nfrom ringtun.cli import main\nmain()\n")
    script.chmod(0o755)
    for name in ("vpn0", "vpn1", "tun7"):
        run(network, "create", name)
    bash = """
        source <(ringtun completion bash)
        complete_it() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _ringtun_completion ringtun
            echo "${COMPREPLY[@]}"
        }
        complete_it ringtun show ''
        complete_it ringtun show vpn
        complete_it ringtun delete vpn0 vpn
        complete_it ringtun echo --name t
        complete_it ringtun list --netns l
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    started = time.monotonic()
    done = network.run("bash", "-c", bash, env=environment)
    assert time.monotonic() - started < 6 * 0.8, "it answers while somebody waits for it"
    assert done.stderr == ""
    assert [set(line.split()) for line in done.stdout.splitlines()] == [
        {"vpn0", "vpn1", "tun7"},
        {"vpn0", "vpn1"},
        {"vpn1"},
        {"tun7"},
        {"left"},
    ]
