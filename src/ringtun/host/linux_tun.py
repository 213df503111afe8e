"""One queue of a Linux TUN device: where an adapter's packets come from and go to.

``/dev/net/tun`` gives a descriptor; a read takes one IP packet that the host sent, a write hands it
one. See the kernel's Documentation/networking/tuntap.rst.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import warnings
import weakref
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from ringtun.abi import PACKET_MAX_SIZE
from ringtun.arguments import MAX_TXQUEUELEN, check_name
from ringtun.errors import (
    AdapterBusy,
    AdapterExists,
    AdapterNotFound,
    AdapterPermissionError,
    DriverUnavailable,
)
from ringtun.host.namespace import Namespace
from ringtun.host.offload import NO_OFFLOAD, VNET_HEADER_SIZE, Coalesces

__all__ = ["LinuxTun"]

TUN_NODE: Final = "/dev/net/tun"

# linux/if_tun.h, with the ioctl numbers of asm-generic (x86, Arm, RISC-V and most others)
TUNSETIFF: Final = 0x400454CA
TUNSETPERSIST: Final = 0x400454CB
TUNSETOWNER: Final = 0x400454CC
TUNSETGROUP: Final = 0x400454CE
TUNGETFEATURES: Final = 0x800454CF
TUNSETOFFLOAD: Final = 0x400454D0
TUNGETIFF: Final = 0x800454D2
TUNSETVNETHDRSZ: Final = 0x400454D8
TUNSETCARRIER: Final = 0x400454E2
TUNGETDEVNETNS: Final = 0x54E3
IFF_TUN: Final = 0x0001
IFF_TAP: Final = 0x0002
IFF_NO_CARRIER: Final = 0x0040
IFF_MULTI_QUEUE: Final = 0x0100
IFF_PERSIST: Final = 0x0800
IFF_NO_PI: Final = 0x1000
IFF_VNET_HDR: Final = 0x4000
IFF_TUN_EXCL: Final = 0x8000
TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_USO4: Final = 0x20
TUN_F_USO6: Final = 0x40
# struct virtio_net_hdr of linux/virtio_net.h: what a device's headers have unless told otherwise
KERNEL_VNET_HEADER_SIZE: Final = 10
# linux/sockios.h
SIOCGIFINDEX: Final = 0x8933
# linux/if.h: struct ifreq; its union holds the flags or the index
IFREQ_FLAGS: Final = struct.Struct("16sH22x")
IFREQ_INDEX: Final = struct.Struct("16si20x")
INT: Final = struct.Struct("i")

CURE: Final = (
    "run as root, or use the driver service (as root: ringtun driver; you join its group ringtun), "
    "or have root make a persistent adapter for you and open that: "
    "ringtun create NAME --owner USER"
)


class LinuxTun:
    """One queue of a TUN device, owned through its descriptor (non-blocking, close-on-exec).

    Its calls take and give bare IP packets. On the descriptor each has a header before it, where
    the kernel knows that (``vnet``): see `offload`. The device is made, and joined, without a
    carrier; `carrier` turns it on. A device that is not persistent goes with its queue.

    `close` it, or use it in a ``with`` statement; a forgotten one warns. The namespace is the
    caller's to close.
    """

    __slots__ = ("__weakref__", "_fd", "_ifindex", "_name", "_namespace", "_persistent", "vnet")

    def __init__(self, fd: int, namespace: Namespace) -> None:
        """Take over ``fd``, an open TUN node without a device; use `create` or `attach` instead."""
        self._fd = fd
        self._namespace = namespace
        self._name = ""
        self._ifindex = 0
        self._persistent = False
        self.vnet = False  # each packet has a header of VNET_HEADER_SIZE bytes before it
        _queues.add(self)

    @classmethod
    def create(cls, name: str, *, namespace: Namespace) -> LinuxTun:
        """Make a TUN device called ``name``; where that fails, nothing is left of it.

        It goes with its queue, however this process ends: see `persist`.

        Raises ``ValueError`` for a bad name; `AdapterExists`, `AdapterPermissionError`,
        `DriverUnavailable`; and any other ``OSError``, saying what failed.
        """
        check_name(name)

        def make() -> LinuxTun:
            tun = cls(_open_node(), namespace)
            try:
                tun._join(name, IFF_TUN_EXCL)
            except BaseException:
                tun.close()
                raise
            return tun

        return namespace.run(make)

    @classmethod
    def attach(cls, name: str, *, namespace: Namespace) -> LinuxTun:
        """Join the persistent TUN device called ``name``, whoever made it.

        What its last holder left behind is undone: a header before each packet, offload, the
        carrier. What is queued stays: see `drain`.

        Raises ``ValueError`` for a bad name; `AdapterNotFound` where there is none, or an interface
        of another kind; `AdapterBusy` where its queue is held, `AdapterPermissionError`,
        `DriverUnavailable`; and any other ``OSError``, saying what failed.
        """
        check_name(name)

        def join() -> LinuxTun:
            _interface_index(name)  # TUNSETIFF would make what is not there
            tun = cls(_open_node(), namespace)
            try:
                tun._join(name, 0)
                if not tun._persistent:  # it went since the look above, and was made anew
                    raise _not_found(name, errno.ENODEV)
                tun.offload(Coalesces(0))
            except BaseException:
                tun.close()
                raise
            return tun

        return namespace.run(join)

    @classmethod
    def take_over(cls, fd: int, *, namespace: Namespace) -> LinuxTun:
        """Own ``fd``, the queue of a persistent device that another process joined.

        As with `attach`, what that one left behind is undone. Where it fails, ``fd`` is closed.

        Raises `AdapterNotFound` where the device is gone, or is not in ``namespace`` any more;
        `DriverUnavailable` where it is of another kind; and any other ``OSError``.
        """

        tun = cls(fd, namespace)
        try:
            namespace.run(tun._take)
            tun.offload(Coalesces(0))
        except BaseException:
            tun.close()
            raise
        return tun

    def _take(self) -> None:
        """Learn what the queue is of; without a carrier from now on."""
        os.set_inheritable(self._fd, False)
        os.set_blocking(self._fd, False)
        try:
            name, got = IFREQ_FLAGS.unpack(
                fcntl.ioctl(self._fd, TUNGETIFF, bytes(IFREQ_FLAGS.size))
            )
        except OSError as error:
            if error.errno == errno.EBADFD:
                raise _not_found("of this queue", errno.ENODEV) from error
            raise OSError(error.errno, f"this is no queue of a TUN: {error.strerror}") from error
        self._name = os.fsdecode(name.rstrip(b"\0"))
        if not self._is_here():
            raise AdapterNotFound(
                errno.EXDEV, f"adapter {self._name} is not in {self._namespace} any more"
            )
        self._look(got & IFF_VNET_HDR)
        if not self._persistent:
            raise DriverUnavailable(errno.EINVAL, f"adapter {self._name} is not persistent")
        self.carrier(False)

    def _is_here(self) -> bool:
        """Whether the device is in the calling thread's namespace."""
        fd = fcntl.ioctl(self._fd, TUNGETDEVNETNS)
        try:
            there, here = os.fstat(fd), os.stat("/proc/thread-self/ns/net")
        finally:
            os.close(fd)
        return os.path.samestat(there, here)

    def _join(self, name: str, exclusive: int) -> None:
        """Bind the queue to the device, without a carrier; make sure that it is what we want."""
        self._name = name
        features = INT.unpack(self._ioctl("look at", TUNGETFEATURES, bytes(INT.size)))[0]
        no_carrier = features & IFF_NO_CARRIER
        vnet = features & IFF_VNET_HDR
        flags = IFF_TUN | IFF_NO_PI | vnet | no_carrier | exclusive
        try:
            fcntl.ioctl(self._fd, TUNSETIFF, IFREQ_FLAGS.pack(os.fsencode(name), flags))
        except OSError as error:
            raise _join_error(error, name, bool(exclusive), self._namespace) from error
        if not no_carrier:
            self.carrier(False)
        self._look(vnet)

    def _look(self, vnet: int) -> None:
        """Make sure that the device is what we want, with or without headers."""
        name = self._name
        reply = self._ioctl("look at", TUNGETIFF, bytes(IFREQ_FLAGS.size))
        got_name, got = IFREQ_FLAGS.unpack(reply)
        self._persistent = bool(got & IFF_PERSIST)
        kind = got & (IFF_TUN | IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)
        if kind != IFF_TUN | IFF_NO_PI | vnet or os.fsdecode(got_name.rstrip(b"\0")) != name:
            raise DriverUnavailable(
                errno.EINVAL,
                f"the kernel gave another device than TUN {name}: {got_name!r}, flags {got:#x}",
            )
        if vnet:
            self._ioctl("set the headers of", TUNSETVNETHDRSZ, INT.pack(VNET_HEADER_SIZE))
            self.vnet = True
        self._ifindex = _interface_index(name)

    def fileno(self) -> int:
        """The descriptor, still owned by this object. Raises ``ValueError`` after `close`."""
        if self._fd < 0:
            raise ValueError(f"the queue of adapter {self._name} is closed")
        return self._fd

    @property
    def name(self) -> str:
        """The interface's name when it was joined."""
        return self._name

    @property
    def ifindex(self) -> int:
        """The interface's index in its namespace; it stays when the interface is renamed."""
        return self._ifindex

    @property
    def namespace(self) -> Namespace:
        """The namespace in which the device was made or found."""
        return self._namespace

    @property
    def persistent(self) -> bool:
        """Whether the device outlives its queue."""
        return self._persistent

    def carrier(self, on: bool) -> None:
        """Plug the cable in, or pull it.

        The kernel reacts later: about 1 ms for on, up to a second for off; what the host sends
        meanwhile is lost. `ringtun.host.netlink.Link.wait_running` waits for it.
        """
        self._ioctl("switch the carrier of", TUNSETCARRIER, INT.pack(on))

    def offload(self, kinds: Coalesces) -> Coalesces:
        """Let the kernel leave checksums and segmentation to the reader, but for other ``kinds``.

        Then a read may give a packet of 64 KiB whatever the MTU, and one whose checksum is missing.
        Of no kind, the kernel does both itself. Returns the kinds that it agreed to: UDP's are not
        among them before Linux 6.2, and none is without ``vnet``. It belongs to the device, and
        outlives a queue of a persistent one.
        """
        if self.vnet:
            for some in (kinds, kinds & ~Coalesces.UDP):
                with suppress(OSError):
                    self._ioctl("switch on offload of", TUNSETOFFLOAD, _mask(some))
                    return some
        self._ioctl("switch off offload of", TUNSETOFFLOAD, 0)
        return Coalesces(0)

    def drain(self) -> int:
        """Read every queued packet and throw it away; return how many there were.

        For a queue without a carrier: a busy host could otherwise keep it full. (It has an end all
        the same: who rules the namespace may have put the carrier on again.)
        """
        fd = self.fileno()
        count = 0
        with suppress(BlockingIOError):
            while count < MAX_TXQUEUELEN:
                os.read(fd, VNET_HEADER_SIZE)  # the rest of the packet goes with it
                count += 1
        return count

    def read_packet(self) -> bytes | None:
        """The next packet that the host sent, or None where there is none; with `offload` off.

        Raises the kernel's ``OSError``: EBADFD once the interface is removed.
        """
        prefix = VNET_HEADER_SIZE if self.vnet else 0
        try:
            return os.read(self.fileno(), prefix + PACKET_MAX_SIZE)[prefix:]
        except BlockingIOError:
            return None

    def write_packet(self, packet: bytes | bytearray | memoryview) -> None:
        """Hand the host one IP packet.

        Raises the kernel's ``OSError``: EINVAL for what is not IP, EIO while the interface is down,
        EBADFD once it is removed.
        """
        os.writev(self.fileno(), (NO_OFFLOAD, packet) if self.vnet else (packet,))

    def was_moved(self, name: str, ifindex: int) -> None:
        """Learn what the device is in the namespace that somebody moved it to."""
        self._name, self._ifindex = name, ifindex

    def persist(self, owner: int | None = None, group: int | None = None) -> None:
        """Let the device outlive its queue, for the user id ``owner`` or the group id ``group``.

        Whose is not given stays as it is; where the device has neither yet, one has to be given:
        without, anybody could attach.
        """
        if owner is not None:
            self._ioctl(f"give user {owner}", TUNSETOWNER, _signed(owner))
        if group is not None:
            self._ioctl(f"give group {group}", TUNSETGROUP, _signed(group))
        self._ioctl("keep", TUNSETPERSIST, 1)
        self._persistent = True

    def unpersist(self) -> None:
        """Let the device go with its queue: `close` then removes it. Idempotent."""
        self._ioctl("let go of", TUNSETPERSIST, 0)
        self._persistent = False

    def close(self) -> None:
        """Give the descriptor back, and with it the device unless it is persistent. Idempotent.

        A persistent one's headers are again of the size that whoever attaches takes for granted.
        """
        if self._fd >= 0 and self.vnet and self._persistent:
            with suppress(OSError):
                fcntl.ioctl(self._fd, TUNSETVNETHDRSZ, INT.pack(KERNEL_VNET_HEADER_SIZE))
        self.abandon()

    def abandon(self) -> None:
        """In a forked child: close its copy of the descriptor, and leave the device alone."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _ioctl(self, doing: str, request: int, argument: int | bytes) -> bytes:
        try:
            reply = fcntl.ioctl(self.fileno(), request, argument)
        except OSError as error:
            raise OSError(
                error.errno, f"cannot {doing} adapter {self._name}: {error.strerror}"
            ) from error
        return reply if isinstance(reply, bytes) else b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._fd >= 0:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:  # the warning may be an error
                self.close()

    def __repr__(self) -> str:
        state = "closed" if self._fd < 0 else f"fd={self._fd}"
        return f"<LinuxTun {self._name} {state}>"


_queues: weakref.WeakSet[LinuxTun] = weakref.WeakSet()


def _abandon_queues() -> None:
    """In a forked child: those too that another thread is still making an adapter of."""
    for queue in list(_queues):
        queue.abandon()


os.register_at_fork(after_in_child=_abandon_queues)


def _signed(identity: int) -> int:
    """An id of 32 bits as the signed number that ``fcntl.ioctl`` takes."""
    return identity - (1 << 32) if identity >= 1 << 31 else identity


def _open_node() -> int:
    """A descriptor of the TUN driver, which the caller owns."""
    try:
        return os.open(TUN_NODE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        match error.errno:
            case errno.EACCES:
                raise AdapterPermissionError(
                    error.errno,
                    f"no permission to use an adapter: {TUN_NODE} is closed to this user; "
                    "run as root, or open it to all, as most systems have it: "
                    f"chmod 0666 {TUN_NODE}",
                ) from None
            case errno.EPERM:
                raise AdapterPermissionError(
                    error.errno,
                    f"no permission to use an adapter: the container or service that this runs in "
                    f"is not allowed {TUN_NODE}; allow it the device (docker: --device {TUN_NODE})",
                ) from None
            case errno.ENOENT | errno.ENODEV | errno.ENXIO:
                raise DriverUnavailable(
                    error.errno,
                    f"there is no TUN driver here ({TUN_NODE}: {error.strerror}); load it with: "
                    f"modprobe tun; in a container, pass it in (docker: --device {TUN_NODE})",
                ) from None
        raise OSError(error.errno, f"cannot open {TUN_NODE}: {error.strerror}") from error


def _mask(kinds: Coalesces) -> int:
    """What TUNSETOFFLOAD is told; ``tun.c`` of the native core says the same while packets flow."""
    mask = TUN_F_CSUM if kinds else 0
    if Coalesces.TCP4 in kinds:
        mask |= TUN_F_TSO4
    if Coalesces.TCP6 in kinds:
        mask |= TUN_F_TSO6
    if Coalesces.UDP in kinds:  # both or neither: the kernel's rule
        mask |= TUN_F_USO4 | TUN_F_USO6
    return mask


def _join_error(error: OSError, name: str, creating: bool, namespace: Namespace) -> OSError:
    """What a failed TUNSETIFF means."""
    code = error.errno
    if code in (errno.EPERM, errno.EACCES):
        if creating:
            return AdapterPermissionError(
                code,
                f"no permission to create adapter {name}: "
                f"this process has no CAP_NET_ADMIN in {namespace}; {CURE}",
            )
        return AdapterPermissionError(
            code,
            f"no permission to attach to adapter {name}: it belongs to another user or group, and "
            f"this process has no CAP_NET_ADMIN in {namespace}; {CURE}",
        )
    if code == errno.EBUSY and creating:
        return AdapterExists(
            code,
            f"there is an interface called {name} already in {namespace}: "
            "take another name, or open it (exist_ok makes it what is asked for)",
        )
    if code == errno.EBUSY:
        return AdapterBusy(
            code,
            f"adapter {name} is held by another program, or another adapter; "
            f"see: ringtun doctor --name {name}",
        )
    if code == errno.EINVAL and not creating:
        return _not_found(name, errno.EINVAL)
    return OSError(code, f"cannot use {name} as an adapter: {error.strerror}")


def _not_found(name: str, code: int) -> AdapterNotFound:
    if code == errno.EINVAL:
        return AdapterNotFound(
            code,
            f"there is no adapter {name}: the interface of that name is no TUN device, "
            f"or one with several queues",
        )
    return AdapterNotFound(code, f"there is no adapter {name}")


def _interface_index(name: str) -> int:
    """The index of an interface in the calling thread's namespace.

    Raises `AdapterNotFound`. (``socket.if_nametoindex`` would lose the errno.)
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as any_socket:
        try:
            reply = fcntl.ioctl(any_socket, SIOCGIFINDEX, IFREQ_INDEX.pack(os.fsencode(name), 0))
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise _not_found(name, errno.ENODEV) from None
            raise OSError(
                error.errno, f"cannot look for interface {name}: {error.strerror}"
            ) from error
    index: int = IFREQ_INDEX.unpack(reply)[1]
    return index
