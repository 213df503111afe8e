"""Can a TUN adapter really be made, and does a packet come through it?

Tried in a child process, in namespaces of its own that go with it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ringtun.doctor.finding import OK, PROBLEM, WARNING, Finding
from ringtun.driver.engine import can_offload

if TYPE_CHECKING:
    import ringtun

__all__ = ["trial"]

TIMEOUT: Final = 20.0
ADDRESS, PEER = "192.0.2.1", "192.0.2.2"  # RFC 5737: for documentation
PAYLOAD: Final = b"ringtun doctor"


def trial() -> Iterator[Finding]:
    """Start the child, and hear what it says."""
    argv = [sys.executable, "-P", "-m", __name__]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT
        )
        found = [Finding(**finding) for finding in json.loads(done.stdout)]
    except subprocess.TimeoutExpired:
        why = f"did not end within {TIMEOUT:g} s"
    except ValueError:  # it said nothing that we know
        last_words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        why = f"failed: {last_words[-1]}"
    else:
        yield from found
        return
    yield Finding(
        "trial",
        PROBLEM,
        f"The process that was to try an adapter {why}.",
        f"See what it says: {' '.join(argv)}",
    )


def _try_it() -> Iterator[Finding]:
    """In the child."""
    from ringtun import create_adapter
    from ringtun.testing.netns import enter_private_world

    try:
        enter_private_world()
    except PermissionError as error:
        what, _, why = str(error.strerror).partition(": ")
        yield Finding(
            "trial",
            WARNING,
            f"No adapter was tried, since this process {what}.",
            why[:1].upper() + why[1:],
        )
        return
    try:
        with (
            create_adapter("trial0", addresses=[f"{ADDRESS}/24"]) as adapter,
            adapter.start_session() as session,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host,
        ):
            host.sendto(PAYLOAD, (PEER, 9))
            while not session.receive(5).endswith(PAYLOAD):
                pass
            _send_large(session)
            offload = _offload(adapter)
    except TimeoutError:
        yield Finding(
            "trial",
            PROBLEM,
            "An adapter was made in a private namespace, but a packet sent through it did not "
            "arrive.",
            "See whether a packet filter or an eBPF program drops it",
        )
    except OSError as error:
        message, _, cure = str(error.strerror).partition("; ")
        message = f"No adapter could be made in a private namespace: {message}."
        yield Finding("trial", PROBLEM, message, cure or None)
    else:
        message = "An adapter was made in a private namespace, and a packet came through it."
        yield Finding("trial", OK, message)
        yield offload


def _send_large(session: ringtun.Session[bytes]) -> None:
    """Send what goes out merged, of each kind that the kernel took when it was probed.

    What it does not take after all is switched off with that, and its packets have gone singly.
    """
    from ringtun.host.offload import Coalesces, large_packet
    from ringtun.offload import OffloadPacket

    if not can_offload():
        return
    for kind in Coalesces.ALL:
        session.send_many(OffloadPacket(b"".join(large_packet(kind))).segments())


def _offload(adapter: ringtun.Adapter) -> Finding:
    """What is in use for large packets: those that the kernel hands over, and takes."""
    from ringtun.host.namespace import Namespace
    from ringtun.host.offload import Offload, offload_of

    with Namespace.current() as here:
        try:
            found = offload_of(here, adapter.name)
        except OSError:
            found = Offload(checksum=False, tcp=False, udp=False)
    return _judge(native=can_offload(), tcp=found.tcp, udp=found.udp)


def _judge(*, native: bool, tcp: bool, udp: bool) -> Finding:
    if tcp and udp:
        message = "The kernel hands over, and takes, large packets of TCP and UDP."
        return Finding("offload", OK, message)
    if tcp:
        return Finding(
            "offload",
            WARNING,
            "Large packets are of TCP alone: this kernel takes no UDP offload.",
            "Run Linux 6.2 or later, for much traffic in UDP",
        )
    return Finding(
        "offload",
        WARNING,
        "There is no offload: each packet is a system call of its own.",
        "Run a newer kernel" if native else "Have the native core built: see native-core",
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps([finding.as_dict() for finding in _try_it()]))
