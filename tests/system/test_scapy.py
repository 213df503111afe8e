"""scapy at both ends: packets that no socket makes, byte for byte, and a program made of it."""

from __future__ import annotations

import random
import shutil
import socket
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRR
from scapy.layers.inet import (
    ICMP,
    IP,
    TCP,
    UDP,
    IPOption_NOP,
    IPOption_Router_Alert,
    IPOption_RR,
    IPOption_Timestamp,
    fragment,
)
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    RouterAlert,
    fragment6,
)

from ringtun import Session
from ringtun.device.embedded import Pump
from tests.system.packets import is_noise, protocol_of
from tests.system.programs import Program
from tests.system.sites import (
    ADDRESSES,
    FAMILY,
    PROGRAM,
    SOON,
    Background,
    Site,
    closing_at_the_end,
    next_packet,
)

pytestmark = pytest.mark.kernel

NOBODY = {4: "10.99.0.77", 6: "fd99::77"}
"""An address of the left network that nobody has: the kernel lets pass what is for it."""

NAME = "gate.ringtun.test."
DATA = random.Random(5).randbytes(1000)

UNKNOWN = HBHOptUnknown(otype=0x1E, optdata=b"unheard of")
EVERY_HOP = IPv6ExtHdrHopByHop(options=[RouterAlert(), UNKNOWN])
LAST_HOP = IPv6ExtHdrDestOpt(options=[UNKNOWN])
RECORD_ROUTE = IPOption_RR(routers=["0.0.0.0"] * 3)
TIMESTAMP = IPOption_Timestamp(pointer=5)


# scapy on the kernel's side ----------------------------------------------------------------------


def exchanges_v4() -> list[tuple[Any, Any]]:
    there, back = IP(src=NOBODY[4], dst=PROGRAM[4], id=7), IP(src=PROGRAM[4], dst=NOBODY[4], id=8)
    options = [RECORD_ROUTE, IPOption_NOP(), IPOption_Router_Alert()]
    question = DNS(id=9, qd=DNSQR(qname=NAME))
    answer = DNS(id=9, qr=1, qd=DNSQR(qname=NAME), an=DNSRR(rrname=NAME, rdata=PROGRAM[4]))
    syn = TCP(sport=5001, dport=80, seq=100, options=[("MSS", 1400), ("SAckOK", b"")])
    syn_ack = TCP(sport=80, dport=5001, seq=900, ack=101, flags="SA", options=[("WScale", 7)])
    unwanted = there.copy()
    unwanted.ttl, unwanted.tos, unwanted.flags = 1, 0xB8, "DF"
    unwanted /= UDP(sport=5002, dport=9) / DATA
    optional = [there.copy(), back.copy()]
    for header in optional:
        header.options = options
    return [
        (there / UDP(sport=5000, dport=53) / question, back / UDP(sport=53, dport=5000) / answer),
        (there / syn, back / syn_ack),
        (unwanted, back / ICMP(type=3, code=3) / bytes(unwanted)[:28]),
        (optional[0] / ICMP(id=3, seq=4) / DATA, optional[1] / ICMP(type=0, id=3, seq=4) / DATA),
    ]


def exchanges_v6() -> list[tuple[Any, Any]]:
    there, back = IPv6(src=NOBODY[6], dst=PROGRAM[6], fl=7), IPv6(src=PROGRAM[6], dst=NOBODY[6])
    question = DNS(id=9, qd=DNSQR(qname=NAME, qtype="AAAA"))
    answer = DNS(id=9, qr=1, qd=question.qd, an=DNSRR(rrname=NAME, type="AAAA", rdata=PROGRAM[6]))
    ask, tell = UDP(sport=5000, dport=53) / question, UDP(sport=53, dport=5000) / answer
    ping, pong = ICMPv6EchoRequest(id=3, seq=4, data=DATA), ICMPv6EchoReply(id=3, seq=4, data=DATA)
    syn, syn_ack = TCP(sport=5001, seq=100), TCP(dport=5001, sport=80, seq=9, ack=101, flags="SA")
    return [
        (there / ask, back / tell),
        (there / LAST_HOP / ask, back / LAST_HOP / tell),
        (there / EVERY_HOP / ping, back / EVERY_HOP / pong),
        (there / EVERY_HOP / LAST_HOP / ping, back / EVERY_HOP / LAST_HOP / pong),
        (there / syn, back / syn_ack),
    ]


