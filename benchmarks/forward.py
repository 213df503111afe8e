"""Workload F: two network namespaces, an adapter in each, a program that carries the packets."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.child import Child, compiled, program
from benchmarks.counters import Counters
from benchmarks.rows import MeasurementError, Row, Sample, Target
from ringtun.testing.netns import NetworkNamespace

__all__ = ["PYTUNS", "configure", "pytun_lacks", "rows", "uvloop_lacks"]

_TXQUEUELEN = 5000  # packets, the same for all: ringtun's own default
_WARM_UP = 0.15  # of a measurement's duration, before it
_BEGUN = 20_000  # bytes; iperf3's agreement is some hundred
_PATIENCE = 10.0
_IPERF = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "iperf3",
)  # it does not outlive the run, however that ends


# ---- who carries ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forwarder:
    """A program between two namespaces: ``command(left, right)`` starts it."""

    name: str
    about: str
    command: Callable[[str, str], list[str]]
    lacks: str = ""
    only_tcp: bool = False
    """Measured with one TCP stream, and no other flow."""
    ours: bool = True


def forwarders() -> list[Forwarder]:
    return [
        *baselines(),
        *(
            Forwarder(name, f"ringtun, {about}", partial(program, "forward_batch", way))
            for name, way, about in (
                ("whole", "whole", "batches of whole packets"),
                ("batch-inline", "inline", "batches"),
                ("batch-copied", "copied", "batches, through the other ring"),
                ("batch-trusted", "trusted", "batches, checksums not verified"),
                ("batch-thread", "thread", "batches, threads"),
                ("service", "service", "batches, through two driver services"),
            )
        ),
        Forwarder("gathered", "ringtun, packets gathered", partial(program, "forward_gather")),
        Forwarder("packet", "ringtun, packet by packet", partial(program, "forward_packet")),
        *(
            Forwarder(
                f"{loop}-{name}",
                f"ringtun in {loop}, {about}",
                partial(program, "forward_asyncio", way, loop),
                uvloop_lacks() if loop == "uvloop" else "",
                only_tcp=(loop, name) != ("asyncio", "packet"),
            )
            for loop in ("asyncio", "uvloop")
            for name, way, about in (
                ("batch", "batch", "batches"),
                ("gathered", "gather", "packets gathered"),
                ("packet", "packet", "packet by packet"),
            )
        ),
    ]


def baselines() -> list[Forwarder]:
    made = [
        Forwarder("c-offload", "C, whole segments", partial(compiled, "forward", "offload")),
        Forwarder("c-plain", "C, read and write", partial(compiled, "forward", "plain")),
        Forwarder("python-os", "Python, os.readv/os.write", partial(program, "forward_os")),
        *(
            Forwarder(name, name, partial(program, "forward_pytun", package), pytun_lacks(name))
            for name, package in PYTUNS.items()
        ),
        Forwarder(
            "pytun-pmd3-asyncio",
            "pytun-pmd3 in asyncio, a hop to a thread for each packet",
            partial(program, "forward_hops", PYTUNS["pytun-pmd3"]),
            pytun_lacks("pytun-pmd3"),
            only_tcp=True,
        ),
    ]
    return [replace(forwarder, ours=False) for forwarder in made]


def uvloop_lacks() -> str:
    """What uvloop's rows lack here."""
    return "" if importlib.util.find_spec("uvloop") else "pip install uvloop"


PYTUNS = {"python-pytun": "pytun", "pytun-pmd3": "pytun_pmd3"}
"""What to install, and what it is to be imported as: two packages with one interface."""


def pytun_lacks(name: str) -> str:
    """What the rows of one of `PYTUNS` lack here."""
    return "" if importlib.util.find_spec(PYTUNS[name]) else f"pip install {name}"


