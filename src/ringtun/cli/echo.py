"""``ringtun echo``: answer pings, which is the smallest use of a session."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

import ringtun
from ringtun.cli import options, printable
from ringtun.cli.echo_reply import Responder

if TYPE_CHECKING:
    from ringtun.arguments import Interface

__all__ = ["echo"]

DEFAULT_ADDRESS = "10.7.0.1/24"


@click.command()
@click.option(
    "--name",
    default="echo0",
    show_default=True,
    shell_complete=options.adapter_names,
    help="The adapter; where there is none of that name, it is made, and goes at the end.",
)
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="A/P",
    help=f"For an adapter that is made. May be given several times.  [default: {DEFAULT_ADDRESS}]",
)
@click.option("--mtu", type=int, help="For an adapter that is made: bytes.")
@options.netns
@click.option("--count", type=click.IntRange(min=1), help="End after so many answers.")
@options.as_json
def echo(
    name: str,
    addresses: tuple[str, ...],
    mtu: int | None,
    netns: str | None,
    count: int | None,
    as_json: bool,
) -> None:
    """Answer pings for every address of an adapter's networks, but the adapter's own: for those the
    system answers.

    Ends at Ctrl-C, or after --count answers, with what it saw.
    """
    _on_signals(_interrupt)
    adapter, made = _adapter(name, addresses, mtu, netns)
    with adapter:
        here = _networks(adapter)
        responder = Responder(address.network for address in here)
        where = ", ".join(str(address.network) for address in here)
        say = partial(click.echo, err=as_json)
        started = time.monotonic()
        with adapter.start_session() as session:
            try:
                say(f"answering pings to {where} on {printable(name)}; Ctrl-C ends it")
                _answer(session, responder, count, say)
            except KeyboardInterrupt:
                _on_signals(signal.SIG_IGN)
    found = {
        "name": name,
        "made": made,
        "addresses": [str(address) for address in here],
        "answered": responder.answered,
        "pingers": [
            {"source": str(source), "destination": str(destination), "answered": answered}
            for (source, destination), answered in responder.pingers.most_common()
        ],
        "ignored": asdict(responder.ignored),
        "seconds": round(time.monotonic() - started, 3),
        "statistics": session.statistics().as_dict(),
    }
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        click.echo("\n".join(_summary(found)))


def _on_signals(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _adapter(
    name: str, addresses: tuple[str, ...], mtu: int | None, netns: str | None
) -> tuple[ringtun.Adapter, bool]:
    """The adapter, and whether it was made for this."""
    try:
        adapter = ringtun.open_adapter(name, netns=netns)
    except ringtun.AdapterNotFound:
        wanted = addresses or [DEFAULT_ADDRESS]
        return ringtun.create_adapter(name, addresses=wanted, mtu=mtu, netns=netns), True
    if addresses or mtu is not None:
        adapter.close()
        raise ValueError(
            f"adapter {name} is there already: leave out --address and --mtu, "
            "which are for one to be made, or take another --name"
        )
    return adapter, False


def _networks(adapter: ringtun.Adapter) -> Sequence[Interface]:
    """Its addresses; raises ``ValueError`` where no ping can come."""
    addresses = adapter.addresses
    if not addresses:
        raise ValueError(
            f"adapter {adapter.name} has no address, so there is no ping to answer; give it one: "
            f"ip address add {DEFAULT_ADDRESS} dev {adapter.name}"
        )
    if not adapter.up:
        raise ValueError(
            f"adapter {adapter.name} is down; bring it up: ip link set {adapter.name} up"
        )
    return addresses


def _answer(
    session: ringtun.Session, responder: Responder, count: int | None, say: Callable[[str], None]
) -> None:
    """Answer until ``count`` is reached, saying who begins to ping."""
    known = 0
    for packet in session:
        answer = responder.answer(packet)
        if answer is None:
            continue
        if len(responder.pingers) > known:  # said first: whoever has the answer may end us
            known += 1
            source, destination = next(reversed(responder.pingers))
            say(f"{source} pings {destination}")
        session.send(answer)
        if responder.answered == count:
            return


def _summary(found: dict[str, Any]) -> Iterable[str]:
    yield f"answered {found['answered']:,} pings in {found['seconds']:.1f} s"
    for pinger in found["pingers"]:
        yield f"  {pinger['source']} pinged {pinger['destination']}: {pinger['answered']:,}"
    yield f"ignored {_counts(found['ignored'])}"
    statistics = found["statistics"]
    yield (
        f"received {statistics['received_packets']:,} packets, sent "
        f"{statistics['sent_packets']:,}; discarded {_counts(statistics['discards'])}"
    )


def _counts(counts: dict[str, int]) -> str:
    found = (f"{count:,} {reason.replace('_', ' ')}" for reason, count in counts.items() if count)
    return ", ".join(found) or "none"
