"""For testing programs that use ringtun: adapters without a kernel and without root.

`memory_link` joins two adapters in memory, and an `Impairment` makes the way between them a bad
one. A program that makes its adapters itself does so in memory with `in_memory`, and the test plays
the host at the `far_end`. The fixtures of `ringtun.testing.pytest_plugin` do the same under pytest.
The conformance suites for other backends are in `ringtun.testing.conformance`, namespaces of one's
own in `ringtun.testing.netns`. The names are loaded where they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ringtun.host.impairment import DirectionStatistics, Impairment
    from ringtun.testing.link import LinkStatistics, MemoryLink, memory_link
    from ringtun.testing.memory import far_end, in_memory

_HOME = {
    "DirectionStatistics": "ringtun.host.impairment",
    "Impairment": "ringtun.host.impairment",
    "LinkStatistics": "ringtun.testing.link",
    "MemoryLink": "ringtun.testing.link",
    "far_end": "ringtun.testing.memory",
    "in_memory": "ringtun.testing.memory",
    "memory_link": "ringtun.testing.link",
}

__all__ = [
    "DirectionStatistics",
    "Impairment",
    "LinkStatistics",
    "MemoryLink",
    "far_end",
    "in_memory",
    "memory_link",
]


if not TYPE_CHECKING:  # a checker is to know these names, and no others

    def __getattr__(name: str) -> object:
        from importlib import import_module

        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
