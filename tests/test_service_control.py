"""The control socket of the driver service, and descriptors whose close does not return."""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ringtun.service import control
from ringtun.service.descriptors import no_signal_matters
from ringtun.service.listener import listen
from ringtun.service.quota import Limits, Quota

CALL = b'{"method":"org.varlink.service.GetInfo"}\0'


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What is being closed, each by what says that it is: a file system's own may never answer."""
    calls: list[Callable[[], None]] = []
    left: list[int] = []

    def close_apart(descriptors: Sequence[int], closed: Callable[[], None]) -> bool:
        left.extend(descriptors)
        calls.append(closed)
        return True

    monkeypatch.setattr(control, "close_apart", close_apart)
    yield calls
    for fd in left:
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_it_reads_no_more_until_they_are_closed(
    stuck: list[Callable[[], None]], tmp_path: Path
) -> None:
    path = tmp_path / "control"
    quota = Quota(Limits())

    async def ask(connection: socket.socket, descriptors: Sequence[int] = ()) -> None:
        socket.send_fds(connection, [CALL], descriptors)
        await answered(connection)

    async def answered(connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        assert (await loop.run_in_executor(None, connection.recv, 1 << 16)).endswith(b"\0")

    def connect() -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(10)
        connection.connect(os.fspath(path))
        return connection

    async def work() -> None:
        no_signal_matters(asyncio.get_running_loop())
        nothing: Any = None  # there is no adapter
        listener = listen(path, socket.SOCK_STREAM, 0o600, None)
        server = control.ControlServer(nothing, listener, quota, "1")
        with closing(connect()) as bad, closing(connect()) as good, open("/dev/null") as null:
            await ask(bad, [null.fileno()])
            (closed,) = stuck
            bad.sendall(CALL)
            for _ in range(3):
                await ask(good)
            assert not select.select([bad], [], [], 0)[0]
            closed()
            await answered(bad)
            await ask(bad, [null.fileno()])
            bad.close()
            for _ in range(3):
                await ask(good)
            count = quota._taken
            assert count.total() == 2, "it counts as long as there is something to close"
            stuck.pop()()
            while count.total() != 1:
                await ask(good)
        await server.close()

    asyncio.run(asyncio.wait_for(work(), 20))
    assert quota._taken.total() == 0


def test_descriptors_of_an_unfinished_request(
    stuck: list[Callable[[], None]], tmp_path: Path
) -> None:
    """Not even its rest is read, so that there is one at a time."""
    path = tmp_path / "control"

    async def work() -> None:
        loop = asyncio.get_running_loop()
        no_signal_matters(loop)
        nothing: Any = None
        listener = listen(path, socket.SOCK_STREAM, 0o600, None)
        server = control.ControlServer(nothing, listener, Quota(Limits()), "1")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bad, open("/dev/null") as null:
            bad.settimeout(10)
            bad.connect(os.fspath(path))
            for at in range(len(CALL)):
                socket.send_fds(bad, [CALL[at : at + 1]], [null.fileno()])
            for number in range(len(CALL)):
                while len(stuck) == number:
                    await asyncio.sleep(0)
                assert len(stuck) == number + 1
                stuck[number]()
            assert (await loop.run_in_executor(None, bad.recv, 1 << 16)).endswith(b"\0")
        await server.close()

    asyncio.run(asyncio.wait_for(work(), 20))
