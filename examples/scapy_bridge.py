"""A host that is not there, in scapy's words: it answers pings, DNS queries and HTTP requests.

unshare -rn
python examples/scapy_bridge.py &
ping -c 3 10.7.0.2
curl http://10.7.0.2/
"""

from contextlib import suppress

from scapy.layers.dns import DNS, DNSRR
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Packet

import ringtun

HOST, PAGE = "10.7.0.2", b"HTTP/1.0 200 OK\r\n\r\nhello from scapy\n"


def answer(packet: Packet) -> Packet | None:
    """What is behind IP in the answer; None where there is none. It remembers nothing."""
    match packet.payload:
        case ICMP(type=8) as ping:
            return ICMP(type=0, id=ping.id, seq=ping.seq) / ping.payload
        case UDP(dport=53, payload=DNS(qr=0, qd=[question, *_]) as query) as datagram:
            found = [DNSRR(rrname=question.qname, rdata=HOST)] if question.qtype == 1 else []
            reply = DNS(id=query.id, qr=1, aa=1, qd=[question], an=found)
            return UDP(sport=53, dport=datagram.sport) / reply
        case TCP(flags=flags, payload=data) as tcp if data or flags & "SF":
            ack = (tcp.seq + len(data) + bool(flags & "SF")) % 2**32
            flags = "RA" if tcp.dport != 80 else "FPA" if data else "SA" if flags & "S" else "A"
            back = TCP(sport=tcp.dport, dport=tcp.sport, seq=tcp.ack, ack=ack, flags=flags)
            return back / (PAGE if flags == "FPA" else b"")
    return None


def main() -> None:
    with (
        ringtun.create_adapter("host0", addresses=["10.7.0.1/24"]) as adapter,
        adapter.start_session() as session,
    ):
        print(f"{HOST} answers, behind host0", flush=True)
        for packet in map(IP, session):
            if packet.version == 4 and packet.dst == HOST and (reply := answer(packet)):
                session.send(bytes(IP(src=HOST, dst=packet.src) / reply))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
