"""Network namespaces for demonstrations and tests, made so that nothing of them stays behind.

`enter_private_world` first, once; then as many `NetworkNamespace` as it takes. No root needed where
the system lets users make user namespaces.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["NetworkNamespace", "enter_private_world"]

NAMED_NAMESPACES: Final = Path("/run/netns")
DRIVER_SOCKETS: Final = Path("/run/ringtun")

# linux/sched.h
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWNET: Final = 0x40000000
# linux/mount.h
MS_BIND: Final = 0x1000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 0x40000
MNT_DETACH: Final = 0x2
# linux/sockios.h, linux/if.h
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 0x1
IFREQ_FLAGS: Final = struct.Struct("16sH22x")

# What may forbid user namespaces: the sysctl, the value that forbids, the value that allows.
USER_NAMESPACE_SYSCTLS: Final = (
    ("user.max_user_namespaces", 0, 10000),
    ("kernel.unprivileged_userns_clone", 0, 1),
    ("kernel.apparmor_restrict_unprivileged_userns", 1, 0),
)


def enter_private_world(*, this_thread_alone: bool = False) -> None:
    """Move this process into network and mount namespaces of its own, ``/run/netns`` empty.

    What it makes there (interfaces, named namespaces) is seen by itself and its children alone, and
    goes with the last of them, however they end. ``lo`` is up. A process that is not privileged
    moves into a user namespace as well, where it is root.

    There is no way back. Call it before the first thread starts: raises ``RuntimeError`` where
    there are several, unless ``this_thread_alone`` is to move, and what it starts from then on.
    Raises ``PermissionError`` where the system forbids it, saying which setting
    does and how to change it.
    """
    if len(os.listdir("/proc/self/task")) > 1 and not this_thread_alone:
        raise RuntimeError("enter_private_world() comes before the first thread is started")
    try:
        _unshare_as_root()
        _mount("none", "/", flags=MS_REC | MS_PRIVATE)
        _hide_named_namespaces()
        _set_up("lo")
    except OSError as error:
        raise PermissionError(
            error.errno,
            f"cannot make a private network namespace ({error.strerror}): {_obstacle()}",
        ) from error


def _hide_named_namespaces() -> None:
    """Lay an empty directory over the system's named namespaces.

    Where there is none yet, over all of ``/run``: making one would change the machine. The driver
    service's sockets are to be seen all the same.
    """
    if NAMED_NAMESPACES.is_dir():
        _mount("tmpfs", str(NAMED_NAMESPACES), kind="tmpfs", options="mode=755")
        return
    with ExitStack() as stack:
        sockets = None
        with suppress(FileNotFoundError):
            sockets = os.open(DRIVER_SOCKETS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, sockets)
        _mount("tmpfs", "/run", kind="tmpfs", options="mode=755")
        NAMED_NAMESPACES.mkdir()
        if sockets is not None:
            DRIVER_SOCKETS.mkdir()
            _mount(f"/proc/self/fd/{sockets}", str(DRIVER_SOCKETS), flags=MS_BIND)


def _unshare_as_root() -> None:
    try:
        _libc_call("unshare", CLONE_NEWNET | CLONE_NEWNS)
    except PermissionError:
        uid, gid = os.geteuid(), os.getegid()
        _libc_call("unshare", CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")  # else gid_map may not be written
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _obstacle() -> str:
    """Which setting forbids it, and what to do."""
    for name, forbids, allows in USER_NAMESPACE_SYSCTLS:
        with suppress(OSError, ValueError):
            if int(Path("/proc/sys", name.replace(".", "/")).read_text()) == forbids:
                return (
                    f"sysctl {name} is {forbids}, which forbids it to users; "
                    f"run as root, or allow it: sysctl -w {name}={allows}"
                )
    return (
        "run as root; in a container, allow it CAP_SYS_ADMIN and CAP_NET_ADMIN, "
        "or user namespaces (its seccomp profile may forbid them)"
    )


class NetworkNamespace:
    """A named network namespace, there for as long as the ``with`` block.

    Its name stands in ``/run/netns``, as those of ``ip netns`` do. ``lo`` is up, nothing else is in
    it. The block's end kills the processes that were started through it and removes the name; the
    namespace itself goes with the last process or descriptor in it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = str(NAMED_NAMESPACES / name)
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        """Make it. Raises ``FileExistsError`` where the name is taken, ``OSError`` otherwise."""
        NAMED_NAMESPACES.mkdir(exist_ok=True)
        Path(self.path).touch(mode=0, exist_ok=False)
        failures: list[OSError] = []

        def make() -> None:
            try:
                _libc_call("unshare", CLONE_NEWNET)  # this thread alone, which ends at once
                _set_up("lo")
                _mount("/proc/thread-self/ns/net", self.path, flags=MS_BIND)
            except OSError as error:
                failures.append(error)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if failures:
            os.unlink(self.path)
            raise failures.pop()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.kill()
            with process:  # closes its pipes and waits
                pass
        self._processes.clear()
        _libc_call("umount2", self.path.encode(), MNT_DETACH)
        os.unlink(self.path)

    def command(self, *argv: str) -> list[str]:
        """The command that runs ``argv`` inside, through util-linux's ``nsenter``."""
        return ["nsenter", f"--net={self.path}", "--", *argv]

    def popen(self, *argv: str, **options: Any) -> subprocess.Popen[str]:
        """Start ``argv`` inside, with text pipes and ``options`` of ``subprocess.Popen``.

        The block's end kills it, but not what it started itself.
        """
        process = subprocess.Popen(self.command(*argv), text=True, **options)
        self._processes.append(process)
        return process

    def run(
        self, *argv: str, check: bool = True, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` inside to its end, with its output captured as text.

        Takes more ``options`` of ``subprocess.run``, and raises what it does.
        """
        return subprocess.run(
            self.command(*argv), check=check, capture_output=True, text=True, **options
        )


def _set_up(interface: str) -> None:
    """Bring up an interface of the calling thread's namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, IFREQ_FLAGS.pack(interface.encode(), IFF_UP))


def _mount(source: str, target: str, *, kind: str = "", flags: int = 0, options: str = "") -> None:
    _libc_call(
        "mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags),
        options.encode(),
    )  # fmt: skip


def _libc_call(function: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0; otherwise raise its errno."""
    if getattr(_libc(), function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
