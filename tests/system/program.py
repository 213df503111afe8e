"""What runs beside the tests in a process of its own; see `tests.system.programs`.

``python -m tests.system.program echo vpn0 inline`` and the like. It says one line at a time.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import cast

import ringtun
from ringtun.device.embedded import Pump
from ringtun.host.offload import Coalesces, large_packet
from tests.system.packets import is_noise, udp_echo
from tests.system.sites import until

HOST, PEER = ("10.99.0.1", 4001), ("10.99.0.2", 4000)
WARM_UP = 20


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def create(name: str) -> ringtun.Adapter:
    return ringtun.create_adapter(name, addresses=[f"{HOST[0]}/24"])


def echo(session: ringtun.Session) -> None:
    for packet in session:
        answer = udp_echo(packet)
        if answer is not None:
            session.send(answer)


def run_echo(name: str, pump: Pump) -> None:
    """Make an adapter, and send back what comes, until killed."""
    with create(name) as adapter, adapter.start_session(pump=pump) as session:
        say("ready")
        echo(session)


def run_receive(name: str, pump: Pump) -> None:
    """Wait for a packet; say what comes instead of one."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(f"signal {number}")

    signal.signal(signal.SIGUSR1, leave)
    try:
        with create(name) as adapter, adapter.start_session(pump=pump) as session:
            say("ready")
            session.receive()
    except BaseException as end:
        say(f"{type(end).__name__}: {end}")


def run_open(name: str, pump: Pump) -> None:
    """Open an adapter that is there, and send back what comes, until told to end."""
    try:
        with ringtun.open_adapter(name) as adapter, adapter.start_session(pump=pump) as session:
            say("ready")
            packet = session.receive()
            while is_noise(packet):
                packet = session.receive()
            answer = udp_echo(packet)
            assert answer is not None
            session.send(answer)
            say("answered")
            sys.stdin.readline()
    except (ringtun.RingtunError, OSError) as error:
        say(f"{type(error).__name__}: {error}")


def run_create(name: str, pump: Pump) -> None:
    """Make an adapter, or say why not."""
    try:
        create(name).close()
        say("created")
    except (ringtun.RingtunError, OSError) as error:
        say(f"{type(error).__name__}: {error}")


def run_churn(name: str, _pump: Pump) -> None:
    """Keep the kernel's network configuration busy, until killed."""
    say("ready")
    while True:
        create(name).close()


def run_sr1(_name: str, _pump: Pump) -> None:
    """Let scapy send the packets that it is told in hexadecimal, and say what answers each."""
    from scapy.all import conf, sr1
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    conf.verb = 0
    say("ready")
    for line in sys.stdin:
        packet = bytes.fromhex(line)
        answer = sr1((IP if packet[0] >> 4 == 4 else IPv6)(packet), timeout=5)
        say("no answer" if answer is None else bytes(answer).hex())


def run_merge(name: str, pump: Pump) -> None:
    """Send two packets of each kind that are merged; say how many large ones went out."""
    with create(name) as adapter, adapter.start_session(pump=pump) as session:
        for kind in Coalesces.ALL:
            large = ringtun.OffloadPacket(b"".join(large_packet(kind)))
            session.send_many(large.segments())
        until(lambda: session.statistics().sent_packets == 8, "they do not go out")
        say(str(session.statistics().merged))
        sys.stdin.read()


def run_nothing(_name: str, _pump: Pump) -> None:
    """Only say that it runs."""
    say("nothing")


def run_cycles(count: str, pump: Pump) -> None:
    """Make adapters, one after the other; say what of this process and the system they cost."""
    for number in range(WARM_UP):
        cycle(number, pump)
    holdings()  # what looking costs the first time is no growth
    before = holdings()
    for number in range(int(count)):
        cycle(number, pump)
    say(json.dumps([before, holdings()]))


def cycle(number: int, pump: Pump) -> None:
    """An adapter's whole life, with a short session, and a packet both ways."""
    if number % 10 == 0:
        gc.collect()  # else garbage in cycles (netlink's library makes some) has its ups and downs
    payload = b"%d" % number
    with (
        create("cycle0") as adapter,
        adapter.start_session(pump=pump) as session,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.settimeout(5)
        datagrams.bind(HOST)
        datagrams.sendto(payload, PEER)
        packet = session.receive(5)
        assert packet.endswith(payload)
        answer = udp_echo(packet)
        assert answer is not None
        session.send(answer)
        assert datagrams.recv(1 << 16) == payload


def holdings() -> dict[str, object]:
    """What this process holds, and the interfaces of its namespace."""
    gc.collect()
    memory = Path("/proc/self/smaps_rollup").read_text()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "threads": len(os.listdir("/proc/self/task")),
        "memfds": Path("/proc/self/maps").read_text().count("memfd:"),
        "rss_kib": next(
            int(line.split()[1]) for line in memory.splitlines() if line.startswith("Rss:")
        ),
    }


COMMANDS = {
    "churn": run_churn,
    "create": run_create,
    "cycles": run_cycles,
    "echo": run_echo,
    "merge": run_merge,
    "nothing": run_nothing,
    "open": run_open,
    "receive": run_receive,
    "sr1": run_sr1,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2], cast(Pump, sys.argv[3]))