def test_sr1_is_answered(left: Site, pump: Pump) -> None:
    """What scapy sends below the kernel's IP comes as it is, and so does what the program sends."""
    with (
        left.adapter.start_session(pump=pump) as session,
        Program("sr1", "vpn0", pump, through=left.network.command()) as scapy,
    ):
        assert scapy.line() == "ready"
        for request, answer in [*exchanges_v4(), *exchanges_v6()]:
            sent = bytes(request)
            scapy.tell(sent.hex())
            received = session.receive(SOON)
            while is_noise(received) and received != sent:
                received = session.receive(SOON)
            assert received == sent
            session.send(bytes(answer))
            assert scapy.line() == bytes(answer).hex(), answer


# scapy in the program: odd packets ---------------------------------------------------------------


def whole_packets(version: int, datagram: Any) -> list[Any]:
    """The datagram to the left site, with what may stand between it and the plain IP header."""
    source, destination = PROGRAM[version], ADDRESSES["left"][version]
    if version == 4:
        return [
            IP(src=source, dst=destination, id=7, options=options) / datagram
            for options in (
                [],
                [RECORD_ROUTE],
                [TIMESTAMP, IPOption_NOP(), IPOption_Router_Alert()],
            )
        ]
    header = IPv6(src=source, dst=destination)
    return [
        header / datagram,
        header / EVERY_HOP / datagram,
        header / LAST_HOP / datagram,
        header / EVERY_HOP / LAST_HOP / datagram,
        header / IPv6ExtHdrFragment(id=7) / datagram,
    ]


def fragments(version: int, datagram: Any) -> list[Any]:
    """The same in small pieces, in no order."""
    whole = whole_packets(version, datagram)
    cut: Any = {4: partial(fragment, fragsize=80), 6: partial(fragment6, fragSize=128)}[version]
    pieces: list[Any] = cut(whole[0] if version == 4 else whole[-1])
    random.Random(version).shuffle(pieces)
    assert len(pieces) > 10
    return pieces


def test_the_kernel_takes_odd_packets(left: Site, pump: Pump, version: int) -> None:
    with (
        left.adapter.start_session(pump=pump) as session,
        closing(left.packet_socket()) as below_ip,
        closing(left.udp(version)) as host,
    ):
        datagram = UDP(sport=4000, dport=host.getsockname()[1]) / DATA
        alone = [[packet] for packet in whole_packets(version, datagram)]
        for packets in [*alone, fragments(version, datagram)]:
            for packet in packets:
                session.send(bytes(packet))
                assert below_ip.receive(SOON) == bytes(packet)
            assert host.recv(1 << 16) == DATA, packets
        assert session.statistics().discards.total == 0


# scapy in the program: TCP by hand ---------------------------------------------------------------


def parsed(packet: bytes) -> Any:
    """As scapy has it, which would have filled in the same lengths and checksums."""
    found = (IP if packet[0] >> 4 == 4 else IPv6)(packet)
    again = found.copy()
    for layer in again.iterpayloads():
        for name in ("len", "plen", "chksum", "cksum"):
            if name in layer.fields:
                delattr(layer, name)
    assert bytes(again) == packet
    return found


