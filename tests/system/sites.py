"""A site: a network namespace with an adapter in it, as a machine with a tunnel is."""

from __future__ import annotations

import ipaddress
import os
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import ringtun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link
from ringtun.testing.netns import NetworkNamespace
from tests.backends import KernelPeer
from tests.system.packets import echo_reply, is_noise

__all__ = [
    "ADDRESSES",
    "FAMILY",
    "PROGRAM",
    "SOON",
    "Background",
    "Site",
    "closing_at_the_end",
    "descriptors",
    "forwarding",
    "next_packet",
    "responding",
    "udp_socket",
    "until",
    "wait_for_ipv6",
    "wait_for_words",
]

SOON = 10
"""Seconds within which what must come has come."""

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
ADDRESSES = {
    "left": {4: "10.99.0.1", 6: "fd99::1"},
    "right": {4: "10.99.0.2", 6: "fd99::2"},
}
"""By site and IP version; ``ringtun.testing.conformance.packet`` makes packets right to left."""

PREFIX = {4: 24, 6: 64}
PROGRAM = ADDRESSES["right"]
"""What a program with the left site's adapter answers for, where there is no right site."""


T = TypeVar("T")


class Background(Generic[T]):
    """A call in a thread of its own for the ``with`` block; its result is asked for."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    def _run(self) -> None:
        try:
            self._results.append(self._call())
        except BaseException as error:
            self._errors.append(error)

    def error(self) -> BaseException | None:
        """What it raised, if it did."""
        self._thread.join(2 * SOON)
        assert not self._thread.is_alive(), "the call still waits"
        return self._errors[0] if self._errors else None

    def result(self) -> T:
        """What it returned, or raise what it raised."""
        error = self.error()
        if error is not None:
            raise error
        return self._results[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._thread.join(2 * SOON)
        self._errors.clear()  # with its traceback, and what that holds


class Site:
    """The namespace, the adapter in it, and sockets on the kernel's side. The fixtures close it."""

    def __init__(
        self, network: NetworkNamespace, namespace: Namespace, adapter: ringtun.Adapter
    ) -> None:
        self.network = network
        self.namespace = namespace
        self.adapter = adapter
        self.addresses = ADDRESSES[network.name]

    @property
    def link(self) -> Link:
        """The adapter's interface, as an administrator sees it."""
        return Link(self.namespace, self.adapter.ifindex)

    def delete(self) -> None:
        """Take the interface away, as an administrator would."""
        self.network.run("ip", "link", "delete", self.adapter.name)

    def interfaces(self) -> list[str]:
        """The names of all interfaces here."""
        return self.namespace.run(lambda: [name for _, name in socket.if_nameindex()])

    def counters(self) -> dict[str, int]:
        """What the kernel's protocols count here, by the names that ``nstat`` has for it."""
        v4, v6 = (
            self.namespace.run(Path("/proc/thread-self/net", file).read_text).splitlines()
            for file in ("snmp", "snmp6")
        )
        found = {name: int(value) for name, value in map(str.split, v6)}
        for names, values in zip(v4[::2], v4[1::2], strict=True):
            protocol, *columns = names.split()
            for name, value in zip(columns, values.split()[1:], strict=True):
                found[protocol.removesuffix(":") + name] = int(value)
        return found

    def wait_for_ipv6(self) -> None:
        """Return once the IPv6 address receives."""
        wait_for_ipv6(self.namespace, self.addresses[6])

    def udp(self, version: int = 4, port: int = 4001) -> socket.socket:
        """A UDP socket bound to the site's own address; the caller closes it."""
        return udp_socket(self.namespace, self.addresses[version], port)

    def packet_socket(self) -> KernelPeer:
        """The kernel's side of the interface below its IP; the caller closes it."""
        return self.namespace.run(lambda: KernelPeer(self.adapter.name))


def wait_for_ipv6(namespace: Namespace, address: str) -> None:
    """Return once the address receives.

    The kernel adds the route to itself later, in a worker that waits for the same lock as
    everybody's network configuration; meanwhile it throws away what is sent to the address.
    """
    start = ipaddress.ip_address(address).packed.hex() + " 80 "

    def receives() -> bool:
        routes = namespace.run(Path("/proc/thread-self/net/ipv6_route").read_text)
        return any(line.startswith(start) for line in routes.splitlines())

    until(receives, "the kernel does not take up the IPv6 address")


def udp_socket(namespace: Namespace, address: str, port: int = 4001) -> socket.socket:
    """A UDP socket of a namespace; the caller closes it."""
    family = FAMILY[6 if ":" in address else 4]
    datagrams = namespace.run(lambda: socket.socket(family, socket.SOCK_DGRAM))
    try:
        datagrams.settimeout(SOON)
        datagrams.bind((address, port))
    except BaseException:
        datagrams.close()
        raise
    return datagrams


def until(condition: Callable[[], object], what: str = "it did not happen") -> None:
    """Wait for something that nothing tells of: a counter, an interface, a file."""
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def wait_for_words(descriptor: int, words: str) -> None:
    """Read what a process says until ``words`` are in it."""
    said, poll = b"", select.poll()
    poll.register(descriptor, select.POLLIN)
    while words.encode() not in said:
        assert poll.poll(SOON * 1000), said
        more = os.read(descriptor, 1 << 12)
        assert more, said
        said += more


def next_packet(session: ringtun.Session, timeout: float = SOON) -> bytes:
    """The next packet that somebody sent."""
    while True:
        packet = session.receive(timeout)
        if not is_noise(packet):
            return packet


@contextmanager
def closing_at_the_end(
    work: Callable[[], object], *sessions: ringtun.Session[Any]
) -> Iterator[None]:
    """Let ``work`` run in a thread; at the end close the sessions, and raise what it raised."""

    def run() -> None:
        try:
            work()
        except ringtun.SessionClosed as closed:
            if closed.reason is not ringtun.EndReason.CLOSED:
                raise

    with Background(run) as background:
        try:
            yield
        except BaseException as error:
            _close(sessions)
            if (its_error := background.error()) is not None:
                error.add_note("".join(traceback.format_exception(its_error)))
            raise
        _close(sessions)
        background.result()


def _close(sessions: tuple[ringtun.Session[Any], ...]) -> None:
    for session in sessions:
        session.close()


@contextmanager
def forwarding(left: ringtun.Session[Any], right: ringtun.Session[Any]) -> Iterator[None]:
    """What comes out of one session goes into the other, both ways; at the end both close."""

    def forward(source: ringtun.Session[Any], destination: ringtun.Session[Any]) -> None:
        for batch in source.batches():
            destination.send_many(batch)

    both = left, right
    with (
        closing_at_the_end(lambda: forward(left, right), *both),
        closing_at_the_end(lambda: forward(right, left), *both),
    ):
        yield


@contextmanager
def responding(session: ringtun.Session) -> Iterator[list[bytes]]:
    """Every ping is answered, whatever its address; gives the answers so far. Closes at the end."""
    answers: list[bytes] = []

    def respond() -> None:
        for packet in session:
            answer = echo_reply(packet)
            if answer is not None:
                answers.append(answer)
                session.send(answer)

    with closing_at_the_end(respond, session):
        yield answers


def descriptors() -> dict[str, str]:
    """What is open in this process, by number."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found
