"""A driver whose adapters have nothing to do: ``idle inline|thread COUNT NETNS``.

Makes so many adapters, a session on each, and waits for packets on all of them, in one thread, as
an event loop would. At a line of standard input it says ``{"wakeups": of the engines' threads,
"packets": that came all the same, "session_kib": memory of a session without its rings}``.
"""

from __future__ import annotations

import json
import os
import re
import resource
import select
import sys
from pathlib import Path
from typing import cast

import ringtun
from benchmarks.programs.process import Pump, end_with_parent

CAPACITY = 128 << 10
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .*?(memfd:ringtun)?(?: \(deleted\))?$")


def memory_kib() -> int:
    """Memory of this process, its share of what it shares with others; rings left out."""
    total, counts = 0, True
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if mapping := _MAPPING.match(line):
            counts = mapping[1] is None
        elif counts and line.startswith("Pss:"):
            total += int(line.split()[1])
    return total


def main(pump: Pump, count: int, netns: str) -> None:
    end_with_parent()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    adapters = [ringtun.create_adapter(f"idle{i}", netns=netns) for i in range(count)]
    for _ in range(3):  # loads what is loaded once
        adapters[0].start_session(capacity=CAPACITY, pump=pump).close()
        memory_kib()
    before = memory_kib()
    sessions = [adapter.start_session(capacity=CAPACITY, pump=pump) for adapter in adapters]
    session_kib = (memory_kib() - before) / count

    epoll = select.epoll()
    epoll.register(sys.stdin.fileno(), select.EPOLLIN)
    by_descriptor = {session.fileno(): session for session in sessions}
    for descriptor in by_descriptor:
        epoll.register(descriptor, select.EPOLLIN)
    print("ready", flush=True)

    packets = 0
    while True:
        for descriptor, _ in epoll.poll():
            if descriptor in by_descriptor:
                while by_descriptor[descriptor].try_receive() is not None:
                    packets += 1
            elif os.read(descriptor, 1):
                wakeups = sum(session.statistics().wakeups for session in sessions)
                said = {"wakeups": wakeups, "packets": packets, "session_kib": session_kib}
                print(json.dumps(said), flush=True)
            else:
                return


if __name__ == "__main__":
    main(cast(Pump, sys.argv[1]), int(sys.argv[2]), sys.argv[3])
