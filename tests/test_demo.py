"""`ringtun.demo` without a kernel: parsing, accounting, packets, words; and the command's frame."""

from __future__ import annotations

import errno
import inspect
import json
import random
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner
from scapy.layers.inet import ICMP as ScapyICMP
from scapy.layers.inet import IP as ScapyIP
from scapy.layers.inet import UDP as ScapyUDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Packet as ScapyPacket

from ringtun.cli import main
from ringtun.demo import packets, report, run, stream, words
from ringtun.demo.child import PIPES, Child
from ringtun.demo.errors import MeasurementError, NoKernelTun
from ringtun.demo.ping import parse
from ringtun.demo.world import why_no_ipv6, why_no_node
from ringtun.statistics import Discards, Statistics

# ---- ping ---------------------------------------------------------------------------------------

IPUTILS = """\
PING 10.7.0.2 (10.7.0.2) 56(84) bytes of data.
64 bytes from 10.7.0.2: icmp_seq=1 ttl=64 time=0.452 ms

--- 10.7.0.2 ping statistics ---
5 packets transmitted, 4 received, 20% packet loss, time 419ms
rtt min/avg/max/mdev = 0.227/0.376/0.531/0.120 ms
"""
BUSYBOX = """\
--- 10.7.0.2 ping statistics ---
5 packets transmitted, 5 packets received, 0% packet loss
round-trip min/avg/max = 0.227/0.376/0.531 ms
"""
NOTHING_CAME_BACK = """\
From 10.7.0.1 icmp_seq=1 Destination Host Unreachable

--- 10.7.0.2 ping statistics ---
5 packets transmitted, 0 received, +5 errors, 100% packet loss, time 419ms

"""


def test_what_ping_says() -> None:
    assert parse(IPUTILS) == report.RoundTrips(5, 4, 0.227, 0.376, 0.531)
    assert parse(BUSYBOX) == report.RoundTrips(5, 5, 0.227, 0.376, 0.531)
    assert parse(NOTHING_CAME_BACK) == report.RoundTrips(5, 0, None, None, None)


@pytest.mark.parametrize(
    ("said", "why"),
    [("", "ping said nothing"), ("ping: socket:\nNot permitted\n", "ping: socket: Not permitted")],
)
def test_a_ping_that_fails_is_quoted(said: str, why: str) -> None:
    with pytest.raises(MeasurementError, match=why):
        parse(said)


# ---- numbered datagrams -------------------------------------------------------------------------


def accounted(*numbers: int) -> stream.Account:
    account = stream.Account()
    for number in numbers:
        account.add(stream.payload(number))
    return account


def test_a_stream_in_order() -> None:
    account = accounted(*range(1000))
    assert (account.arrived, account.reordered, account.duplicated) == (1000, 0, 0)


def test_lost_ones_are_not_reordered() -> None:
    account = accounted(0, 1, 5, 6, 100_000)
    assert (account.arrived, account.reordered, account.duplicated) == (5, 0, 0)


def test_reordered_are_those_behind_a_higher_number() -> None:
    account = accounted(0, 3, 1, 2, 4)
    assert (account.arrived, account.reordered, account.duplicated) == (5, 2, 0)


def test_a_duplicate_is_counted_as_nothing_else() -> None:
    account = accounted(0, 1, 2, 1, 2, 3)
    assert (account.arrived, account.reordered, account.duplicated) == (4, 0, 2)


def test_any_damage_is_seen() -> None:
    account = stream.Account()
    whole = stream.payload(77)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        account.add(bytes(damaged))
    account.add(whole[:-1])
    assert (account.arrived, account.damaged) == (0, len(whole) + 1)


def test_payloads_have_their_size_and_number() -> None:
    for number in (0, 1, 63, 64, 1 << 31):
        made = stream.payload(number)
        assert len(made) == stream.PAYLOAD_BYTES
        assert stream.number_in(memoryview(made)) == number


def test_the_pace_is_kept() -> None:
    start = time.monotonic()
    numbers = [(number, time.monotonic() - start) for number in stream.paced(0.05, rate=1000)]
    assert [number for number, _ in numbers] == list(range(50))
    assert all(when >= (number - 1) / 1000 for number, when in numbers)  # never early


# ---- packets ------------------------------------------------------------------------------------

V4 = (ip_address("10.7.0.1"), ip_address("10.7.0.2"))
V6 = (ip_address("fd07::1"), ip_address("fd07::2"))
ENDS = pytest.mark.parametrize("ends", [V4, V6], ids=["IPv4", "IPv6"])