# ---- what flows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flow:
    """Traffic as ``iperf3`` makes it, from left to right."""

    case: str
    about: str
    options: tuple[str, ...] = ()
    address: str = "10.98.0.2"
    udp_size: int = 0
    """Bytes of a datagram; 0: TCP."""
    reverse: bool = False
    """From right to left."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """Its options for ``iperf3``."""
        udp = ("-u", "-b", "0", "-l", str(self.udp_size)) if self.udp_size else ()
        return (*self.options, *udp, *(("-R",) if self.reverse else ()))

    @property
    def headers(self) -> int:
        """Bytes of headers in each packet that carries something; TCP's have timestamps."""
        return (40 if ":" in self.address else 20) + (8 if self.udp_size else 32)


FLOWS = [
    Flow("F.tcp", "one TCP stream"),
    Flow("F.reverse", "one TCP stream, the other way", reverse=True),
    Flow("F.ipv6", "one TCP stream over IPv6", address="fd98::2"),
    Flow("F.streams", "8 TCP streams", ("-P", "8")),
    Flow("F.udp64", "UDP, 64 bytes, full rate", udp_size=64),
    Flow("F.udp1400", "UDP, 1400 bytes, full rate", udp_size=1400),
]


def measure(flow: Flow, forwarder: Forwarder, seconds: float) -> Sample:
    with (
        NetworkNamespace("left") as left,
        NetworkNamespace("right") as right,
        Child(forwarder.command("left", "right")) as carrier,
    ):
        configure(left, "10.98.0.1/24", "fd98::1/64")
        configure(right, "10.98.0.2/24", "fd98::2/64")
        server = start_server(right)
        client = start_client(left, flow, seconds)
        sender, receiver = (server, client) if flow.reverse else (client, server)
        wait_for_traffic(client, receiver.pid, flow)
        time.sleep(seconds * _WARM_UP)
        before, cpu = look(sender.pid, receiver.pid), carrier.cpu_seconds()
        time.sleep(seconds)
        after, cpu = look(sender.pid, receiver.pid), carrier.cpu_seconds() - cpu
        carrier.check()
        check_client(client)
    return sample(flow, before, after, cpu)


def configure(namespace: NetworkNamespace, *addresses: str) -> None:
    """Give the program's device its addresses, and bring it up."""
    lines = [f"link set bench0 mtu 1500 txqueuelen {_TXQUEUELEN} up"]
    lines += [
        f"address add {address} dev bench0" + (" nodad" if ":" in address else "")
        for address in addresses
    ]
    namespace.run("ip", "-batch", "-", input="\n".join(lines))


