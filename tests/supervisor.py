"""A small service manager for tests: readiness, a control socket that it listens on, a store.

It speaks what sd_notify(3) and sd_listen_fds(3) describe. It is not systemd, nor a proof of that.
"""

from __future__ import annotations

import array
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["BECOME", "Supervisor"]

_PATIENCE = 20.0

# Brings the descriptors to 3 and up, and becomes the service.
BECOME = """
import fcntl, os, sys
moved = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 512) for fd in sys.argv[1].split(",")]
for number, fd in enumerate(moved):
    os.dup2(fd, 3 + number)
os.closerange(3 + len(moved), 1024)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Supervisor:
    """Runs `ringtun driver` with its sockets in ``directory``; `stop` it and `start` it again."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self.stored: list[tuple[str, int]] = []
        """What the service has had stored: labels, and descriptors of this process."""
        self._arguments = arguments
        self._errors = directory.parent / "errors"
        self._ready = threading.Event()
        self._lock = threading.Lock()
        directory.mkdir()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(directory / "control"))
        (directory / "control").chmod(0o666)
        self._listener.listen()
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._notices.bind(os.fspath(directory.parent / "notify"))
        self._end, self._ending = os.pipe()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def labels(self) -> list[str]:
        """Of what is stored now; what the service has said before counts."""
        self._settle()
        return [label for label, _ in self.stored]

    @property
    def lines(self) -> list[str]:
        """What the service has said."""
        return self._errors.read_text().splitlines()

    def start(self) -> None:
        """Start it, and return once it says that it is ready."""
        self._settle()
        passed = [("ringtun.socket", self._listener.fileno()), *self.stored]
        self._ready.clear()
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", BECOME, ",".join(str(fd) for _, fd in passed)),
                    *(sys.executable, "-W", "error", "-m", "ringtun", "driver"),
                    *("--runtime-directory", os.fspath(self.directory), *self._arguments),
                ],
                stdin=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[fd for _, fd in passed],
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": os.fspath(self.directory.parent / "notify"),
                    "LISTEN_FDS": str(len(passed)),
                    "LISTEN_FDNAMES": ":".join(label for label, _ in passed),
                },
            )
        assert self._ready.wait(_PATIENCE), self.lines

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal."""
        assert self._process is not None
        self._process.send_signal(number)
        try:
            status = self._process.wait(_PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None
        assert status == (0 if number == signal.SIGTERM else -number), self.lines

    def _read(self) -> None:
        poll = select.poll()
        poll.register(self._notices, select.POLLIN)
        poll.register(self._end, select.POLLHUP)
        while not any(fd == self._end for fd, _ in poll.poll()):
            self._settle()

    def _settle(self) -> None:
        """Do all that the service has asked for so far."""
        with self._lock:
            while True:
                size = array.array("i").itemsize
                try:
                    message, ancillary, _, _ = self._notices.recvmsg(
                        4096, socket.CMSG_SPACE(8 * size), socket.MSG_CMSG_CLOEXEC
                    )
                except BlockingIOError:
                    return
                descriptors = array.array("i")
                for _, _, data in ancillary:
                    descriptors.frombytes(data)
                self._obey(message.decode("ascii").splitlines(), descriptors.tolist())

    def _obey(self, lines: list[str], descriptors: list[int]) -> None:
        said = dict(line.split("=", 1) for line in lines)
        if said.get("READY") == "1":
            self._ready.set()
        if said.get("FDSTORE") == "1":
            self.stored += [(said["FDNAME"], fd) for fd in descriptors]
        elif said.get("FDSTOREREMOVE") == "1":
            for entry in [entry for entry in self.stored if entry[0] == said["FDNAME"]]:
                self.stored.remove(entry)
                os.close(entry[1])

    def __enter__(self) -> Self:
        self._outside = os.environ.get("RINGTUN_RUNTIME_DIRECTORY")
        os.environ["RINGTUN_RUNTIME_DIRECTORY"] = os.fspath(self.directory)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del os.environ["RINGTUN_RUNTIME_DIRECTORY"]
        if self._outside is not None:
            os.environ["RINGTUN_RUNTIME_DIRECTORY"] = self._outside
        try:
            if self._process is not None:
                self.stop()
        finally:
            os.close(self._ending)
            self._reader.join()
            os.close(self._end)
            self._notices.close()
            self._listener.close()
            for _, fd in self.stored:
                os.close(fd)
        if exc is None:
            assert not [line for line in self.lines if "Traceback" in line or "Error" in line]
