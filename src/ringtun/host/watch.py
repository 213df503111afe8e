"""Looking at an interface whenever it may have changed.

What wakes is no more than a reason to look: news may be lost, or tell of what is no longer so, and
a look after the last of them is right all the same.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from ringtun.errors import AdapterNotFound
from ringtun.host.changes import interface_in
from ringtun.host.drops import (
    ANSWER_SIZE,
    IFINFOMSG,
    NLM_F_REQUEST,
    NLMSGHDR,
    RTM_GETLINK,
    RTM_NEWLINK,
)
from ringtun.host.netlink import RTMGRP_IPV6_IFADDR, RTMGRP_LINK, link_info

if TYPE_CHECKING:
    from ringtun.arguments import Interface
    from ringtun.host.netlink import LinkInfo

__all__ = ["LinkWatch", "Watch", "Watchers"]

# linux/rtnetlink.h, linux/netlink.h
RTM_DELLINK: Final = 17
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTMGRP_IPV4_IFADDR: Final = 0x10
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_MULTI: Final = 2
NLM_F_DUMP: Final = 0x300
# What struct ifinfomsg and struct ifaddrmsg have both: the family, and the index.
SUBJECT: Final = struct.Struct("=B3xI")
ERROR: Final = struct.Struct("=i")

Look: TypeAlias = "tuple[LinkInfo, tuple[Interface, ...]]"


class Watch(Protocol):
    """News of one interface."""

    def fileno(self) -> int:
        """Readable when there may be news."""

    def news(self) -> bool:
        """Whether there are some since the last call: a look is due. Never waits."""

    def look(self) -> Look:
        """The interface and its addresses, now. Raises `AdapterNotFound` where it is gone."""

    def nudge(self) -> None:
        """Let there be news. Never waits, never raises."""

    def close(self) -> None:
        """Close its descriptors; in a forked child, our copies of them. Idempotent."""


class Watchers:
    """Those who watch one host, and are told of what it does itself."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a watch is not closed while it is nudged
        self._watches: set[Watch] = set()

    def add(self, watch: Watch) -> Watch:
        """One more; returns it."""
        with self._lock:
            self._watches.add(watch)
        return watch

    def close(self, watch: Watch) -> None:
        """One less, which is closed. Idempotent."""
        with self._lock:
            self._watches.discard(watch)
            watch.close()

    def tell(self) -> None:
        """Something has changed."""
        with self._lock:
            for watch in list(self._watches):
                watch.nudge()


class LinkWatch:
    """A `Watch` of an interface of the kernel's. Open it in the interface's namespace.

    It takes no rights, no thread, and no descriptors but its own two.
    """

    def __init__(self, ifindex: int) -> None:
        self._ifindex = ifindex
        self._gone = False
        self._sequence = 0
        with ExitStack() as stack:
            self._news = stack.enter_context(_open())
            self._questions = stack.enter_context(_open())
            self._news.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
            self._sockets = stack.pop_all()

    def fileno(self) -> int:
        """See `Watch`."""
        return self._news.fileno()

    def news(self) -> bool:
        """See `Watch`."""
        found = False
        while True:
            try:
                data = self._news.recv(ANSWER_SIZE)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                found = True  # some were lost, perhaps the one
                continue
            for kind, _, message in _messages(data):
                found |= self._concerns_us(kind, message)

    def _concerns_us(self, kind: int, message: bytes) -> bool:
        if kind not in (RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR):
            return True  # the answer to a nudge
        family, ifindex = SUBJECT.unpack_from(message, NLMSGHDR.size)
        if ifindex != self._ifindex:
            return False
        # Of another family it has left a bridge, and no more.
        self._gone |= kind == RTM_DELLINK and family == socket.AF_UNSPEC
        return True

    def look(self) -> Look:
        """See `Watch`."""
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

        if self._gone:  # another one may have its index by now
            raise AdapterNotFound(errno.ENODEV, f"interface {self._ifindex} is gone")
        (answer,) = self._ask(RTM_GETLINK, self._question(), 0)
        link = link_info(_decoded(ifinfmsg, answer))
        everybody = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        addresses = [
            interface_in(_decoded(ifaddrmsg, answer))
            for answer in self._ask(RTM_GETADDR, everybody, NLM_F_DUMP)
            if SUBJECT.unpack_from(answer, NLMSGHDR.size)[1] == self._ifindex
        ]
        return link, tuple(address for address in addresses if address is not None)

    def _question(self) -> bytes:
        return IFINFOMSG.pack(socket.AF_UNSPEC, 0, self._ifindex, 0, 0)

    def _ask(self, kind: int, body: bytes, flags: int) -> Iterator[bytes]:
        """The kernel's answers, which come within the call."""
        self._sequence += 1
        self._questions.send(_request(kind, body, flags, self._sequence))
        while True:
            for answer, (sequence, answer_flags), message in _messages(
                self._questions.recv(ANSWER_SIZE)
            ):
                if sequence != self._sequence:
                    continue  # to a question that was interrupted
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    self._fail(-ERROR.unpack_from(message, NLMSGHDR.size)[0])
                yield message
                if not answer_flags & NLM_F_MULTI:
                    return

    def _fail(self, code: int) -> None:
        what = f"cannot look at interface {self._ifindex}: {os.strerror(code)}"
        raise AdapterNotFound(code, what) if code == errno.ENODEV else OSError(code, what)

    def nudge(self) -> None:
        """See `Watch`. A question, whose answer lies among the news."""
        with suppress(OSError):
            self._news.send(_request(RTM_GETLINK, self._question(), 0, 0))

    def close(self) -> None:
        """Close both sockets. More than once is fine."""
        self._sockets.close()


def _open() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK,
        socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
        socket.NETLINK_ROUTE,
    )


def _request(kind: int, body: bytes, flags: int, sequence: int) -> bytes:
    size = NLMSGHDR.size + len(body)
    return NLMSGHDR.pack(size, kind, NLM_F_REQUEST | flags, sequence, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, tuple[int, int], bytes]]:
    """Of each message in what was received: its kind, its sequence number and flags, and all."""
    at = 0
    while at + NLMSGHDR.size <= len(data):
        size, kind, flags, sequence, _ = NLMSGHDR.unpack_from(data, at)
        if size < NLMSGHDR.size:
            return
        yield kind, (sequence, flags), data[at : at + size]
        at += (size + 3) & ~3


def _decoded(kind: Any, message: bytes) -> Any:
    decoded = kind(message)
    decoded.decode()
    return decoded