class TcpByHand:
    """The program's end of a connection with the kernel of the left site."""

    def __init__(self, session: Session, version: int, port: int, kernel_port: int = 0) -> None:
        kind: Any = {4: IP, 6: IPv6}[version]
        self._header = kind(src=PROGRAM[version], dst=ADDRESSES["left"][version])
        self._session = session
        self._port, self._kernel_port = port, kernel_port
        self._next, self._expected = 1000, 0

    def send(self, flags: str, data: bytes = b"") -> None:
        header = TCP(
            sport=self._port,
            dport=self._kernel_port,
            flags=flags,
            seq=self._next,
            ack=self._expected,
            options=[("MSS", 1400)] if "S" in flags else [],
        )
        self._session.send(bytes(self._header / header / data))
        self._next += len(data) + ("S" in flags or "F" in flags)

    def _segment(self) -> Any:
        packet = next_packet(self._session)
        while protocol_of(packet) != socket.IPPROTO_TCP:
            packet = next_packet(self._session)
        return parsed(packet)[TCP]

    def syn(self) -> str:
        """Take the first segment; gives its flags."""
        segment = self._segment()
        self._kernel_port = segment.sport
        self._expected = segment.seq + 1
        return str(segment.flags)

    def receive(self) -> tuple[str, bytes]:
        """The flags and data of the next segment that has something new."""
        while True:
            segment = self._segment()
            data = bytes(segment.payload)
            size = len(data) + ("F" in segment.flags)
            if segment.seq == self._expected and size:
                self._expected += size
                return str(segment.flags), data

    def await_acknowledgement(self) -> None:
        """Wait until the kernel has everything."""
        while self._segment().ack != self._next:
            pass


def converse(hand: TcpByHand, kernel: socket.socket) -> None:
    """Data both ways, and the end of both."""
    kernel.settimeout(SOON)
    kernel.sendall(DATA)
    assert hand.receive() == ("PA", DATA)
    hand.send("PA", DATA[::-1])
    hand.await_acknowledgement()
    assert kernel.recv(1 << 16) == DATA[::-1]
    kernel.shutdown(socket.SHUT_WR)
    assert hand.receive() == ("FA", b"")
    hand.send("FA")
    hand.await_acknowledgement()
    assert kernel.recv(1) == b""


def test_the_kernel_connects(left: Site, pump: Pump, version: int) -> None:
    def connect() -> None:
        client.settimeout(SOON)
        client.connect((PROGRAM[version], 80))

    with (
        left.adapter.start_session(pump=pump) as session,
        left.namespace.run(partial(socket.socket, FAMILY[version])) as client,
        Background(connect) as connecting,
    ):
        hand = TcpByHand(session, version, 80)
        assert hand.syn() == "S"
        hand.send("SA")
        hand.await_acknowledgement()
        connecting.result()
        converse(hand, client)


def test_the_kernel_listens(left: Site, pump: Pump, version: int) -> None:
    address = left.addresses[version], 0
    with (
        left.adapter.start_session(pump=pump) as session,
        left.namespace.run(
            partial(socket.create_server, address, family=FAMILY[version])
        ) as listener,
    ):
        listener.settimeout(SOON)
        hand = TcpByHand(session, version, 5000, listener.getsockname()[1])
        hand.send("S")
        assert hand.syn() == "SA"
        hand.send("A")
        with listener.accept()[0] as server:
            assert server.getpeername()[:2] == (PROGRAM[version], 5000)
            converse(hand, server)


# scapy in the program: a name server -------------------------------------------------------------


def dns_answer(packet: bytes) -> bytes | None:
    """To a question after a name, or after an address: always `NAME`. None for what is none."""
    question = parsed(packet)
    if not question.haslayer(DNS):
        return None
    asked, ports = question[DNS].qd, question[UDP]
    assert asked[0].qtype == 12  # PTR
    record = DNSRR(rrname=asked[0].qname, type="PTR", rdata=NAME)
    back = type(question)(src=question.dst, dst=question.src)
    answer = DNS(id=question[DNS].id, qr=1, aa=1, qd=asked, an=record)
    return bytes(back / UDP(sport=ports.dport, dport=ports.sport) / answer)


@pytest.mark.skipif(shutil.which("nmap") is None, reason="NOT TRIED: install nmap")
def test_a_name_server(left: Site, pump: Pump, version: int) -> None:
    """nmap asks it for the name of an address, of each version."""

    def serve() -> None:
        for packet in session:
            answer = dns_answer(packet)
            if answer is not None:
                session.send(answer)

    with (
        left.adapter.start_session(pump=pump) as session,
        closing_at_the_end(serve, session),
    ):
        for of_version in (4, 6):
            options = ["-6"] if of_version == 6 else []
            said = left.network.run(
                *("nmap", "-sL", "-R", "--dns-servers", PROGRAM[version], *options),
                NOBODY[of_version],
            ).stdout
            assert f"report for {NAME.rstrip('.')} ({NOBODY[of_version]})" in said
