"""An adapter in a network namespace that this process does not enter.

Its queue works from anywhere, so the device is made here, and moved there. What this process sees
of it then, it sees by the queue: the namespace that it is in, of which the kernel tells what it is
asked. The rest is for whoever is at home there: addresses, up and down, and what happens to it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NoReturn

from ringtun.arguments import Interface, check_name
from ringtun.errors import AdapterExists, AdapterNotFound
from ringtun.host.drops import (
    IFINFOMSG,
    IFLA_STATS64,
    NLM_F_REQUEST,
    NLMSGHDR,
    RTATTR,
    RTM_GETLINK,
    attributes,
)
from ringtun.host.linux_queue import LinuxQueue
from ringtun.host.linux_tun import TUNGETDEVNETNS, LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import IFF_LOWER_UP, IFF_RUNNING, IFF_UP, Link, LinkInfo, TunInfo
from ringtun.host.offload import probe
from ringtun.host.watch import ERROR, NLMSG_ERROR, Watch

__all__ = ["DistantHost"]

# linux/rtnetlink.h, linux/net_namespace.h, linux/if_link.h
RTM_GETNSID: Final = 90
NETNSA_NSID: Final = 1
NETNSA_FD: Final = 3
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_TXQLEN: Final = 13
IFLA_IFALIAS: Final = 20
IFLA_CARRIER: Final = 33
IFLA_TARGET_NETNSID: Final = 46
RTGENMSG: Final = struct.Struct("=B3x")
U32: Final = struct.Struct("=I")
NSID: Final = struct.Struct("=i")
STATISTICS: Final = struct.Struct("=QQ32xQQ")  # struct rtnl_link_stats64: packets, and dropped ones

_ANSWER_SIZE: Final = 1 << 17  # other names, which its owner may give it, have up to 64 KiB


class DistantHost(LinuxQueue):
    """A TUN interface in a namespace of somebody else's. Owns the queue, and with it the device.

    It neither keeps the namespace alive nor outlives it. Once the interface is not in there any
    more, `AdapterNotFound` is raised, as by any `ringtun.host.AdapterHost`; what is for its owner
    raises ``OSError`` (EOPNOTSUPP). It has no addresses, as far as this knows.
    """

    backend = "embedded"

    def __init__(self, tun: LinuxTun, inode: int) -> None:
        """Takes over ``tun``, whose device is in the namespace of that inode."""
        super().__init__(tun)
        self._inode = inode
        self._dropped = 0  # when it was last asked

    @classmethod
    def create(
        cls, name: str, *, into: int, mtu: int | None, alias: str, txqueuelen: int
    ) -> DistantHost:
        """Make it in the namespace that the descriptor ``into`` is of: down, without addresses.

        Where a step fails, nothing is left of it. Raises `AdapterExists` where an interface has the
        name there, `AdapterPermissionError` where this process has no rights over the namespace,
        and what `LinuxTun.create` and `Link.configure` do.
        """
        check_name(name)
        here = Namespace.current()
        tun = LinuxTun.create(f"ring{os.urandom(5).hex()}", namespace=here)
        try:
            host = cls(tun, os.fstat(into).st_ino)
            if tun.vnet:
                host.coalesces = probe(tun.fileno())
            link = Link(here, tun.ifindex)
            link.configure(alias=alias, txqueuelen=txqueuelen, mtu=mtu)
            try:
                link.move(into, name)
            except FileExistsError as error:
                raise AdapterExists(
                    errno.EEXIST,
                    f"there is an interface called {name} already in that network namespace: "
                    "take another name",
                ) from error
            there = host._look(0, _attribute(IFLA_IFNAME, os.fsencode(name) + b"\0"))
            tun.was_moved(name, there.ifindex)
        except BaseException:
            tun.close()
            raise
        return host

    @property
    def ifindex(self) -> int:
        """See `ringtun.host.AdapterHost`."""
        return self._tun.ifindex

    def info(self) -> LinkInfo:
        """See `ringtun.host.AdapterHost`."""
        return self._look(self.ifindex)

    def addresses(self) -> tuple[Interface, ...]:
        """None that this knows: there may be any number, and all of its owner's choice."""
        return ()

    def queue_drops(self) -> int:
        """See `ringtun.host.Host`. The last count where the interface is gone."""
        with suppress(OSError, ValueError):
            self._dropped = self.info().tx_dropped
        return self._dropped

    def configure(
        self,
        *,
        addresses: Sequence[Interface] | None = None,
        mtu: int | None = None,
        up: bool | None = None,
        txqueuelen: int | None = None,
        alias: str | None = None,
    ) -> None:
        """See `ringtun.host.AdapterHost`: it is for the owner."""
        self._is_its_owners()

    def watch(self) -> Watch:
        """See `ringtun.host.AdapterHost`: it is for the owner."""
        self._is_its_owners()

    def unwatch(self, watch: Watch) -> None:
        """See `ringtun.host.AdapterHost`."""

    def persist(self, owner: int | None, group: int | None) -> None:
        """See `ringtun.host.AdapterHost`: it goes with its queue."""
        self._is_its_owners()

    def _is_its_owners(self) -> NoReturn:
        raise OSError(
            errno.EOPNOTSUPP,
            f"adapter {self.name} is in another network namespace: it is set up and watched there",
        )

    def abandon(self) -> None:
        """See `ringtun.host.AdapterHost`."""
        self._native = None  # with a copy of its own
        self._tun.abandon()

    def close(self) -> None:
        """See `ringtun.host.Host`."""
        self._tun.close()

    # ---- from afar ------------------------------------------------------------------------------

    def _look(self, ifindex: int, which: bytes = b"") -> LinkInfo:
        """One interface of the namespace, by its index or an attribute."""
        with self._namespace() as namespace, _netlink() as netlink:
            request = RTGENMSG.pack(0) + _attribute(NETNSA_FD, U32.pack(namespace))
            answer = dict(attributes(_ask(netlink, RTM_GETNSID, request), RTGENMSG.size))
            target = _attribute(IFLA_TARGET_NETNSID, answer[NETNSA_NSID])
            question = IFINFOMSG.pack(socket.AF_UNSPEC, 0, ifindex, 0, 0) + which + target
            return _link_info(_ask(netlink, RTM_GETLINK, question))

    @contextmanager
    def _namespace(self) -> Iterator[int]:
        """A descriptor of the namespace, which lives as long as that."""
        try:
            fd = fcntl.ioctl(self.fileno(), TUNGETDEVNETNS)
        except (OSError, ValueError) as error:
            # EINVAL: the namespace is ending, and the interface with it.
            if isinstance(error, OSError) and error.errno not in (errno.EBADFD, errno.EINVAL):
                raise
            raise AdapterNotFound(errno.ENODEV, f"adapter {self.name} is gone") from error
        try:
            if os.fstat(fd).st_ino != self._inode:
                raise AdapterNotFound(
                    errno.ENODEV, f"adapter {self.name} was moved out of its network namespace"
                )
            yield fd
        finally:
            os.close(fd)


