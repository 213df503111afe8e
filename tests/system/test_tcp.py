"""TCP through two adapters and the program between them."""

from __future__ import annotations

import hashlib
import random
import socket
from contextlib import ExitStack
from functools import partial

import pytest

from ringtun.device.embedded import Pump
from tests.system.conftest import MakeSite
from tests.system.sites import FAMILY, SOON, Background, Site, forwarding

pytestmark = pytest.mark.kernel

SIZE = 32 << 20


def connect(left: Site, right: Site, version: int, stack: ExitStack) -> list[socket.socket]:
    """Both ends of a connection from left to right."""

    def open_socket() -> socket.socket:
        return socket.socket(FAMILY[version], socket.SOCK_STREAM)

    listener = stack.enter_context(right.namespace.run(open_socket))
    client = stack.enter_context(left.namespace.run(open_socket))
    for end in (listener, client):
        end.settimeout(SOON)
    listener.bind((right.addresses[version], 0))
    listener.listen()
    client.connect(listener.getsockname())
    server = stack.enter_context(listener.accept()[0])
    server.settimeout(SOON)
    return [client, server]


def send(stream: socket.socket, data: bytes) -> None:
    stream.sendall(data)
    stream.shutdown(socket.SHUT_WR)


def digest_of(stream: socket.socket) -> tuple[int, str]:
    """How many bytes come until the end, and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    while block := stream.recv(1 << 20):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


@pytest.mark.parametrize("mtu", [1500, 65535])
def test_both_ways_at_once(make_site: MakeSite, pump: Pump, version: int, mtu: int) -> None:
    left, right = make_site("left", mtu=mtu), make_site("right", mtu=mtu)
    data = [random.Random(seed).randbytes(SIZE) for seed in (1, 2)]
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        forwarding(near, far),
        ExitStack() as stack,
    ):
        ends = connect(left, right, version, stack)
        receivers = [
            stack.enter_context(Background(partial(digest_of, end))) for end in reversed(ends)
        ]
        senders = [
            stack.enter_context(Background(partial(send, end, part)))
            for end, part in zip(ends, data, strict=True)
        ]
        for sender in senders:
            sender.result()
        for receiver, part in zip(receivers, data, strict=True):
            assert receiver.result() == (SIZE, hashlib.sha256(part).hexdigest())
        moved = near.statistics()
        assert moved.received_bytes > SIZE
        assert moved.sent_bytes > SIZE