def scapy_header(ends: tuple[packets.Address, packets.Address]) -> ScapyPacket:
    source, destination = map(str, ends)
    if ends[0].version == 6:
        return IPv6(src=source, dst=destination, hlim=64)
    return ScapyIP(src=source, dst=destination, id=0, ttl=64)


@ENDS
@pytest.mark.parametrize("size", [0, 1, 56, 1200])
def test_packets_are_what_scapy_builds(
    ends: tuple[packets.Address, packets.Address], size: int
) -> None:
    payload = random.Random(size).randbytes(size)
    ours = packets.udp(*ends, (40000, 5000), payload).to_bytes()
    assert ours == bytes(scapy_header(ends) / ScapyUDP(sport=40000, dport=5000) / payload)

    echo: ScapyPacket = ScapyICMP(type=8, id=1, seq=7) / payload
    if ends is V6:
        echo = ICMPv6EchoRequest(id=1, seq=7, data=payload)
    ours = packets.echo_request(*ends, 7, payload).to_bytes()
    assert ours == bytes(scapy_header(ends) / echo)


@ENDS
def test_a_udp_checksum_of_zero_is_sent_as_all_ones(
    ends: tuple[packets.Address, packets.Address],
) -> None:
    for filling in range(1 << 16):
        data = packets.udp(*ends, (1, 2), filling.to_bytes(2)).to_bytes()
        assert data[-4:-2] != b"\0\0"
        if data[-4:-2] == b"\xff\xff":
            packets.Packet.from_bytes(data)
            return
    pytest.fail("no such packet among all")


@ENDS
def test_packets_come_back_as_they_were(ends: tuple[packets.Address, packets.Address]) -> None:
    for packet in (packets.udp(*ends, (1, 2), b"odd"), packets.echo_request(*ends, 1, b"even")):
        again = packets.Packet.from_bytes(packet.to_bytes())
        assert (again.source, again.destination, again.protocol) == (*ends, packet.protocol)
        assert again.to_bytes() == packet.to_bytes()
    assert packets.udp_payload(packets.udp(*ends, (1, 2), b"odd")) == b"odd"


@ENDS
def test_any_damaged_bit_of_content_or_address_is_refused(
    ends: tuple[packets.Address, packets.Address],
) -> None:
    whole = packets.udp(*ends, (1, 2), b"whole").to_bytes()
    where = 0 if ends is V4 else 8  # IPv6 has no checksum of its flow label and hop limit
    for position in range(where, len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            with pytest.raises(ValueError, match=r"checksum|not an IP|neither"):
                packets.Packet.from_bytes(bytes(damaged))


@ENDS
def test_the_reply_to_an_echo_request(ends: tuple[packets.Address, packets.Address]) -> None:
    request = packets.echo_request(*ends, 9, b"hello")
    reply = packets.Packet.from_bytes(packets.echo_reply(request).to_bytes())
    assert (reply.destination, reply.source) == ends
    assert reply.content[0] == (0 if ends is V4 else 129)
    assert reply.content[4:] == request.content[4:]
    for other in (reply, packets.udp(*ends, (1, 2), b"hello")):
        with pytest.raises(ValueError, match="not an echo request"):
            packets.echo_reply(other)


def test_a_udp_length_that_is_not_the_packets() -> None:
    packet = packets.Packet(*V4, packets.UDP, bytes([0, 1, 0, 2, 0, 9, 0, 0]))
    with pytest.raises(ValueError, match="UDP length"):
        packets.udp_payload(packet)


# ---- the report ---------------------------------------------------------------------------------

TRANSFER = report.Transfer(1000, 1000, 1.0, 8000.0, "same", "same")
STREAM = report.DatagramStream(10, 10, 0, 0, 0, 0, 0, 1200, 1.0)


@pytest.mark.parametrize(
    ("row", "failure"),
    [
        (report.RoundTrips(10, 1, 1.0, 1.0, 1.0), None),
        (report.RoundTrips(10, 0, None, None, None), "none of 10 echo requests was answered"),
        (TRANSFER, None),
        (report.Transfer(1000, 999, 1.0, 8.0, "a", "b"), "1000 bytes were sent, and 999 arrived"),
        (report.Transfer(1000, 1000, 1.0, 8.0, "a", "b"), "is not the data that was sent"),
        (report.Transfer(0, 0, 1.0, 0.0, "a", "a"), "no data arrived"),
        (STREAM, None),
        (report.DatagramStream(10, 3, 7, 0, 0, 0, 0, 1200, 1.0), None),
        (report.DatagramStream(10, 0, 10, 0, 0, 0, 0, 1200, 1.0), "none of 10 datagrams arrived"),
        (report.DatagramStream(10, 9, 1, 0, 0, 1, 0, 1200, 1.0), "1 datagrams arrived damaged"),
        (report.NotRun("install it"), None),
        (report.Failed("too late"), "too late"),
    ],
)
def test_what_counts_as_a_failure(row: report.Row, failure: str | None) -> None:
    found = report.failures({"row": row, "left": report.Side(Statistics(), Statistics())})
    if failure is None:
        assert found == {}
    else:
        assert failure in found["row"]


def test_results_in_words() -> None:
    assert words.result(report.RoundTrips(10, 9, 0.1, 0.25, 1.0)) == (
        "9 of 10 answered, 10% lost; 0.100/0.250/1.000 ms min/avg/max"
    )
    assert words.result(report.RoundTrips(10, 0, None, None, None)) == "0 of 10 answered, 100% lost"
    assert words.result(report.Transfer(5 << 20, 5 << 20, 2.0, 2.5e9, "a", "a")) == (
        "5.24 MB in 2.0 s: 2.50 Gbit/s; SHA-256 equal at both ends"
    )
    assert "SHA-256 differ" in words.result(report.Transfer(5, 5, 2.0, 2.5e9, "a", "b"))
    assert words.result(report.DatagramStream(6000, 5990, 10, 1, 2, 3, 7, 1200, 3.0)) == (
        "6,000 of 1,200 bytes offered in 3.0 s; 5,990 arrived, 10 lost (7 at the receiver's "
        "socket), 1 reordered, 2 duplicated, 3 damaged"
    )
    assert words.result(report.NotRun("no kernel TUN")) == "not run: no kernel TUN"
    assert words.result(report.Failed("too late")) == "failed: too late"


def test_counters_in_words() -> None:
    counted = Statistics(received_packets=1234, received_bytes=999, sent_bytes=1_500_000)
    side = report.Side(
        adapter=counted + Statistics(discards=Discards(host_queue_full=7, refused=1)),
        session=counted,
    )
    assert words.counters("left", side) == {
        "left adapter": "received 1,234 packets (999 bytes), sent 0 (1.5 MB); "
        "discarded 7 host_queue_full, 1 refused",
        "left session": "received 1,234 packets (999 bytes), sent 0 (1.5 MB); discarded none",
    }


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOENT, "modprobe tun"),
        (errno.ENODEV, "modprobe tun"),
        (errno.EACCES, "run as root"),
        (errno.EIO, "modprobe tun"),
    ],
)
def test_a_node_that_cannot_be_opened_has_a_reason_and_a_cure(code: int, cure: str) -> None:
    why = why_no_node(OSError(code, "what the system says"))
    assert "tun" in why
    assert cure in why


