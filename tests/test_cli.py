"""The command line without a kernel: its frame, its words, pings turned round, completion."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import asdict
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, UDP, IPOption_RR
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet

import ringtun
from ringtun.cli import COMMANDS, main, printable, words
from ringtun.cli.echo_reply import MOST_PINGERS, Responder
from ringtun.packet import is_ip

RINGTUN = [sys.executable, "-m", "ringtun"]


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


# ---- the frame ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    status, said, errors = run(command, "--help")
    assert (status, errors) == (0, "")
    assert said.startswith(f"Usage: main {command}")


def test_the_list_of_commands_is_all_of_them() -> None:
    here = Path(ringtun.__file__).parent / "cli"
    modules = {path.stem for path in here.glob("*.py")}
    assert set(COMMANDS) == modules - {"__init__", "options", "words", "echo_reply", "msi_merge"}
    listed = run("--help")[1]
    assert [name for name in COMMANDS if f"\n  {name} " not in listed] == []


def test_no_command_loads_what_is_slow_before_it_is_called() -> None:
    program = (
        "import sys\n"
        "from ringtun.cli import COMMANDS, main\n"
        "for command in set(COMMANDS) - {'demo', 'doctor'}:\n"
        "    main([command, '--help'], standalone_mode=False)\n"
        "print({'rich', 'pyroute2', 'asyncio', 'ringtun.demo', 'ringtun.doctor', 'ringtun.testing',"
        " 'ringtun.adapter', 'ringtun.installer'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    "line",
    [
        "create",
        "create a b",
        "create a --mtu many",
        "create a --txqueuelen",
        "delete",
        "list more",
        "show",
        "show a b",
        "echo --count 0",
        "echo --count -1",
        "doctor more",
        "msi inspect",
        "msi nothing",
        "msm build",
        "msm nothing",
        "completion",
        "completion tcsh",
        "driver more",
        "driver status more",
    ],
)
def test_a_wrong_command_line_exits_2(line: str) -> None:
    status, said, errors = run(*line.split())
    assert (status, said) == (2, "")
    assert "Error: " in errors


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["create", ""], "interface name '' has 0 bytes, not 1 to 15"),
        (["create", "sixteen-letters-"], "has 16 bytes, not 1 to 15"),
        (["create", "a/b"], "contains '/'"),
        (["create", "a b"], "contains ' '"),
        (["create", "tun%d"], "contains '%'"),
        (["create", "vpn0", "--address", "10.7.0.1"], "lacks its prefix: write 10.7.0.1/24"),
        (["create", "vpn0", "--address", "10.7.0.300/24"], "address '10.7.0.300/24' is none"),
        (["create", "vpn0", "--address", "\x1b[31m/24"], r"'\x1b[31m/24' is none"),
        (["create", "vpn0", *["--address", "fd07::1/64"] * 2], "fd07::1/64 is there twice"),
        (["create", "vpn0", "--mtu", "67"], "mtu is 68 to 65535 bytes, not 67"),
        (["create", "vpn0", "--mtu", f"{1 << 80}"], "mtu is 68 to 65535 bytes"),
        (["create", "vpn0", "--txqueuelen", "0"], "txqueuelen is 1 to"),
        (["create", "vpn0", "--guid", "nothing"], "guid"),
        (["create", "vpn0", "--owner", "no such user"], "there is no user 'no such user'"),
        (["create", "vpn0", "--owner", "99999999999"], "owner is 0 to"),
        (["create", "vpn0", "--group", "²"], "there is no group"),
        (["create", "vpn0", "--netns", "none"], "make it with: ip netns add none"),
        (["create", "vpn0", "--netns", "/etc/passwd"], "/etc/passwd is not a network namespace"),
        (["list", "--netns", "none"], "make it with: ip netns add none"),
        (["show", "vpn0", "--netns", ""], "nor a path"),
        (["doctor", "--netns", "none"], "make it with: ip netns add none"),
        (["echo", "--netns", "none"], "make it with: ip netns add none"),
        (["delete", "vpn0", "--netns", "none"], "make it with: ip netns add none"),
    ],
)
@pytest.mark.kernel
def test_what_cannot_be_is_said_in_a_line(arguments: list[str], complaint: str) -> None:
    status, said, errors = run(*arguments)
    assert (status, said) == (1, "")
    assert complaint in errors
    assert errors.startswith("ringtun: ")
    assert errors.count("\n") == 1
    assert printable(errors[:-1]) == errors[:-1]


def raising(error: BaseException) -> Callable[..., object]:
    def raise_it(**options: object) -> object:
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (OSError(errno.EBUSY, "it is held"), 1, "ringtun: it is held\n"),
        (FileNotFoundError(2, "No such file", "/a"), 1, "ringtun: /a: No such file\n"),
        (ValueError("two\nlines \x1b[2J\udcff"), 1, "ringtun: two lines \\x1b[2J\\udcff\n"),
        (ringtun.AdapterBusy(errno.EBUSY, "ask later"), 1, "ringtun: ask later\n"),
        (TimeoutError(), 1, "ringtun: TimeoutError\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_become_a_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    monkeypatch.setattr(ringtun, "list_adapters", raising(error))
    assert run("list") == (status, "", line)


@pytest.mark.parametrize("arguments", [["--help"], ["completion", "fish"], ["list", "--json"]])
def test_a_closed_pipe_ends_it_quietly(arguments: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([*RINGTUN, *arguments], stdout=write, stderr=subprocess.PIPE)
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode == 1


def test_a_full_disk_is_said_in_a_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*RINGTUN, "completion", "fish"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.stderr == "ringtun: No space left on device\n"
    assert done.returncode == 1


# ---- words --------------------------------------------------------------------------------------

INFO = ringtun.AdapterInfo(
    name="vpn0",
    ifindex=7,
    guid=uuid.UUID(int=5),
    mtu=1500,
    addresses=(ip_interface("10.7.0.1/24"), ip_interface("fd07::1/64")),
    up=True,
    connected=False,
    persistent=True,
    owner=0,
    group=None,
    txqueuelen=5000,
    host_drops=1234,
    backend="embedded",
)


def info(**changes: object) -> ringtun.AdapterInfo:
    from dataclasses import replace

    return replace(INFO, **changes)  # type: ignore[arg-type]


def listed(monkeypatch: pytest.MonkeyPatch, *adapters: ringtun.AdapterInfo) -> list[str]:
    monkeypatch.setattr(ringtun, "list_adapters", lambda netns=None: list(adapters))
    status, said, errors = run("list")
    assert (status, errors) == (0, "")
    return said.splitlines()


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    other = info(name="\x1b[2J", guid=None, addresses=(), owner=4_000_000, host_drops=0, up=False)
    assert listed(monkeypatch, INFO, other) == [
        "NAME     STATE           ADDRESSES    MTU   OPEN TO       QUEUE  DROPPED",
        "vpn0     up, no session  10.7.0.1/24  1500  user root     5,000  1,234",
        "                         fd07::1/64",
        r"\x1b[2J  down            -            1500  user 4000000  5,000  0",
    ]


def test_who_may_open_it() -> None:
    assert words.holders(info(owner=None)) == "everybody"
    assert words.holders(info(owner=None, group=0)) == "group root"
    assert words.holders(info(group=4_000_000)) == "user root in group 4000000"
    assert words.holders(info(persistent=False)) == "the program that made it"


def test_states() -> None:
    assert words.state(info(connected=True)) == "connected"
    assert words.state(info(connected=True, up=False)) == "down"


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringtun, "list_adapters", lambda netns=None: [INFO])
    assert "\x1b[1mNAME" in CliRunner().invoke(main, ["list"], color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(main, ["list"], color=True).stdout


# ---- pings turned round -------------------------------------------------------------------------

NETWORKS = [ip_network("10.7.0.0/24"), ip_network("10.8.0.0/31"), ip_network("fd07::/64")]
HOST, PEER = {4: "10.7.0.1", 6: "fd07::1"}, {4: "10.7.0.9", 6: "fd07::9"}
version = pytest.mark.parametrize("version", [4, 6])


def request(
    version: int, data: bytes = b"data", source: str = "", destination: str = "", **fields: Any
) -> Packet:
    source, destination = source or HOST[version], destination or PEER[version]
    if version == 4:
        return IP(src=source, dst=destination, **fields) / ICMP(type=8, id=5, seq=6) / data
    return IPv6(src=source, dst=destination, **fields) / ICMPv6EchoRequest(id=5, seq=6, data=data)


def ignored(responder: Responder) -> dict[str, int]:
    assert responder.answered == 0
    assert not responder.pingers
    return {reason: count for reason, count in asdict(responder.ignored).items() if count}


@version
@pytest.mark.parametrize("size", [0, 1, 56, 1400, 65000])
def test_the_answer_is_what_scapy_builds(version: int, size: int) -> None:
    data = bytes(number % 251 for number in range(size))
    responder = Responder(NETWORKS)
    expected: Packet
    if version == 4:
        expected = IP(src=PEER[4], dst=HOST[4], tos=8, id=77, ttl=64) / ICMP(type=0, id=5, seq=6)
        expected /= data
        asked = request(4, data, tos=8, id=77, ttl=3)
    else:
        expected = IPv6(src=PEER[6], dst=HOST[6], tc=8, fl=99, hlim=64)
        expected /= ICMPv6EchoReply(id=5, seq=6, data=data)
        asked = request(6, data, tc=8, fl=99, hlim=3)
    assert responder.answer(bytes(asked)) == bytes(expected)
    assert responder.answered == 1
    assert responder.pingers == {(ip_address(HOST[version]), ip_address(PEER[version])): 1}
    assert not any(asdict(responder.ignored).values())


def test_options_are_left_out() -> None:
    asked = bytes(request(4, options=[IPOption_RR(routers=["0.0.0.0"] * 3)]))
    answer = Responder(NETWORKS).answer(asked)
    assert answer is not None
    assert IP(answer).ihl == 5
    assert bytes(IP(answer)[ICMP].payload) == b"data"


def test_an_answer_of_zeros_has_the_checksum_that_says_so() -> None:
    answer = Responder(NETWORKS).answer(
        bytes(IP(src=HOST[4], dst=PEER[4]) / ICMP(type=8, id=0, seq=0))
    )
    assert answer is not None
    assert answer[20:] == b"\0\0\xff\xff\0\0\0\0"


@pytest.mark.parametrize(
    "packet",
    [
        request(4, flags="MF"),
        request(4, frag=3),
        IPv6(src=HOST[6], dst=PEER[6]) / IPv6ExtHdrFragment(m=1) / ICMPv6EchoRequest(data=b"x" * 8),
    ],
)
def test_fragments_are_ignored(packet: Packet) -> None:
    responder = Responder(NETWORKS)
    assert responder.answer(bytes(packet)) is None
    assert ignored(responder) == {"fragments": 1}


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=HOST[4], dst=PEER[4]) / UDP() / b"data",
        IP(src=HOST[4], dst=PEER[4]),
        IP(src=HOST[4], dst=PEER[4]) / ICMP(type=0),
        IP(src=HOST[4], dst=PEER[4]) / ICMP(type=8, code=1),
        IPv6(src=HOST[6], dst=PEER[6]) / UDP() / b"data",
        IPv6(src=HOST[6], dst=PEER[6]),
        IPv6(src=HOST[6], dst=PEER[6]) / ICMPv6EchoReply(data=b"data"),
    ],
)
def test_other_packets_are_ignored(packet: Packet) -> None:
    responder = Responder(NETWORKS)
    assert responder.answer(bytes(packet)) is None
    assert ignored(responder) == {"not_echo": 1}


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (HOST[4], "10.9.0.1"),
        (HOST[4], "10.7.0.0"),
        (HOST[4], "10.7.0.255"),
        (HOST[4], "224.0.0.1"),
        (HOST[4], "255.255.255.255"),
        ("0.0.0.0", PEER[4]),
        ("127.0.0.1", PEER[4]),
        ("224.0.0.1", PEER[4]),
        ("255.255.255.255", PEER[4]),
        (HOST[6], "fd08::1"),
        (HOST[6], "ff02::1"),
        ("::", PEER[6]),
        ("::1", PEER[6]),
        ("ff02::1", PEER[6]),
    ],
)
def test_other_addresses_get_no_answer(source: str, destination: str) -> None:
    responder = Responder(NETWORKS)
    asked = request(ip_address(source).version, source=source, destination=destination)
    assert responder.answer(bytes(asked)) is None
    assert ignored(responder) == {"other_address": 1}


def test_both_addresses_of_a_network_of_two_are_answered() -> None:
    responder = Responder(NETWORKS)
    for address in ("10.8.0.0", "10.8.0.1"):
        assert responder.answer(bytes(request(4, destination=address)))


@version
def test_any_damaged_bit_that_a_checksum_covers_gets_no_answer(version: int) -> None:
    whole = bytes(request(version))
    covered = range(len(whole)) if version == 4 else range(8, len(whole))
    for position in covered:
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            if is_ip(damaged) and damaged[0] >> 4 == version:
                assert Responder(NETWORKS).answer(bytes(damaged)) is None


@version
def test_a_packet_cut_short_is_damaged(version: int) -> None:
    whole = bytes(request(version))
    for size in range(20 if version == 4 else 40, len(whole)):
        responder = Responder(NETWORKS)
        assert responder.answer(whole[:size]) is None
        assert ignored(responder) == {"damaged": 1}


@version
def test_what_lies_behind_the_packet_is_not_sent_back(version: int) -> None:
    whole = bytes(request(version))
    responder = Responder(NETWORKS)
    assert responder.answer(whole + b"more") == responder.answer(whole)


def test_an_echo_request_without_its_header_is_damaged() -> None:
    responder = Responder(NETWORKS)
    for content in (b"\x08\0\xf7\xff", b"\x08\0\xf7\xff\0\0\0"):
        assert responder.answer(bytes(IP(src=HOST[4], dst=PEER[4], proto=1) / content)) is None
    assert ignored(responder) == {"damaged": 2}


def test_pingers_are_kept_up_to_a_number() -> None:
    responder = Responder([ip_network("10.0.0.0/8")])
    asked = bytes(request(4))
    total = MOST_PINGERS + 10
    for number in range(total):
        source = ip_address("10.1.0.1") + number
        assert responder.answer(bytes(request(4, source=str(source))))
    assert responder.answer(asked)
    assert responder.answered == total + 1
    assert len(responder.pingers) == MOST_PINGERS


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=40, max_size=120), st.sampled_from([0x45, 0x46, 0x4F, 0x40, 0x60]))
def test_anything_may_come(packet: bytes, first: int) -> None:
    packet = bytes([first]) + packet[1:]
    responder = Responder(NETWORKS)
    answer = responder.answer(packet)
    assert answer is None or is_ip(answer)
    assert responder.answered + sum(asdict(responder.ignored).values()) == 1


# ---- completion ---------------------------------------------------------------------------------

BASH = """
source <(ringtun completion bash)
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_ringtun_completion ringtun
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def path(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``ringtun`` is this one."""
    script = tmp_path / "ringtun"
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom ringtun.cli import main\nmain()\n")
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def completed(path: dict[str, str], *words: str) -> set[str]:
    """What bash makes of a command line, the last word of which is to be completed."""
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", *words], env=path, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_shells(path: dict[str, str]) -> None:
    assert completed(path, "ringtun", "") == set(COMMANDS)
    assert completed(path, "ringtun", "de") == {"delete", "demo"}
    assert completed(path, "ringtun", "delete", "--m") == {"--missing-ok"}
    assert completed(path, "ringtun", "completion", "z") == {"zsh"}
    assert completed(path, "ringtun", "driver", "") == {"install", "status", "uninstall"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_scripts_ask_ringtun(shell: str) -> None:
    status, said, errors = run("completion", shell)
    assert (status, errors) == (0, "")
    assert f"_RINGTUN_COMPLETE={shell}_complete" in said


def test_completion_is_silent_about_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ringtun, "list_adapters", raising(PermissionError(1, "no")))
    environment = {
        "_RINGTUN_COMPLETE": "bash_complete",
        "COMP_WORDS": "ringtun show ",
        "COMP_CWORD": "2",
    }
    result = CliRunner().invoke(main, [], prog_name="ringtun", env=environment)
    assert (result.exit_code, result.output.strip()) == (0, "")
