"""ringtun, one packet at a time: ``forward_packet NETNS NETNS``."""

import sys
from functools import partial

import ringtun
from benchmarks.programs.process import run, session


def forward(source: ringtun.Session, destination: ringtun.Session) -> None:
    for packet in source:
        destination.send(packet)


def main(left: str, right: str) -> None:
    a, b = session(left), session(right)
    run(partial(forward, a, b), partial(forward, b, a))


if __name__ == "__main__":
    main(*sys.argv[1:])