def test_a_kernel_without_ipv6_has_a_reason_and_a_cure(tmp_path: Path) -> None:
    assert "boot it without" in (why_no_ipv6(tmp_path) or "")
    default = tmp_path / "sys/net/ipv6/conf/default"
    default.mkdir(parents=True)
    (default / "disable_ipv6").write_text("1\n")
    assert "sysctl -w net.ipv6.conf.default.disable_ipv6=0" in (why_no_ipv6(tmp_path) or "")
    (default / "disable_ipv6").write_text("0\n")
    assert why_no_ipv6(tmp_path) is None


# ---- in memory ----------------------------------------------------------------------------------


class Notes:
    """An observer that keeps what it was told."""

    def __init__(self) -> None:
        self.mode = ""
        self.fields: dict[str, list[object]] = {}

    def began(self, mode: str, reason: str | None) -> None:
        self.mode = mode

    def saw(self, name: str, what: object) -> None:
        self.fields.setdefault(name, []).append(what)


@pytest.mark.filterwarnings("ignore:packets are moved by plain Python")
def test_the_last_resort_needs_no_native_core(pure_python: None) -> None:
    found = run(Notes(), seconds=0.2, memory=True)
    assert found.failures == {}
    assert isinstance(found.udp_ipv4, report.DatagramStream)
    assert found.udp_ipv4.offered == found.udp_ipv4.arrived > 0


def test_a_taker_that_is_too_slow_gets_fewer_numbers() -> None:
    taken = 0
    start = time.monotonic()
    for taken in stream.paced(0.01, rate=1000):  # noqa: B007
        time.sleep(0.1)
    assert taken < 9
    assert time.monotonic() - start < 5


