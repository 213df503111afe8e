"""Checks of the network namespace's settings. They read those of the calling thread's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ringtun.doctor.finding import OK, WARNING, Finding

__all__ = ["forwarding", "ipv6", "reverse_path_filter"]

SYSCTLS: Final = Path("/proc/sys")
STRICT, LOOSE = 1, 2
NEW: Final = "default"  # what an interface starts with


def reverse_path_filter(names: Sequence[str], sysctls: Path = SYSCTLS) -> Iterator[Finding]:
    """Strict reverse path filters, on these adapters and on those to come."""
    settings = sysctls / "net/ipv4/conf"
    for_all = _number(settings / "all/rp_filter")
    strict = False
    for name in (*names, NEW):
        # The kernel takes the larger of the two.
        if max(for_all, _number(settings / name / "rp_filter")) == STRICT:
            strict = True
            yield Finding(
                "rp-filter",
                WARNING,
                f"The reverse path filter is strict for {_subject(name)}: the kernel silently "
                "drops an IPv4 packet from a program where the way back to its source is through "
                "another interface.",
                f"sysctl -w {_sysctl('net.ipv4.conf', name, 'rp_filter')}={LOOSE}",
            )
    if not strict:
        yield Finding("rp-filter", OK, "No reverse path filter is strict.")


def ipv6(names: Sequence[str], sysctls: Path = SYSCTLS) -> Iterator[Finding]:
    """Whether adapters can have IPv6 addresses."""
    settings = sysctls / "net/ipv6/conf"
    if not settings.exists():
        yield Finding(
            "ipv6",
            WARNING,
            "The kernel runs without IPv6: no adapter can have an IPv6 address.",
            "modprobe ipv6, or boot without ipv6.disable=1",
        )
        return
    disabled = False
    for name in (*names, NEW):
        if _number(settings / name / "disable_ipv6"):
            disabled = True
            yield Finding(
                "ipv6",
                WARNING,
                f"IPv6 is disabled for {_subject(name)}.",
                f"sysctl -w {_sysctl('net.ipv6.conf', name, 'disable_ipv6')}=0",
            )
    if not disabled:
        yield Finding("ipv6", OK, "Adapters can have IPv6 addresses.")


def forwarding(sysctls: Path = SYSCTLS) -> Finding:
    """What the kernel forwards, for those who want a gateway: never wrong by itself."""
    switches = {
        "IPv4": "net/ipv4/ip_forward",
        "IPv6": "net/ipv6/conf/all/forwarding",
    }
    on = [version for version, path in switches.items() if _number(sysctls / path)]
    if len(on) == len(switches):
        message = "The kernel forwards IPv4 and IPv6 between interfaces."
    else:
        off = [version for version in switches if version not in on]
        message = (
            f"The kernel does not forward {' or '.join(off)} between interfaces; a gateway needs "
            + " and ".join(f"{switches[version].replace('/', '.')}=1" for version in off)
            + "."
        )
    return Finding("forwarding", OK, message)


def _number(path: Path) -> int:
    """What a sysctl is set to; 0 where it is not there."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def _subject(name: str) -> str:
    return "new interfaces" if name == NEW else f"adapter {name}"


def _sysctl(tree: str, name: str, setting: str) -> str:
    """Its name for sysctl(8), which takes slashes where an interface's name has a dot."""
    if "." in name:
        return f"{tree.replace('.', '/')}/{name}/{setting}"
    return f"{tree}.{name}.{setting}"
