"""Where the demonstration runs: as near to the kernel as this machine lets it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ringtun.control.service import lets_in
from ringtun.demo.errors import NoKernelTun
from ringtun.testing.netns import enter_private_world

__all__ = ["TUN_NODE", "enter", "why_no_ipv6", "why_no_node"]

TUN_NODE = "/dev/net/tun"


def enter() -> str:
    """Move this process into a private network namespace in which it may make TUN adapters.

    Returns how: "root", or "user-namespace". What is made there goes with this process and its
    children, however they end. Where a driver service lets this process in, it makes the adapters,
    and no TUN node is needed here. Raises `NoKernelTun`; ``RuntimeError`` where threads run
    already.
    """
    if not lets_in():
        _look_at_node()
    before = _user_namespace()
    try:
        enter_private_world()
    except PermissionError as error:
        raise NoKernelTun(error.strerror) from error
    return "root" if _user_namespace() == before else "user-namespace"


def _user_namespace() -> int:
    return os.stat("/proc/self/ns/user").st_ino


def _look_at_node() -> None:
    try:
        os.close(os.open(TUN_NODE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise NoKernelTun(why_no_node(error)) from error


def why_no_node(error: OSError) -> str:
    """What an error of opening the TUN node means, and what to do about it."""
    match error.errno:
        case errno.ENOENT:
            return (
                f"there is no {TUN_NODE}; load the kernel's module with `modprobe tun`, "
                f"or give the container the device: --device {TUN_NODE}"
            )
        case errno.EACCES | errno.EPERM:
            return (
                f"this user may not open {TUN_NODE}; "
                f"run as root, or allow it to everybody: chmod 0666 {TUN_NODE}"
            )
        case errno.ENODEV | errno.ENXIO:
            return "the kernel has no TUN driver loaded; load it with `modprobe tun`"
        case _:
            return f"{TUN_NODE} cannot be opened: {error.strerror}; run `modprobe tun` as root"


def why_no_ipv6(proc: Path = Path("/proc")) -> str | None:
    """What keeps new network namespaces from IPv6, and what to do about it; None where it works."""
    setting = "net/ipv6/conf/default/disable_ipv6"
    try:
        disabled = int((proc / "sys" / setting).read_text())
    except FileNotFoundError:
        return "the kernel has no IPv6; boot it without ipv6.disable=1"
    name = setting.replace("/", ".")
    return f"IPv6 is disabled; enable it: sysctl -w {name}=0" if disabled else None
