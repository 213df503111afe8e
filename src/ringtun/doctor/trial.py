"""Can a TUN adapter really be made, and does a packet come through it?

Tried in a child process, in namespaces of its own that go with it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import warnings
from typing import Final

from ringtun.doctor.finding import OK, PROBLEM, WARNING, Finding, Status

__all__ = ["trial"]

TIMEOUT: Final = 20.0
ADDRESS, PEER = "192.0.2.1", "192.0.2.2"  # RFC 5737: for documentation
PAYLOAD: Final = b"ringtun doctor"


def trial() -> Finding:
    """Start the child, and hear what it says."""
    argv = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
        return Finding("trial", **json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        why = f"did not end within {TIMEOUT:g} s"
    except ValueError:  # it said nothing that we know
        last_words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        why = f"failed: {last_words[-1]}"
    return Finding(
        "trial",
        PROBLEM,
        f"The process that was to try an adapter {why}.",
        f"See what it says: {' '.join(argv)}",
    )


def _try_it() -> tuple[Status, str, str | None]:
    """In the child: status, message, cure."""
    from ringtun import create_adapter
    from ringtun.testing.netns import enter_private_world

    try:
        enter_private_world()
    except PermissionError as error:
        what, _, why = str(error.strerror).partition(": ")
        return (
            WARNING,
            f"No adapter was tried, since this process {what}.",
            why[:1].upper() + why[1:],
        )
    try:
        with (
            create_adapter("trial0", addresses=[f"{ADDRESS}/24"]) as adapter,
            adapter.start_session() as session,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host,
        ):
            host.sendto(PAYLOAD, (PEER, 9))
            while not session.receive(5).endswith(PAYLOAD):
                pass
    except TimeoutError:
        return (
            PROBLEM,
            "An adapter was made in a private namespace, but a packet sent through it did not "
            "arrive.",
            "See whether a packet filter or an eBPF program drops it",
        )
    except OSError as error:
        message, _, cure = str(error.strerror).partition("; ")
        return PROBLEM, f"No adapter could be made in a private namespace: {message}.", cure or None
    return OK, "An adapter was made in a private namespace, and a packet came through it.", None


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    status, message, cure = _try_it()
    print(json.dumps({"status": status, "message": message, "cure": cure}))
