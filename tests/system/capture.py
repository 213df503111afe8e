"""tcpdump on the kernel's side of an adapter."""

from __future__ import annotations

import signal
import struct
import subprocess
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from pathlib import Path

from tests.system.sites import SOON, Site, until, wait_for_words

__all__ = ["capturing", "read_pcap"]

LINKTYPE_RAW = 101
FILE_HEADER, PACKET_HEADER = 24, 16
BUFFER_KIB = 64 << 10
"""tcpdump takes a place of the snapshot's length for each packet, those of the other way too."""


@contextmanager
def capturing(site: Site, file: Path, direction: str, sent: Sized) -> Iterator[None]:
    """Capture what the kernel transmits ("out") or receives ("in") into ``file``.

    The block's end waits until as many packets are in it as there are in ``sent``.
    """
    tcpdump = site.network.popen(
        *("tcpdump", "-i", site.adapter.name, "-n", "-U", "--immediate-mode", "-Q", direction),
        *("-B", str(BUFFER_KIB), "-s", str(site.adapter.mtu + 500), "-Z", "root", "-w", str(file)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    assert tcpdump.stderr is not None
    try:
        wait_for_words(tcpdump.stderr.fileno(), "listening on")
        yield
        until(lambda: len(read_pcap(file)) >= len(sent), "tcpdump does not see all of it")
        tcpdump.send_signal(signal.SIGINT)
        said = tcpdump.stderr.read()
        assert tcpdump.wait(SOON) == 0, said
        assert "\n0 packets dropped by kernel" in said, said
    finally:
        tcpdump.kill()
        with tcpdump:
            pass


def read_pcap(file: Path) -> list[bytes]:
    """The packets in a capture, as far as it is written."""
    data = file.read_bytes()
    if len(data) < FILE_HEADER:
        return []
    magic, link_type = struct.unpack_from("=I16xI", data)
    assert (magic, link_type) == (0xA1B2C3D4, LINKTYPE_RAW)
    packets, at = [], FILE_HEADER
    while at + PACKET_HEADER <= len(data):
        captured, size = struct.unpack_from("=8xII", data, at)
        assert captured == size
        at += PACKET_HEADER
        if at + size > len(data):
            break
        packets.append(data[at : at + size])
        at += size
    return packets