def test_the_last_resort_measures_and_tells() -> None:
    notes = Notes()
    found = run(notes, seconds=0.2, memory=True)
    assert found.failures == {}
    assert found.mode == notes.mode == "memory"
    assert found.tcp_ipv4 == report.NotRun("no kernel TUN")
    for name in ("echo_ipv4", "echo_ipv6", "udp_ipv4", "ping_ipv4", "left", "right"):
        assert notes.fields[name][-1] == getattr(found, name)
    assert isinstance(found.udp_ipv4, report.DatagramStream)
    assert found.udp_ipv4.offered == found.udp_ipv4.arrived == int(0.2 * stream.RATE)
    assert found.echo_ipv6 is not None
    assert found.echo_ipv6.received == found.echo_ipv6.sent == 10
    assert found.left.session.sent_packets == found.right.session.received_packets
    assert json.loads(json.dumps(found.as_dict()))["ok"] is True


# ---- children -----------------------------------------------------------------------------------


def child(program: str) -> Child:
    prelude = "import sys, time; from ringtun.demo.child import emit, serve\n"
    argv = [sys.executable, "-c", prelude + program]
    return Child(subprocess.Popen(argv, text=True, **PIPES))


def test_a_child_says_and_hears() -> None:
    with child("for line in sys.stdin: emit(heard=line.strip())") as it:
        for word in ("one", "two"):
            it.tell(word)
            assert it.read(10) == {"heard": word}
        it.close()
        assert it._process.returncode == 0


def test_a_childs_error_is_raised_here() -> None:
    with (
        child("def work(): raise ValueError('what it was')\nserve(work)") as it,
        pytest.raises(MeasurementError, match="ValueError: what it was"),
    ):
        it.read(10)


def test_a_child_that_was_refused_an_adapter() -> None:
    program = (
        "from ringtun import DriverUnavailable\n"
        "def work(): raise DriverUnavailable(2, 'load it')\n"
        "serve(work)"
    )
    with child(program) as it, pytest.raises(NoKernelTun, match="load it"):
        it.read(10)


def test_a_child_that_ends_without_a_word() -> None:
    with child("sys.exit(3)") as it, pytest.raises(MeasurementError, match=r"ended \(3\)"):
        it.read(10)


def test_a_child_that_is_late_is_given_up_and_killed() -> None:
    with child("time.sleep(1000)") as it:
        with pytest.raises(MeasurementError, match="in time"):
            it.read(0.05)
        it._process.kill()
    assert it._process.returncode < 0


# ---- the command --------------------------------------------------------------------------------


def test_help_loads_nothing_that_is_slow() -> None:
    program = (
        "import sys\n"
        "from ringtun.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print({'rich', 'pyroute2', 'ringtun.demo', 'asyncio'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert "demo" in done.stdout
    assert done.stdout.endswith("set()\n")


def test_the_version() -> None:
    from ringtun import __version__

    assert CliRunner().invoke(main, ["--version"]).output == f"ringtun, version {__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["demo", "--seconds", "0"], ["demo", "x"]])
def test_a_wrong_command_line_exits_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NoKernelTun("two\nlines"), "ringtun: two lines\n"),
        (FileNotFoundError(2, "No such file", "nsenter"), "ringtun: nsenter: No such file\n"),
        (ValueError("no such address"), "ringtun: no such address\n"),
    ],
)
def test_an_error_is_one_line_and_exits_1(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("ringtun.cli.demo.run", fail)
    result = CliRunner().invoke(main, ["demo"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", line)


def test_ctrl_c_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ringtun.cli.demo.run", interrupt)
    assert CliRunner().invoke(main, ["demo"]).exit_code == 130


def test_a_failed_measurement_exits_1_and_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = report.Side(Statistics(), Statistics())
    rows: dict[str, report.Row | report.Side] = {
        "ping_ipv4": report.RoundTrips(10, 0, None, None, None),
        "ping_ipv6": report.NotRun("install iputils-ping"),
        "tcp_ipv4": TRANSFER,
        "tcp_ipv6": report.Failed("too late"),
        "udp_ipv4": STREAM,
    }
    failed = report.Report(
        ringtun="0",
        mode="root",
        reason=None,
        left=nothing,
        right=nothing,
        failures=report.failures(rows),
        seconds=1.0,
        **rows,  # type: ignore[arg-type]
    )
    monkeypatch.setattr("ringtun.cli.demo.run", lambda *_, **__: failed)
    result = CliRunner().invoke(main, ["demo", "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["ok"] is False
    assert result.stderr == (
        "ringtun: the demonstration failed: ping IPv4 ->: none of 10 echo requests was answered; "
        "TCP IPv6 <-: too late\n"
    )


def test_every_subcommand_in_the_table_is_there() -> None:
    from ringtun.cli import COMMANDS

    for name in COMMANDS:
        command = main.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        function = inspect.unwrap(command.callback)  # type: ignore[arg-type]
        assert Path(function.__code__.co_filename).stem == name
