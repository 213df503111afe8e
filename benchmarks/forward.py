"""Workload F: two network namespaces, an adapter in each, a program that carries the packets."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.child import Child, compiled, program
from benchmarks.rows import MeasurementError, Row, Sample, Target
from ringtun.testing.netns import NetworkNamespace

__all__ = ["configure", "pytun_lacks", "rows", "uvloop_lacks"]

_TXQUEUELEN = 5000  # packets, the same for all: ringtun's own default
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


def forwarders() -> list[Forwarder]:
    return [
        Forwarder("c-offload", "C, whole segments", partial(compiled, "forward", "offload")),
        Forwarder("c-plain", "C, read and write", partial(compiled, "forward", "plain")),
        Forwarder("python-os", "Python, os.readv/os.write", partial(program, "forward_os")),
        Forwarder("python-pytun", "python-pytun", partial(program, "forward_pytun"), pytun_lacks()),
        Forwarder("batch-inline", "ringtun, batches", partial(program, "forward_batch", "inline")),
        Forwarder(
            "batch-thread", "ringtun, batches, threads", partial(program, "forward_batch", "thread")
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


def uvloop_lacks() -> str:
    """What uvloop's rows lack here."""
    return "" if importlib.util.find_spec("uvloop") else "pip install uvloop"


def pytun_lacks() -> str:
    """What python-pytun's rows lack here."""
    return "" if importlib.util.find_spec("pytun") else "pip install python-pytun"


# ---- what flows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flow:
    """Traffic from left to right, as ``iperf3`` makes it."""

    case: str
    about: str
    arguments: tuple[str, ...] = ()
    address: str = "10.98.0.2"
    udp_size: int = 0
    """Bytes of a datagram; 0: TCP."""


FLOWS = [
    Flow("F.tcp", "one TCP stream"),
    Flow("F.reverse", "one TCP stream, the other way", ("-R",)),
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
        before = carrier.cpu_seconds()
        report = iperf(left, right, flow, seconds)
        carrier.check()
        cpu = carrier.cpu_seconds() - before
        delivered = packets_from_program(right)
    return udp_sample(report, cpu, delivered) if flow.udp_size else tcp_sample(report, cpu)


def configure(namespace: NetworkNamespace, *addresses: str) -> None:
    """Give the program's device its addresses, and bring it up."""
    lines = [f"link set bench0 mtu 1500 txqueuelen {_TXQUEUELEN} up"]
    lines += [
        f"address add {address} dev bench0" + (" nodad" if ":" in address else "")
        for address in addresses
    ]
    namespace.run("ip", "-batch", "-", input="\n".join(lines))


def packets_from_program(namespace: NetworkNamespace) -> int:
    """How many the device has taken from the program so far."""
    said = namespace.run("ip", "-json", "-stats", "link", "show", "bench0").stdout
    return int(json.loads(said)[0]["stats64"]["rx"]["packets"])


def iperf(
    left: NetworkNamespace, right: NetworkNamespace, flow: Flow, seconds: float
) -> dict[str, Any]:
    """One run; returns its report."""
    duration = max(1, round(seconds))  # iperf3 knows whole seconds only
    udp = ("-u", "-b", "0", "-l", str(flow.udp_size)) if flow.udp_size else ()
    server = right.popen(
        *_IPERF, "-s", "-1", "--forceflush", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert server.stdout is not None
    while "listening" not in (line := server.stdout.readline()):
        if not line:
            raise MeasurementError("the iperf3 server has ended")
    try:
        client = left.run(
            *_IPERF, "-c", flow.address, "-t", str(duration), "-J", *flow.arguments, *udp,
            check=False, timeout=duration + 20,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise MeasurementError("iperf3 did not come to an end") from None
    try:
        report: dict[str, Any] = json.loads(client.stdout)
    except ValueError:
        raise MeasurementError(f"iperf3: {client.stderr.strip() or 'no report'}") from None
    if "error" in report:
        raise MeasurementError(f"iperf3: {report['error']}")
    return report


def tcp_sample(report: dict[str, Any], cpu: float) -> Sample:
    received = report["end"]["sum_received"]
    if not received["bytes"]:
        raise MeasurementError("nothing came through")
    return {
        "value": received["bits_per_second"] / 1e9,
        "cpu": cpu / received["bytes"] * 1e9,
        "retransmits": report["end"]["sum_sent"].get("retransmits", 0),
    }


def udp_sample(report: dict[str, Any], cpu: float, delivered: int) -> Sample:
    """What the program delivered to the other adapter. iperf3's own receiver loses more of it, the
    more so the less CPU a fast program leaves it: that is told beside, and judged by nobody.
    """
    total = report["end"]["sum"]
    if not delivered:
        raise MeasurementError("nothing came through")
    return {
        "value": delivered / total["seconds"] / 1e3,
        "cpu": cpu / delivered * 1e6,
        "lost": max(0.0, 1 - delivered / total["packets"]) * 100,
        "received": (total["packets"] - total["lost_packets"]) / total["seconds"] / 1e3,
    }


# ---- what is asked -------------------------------------------------------------------------------

# Every other forwarder that looks at packets of the MTU's size.
_OTHERS = ("c-plain", "python-os", "python-pytun")

_TCP_TARGETS = {
    "batch-inline": (
        Target(0.85, 0.95, against=("c-offload",)),
        Target(1.75, 1.5, figure="cpu", against=("c-offload",), at_most=True),
        Target(1.0, against=_OTHERS),
    ),
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
    baseline = "c-offload" if "batch" in forwarder.name and not udp else "c-plain"
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
    )
