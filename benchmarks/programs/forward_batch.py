"""ringtun, batch by batch: ``forward_batch inline|thread NETNS NETNS``."""

import sys
from functools import partial
from typing import cast

import ringtun
from benchmarks.programs.process import Pump, run, session


def forward(source: ringtun.Session, destination: ringtun.Session) -> None:
    for batch in source.batches():
        destination.send_many(batch)


def main(pump: Pump, left: str, right: str) -> None:
    a, b = session(left, pump), session(right, pump)
    run(partial(forward, a, b), partial(forward, b, a))


if __name__ == "__main__":
    main(cast(Pump, sys.argv[1]), *sys.argv[2:])
