"""Join two network namespaces: what comes out of one adapter goes into the other, batch by batch.

unshare -rnm
mount -t tmpfs none /run && ip netns add left && ip netns add right
python examples/forward.py left right &
nsenter --net=/run/netns/left ping -c 3 10.8.0.2
nsenter --net=/run/netns/right ping -c 3 fd08::1
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import ringtun


def forward(source: ringtun.Session, destination: ringtun.Session) -> None:
    """Copy from ring to ring until either session is over; then both are."""
    try:
        for batch in source.batches():
            destination.send_many(batch)
    except ringtun.SessionClosed as end:
        if end.reason is not ringtun.EndReason.CLOSED:
            raise
    finally:
        source.close()
        destination.close()


def main(left: str, right: str) -> None:
    with (
        ThreadPoolExecutor() as threads,  # waited for last, when the sessions are closed
        ringtun.create_adapter("vpn0", addresses=["10.8.0.1/24", "fd08::1/64"], netns=left) as one,
        ringtun.create_adapter("vpn0", addresses=["10.8.0.2/24", "fd08::2/64"], netns=right) as two,
        one.start_session() as near,
        two.start_session() as far,
    ):
        back = threads.submit(forward, far, near)
        print(f"{left} and {right} are joined", flush=True)
        forward(near, far)
        back.result()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
