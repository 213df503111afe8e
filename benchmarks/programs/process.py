"""What the programs share: their beginning, their end, and a TUN device without ringtun."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import importlib
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ringtun
from ringtun.host.namespace import Namespace

if TYPE_CHECKING:
    from ringtun.aio import AsyncSession

__all__ = [
    *("IFF_NO_PI", "IFF_TUN", "NAME", "Pump", "async_session", "end_with_parent", "new_loop"),
    *("open_tun", "run", "run_loop", "served_session", "session"),
]

Pump = Literal["inline", "thread"]

NAME = "bench0"
_END = {signal.SIGTERM, signal.SIGINT}
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h
_adapters: list[ringtun.Adapter] = []  # as long as the process lives


def end_with_parent() -> None:
    """Have the parent's end be ours, however it came about."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def session(netns: str, pump: Pump = "inline", **options: Any) -> ringtun.Session[Any]:
    """A session on a new adapter of ringtun's in a namespace; addresses are the caller's."""
    return _adapter(netns).start_session(pump=pump, **options)


def async_session(netns: str) -> AsyncSession:
    """`session`, for asyncio."""
    return _adapter(netns).start_async_session()


def _adapter(netns: str) -> ringtun.Adapter:
    adapter = ringtun.create_adapter(NAME, netns=netns, mtu=1500)
    _adapters.append(adapter)
    return adapter


def served_session(netns: str) -> ringtun.Session[Any]:
    """A session on a new adapter of a driver service, which is started in the namespace for it."""
    directory = Path(tempfile.mkdtemp(prefix="ringtun-bench-"))
    os.environ["RINGTUN_RUNTIME_DIRECTORY"] = str(directory)
    service = subprocess.Popen(
        [
            *("setpriv", "--pdeathsig", "KILL", "nsenter", f"--net=/run/netns/{netns}", "--"),
            *(sys.executable, "-m", "ringtun", "driver"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert service.stderr is not None
    said = service.stderr.readline()
    if not said.startswith("serving"):
        sys.exit(said.strip())
    threading.Thread(target=service.stderr.read, daemon=True).start()
    adapter = ringtun.create_adapter(NAME, mtu=1500, backend="service")
    _adapters.append(adapter)
    started = adapter.start_session()
    shutil.rmtree(directory)  # all is connected that will be
    return started


def open_tun(netns: str) -> int:
    """A TUN device in a namespace, by the plain system calls; returns its descriptor."""

    def open_here() -> int:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        request = struct.pack("16sH22x", NAME.encode(), IFF_TUN | IFF_NO_PI)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        return fd

    with Namespace.named(netns) as namespace:
        return namespace.run(open_here)


def run(*works: Callable[[], None]) -> None:
    """Run each in a thread of its own, say ``ready``, and end at SIGTERM."""
    end_with_parent()
    signal.pthread_sigmask(signal.SIG_BLOCK, _END)  # the threads inherit it
    for work in works:
        threading.Thread(target=_serve, args=[work], daemon=True).start()
    print("ready", flush=True)
    signal.sigwait(_END)
    os._exit(0)


def _serve(work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def run_loop(kind: str, work: Coroutine[Any, Any, None]) -> None:
    """`run`, in an event loop: "asyncio" or "uvloop"."""

    def serve() -> None:
        with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
            runner.run(work)

    run(serve)


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """An event loop of that kind."""
    loop: asyncio.AbstractEventLoop = importlib.import_module(kind).new_event_loop()
    return loop
