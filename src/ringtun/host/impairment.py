"""What a link in memory does to packets, and what it counts.

The decisions are made in ``host/impaired.py`` and ``native/impairment.c``, which a test holds
equal. Both work on `Terms`: whole numbers, so that every machine decides alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

__all__ = ["HOLD", "DirectionStatistics", "Impairment", "Terms", "terms_of"]

HOLD: Final = 0.01
"""Seconds that a packet which is held back waits for another to pass."""

CERTAIN: Final = 1 << 53  # a probability of 1, in `Terms`
NANOSECONDS: Final = 1_000_000_000

_LONGEST_DELAY = 3600
_MAX_RATE = 10**12
_MAX_LIMIT = 1 << 30
_MAX_SEED = (1 << 64) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """What one direction of a link in memory does to packets; by default nothing.

    Packets are numbered from 0, as they are written while the other side has a session. Which of
    them are lost, doubled, damaged, and how, is decided by ``seed`` and this number alone, with
    random numbers of its own for each direction: the same packets meet the same fate on every
    machine. What depends on the clock is when they arrive, and with it what overflows, and whether
    a packet that is held back sees another pass. Without ``reorder`` packets keep their order.

    Raises ``TypeError`` and ``ValueError`` for what cannot be, by the name of the field.
    """

    loss: float = 0.0
    """The probability, 0 to 1, that a packet never arrives; nothing else happens to it then."""
    duplicate: float = 0.0
    """The probability that a packet arrives twice, the copy right behind the first.

    The copy is damaged and held back as the first is, and takes no time of the ``rate``.
    """
    damage: float = 0.0
    """The probability that one bit of a packet is flipped, any behind the IP version.

    So it stays an IP packet; checksums are not mended.
    """
    reorder: float = 0.0
    """The probability that a packet is held back until the next one which is not has passed it.

    It follows right behind that one. Where none is sent before it would have arrived and 10 ms
    more, it arrives then.
    """
    delay: float = 0.0
    """Seconds, at most 3600, from when a packet has left to when it arrives."""
    jitter: float = 0.0
    """Seconds, at most 3600, of which a random part comes to the delay, evenly spread.

    It does not reorder: a packet that would overtake waits for the one before it.
    """
    rate: float | None = None
    """Bits a second, 1 to 1e12, counted over whole IP packets; None: no time at all.

    A packet begins to leave when it is sent, or when the one before it has left, and has left
    ``size * 8 / rate`` seconds later.
    """
    limit: int = 16 << 20
    """Bytes of packets that wait in the link, for whatever reason: 1 to 1 GiB.

    One for which there is no room is dropped and counted as ``overflowed``.
    """
    seed: int = 0
    """Of the random numbers: 0 to 2**64 - 1."""

    def __post_init__(self) -> None:
        for field in ("loss", "duplicate", "damage", "reorder"):
            _check(field, getattr(self, field), 0, 1, "as a probability")
        for field in ("delay", "jitter"):
            _check(field, getattr(self, field), 0, _LONGEST_DELAY, "seconds")
        if self.rate is not None:
            _check("rate", self.rate, 1, _MAX_RATE, "bits a second, or None")
        _check("limit", self.limit, 1, _MAX_LIMIT, "bytes", whole=True)
        _check("seed", self.seed, 0, _MAX_SEED, "as a whole number", whole=True)


@dataclass(frozen=True, slots=True)
class DirectionStatistics:
    """Packets of one direction of a link since it was made.

    Each that was sent, and each copy of ``duplicated``, is in the end in one of ``passed``,
    ``lost``, ``overflowed``, ``unplugged`` and ``drained``; until then it waits in the link.
    """

    passed: int = 0
    """Taken by the other side, copies included."""
    lost: int = 0
    """By `Impairment.loss`."""
    duplicated: int = 0
    """Of which a copy was made."""
    damaged: int = 0
    """Of which a bit was flipped."""
    held: int = 0
    """Held back, by `Impairment.reorder`."""
    overflowed: int = 0
    """Dropped, because too much waited already."""
    unplugged: int = 0
    """Dropped, because the other side had no session."""
    drained: int = 0
    """Thrown away when the other side began a session: they were for the one before."""


class Terms(NamedTuple):
    """An `Impairment` for one direction; ``struct impairment`` of the native core."""

    loss: int
    duplicate: int
    damage: int
    reorder: int
    delay: int
    jitter: int
    rate: int
    limit: int
    hold: int
    seed: int


def terms_of(impairment: Impairment, direction: int) -> Terms:
    """The terms of direction 0 or 1, each with random numbers of its own."""
    return Terms(
        loss=int(impairment.loss * CERTAIN),
        duplicate=int(impairment.duplicate * CERTAIN),
        damage=int(impairment.damage * CERTAIN),
        reorder=int(impairment.reorder * CERTAIN),
        delay=round(impairment.delay * NANOSECONDS),
        jitter=round(impairment.jitter * NANOSECONDS),
        rate=0 if impairment.rate is None else int(impairment.rate),
        limit=impairment.limit,
        hold=round(HOLD * NANOSECONDS),
        seed=random_number(impairment.seed, direction),
    )


def random_number(seed: int, index: int) -> int:
    """Number ``index`` of the 64-bit numbers that splitmix64 gives from ``seed``.

    See Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    """
    z = seed + (index + 1) * 0x9E3779B97F4A7C15 & _MAX_SEED
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _MAX_SEED
    z = (z ^ z >> 27) * 0x94D049BB133111EB & _MAX_SEED
    return z ^ z >> 31


def _check(
    field: str, value: object, least: float, most: float, unit: str, *, whole: bool = False
) -> None:
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number:
        raise TypeError(f"{field} is {'a whole' if whole else 'a'} number, not {value!r}")
    assert isinstance(value, (int, float))
    if not least <= value <= most:  # nor is nan
        raise ValueError(f"{field} is {least} to {most} {unit}, not {value!r}")