def _netlink() -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
    return socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return RTATTR.pack(RTATTR.size + len(value), kind) + value + padding


def _ask(netlink: socket.socket, kind: int, question: bytes) -> bytes:
    """The kernel's one answer, without its header."""
    header = NLMSGHDR.pack(NLMSGHDR.size + len(question), kind, NLM_F_REQUEST, 0, 0)
    netlink.send(header + question)
    answer = netlink.recv(_ANSWER_SIZE)
    if NLMSGHDR.unpack_from(answer)[1] == NLMSG_ERROR:
        code = -ERROR.unpack_from(answer, NLMSGHDR.size)[0]
        what = f"cannot look into another network namespace: {os.strerror(code)}"
        raise AdapterNotFound(code, what) if code == errno.ENODEV else OSError(code, what)
    return answer[NLMSGHDR.size :]


def _link_info(answer: bytes) -> LinkInfo:
    _, _, ifindex, flags, _ = IFINFOMSG.unpack_from(answer)
    found = dict(attributes(answer, IFINFOMSG.size))
    alias = found.get(IFLA_IFALIAS)
    rx_packets, tx_packets, rx_dropped, tx_dropped = STATISTICS.unpack_from(found[IFLA_STATS64])
    return LinkInfo(
        name=os.fsdecode(found[IFLA_IFNAME].rstrip(b"\0")),
        ifindex=ifindex,
        kind="tun",
        tun=TunInfo(persistent=False, owner=None, group=None),
        alias=None if alias is None else alias.rstrip(b"\0").decode(errors="replace"),
        mtu=U32.unpack(found[IFLA_MTU])[0],
        txqueuelen=U32.unpack(found[IFLA_TXQLEN])[0],
        up=bool(flags & IFF_UP),
        running=bool(flags & IFF_RUNNING and flags & IFF_LOWER_UP),
        carrier=bool(found.get(IFLA_CARRIER, b"\0")[0]),
        tx_packets=tx_packets,
        rx_packets=rx_packets,
        tx_dropped=tx_dropped,
        rx_dropped=rx_dropped,
    )
