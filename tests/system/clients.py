"""A well-behaved client of the driver service, to be beside one that is not."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import ringtun
from tests.system.packets import udp_echo
from tests.system.sites import SOON, closing_at_the_end

__all__ = ["answering", "udp_socket"]


def udp_socket(address: str) -> socket.socket:
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind((address, 4001))
    datagrams.settimeout(SOON)
    return datagrams


@contextmanager
def answering(name: str, network: str) -> Iterator[Callable[[], None]]:
    """A well-behaved client that makes an adapter and answers; gives what asks it once."""
    with (
        ringtun.create_adapter(name, addresses=[f"{network}.1/24"], backend="service") as adapter,
        adapter.start_session() as session,
        closing(udp_socket(f"{network}.1")) as host,
    ):

        def answer() -> None:
            for packet in session:
                echo = udp_echo(packet)
                if echo is not None:
                    session.send(echo)

        def ask() -> None:
            host.sendto(b"there?", (f"{network}.2", 4000))
            assert host.recv(100) == b"there?"

        with closing_at_the_end(answer, session):
            yield ask