def start_server(right: NetworkNamespace) -> subprocess.Popen[str]:
    server = right.popen(
        *_IPERF, "-s", "-1", "--forceflush", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert server.stdout is not None
    while "listening" not in (line := server.stdout.readline()):
        if not line:
            raise MeasurementError("the iperf3 server has ended")
    return server


def start_client(left: NetworkNamespace, flow: Flow, seconds: float) -> subprocess.Popen[str]:
    """It goes on for longer than the measurement, and ends with its namespace."""
    longer = math.ceil(seconds * (1 + _WARM_UP) + _PATIENCE)
    return left.popen(
        *_IPERF, "-c", flow.address, "-t", str(longer), "-J", *flow.arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def check_client(client: subprocess.Popen[str]) -> None:
    """Raises `MeasurementError` where it has ended, with its words."""
    if client.poll() is None:
        return
    said, errors = client.communicate()
    try:
        why = json.loads(said)["error"]
    except (ValueError, KeyError):
        why = errors.strip() or "it has ended"
    raise MeasurementError(f"iperf3: {why}")


def wait_for_traffic(client: subprocess.Popen[str], receiver: int, flow: Flow) -> None:
    """Returns once packets come through that are not those of iperf3's agreement."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        check_client(client)
        try:
            if Counters.of(receiver).payload(flow.headers) > _BEGUN:
                return
        except LookupError:  # the process has not reached its namespace yet
            pass
        if time.monotonic() > deadline:
            raise MeasurementError("nothing came through")
        time.sleep(0.005)


Look = tuple[Counters, Counters]
"""Where packets are sent, and where they arrive."""


def look(sender: int, receiver: int) -> Look:
    return Counters.of(sender), Counters.of(receiver)


def sample(flow: Flow, before: Look, after: Look, cpu: float) -> Sample:
    """What the program delivered to the adapter of who receives, by the kernel's own counters.

    iperf3's figures are of its sockets: its server stops reading before all has arrived, and the
    less so the more CPU a fast program leaves it.
    """
    (sent_0, came_0), (sent_1, came_1) = before, after
    seconds = came_1.at - came_0.at
    payload = came_1.payload(flow.headers) - came_0.payload(flow.headers)
    if payload <= 0:
        raise MeasurementError("nothing came through")
    if not flow.udp_size:
        return {
            "value": payload * 8 / seconds / 1e9,
            "cpu": cpu / payload * 1e9,
            "retransmits": sent_1.retransmits - sent_0.retransmits,
        }
    delivered = payload / flow.udp_size
    return {
        "value": delivered / seconds / 1e3,
        "cpu": cpu / delivered * 1e6,
        "lost": max(0.0, 1 - delivered / max(1, sent_1.udp_sent - sent_0.udp_sent)) * 100,
        "received": (came_1.udp_received - came_0.udp_received) / seconds / 1e3,
    }


# ---- what is asked -------------------------------------------------------------------------------

# Every other forwarder that looks at packets of the MTU's size.
_OTHERS = ("c-plain", "python-os", *PYTUNS)

_TCP_TARGETS = {
    "whole": (
        Target(0.90, 1.0, against=("c-offload",)),
        Target(1.25, figure="cpu", against=("c-offload",), at_most=True),
    ),
    "batch-inline": (
        Target(0.85, 0.95, against=("c-offload",)),
        Target(1.75, 1.5, figure="cpu", against=("c-offload",), at_most=True),
        Target(1.0, against=_OTHERS),
    ),
    "service": (Target(0.6, 0.8, against=("batch-inline",)),),
    "gathered": (Target(1.2, 1.5, against=("c-plain",)),),
    **dict.fromkeys(("asyncio-packet", "uvloop-packet"), (Target(1.0, 1.2, against=("c-plain",)),)),
}
_UDP64_TARGETS = {"batch-inline": (Target(1.0, against=("c-plain",)),)}


def rows(seconds: float) -> list[Row]:
    """All of them; a flow of TCP takes ``seconds``, one of UDP half of that."""
    carriers = forwarders()
    lacks = "" if shutil.which("iperf3") else "install iperf3"
    return [
        _row(flow, forwarder, seconds / 2 if flow.udp_size else seconds, lacks)
        for flow in FLOWS
        for forwarder in carriers
        if flow.case == "F.tcp" or not forwarder.only_tcp
    ]


def _row(flow: Flow, forwarder: Forwarder, seconds: float, lacks: str) -> Row:
    udp = flow.udp_size > 0
    targets = _TCP_TARGETS if not udp else _UDP64_TARGETS if flow.udp_size == 64 else {}
    merging = "batch" in forwarder.name or forwarder.name in ("whole", "service")
    baseline = "c-offload" if merging and not udp else "c-plain"
    return Row(
        flow.case,
        forwarder.name,
        f"{flow.about}: {forwarder.about}",
        "kpkt/s" if udp else "Gb/s",
        partial(measure, flow, forwarder, seconds),
        baseline=baseline if forwarder.name != baseline else "",
        targets=targets.get(forwarder.name, ()),
        cpu_unit="s/Mpkt" if udp else "s/GB",
        also={"lost": "% lost", "received": "kpkt/s received"} if udp else {"retransmits": "retr"},
        lacks=lacks or forwarder.lacks,
        ours=forwarder.ours,
        takes=seconds * (1 + _WARM_UP) + 1,
    )
