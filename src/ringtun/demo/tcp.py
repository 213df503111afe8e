"""A TCP transfer: its two ends, each in a process of its own, and what they make of it together."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

from ringtun.demo.child import PIPES, Child, emit, python
from ringtun.demo.errors import MeasurementError
from ringtun.demo.report import Progress, Transfer
from ringtun.testing.netns import NetworkNamespace

__all__ = ["measure", "receive", "send"]

_CHUNK_BYTES: Final = 256 << 10
_SERIAL: Final = struct.Struct("!Q")
_PATIENCE: Final = 5.0
"""Seconds without any progress, after which it has failed."""
_TELL_EVERY: Final = 0.2


def measure(
    source: NetworkNamespace,
    destination: NetworkNamespace,
    address: str,
    seconds: float,
    observe: Callable[[Progress], None],
) -> Transfer:
    """Send from ``source`` to ``address`` in ``destination`` for so many seconds.

    Raises `MeasurementError` where the two ends cannot.
    """
    peer = "ringtun.demo.peer"
    with Child(destination.popen(*python(peer, "tcp-receive", address), **PIPES)) as receiver:
        port = str(receiver.read(_PATIENCE)["port"])
        command = python(peer, "tcp-send", address, port, str(seconds))
        with Child(source.popen(*command, **PIPES)) as sender:
            received = _follow(receiver, seconds, observe)
            sent = sender.read(_PATIENCE)
    return Transfer(
        sent_bytes=sent["bytes"],
        received_bytes=received["bytes"],
        seconds=received["seconds"],
        goodput_bits_per_second=received["bytes"] * 8 / received["seconds"],
        sent_sha256=sent["sha256"],
        received_sha256=received["sha256"],
    )


def _follow(receiver: Child, seconds: float, observe: Callable[[Progress], None]) -> dict[str, Any]:
    """Report its progress until it is done."""
    until = time.monotonic() + seconds + 2 * _PATIENCE
    while time.monotonic() < until:
        said = receiver.read(2 * _PATIENCE)
        if "sha256" in said:
            return said
        observe(Progress(min(1.0, said["seconds"] / seconds), said["bytes"]))
    raise MeasurementError("the transfer did not come to an end in time")


def send(address: str, port: int, seconds: float) -> None:
    """In the sending process: send for so many seconds; say how much it was, and its SHA-256."""
    digest = hashlib.sha256()
    chunk = bytearray(os.urandom(_CHUNK_BYTES))
    serial = 0
    with socket.create_connection((address, port), timeout=_PATIENCE) as connection:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            _SERIAL.pack_into(chunk, 0, serial)  # no two chunks are equal
            digest.update(chunk)
            connection.sendall(chunk)
            serial += 1
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)  # the receiver has all of it, and closes
    emit(bytes=serial * _CHUNK_BYTES, sha256=digest.hexdigest())


def receive(address: str) -> None:
    """In the receiving process: say the port, take one connection's data, say what it was."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        server.settimeout(_PATIENCE)
        emit(port=server.getsockname()[1])
        connection, _ = server.accept()
    with connection:
        connection.settimeout(_PATIENCE)
        emit(**_take_all(connection))


def _take_all(connection: socket.socket) -> dict[str, object]:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    count = 0
    start = now = told = time.monotonic()
    while size := connection.recv_into(buffer):
        now = time.monotonic()
        if not count:
            start = now
        count += size
        digest.update(buffer[:size])
        if now - told > _TELL_EVERY:
            told = now
            emit(bytes=count, seconds=now - start)
    return {"bytes": count, "seconds": time.monotonic() - start, "sha256": digest.hexdigest()}
