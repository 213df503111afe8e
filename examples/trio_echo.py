"""A session in trio, through its descriptor: it shares the loop fairly, and can be cancelled.

Every packet goes back with its addresses turned; beside that a task counts. After so many seconds
both are cancelled.

    unshare -rn
    python examples/trio_echo.py 60 &
    ping -c 3 10.7.0.9
"""

import sys

import trio

import ringtun


async def echo(session: ringtun.Session) -> None:
    while True:
        await trio.lowlevel.wait_readable(session.fileno())  # other tasks run, the end may come
        for _ in range(64):
            packet = session.try_receive()
            if packet is None:
                break
            if packet[0] >> 4 == 4:  # where there is no room it is lost, as on any network
                session.try_send(packet[:12] + packet[16:20] + packet[12:16] + packet[20:])


async def report(session: ringtun.Session) -> None:
    while True:
        print(f"{session.statistics().sent_packets} packets went back", flush=True)
        await trio.sleep(1)


async def main(seconds: float) -> None:
    with (
        ringtun.create_adapter("echo0", addresses=["10.7.0.1/24"]) as adapter,
        adapter.start_session() as session,
        trio.move_on_after(seconds),
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, session)
            nursery.start_soon(report, session)


if __name__ == "__main__":
    try:
        trio.run(main, float(sys.argv[1]))
    except* KeyboardInterrupt:
        pass
