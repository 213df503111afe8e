"""ringtun, one packet at a time in Python, gathered: ``forward_gather NETNS NETNS``."""

import sys
from functools import partial

import ringtun
from benchmarks.programs.process import run, session


def forward(source: ringtun.Session, destination: ringtun.Session) -> None:
    for batch in source.batches():
        with destination.gather():
            for packet in batch:
                destination.send(packet)


def main(left: str, right: str) -> None:
    a, b = session(left), session(right)
    run(partial(forward, a, b), partial(forward, b, a))


if __name__ == "__main__":
    main(*sys.argv[1:])
