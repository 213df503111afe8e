"""The driver service: TUN adapters for programs without rights, in any language.

A program asks for an adapter at the control socket, connects to the socket of its device, registers
rings in memory that it shares with this process, and from then on native threads move packets.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import resource
import signal
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path

from ringtun.errors import DriverUnavailable
from ringtun.ring import NATIVE
from ringtun.service.adapters import Adapters
from ringtun.service.control import ControlServer
from ringtun.service.descriptors import no_signal_matters
from ringtun.service.listener import listen
from ringtun.service.policy import Configuration
from ringtun.service.quota import Quota
from ringtun.service.systemd import notify, take_passed

__all__ = ["run"]

_WORKERS = 32  # of requests that wait for the kernel
_log = logging.getLogger("ringtun.driver")


def run(configuration: Configuration, directory: Path) -> None:
    """Serve until SIGTERM or SIGINT, with the sockets in ``directory``.

    Raises `DriverUnavailable` where another service runs there, and the ``OSError`` of what could
    not be made.
    """
    if not NATIVE:
        raise DriverUnavailable(
            errno.ENOSYS,
            "the driver service takes ringtun's native core: install a C compiler and the Python "
            "headers (python3-dev), then reinstall ringtun",
        )
    from ringtun import _native

    _native.guard_install()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        devices = directory / "devices"
        with suppress(FileExistsError):
            directory.mkdir()
            directory.chmod(0o755)  # whatever the umask: each socket has its own mode
        devices.mkdir(exist_ok=True)
        devices.chmod(0o755)
        stack.callback(os.close, _lock(directory))
        executor = stack.enter_context(ThreadPoolExecutor(_WORKERS, "ringtun-request"))
        _start_all(executor)
        asyncio.run(_serve(configuration, directory, devices, executor))


def _start_all(executor: ThreadPoolExecutor) -> None:
    """Each worker now: later the system may have no thread to give."""
    started = threading.Barrier(_WORKERS + 1)
    for _ in range(_WORKERS):
        executor.submit(started.wait)
    started.wait()


def _lock(directory: Path) -> int:
    """One service in a directory: the lock goes with the process, however it ends."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise DriverUnavailable(
            errno.EADDRINUSE, f"a driver service runs in {directory} already"
        ) from None
    return fd


async def _serve(
    configuration: Configuration, directory: Path, devices: Path, executor: ThreadPoolExecutor
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    no_signal_matters(loop)
    passed = take_passed()
    quota = Quota(configuration.limits)
    adapters = Adapters(configuration, devices, quota, executor)
    control: ControlServer | None = None
    try:
        for wanted in configuration.adapters:
            await adapters.start(wanted)
            _log.info("%s: made by the configuration", wanted.name)
        await adapters.adopt(passed.tuns)
        control = _control(adapters, configuration, directory, quota, passed.listener)
        notify("READY=1", f"STATUS=Serving in {directory}")
        _log.info("serving in %s", directory)
        await stop.wait()
        _log.info("ending")
    finally:
        notify("STOPPING=1")
        if control is not None:
            await control.close()
        await adapters.stop()


def _control(
    adapters: Adapters,
    configuration: Configuration,
    directory: Path,
    quota: Quota,
    listener: socket.socket | None,
) -> ControlServer:
    if listener is None:
        mode = 0o600 if configuration.group is None else 0o660
        listener = listen(directory / "control", socket.SOCK_STREAM, mode, configuration.group)
    return ControlServer(adapters, listener, quota, version("ringtun"))
