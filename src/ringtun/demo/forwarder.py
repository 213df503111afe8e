"""The program between the two adapters: what comes out of one of them goes into the other.

It runs as a process of its own, so that it shares no interpreter with the measuring. ``python -m
ringtun.demo.forwarder 4 6`` makes an adapter, with addresses of those versions of IP, in each of
the network namespaces "left" and "right", says ``{"mtu": …}``, and forwards. At a line of standard
input it says the counters; when that ends, it closes everything and ends.
"""

from __future__ import annotations

import sys
import threading
from functools import partial
from typing import Any

import ringtun
from ringtun.demo.addresses import ADAPTER, LEFT, RIGHT, End
from ringtun.demo.child import emit, serve

__all__ = ["forward", "main"]


def forward(source: ringtun.Session, destination: ringtun.Session) -> None:
    """Send on what comes, batch by batch, until one of the sessions is closed."""
    try:
        for batch in source.batches():
            destination.send_many(batch)
    except ringtun.SessionClosed as closed:
        if closed.reason is not ringtun.EndReason.CLOSED:
            raise


def main() -> None:
    """Join the adapters until standard input ends."""
    with _make(LEFT) as left, _make(RIGHT) as right:
        with left.start_session() as left_session, right.start_session() as right_session:
            threads = [
                threading.Thread(target=serve, args=[partial(forward, *sessions)])
                for sessions in ((left_session, right_session), (right_session, left_session))
            ]
            for thread in threads:
                thread.start()
            emit(mtu=left.mtu)
            for _ in sys.stdin:
                emit(left=_counters(left, left_session), right=_counters(right, right_session))
        for thread in threads:
            thread.join()


def _make(end: End) -> ringtun.Adapter:
    addresses = [end.interfaces[int(version)] for version in sys.argv[1:]]
    return ringtun.create_adapter(ADAPTER, addresses=addresses, netns=end.name)


def _counters(adapter: ringtun.Adapter, session: ringtun.Session) -> dict[str, Any]:
    return {
        "adapter": adapter.statistics().as_dict(),
        "session": session.statistics().as_dict(),
    }


if __name__ == "__main__":
    serve(main)
