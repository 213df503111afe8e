"""What an adapter is, for people and scripts: one frozen record."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uuid

    from ringtun.arguments import Interface
    from ringtun.host.netlink import LinkInfo

__all__ = ["AdapterInfo", "alias_of", "describe", "guid_in"]

_ALIAS = "ringtun:"  # the guid follows


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """An adapter as it was at one moment; from `list_adapters` or `Adapter.info`."""

    name: str
    """The interface's name."""
    ifindex: int
    """The interface's index in its network namespace."""
    guid: uuid.UUID | None
    """By which an adapter of ringtun's is known again; None for one that others made."""
    mtu: int
    """Bytes of the largest packet that the host sends."""
    addresses: tuple[Interface, ...]
    """With their prefixes, in the host's order; without link-local ones of its own making."""
    up: bool
    """Whether it is set up; packets pass while it is ``connected`` too."""
    connected: bool
    """Whether a session runs on it: whether its cable is plugged in."""
    persistent: bool
    """Whether it stays when no program has it open."""
    owner: int | None
    """The user id that may open it without further rights."""
    group: int | None
    """The group id whose members may; with ``owner``, both have to fit."""
    txqueuelen: int
    """Packets that the host keeps for a program before it drops."""
    host_drops: int
    """Packets that the host dropped since the adapter was made: the queue was full, or nobody
    connected."""
    backend: str
    """Whose it is: "embedded" for the kernel's, "service" for the driver service's, "memory" for
    this process's own."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the names are promised."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        guid, addresses = self.guid, [str(address) for address in self.addresses]
        return {**values, "guid": guid and str(guid), "addresses": addresses}


def describe(link: LinkInfo, addresses: tuple[Interface, ...], backend: str) -> AdapterInfo:
    """The record of what a host says of its interface."""
    tun = link.tun
    return AdapterInfo(
        name=link.name,
        ifindex=link.ifindex,
        guid=guid_in(link.alias),
        mtu=link.mtu,
        addresses=addresses,
        up=link.up,
        connected=link.carrier,
        persistent=tun is not None and tun.persistent,
        owner=None if tun is None else tun.owner,
        group=None if tun is None else tun.group,
        txqueuelen=link.txqueuelen,
        host_drops=link.tx_dropped,
        backend=backend,
    )


def alias_of(guid: uuid.UUID) -> str:
    """The interface's alias that holds a guid."""
    return f"{_ALIAS}{guid}"


def guid_in(alias: str | None) -> uuid.UUID | None:
    """The guid that an alias holds; None where it holds something else."""
    if alias is None or not alias.startswith(_ALIAS):
        return None
    import uuid

    try:
        return uuid.UUID(alias.removeprefix(_ALIAS))
    except ValueError:
        return None
