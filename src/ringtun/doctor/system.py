"""Checks of the machine and of this process: kernel, native core, TUN node, rights."""

from __future__ import annotations

import errno
import fcntl
import getpass
import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from ringtun.doctor.finding import OK, PROBLEM, WARNING, Finding
from ringtun.ring import NATIVE, twin_works_here
from ringtun.testing.netns import USER_NAMESPACE_SYSCTLS

__all__ = ["has_net_admin", "kernel", "native_core", "node", "rights", "user_namespaces"]

OLDEST_KERNEL: Final = (5, 10)
TUN_NODE: Final = Path("/dev/net/tun")
CAP_NET_ADMIN: Final = 12  # linux/capability.h
NS_GET_USERNS: Final = 0xB701  # linux/nsfs.h


def kernel(release: str | None = None) -> Finding:
    """Whether the kernel is new enough."""
    release = release or os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST_KERNEL:
        return Finding(
            "kernel",
            WARNING,
            f"The kernel is {release}; ringtun is made for 5.10 and later.",
            "Run a newer kernel",
        )
    return Finding("kernel", OK, f"The kernel is {release}.")


def native_core(native: bool = NATIVE) -> Finding:
    """Whether the native core was built."""
    cure = "Install a C compiler, Cython and Python's headers, and install ringtun again"
    if native:
        return Finding("native-core", OK, "The native core is there.")
    if twin_works_here():
        return Finding(
            "native-core",
            WARNING,
            "The native core was not built: plain Python moves the packets, many times slower, "
            'and without pump="thread".',
            cure,
        )
    return Finding(
        "native-core",
        PROBLEM,
        "The native core was not built, and the plain-Python rings work on x86-64 processors "
        "only: no session can start.",
        cure,
    )


def node(path: Path = TUN_NODE) -> Finding:
    """Whether this process may open the TUN device."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return Finding("tun-node", PROBLEM, *_node_refused(path, error))
    return Finding("tun-node", OK, f"{path} is there and opens.")


def _node_refused(path: Path, error: OSError) -> tuple[str, str]:
    """Why the node does not open, and the cure."""
    into_container = f"in a container, pass it in: --device {path}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return f"There is no {path}.", f"modprobe tun; {into_container}"
        case errno.EACCES:
            return (
                f"{path} is closed to user {_user()}: {_mode(path)}.",
                f"Run as root, or open it to all, as most systems have it: chmod 0666 {path}",
            )
        case errno.EPERM:
            return (
                f"The container or service that this runs in is not allowed {path}.",
                f"Allow it the device: docker --device {path}; systemd DeviceAllow={path} rw",
            )
        case errno.ENODEV | errno.ENXIO:
            return f"{path} is there, but the kernel has no TUN driver for it.", "modprobe tun"
    return f"{path} does not open: {error.strerror}.", f"modprobe tun; {into_container}"


def _user() -> str:
    with suppress(Exception):  # the user may have no name
        return getpass.getuser() if os.geteuid() == os.getuid() else str(os.geteuid())
    return str(os.geteuid())


def _mode(path: Path) -> str:
    with suppress(OSError):
        status = path.stat()
        mode = stat.S_IMODE(status.st_mode)
        return f"its mode is {mode:04o}, its owner user {status.st_uid} and group {status.st_gid}"
    return "nor may this user look at it"


def user_namespaces(sysctls: Path = Path("/proc/sys")) -> Iterator[Finding]:
    """Whether ordinary users may make namespaces, as `ringtun demo` and tests without root do."""
    forbidden = False
    for name, forbids, allows in USER_NAMESPACE_SYSCTLS:
        with suppress(OSError, ValueError):
            if int((sysctls / name.replace(".", "/")).read_text()) == forbids:
                forbidden = True
                yield Finding(
                    "user-namespaces",
                    WARNING,
                    f"sysctl {name} is {forbids}, which keeps users from making namespaces: "
                    "`ringtun demo` and tests with kernel adapters need root.",
                    f"sysctl -w {name}={allows}",
                )
    if not forbidden:
        yield Finding("user-namespaces", OK, "No sysctl keeps users from making namespaces.")


def rights() -> Finding:
    """Whether this process may make adapters in the network namespace of the calling thread."""
    if has_net_admin():
        return Finding("rights", OK, "This process may make adapters here (CAP_NET_ADMIN).")
    return Finding(
        "rights",
        WARNING,
        "This process may not make adapters here, for want of CAP_NET_ADMIN; it may open "
        "persistent ones that belong to its user or group.",
        "Run as root, or use the driver service (as root: ringtun driver), or have root make one: "
        f"ringtun create NAME --owner {_user()}",
    )


def has_net_admin(proc: Path = Path("/proc/thread-self")) -> bool:
    """Whether the calling thread has CAP_NET_ADMIN over its network namespace."""
    capabilities = re.search(r"^CapEff:\s*([0-9a-f]+)", (proc / "status").read_text(), re.M)
    if capabilities is None or not int(capabilities[1], 16) >> CAP_NET_ADMIN & 1:
        return False
    # The capability counts in our user namespace; does that own the network namespace?
    network = os.open(proc / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(network, NS_GET_USERNS))
    except PermissionError:  # its owner is outside ours
        return False
    finally:
        os.close(network)
    return True
