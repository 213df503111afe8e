"""A stream of numbered UDP datagrams: its two ends, and what they make of it together."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ringtun.demo.child import PIPES, Child, emit, python
from ringtun.demo.report import DatagramStream, Progress
from ringtun.demo.stream import PAYLOAD_BYTES, RATE, Account, paced, payload
from ringtun.testing.netns import NetworkNamespace

__all__ = ["measure", "receive", "send"]

_PATIENCE: Final = 5.0
_QUIET: Final = 0.2
"""Seconds without a datagram, after the last one was sent, after which no more will come."""
_TELL_EVERY: Final = 0.2
_BUFFER_BYTES: Final = 4 << 20
# asm-generic/socket.h (x86, Arm, RISC-V and most others), linux/sock_diag.h
_SO_RCVBUFFORCE: Final = 33
_SO_MEMINFO: Final = 55
_SK_MEMINFO_DROPS: Final = 8


def measure(
    source: NetworkNamespace,
    destination: NetworkNamespace,
    address: str,
    seconds: float,
    observe: Callable[[Progress], None],
) -> DatagramStream:
    """Send from ``source`` to ``address`` in ``destination`` for so many seconds.

    Raises `MeasurementError` where the two ends cannot.
    """
    peer = "ringtun.demo.peer"
    with Child(destination.popen(*python(peer, "udp-receive", address), **PIPES)) as receiver:
        port = str(receiver.read(_PATIENCE)["port"])
        command = python(peer, "udp-send", address, port, str(seconds))
        with Child(source.popen(*command, **PIPES)) as sender:
            while "offered" not in (said := sender.read(_PATIENCE)):
                observe(Progress(min(1.0, said["sent"] / (seconds * RATE)), said["sent"]))
        receiver.tell("that was all")
        arrived = receiver.read(_PATIENCE)
    return DatagramStream(
        offered=said["offered"],
        lost=said["offered"] - arrived["arrived"],
        payload_bytes=PAYLOAD_BYTES,
        seconds=said["seconds"],
        **arrived,
    )


def send(address: str, port: int, seconds: float) -> None:
    """In the sending process: send for so many seconds, and say how many that were."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    start = told = time.monotonic()
    offered = 0
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.connect((address, port))
        for number in paced(seconds):
            sender.send(payload(number))
            offered += 1
            if offered % 64 == 0 and time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                emit(sent=offered)
    emit(offered=offered, seconds=time.monotonic() - start)


def receive(address: str, was_all: threading.Event) -> None:
    """In the receiving process: say the port, and account for what comes.

    It ends once ``was_all`` is set, when no more comes.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    account = Account()
    with socket.socket(family, socket.SOCK_DGRAM) as receiver:
        _enlarge_buffer(receiver)
        receiver.bind((address, 0))
        receiver.settimeout(_QUIET)
        emit(port=receiver.getsockname()[1])
        buffer = memoryview(bytearray(2 * PAYLOAD_BYTES))
        while True:
            try:
                account.add(buffer[: receiver.recv_into(buffer)])
            except TimeoutError:
                if was_all.is_set():
                    break
        dropped = _dropped(receiver)
    emit(
        arrived=account.arrived,
        reordered=account.reordered,
        duplicated=account.duplicated,
        damaged=account.damaged,
        dropped_at_socket=dropped,
    )


def _enlarge_buffer(receiver: socket.socket) -> None:
    """As far as the system lets us: beyond ``net.core.rmem_max`` it takes root."""
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    with suppress(PermissionError):
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)


def _dropped(receiver: socket.socket) -> int:
    """Datagrams that found the socket's buffer full."""
    counters = struct.Struct(f"{_SK_MEMINFO_DROPS + 1}I")
    dropped: int = counters.unpack(
        receiver.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, counters.size)
    )[_SK_MEMINFO_DROPS]
    return dropped
