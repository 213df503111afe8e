"""Calls in forked children, as another user."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["NOBODY", "ONE_USER_ONLY", "as_ordinary_user", "descriptors", "raised_in_child"]

NOBODY = 65534
PR_SET_DUMPABLE = 4  # linux/prctl.h

# As in the user namespace of a process that had no rights outside.
ONE_USER_ONLY = int(Path("/proc/self/uid_map").read_text().split()[2]) <= NOBODY

as_ordinary_user = pytest.mark.skipif(
    ONE_USER_ONLY,
    reason="NOT TRIED: there is one user only in this user namespace",
)


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def raised_in_child(call: Callable[[], object], user: int | None = None) -> str:
    """The class and message of what ``call`` raises in a child process, of ``user`` if given."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
                ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # as exec() would
            call()
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text
