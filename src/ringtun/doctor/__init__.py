"""What on this machine stands in the way of adapters, and the cure. It changes nothing here.

Each check is a function that gives a `Finding`, or several: one for each adapter concerned.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ringtun.doctor.finding import PROBLEM, Finding

__all__ = ["Finding", "examine"]


def examine(*, netns: str | None = None, name: str | None = None) -> Iterator[Finding]:
    """All findings: of the machine, of the network namespace ``netns``, and of its adapters.

    With ``name``, of that adapter alone, and whether it can be opened. Raises what `list_adapters`
    does.
    """
    if sys.platform != "linux":
        yield Finding(
            "system", PROBLEM, f"No driver of ringtun's runs on {sys.platform}.", "Use Linux."
        )
        return
    import ringtun
    from ringtun.doctor import adapters, network, system, trial
    from ringtun.host.namespace import Namespace

    with Namespace.current() if netns is None else Namespace.named(netns) as namespace:
        yield system.kernel()
        yield system.native_core()
        node = system.node()
        yield node
        yield from system.user_namespaces()
        if node.status != PROBLEM:
            yield from trial.trial()
        yield namespace.run(system.rights)

        infos = ringtun.list_adapters(netns=netns)
        if name is not None:
            yield from adapters.one(name, infos, namespace)
            infos = [info for info in infos if info.name == name]
        yield from adapters.queues(infos)
        yield from adapters.drops(infos)
        names = [info.name for info in infos]
        yield from namespace.run(lambda: list(network.reverse_path_filter(names)))
        yield from namespace.run(lambda: list(network.ipv6(names)))
        yield namespace.run(network.forwarding)
