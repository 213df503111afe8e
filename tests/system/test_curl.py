"""curl and an HTTP server through two adapters: files there and back, their content unharmed."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer

import pytest

from ringtun.device.embedded import Pump
from tests.system.conftest import MakeSite
from tests.system.sites import FAMILY, SOON, Background, Site, forwarding

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(shutil.which("curl") is None, reason="NOT TRIED: install curl"),
]

SIZE = 8 << 20
CONTENT = random.Random(80).randbytes(SIZE)


class Handler(BaseHTTPRequestHandler):
    """Gives `CONTENT`; of what it is given it says the SHA-256."""

    protocol_version = "HTTP/1.1"
    timeout = SOON

    def do_GET(self) -> None:
        self._answer(CONTENT)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(hashlib.sha256(body).hexdigest().encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@contextmanager
def serving(site: Site, version: int) -> Iterator[str]:
    """A server at the site; gives its URL."""

    class Server(ThreadingTCPServer):
        address_family = FAMILY[version]

    with (
        site.namespace.run(lambda: Server((site.addresses[version], 0), Handler)) as server,
        Background(partial(server.serve_forever, 0.01)),
    ):
        host, port = server.server_address[:2]
        try:
            yield f"http://[{host!s}]:{port}/" if version == 6 else f"http://{host!s}:{port}/"
        finally:
            server.shutdown()


def curl(site: Site, *arguments: str) -> str:
    """What it says, where it succeeds."""
    options = "--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*"
    done = site.network.run(
        *("curl", "--disable", *options, "--max-time", str(2 * SOON), *arguments), check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("mtu", [1280, 65535])
def test_files(make_site: MakeSite, pump: Pump, version: int, mtu: int, tmp_path: Path) -> None:
    left, right = make_site("left", mtu=mtu), make_site("right", mtu=mtu)
    came, gone = tmp_path / "came", tmp_path / "gone"
    with (
        left.adapter.start_session(pump=pump) as near,
        right.adapter.start_session(pump=pump) as far,
        forwarding(near, far),
        serving(right, version) as url,
    ):
        curl(left, "--output", str(came), url)
        assert came.read_bytes() == CONTENT
        moved = near.statistics()
        assert (moved.sent_bytes / moved.sent_packets > 1500) == (mtu > 1500)

        gone.write_bytes(CONTENT[::-1])
        said = curl(left, "--upload-file", str(gone), url)
        assert said == hashlib.sha256(CONTENT[::-1]).hexdigest()
