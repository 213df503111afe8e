"""The program ends without a word, or by a signal that it sees."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing
from pathlib import Path

import pytest

from ringtun.device.embedded import Pump
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import links
from ringtun.testing.netns import NetworkNamespace
from tests.system.programs import Program
from tests.system.sites import ADDRESSES, PROGRAM, SOON, udp_socket

pytestmark = pytest.mark.kernel

HOST = ADDRESSES["left"][4]


def interfaces(namespace: Namespace) -> list[str]:
    return [link.name for link in links(namespace)]


def pump_echoes(host: socket.socket, count: int) -> None:
    """Keep 16 datagrams on their way to the program and back, until ``count`` came back."""
    for _ in range(16):
        host.sendto(bytes(1000), (PROGRAM[4], 4000))
    for _ in range(count):
        host.recv(1 << 16)
        host.sendto(bytes(1000), (PROGRAM[4], 4000))


def test_kill_in_the_middle_of_traffic(
    network: NetworkNamespace, namespace: Namespace, pump: Pump, tmp_path: Path
) -> None:
    through = network.command("env", f"TMPDIR={tmp_path}")
    for _ in range(3):  # a new program has the name at once
        with Program("echo", "vpn0", pump, through=through) as program:
            assert program.line() == "ready"
            assert interfaces(namespace) == ["lo", "vpn0"]
            with closing(udp_socket(namespace, HOST)) as host:
                pump_echoes(host, 200)
                program.signal(signal.SIGKILL)
                assert program.wait() == -signal.SIGKILL
        assert interfaces(namespace) == ["lo"]
        sockets = namespace.run(Path("/proc/thread-self/net/unix").read_text).splitlines()
        assert sockets[1:] == []
        assert not [*tmp_path.iterdir()]


def test_the_default_of_sigterm_leaves_nothing(
    network: NetworkNamespace, namespace: Namespace, pump: Pump
) -> None:
    with Program("receive", "vpn0", pump, through=network.command()) as program:
        assert program.line() == "ready"
        program.signal(signal.SIGTERM)
        assert program.wait() == -signal.SIGTERM
        assert program.line() == ""
    assert interfaces(namespace) == ["lo"]


@pytest.mark.parametrize(
    ("number", "raised"),
    [
        (signal.SIGINT, "KeyboardInterrupt: "),
        (signal.SIGUSR1, f"SystemExit: signal {int(signal.SIGUSR1)}"),
    ],
    ids=["SIGINT", "handler"],
)
def test_a_signal_comes_out_of_a_blocking_receive(
    network: NetworkNamespace,
    namespace: Namespace,
    pump: Pump,
    number: signal.Signals,
    raised: str,
) -> None:
    with Program("receive", "vpn0", pump, through=network.command()) as program:
        assert program.line() == "ready"
        program.wait_asleep()
        program.signal(number)
        assert program.line() == raised
        assert program.wait() == 0
    assert interfaces(namespace) == ["lo"]


def test_a_signal_comes_out_in_the_middle_of_traffic(
    network: NetworkNamespace, namespace: Namespace, pump: Pump
) -> None:
    with Program("echo", "vpn0", pump, through=network.command()) as program:
        assert program.line() == "ready"
        with closing(udp_socket(namespace, HOST)) as host:
            pump_echoes(host, 200)
            program.signal(signal.SIGINT)
            said = [program.line()]
            while said[-2:] != ["", ""]:  # one of them may be a line of the traceback
                said.append(program.line())
        assert said[-3] == "KeyboardInterrupt", "\n".join(said)
        assert program.wait() == -signal.SIGINT  # as Python ends by an interrupt that nobody caught
    assert interfaces(namespace) == ["lo"]


def test_a_stopped_program_goes_on(
    network: NetworkNamespace, namespace: Namespace, pump: Pump
) -> None:
    """SIGSTOP and SIGCONT: what came meanwhile is answered."""
    with Program("echo", "vpn0", pump, through=network.command()) as program:
        assert program.line() == "ready"
        with closing(udp_socket(namespace, HOST)) as host:
            host.settimeout(SOON)
            program.signal(signal.SIGSTOP)
            os.waitpid(program.pid, os.WUNTRACED)
            for number in range(100):
                host.sendto(b"%d" % number, (PROGRAM[4], 4000))
            program.signal(signal.SIGCONT)
            assert [host.recv(100) for _ in range(100)] == [b"%d" % n for n in range(100)]
