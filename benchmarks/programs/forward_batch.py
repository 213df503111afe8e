"""ringtun, batch by batch: ``forward_batch WAY NETNS NETNS``.

inline, thread: the pump. copied: as a list of the batch's views, which goes through the other
session's ring. trusted: without verifying checksums. whole: packets as large as the kernel has
them. service: the adapters are those of two driver services, one in each namespace.
"""

import sys
from functools import partial
from typing import Any

import ringtun
from benchmarks.programs.process import run, served_session, session

OPTIONS: dict[str, dict[str, Any]] = {
    "inline": {},
    "thread": {"pump": "thread"},
    "copied": {},
    "trusted": {"verify_checksums": False},
    "whole": {"offload": True},
}


def forward(source: ringtun.Session[Any], destination: ringtun.Session[Any]) -> None:
    for batch in source.batches():
        destination.send_many(batch)


def forward_copied(source: ringtun.Session[Any], destination: ringtun.Session[Any]) -> None:
    for batch in source.batches():
        destination.send_many([*batch])


def main(way: str, left: str, right: str) -> None:
    if way == "service":
        a, b = served_session(left), served_session(right)
    else:
        a, b = session(left, **OPTIONS[way]), session(right, **OPTIONS[way])
    work = forward_copied if way == "copied" else forward
    run(partial(work, a, b), partial(work, b, a))


if __name__ == "__main__":
    main(*sys.argv[1:])
