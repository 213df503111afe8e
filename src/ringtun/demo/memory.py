"""The last resort: two sessions back to back in memory, with both ends of everything in Python.

The rings, the engine and the sessions are those of any adapter. The network stacks of both hosts
are missing: this module stands in for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from ringtun.demo.addresses import LEFT, RIGHT
from ringtun.demo.packets import (
    UDP,
    Address,
    Packet,
    echo_reply,
    echo_request,
    udp,
    udp_payload,
)
from ringtun.demo.report import DatagramStream, NotRun, Observer, Progress, RoundTrips, Side
from ringtun.demo.stream import PAYLOAD_BYTES, RATE, Account, paced, payload
from ringtun.errors import SessionClosed
from ringtun.session import Session
from ringtun.testing import memory_link

__all__ = ["measure"]

NO_KERNEL_TUN: Final = NotRun("no kernel TUN")

_IPV4: Final = (IPv4Address(LEFT.ipv4), IPv4Address(RIGHT.ipv4))
_IPV6: Final = (IPv6Address(LEFT.ipv6), IPv6Address(RIGHT.ipv6))
_PORTS: Final = (40000, 5000)
_ECHOES: Final = 10
_ECHO_PAYLOAD: Final = bytes(range(56))
_PATIENCE: Final = 2.0
_TELL_EVERY: Final = 4096
"""Datagrams, from one report of progress to the next."""


def measure(seconds: float, observer: Observer) -> dict[str, Any]:
    """What of `Report` can be measured here, and why the rest cannot, by field name."""
    rows: dict[str, Any] = {}
    for name in ("ping_ipv4", "ping_ipv6", "tcp_ipv4", "tcp_ipv6"):
        rows[name] = NO_KERNEL_TUN
        observer.saw(name, NO_KERNEL_TUN)
    left, right = memory_link()
    with left, right, left.start_session() as session, right.start_session() as far_session:
        account = Account()
        with _answering(far_session, account):
            for name, run in (
                ("echo_ipv4", partial(_ping, session, _IPV4)),
                ("echo_ipv6", partial(_ping, session, _IPV6)),
                ("udp_ipv4", partial(_stream, session, account, seconds)),
            ):
                rows[name] = run(partial(observer.saw, name))
                observer.saw(name, rows[name])
            rows["left"] = Side(left.statistics(), session.statistics())
            rows["right"] = Side(right.statistics(), far_session.statistics())
    observer.saw("left", rows["left"])
    observer.saw("right", rows["right"])
    return rows


@contextmanager
def _answering(session: Session, account: Account) -> Iterator[None]:
    """Have a thread stand in for the right host, until the block ends; that closes the session."""
    thread = threading.Thread(target=_answer, args=(session, account))
    thread.start()
    try:
        yield
    finally:
        session.close()
        thread.join()


def _answer(session: Session, account: Account) -> None:
    """The right host: it answers echo requests, and accounts for datagrams."""
    with suppress(SessionClosed):  # any other end than ours shows as replies that do not come
        for data in session:
            try:
                packet = Packet.from_bytes(data)
                if packet.protocol == UDP:
                    account.add(udp_payload(packet))
                else:
                    session.send(echo_reply(packet).to_bytes())
            except ValueError:
                account.damaged += 1


def _ping(
    session: Session, ends: tuple[Address, Address], observe: Callable[[Progress], None]
) -> RoundTrips:
    times: list[float] = []
    for sequence in range(1, _ECHOES + 1):
        took = _round_trip(session, ends, sequence)
        if took is not None:
            times.append(took * 1000)
        observe(Progress(sequence / _ECHOES, len(times)))
    if not times:
        return RoundTrips(_ECHOES, 0, None, None, None)
    average = sum(times) / len(times)
    return RoundTrips(_ECHOES, len(times), min(times), average, max(times))


def _round_trip(session: Session, ends: tuple[Address, Address], sequence: int) -> float | None:
    """Seconds from an echo request to its reply, byte for byte; None where that does not come."""
    request = echo_request(*ends, sequence, _ECHO_PAYLOAD)
    sent, expected = request.to_bytes(), echo_reply(request).to_bytes()
    start = time.perf_counter()
    session.send(sent)
    with suppress(TimeoutError):
        while (left := start + _PATIENCE - time.perf_counter()) > 0:
            if session.receive(left) == expected:
                return time.perf_counter() - start
    return None


def _stream(
    session: Session, account: Account, seconds: float, observe: Callable[[Progress], None]
) -> DatagramStream:
    start = time.monotonic()
    offered = 0
    for number in paced(seconds):
        session.send(udp(*_IPV4, _PORTS, payload(number)).to_bytes())
        offered += 1
        if offered % _TELL_EVERY == 0:
            observe(Progress(offered / (seconds * RATE), offered))
    took = time.monotonic() - start
    _round_trip(session, _IPV4, 0)  # packets keep their order: all before it have been seen then
    return DatagramStream(
        offered=offered,
        arrived=account.arrived,
        lost=offered - account.arrived,
        reordered=account.reordered,
        duplicated=account.duplicated,
        damaged=account.damaged,
        dropped_at_socket=0,
        payload_bytes=PAYLOAD_BYTES,
        seconds=took,
    )
