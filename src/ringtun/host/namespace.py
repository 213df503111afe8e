"""A network namespace, and how to do something inside one.

Sockets, netlink and TUN devices belong to the network namespace of the thread that opened them, and
stay there. So only the opening has to happen inside; what was opened is then used from anywhere.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TypeVar

from ringtun.errors import AdapterPermissionError

__all__ = ["Namespace"]

T = TypeVar("T")

NAMED_NAMESPACES: Final = "/run/netns"

CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
NS_GET_NSTYPE: Final = 0xB703  # linux/nsfs.h

_ENTERING: Final = "it takes CAP_SYS_ADMIN; run as root, or start the program inside the namespace"


class Namespace:
    """A network namespace: the caller's own, or one with a name.

    A named one owns a descriptor, so it stays the same namespace when the name is given to another.
    `close` it, or use it in a ``with`` statement; a forgotten one warns.
    """

    __slots__ = ("__weakref__", "_fd", "_name")

    def __init__(self, name: str, fd: int | None) -> None:
        """Take over ``fd``; use `current` or `named` instead."""
        self._name = name
        self._fd = fd

    @classmethod
    def current(cls) -> Self:
        """The namespace of whichever thread calls `run`; it owns nothing."""
        return cls("", None)

    @classmethod
    def named(cls, name: str) -> Self:
        """The namespace that ``ip netns`` calls ``name``, or, where it contains "/", of that path.

        Raises ``FileNotFoundError`` where there is none, ``ValueError`` where the file is no
        network namespace, `AdapterPermissionError` where it may not be opened, and any other
        ``OSError`` of opening it.
        """
        path = name if "/" in name else f"{NAMED_NAMESPACES}/{name}"
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a FIFO would wait, a device could act
                raise ValueError(f"{path} is not a network namespace")
            flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            namespace = cls(name, os.open(path, flags))
        except FileNotFoundError:
            cure = "" if "/" in name else f"; make it with: ip netns add {name}"
            raise FileNotFoundError(
                errno.ENOENT, f"there is no network namespace {name!r} ({path}){cure}"
            ) from None
        except PermissionError as error:
            raise AdapterPermissionError(
                error.errno,
                f"no permission to open network namespace {name!r} ({path}): {_ENTERING}",
            ) from None
        if not namespace._is_network():
            namespace.close()
            raise ValueError(f"{path} is not a network namespace")
        return namespace

    @classmethod
    def of(cls, netns: str | None) -> Self:
        """`named`, or for None `current`."""
        return cls.current() if netns is None else cls.named(netns)

    @classmethod
    @contextmanager
    def handing_over(cls, netns: str | None) -> Iterator[Self]:
        """The same, for who takes it over in the block; closed only where that fails."""
        namespace = cls.of(netns)
        try:
            yield namespace
        except BaseException:
            namespace.close()
            raise

    def _is_network(self) -> bool:
        assert self._fd is not None
        try:
            return fcntl.ioctl(self._fd, NS_GET_NSTYPE) == CLONE_NEWNET
        except OSError:
            return False

    def fileno(self) -> int | None:
        """The descriptor of the namespace, still owned by this object; None for the caller's own.

        Raises ``ValueError`` after `close`.
        """
        if self._fd == -1:
            raise ValueError(f"{self} is closed")
        return self._fd

    def inode(self) -> int:
        """The number by which the system tells namespaces apart."""
        return self.run(lambda: os.stat("/proc/thread-self/ns/net").st_ino)

    def open(self) -> io.FileIO:
        """A descriptor of it of one's own, to be closed, also of the caller's; raises what `run`
        does. The kernel tells what it is (``net:[inode]``), whatever the name.
        """
        return self.run(lambda: open("/proc/thread-self/ns/net", "rb", buffering=0))

    def run(self, func: Callable[[], T]) -> T:
        """Call ``func`` inside the namespace; return its result, or raise what it raised.

        ``func`` runs in a thread of its own that ends with it, the caller's own namespace not
        excepted: the caller's thread never changes namespace, and may have a running event loop
        (netlink's library runs one itself). What ``func`` opens should be owned by what it returns:
        a caller interrupted while waiting leaves ``func`` to finish, and drops its result.

        Raises `AdapterPermissionError` where the namespace may not be entered, ``OSError`` (EAGAIN)
        where no thread can be started, ``ValueError`` after `close`.
        """
        fd = self.fileno()
        results: list[T] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                if fd is not None:
                    self._enter(fd)
                results.append(func())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=body, name=f"ringtun in {self}")
        try:
            thread.start()
        except RuntimeError as error:
            raise OSError(
                errno.EAGAIN,
                f"{error}, which it takes to ask the kernel: this user's limit is reached "
                "(ulimit -u), or the system's",
            ) from None
        thread.join()
        if errors:
            raise errors.pop()  # leaves no reference behind that would tie a cycle
        return results.pop()

    def _enter(self, fd: int) -> None:
        """Move the calling thread."""
        try:
            setns = getattr(os, "setns", None)  # Python 3.12
            if setns is not None:
                setns(fd, CLONE_NEWNET)
            else:
                from pyroute2 import netns

                netns.setns(fd)
        except PermissionError as error:
            raise AdapterPermissionError(
                error.errno,
                f"no permission to enter {self}: {_ENTERING}",
            ) from None

    def close(self) -> None:
        """Give the descriptor back. Idempotent; what was opened inside goes on working."""
        fd, self._fd = self._fd, None if self._fd is None else -1
        if fd is not None and fd >= 0:
            os.close(fd)

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
        fd: int | None = getattr(self, "_fd", None)  # none yet where its making was interrupted
        if fd is not None and fd >= 0:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:  # the warning may be an error
                self.close()

    def __str__(self) -> str:
        return f"network namespace {self._name!r}" if self._name else "this network namespace"

    def __repr__(self) -> str:
        return f"<Namespace {self._name or 'current'}>"
