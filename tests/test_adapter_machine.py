"""Random histories of adapters: what the system says after each step is what a model says.

On kernel adapters the judge is ``ip``, and an administrator and another program meddle.
"""

from __future__ import annotations

import gc
import json
import os
import pwd
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import ringtun
from ringtun.arguments import MIN_IPV6_MTU, Interface
from ringtun.control import Backend, memory
from ringtun.host.changes import Changes
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from tests.backends import KernelPeer, SessionPeer
from tests.children import ONE_USER_ONLY, descriptors

NAMES = ("vpn0", "vpn1")
GUIDS = (uuid.UUID(int=1), uuid.UUID(int=2))
IDS = (0,) if ONE_USER_ONLY else (0, 4242)
MTUS = (68, 576, 1279, 1280, 1420, 1500, 65535)
POOL = tuple(
    map(
        ip_interface,
        (
            *("10.7.0.1/24", "10.7.0.2/24", "10.7.0.3/24", "10.7.0.1/16", "10.8.0.1/32"),
            *("fd07::1/64", "fd07::1/48", "fd07::2/64", "fe80::7/64"),
        ),
    )
)
REFUSED = ip_interface("::1/128")  # by the kernel, for all but lo
BAD: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
    ({"mtu": 67}, ValueError),
    ({"mtu": 1500.0}, TypeError),
    ({"txqueuelen": 0}, ValueError),
    ({"up": None, "txqueuelen": "9"}, TypeError),
    ({"up": "yes"}, TypeError),
    ({"addresses": "10.7.0.1/24"}, TypeError),
    ({"addresses": ["10.7.0.1"]}, ValueError),
    ({"addresses": ["fd07::1/64", "fd07::1/48"]}, ValueError),
    ({"addresses": ["fd07::1/64"], "mtu": 1279}, ValueError),
)
STEPS = (
    *("add", "remove", "set_mtu", "set_txqueuelen", "set_alias", "set_addr_gen_mode_none"),
    *("take_down", "bring_up", "persist"),
)
DEVICE_CONF = Path("/proc/sys/net/ipv4/conf")

names = st.sampled_from(NAMES)
seldom = st.sampled_from((*NAMES, "none0", "none1"))
picks = st.integers(0, 7)
mtus = st.none() | st.sampled_from(MTUS)
ids = st.none() | st.sampled_from(IDS)
address_lists = st.none() | st.lists(
    st.sampled_from(POOL),
    max_size=4,
    unique_by=lambda address: str(address.ip if address.version == 6 else address),
)
changes = st.fixed_dictionaries(
    {},
    optional={
        "addresses": address_lists,
        "mtu": mtus,
        "up": st.none() | st.booleans(),
        "txqueuelen": st.none() | st.sampled_from((1, 500, 5000)),
    },
)
identities: st.SearchStrategy[dict[str, Any]] = st.just({}) | st.fixed_dictionaries(
    {"persist": st.just(True)}, optional={"owner": ids, "group": ids}
)
wishes = st.builds(
    lambda change, identity, guid: {
        **{key: value for key, value in change.items() if value is not None},
        **identity,
        "guid": guid,
    },
    changes,
    identities,
    st.none() | st.sampled_from(GUIDS),
)
faults = st.none() | st.tuples(st.sampled_from(STEPS), st.integers(0, 2))


@dataclass(eq=False)
class Model:
    """What is to be true of an interface."""

    name: str
    ifindex: int = 0
    guid: uuid.UUID | None = None
    mtu: int = 1500
    addresses: set[Interface] = field(default_factory=set)
    up: bool = True
    txqueuelen: int = 5000
    persistent: bool = False
    owner: int | None = None
    group: int | None = None
    connected: bool = False
    there: bool = True
    handles: int = 0
    """How many this process has open, by the library."""
    other: LinuxTun | None = None
    """Another program's hold."""

    @property
    def has_ipv6(self) -> bool:
        return any(address.version == 6 for address in self.addresses)

    def loses_ipv6(self) -> None:
        self.addresses = {address for address in self.addresses if address.version == 4}

    def info(self, backend: str) -> ringtun.AdapterInfo:
        return ringtun.AdapterInfo(
            name=self.name,
            ifindex=self.ifindex,
            guid=self.guid,
            mtu=self.mtu,
            addresses=in_order(self.addresses),
            up=self.up,
            connected=self.connected,
            persistent=self.persistent,
            owner=self.owner,
            group=self.group,
            txqueuelen=self.txqueuelen,
            host_drops=0,
            backend=backend,
        )


@dataclass(eq=False)
class Handle:
    """One of the library's, and the session that was started through it."""

    adapter: ringtun.Adapter
    of: Model
    session: ringtun.Session | None = None


def in_order(addresses: Iterable[Interface]) -> tuple[Interface, ...]:
    """The order is the system's own affair, and so are link-local addresses of its own making."""
    ours = (address for address in addresses if address in POOL or not address.is_link_local)
    return tuple(sorted(ours, key=lambda address: (address.version, address)))


class Histories(RuleBasedStateMachine):
    """What programs do through the library; what `list_adapters` says of it is the model's word."""

    backend: ClassVar[Backend]

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        self.before = descriptors(), threading.active_count()
        self.models: dict[str, Model] = {}
        self.handles: list[Handle] = []

    def teardown(self) -> None:
        for number in range(len(self.handles)):
            self.handles[number].adapter.close()
        self.handles.clear()
        for info in ringtun.list_adapters(backend=self.backend):
            ringtun.delete_adapter(info.name, backend=self.backend)
        if sys.exc_info()[0] is None:
            gc.collect()
            assert (descriptors(), threading.active_count()) == self.before

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        listed = ringtun.list_adapters(backend=self.backend)
        assert [as_told(info) for info in listed] == [
            model.info(self.backend)
            for model in sorted(self.models.values(), key=lambda model: model.ifindex)
        ]

    # ---- what programs do -----------------------------------------------------------------------

    @rule(name=names, wish=wishes, exist_ok=st.sampled_from((True, True, False)), fault=faults)
    def create(
        self, name: str, wish: dict[str, Any], exist_ok: bool, fault: tuple[str, int] | None
    ) -> None:
        model = self.models.get(name)
        with self.failing(fault) as failed, self.raises(self.refused(name, wish, exist_ok), failed):
            adapter = ringtun.create_adapter(name, exist_ok=exist_ok, backend=self.backend, **wish)
            if model is None:
                model = self.models[name] = Model(name, adapter.ifindex)
            model.handles += 1
            self.handles.append(Handle(adapter, model))
            was_known = model.guid
            apply(model, {"up": True, "txqueuelen": 5000, **wish})
            model.guid = wish["guid"] or was_known or adapter.guid
            others = [other.guid for other in self.models.values() if other is not model]
            assert model.guid not in (None, *others)
            if wish.get("persist"):
                keep(model, wish.get("owner"), wish.get("group"))

    def refused(self, name: str, wish: dict[str, Any], exist_ok: bool) -> type[Exception] | None:
        """What has to come of a creation in which no change fails."""
        model = self.models.get(name)
        others = [other for other in self.models.values() if other is not model]
        if not fits(Model(name), wish):
            return ValueError
        if wish["guid"] is not None and wish["guid"] in [other.guid for other in others]:
            return ringtun.AdapterExists
        if model is None:
            return None
        if not exist_ok:
            return ringtun.AdapterExists
        if model.other is not None:
            return ringtun.AdapterBusy
        return None if fits(model, wish) else ValueError

    @rule(name=names)
    def open(self, name: str) -> None:
        model = self.models.get(name)
        error: type[Exception] | None = None
        if model is None:
            error = ringtun.AdapterNotFound
        elif model.other is not None:
            error = ringtun.AdapterBusy
        with self.raises(error):
            adapter = ringtun.open_adapter(name, backend=self.backend)
            assert model is not None
            assert adapter.name == name
            model.handles += 1
            self.handles.append(Handle(adapter, model))

    @precondition(lambda self: self.handles)
    @rule(pick=picks, forget=st.sampled_from((False, False, True)))
    def close(self, pick: int, forget: bool) -> None:
        handle = self.handles.pop(pick % len(self.handles))
        model, session = handle.of, handle.session
        if forget and session is None:
            with pytest.warns(ResourceWarning, match=f"unclosed adapter {handle.adapter.name}"):
                del handle
                gc.collect()  # what pytest keeps of an error keeps it too
        else:
            handle.adapter.close()
            handle.adapter.close()
            if session is not None:
                model.connected = False
                reason = ringtun.EndReason.ADAPTER_CLOSED
                with pytest.raises(ringtun.SessionClosed) as caught:
                    session.receive(0)
                assert not model.there or caught.value.reason is reason
        model.handles -= 1
        if model.there and not model.handles and not model.persistent:
            self.goes(model)

    @precondition(lambda self: self.handles)
    @rule(pick=picks, change=changes, refused=st.booleans(), fault=faults)
    def configure(
        self, pick: int, change: dict[str, Any], refused: bool, fault: tuple[str, int] | None
    ) -> None:
        handle = self.handles[pick % len(self.handles)]
        model = handle.of
        given = {key: value for key, value in change.items() if value is not None}
        error: type[Exception] | None = None
        if refused and self.backend == "embedded" and "addresses" in given:
            change = {**change, "addresses": [*given["addresses"], REFUSED]}
            error, fault = OSError, None
        if {"mtu", "addresses"} <= given.keys() and not fits(model, change):
            error = ValueError
        elif not model.there:
            error = ringtun.AdapterNotFound
        elif not fits(model, change):
            error = ValueError
        with self.failing(fault) as failed, self.raises(error, failed):
            handle.adapter.configure(**change)
            apply(model, given)

    @precondition(lambda self: self.handles)
    @rule(pick=picks, change=changes, bad=st.sampled_from(BAD))
    def configure_badly(
        self, pick: int, change: dict[str, Any], bad: tuple[dict[str, Any], type[Exception]]
    ) -> None:
        handle = self.handles[pick % len(self.handles)]
        wrong, error = bad
        with pytest.raises(error):
            handle.adapter.configure(**{**change, **wrong})

    @rule(name=seldom, missing_ok=st.booleans())
    def delete(self, name: str, missing_ok: bool) -> None:
        model = self.models.get(name)
        error = ringtun.AdapterNotFound if model is None and not missing_ok else None
        with self.raises(error):
            ringtun.delete_adapter(name, missing_ok=missing_ok, backend=self.backend)
            if model is not None:
                self.goes(model)

    @precondition(lambda self: self.handles)
    @rule(pick=picks)
    def ask(self, pick: int) -> None:
        handle = self.handles[pick % len(self.handles)]
        with self.raises(None if handle.of.there else ringtun.AdapterNotFound):
            assert as_told(handle.adapter.info()) == handle.of.info(self.backend)

    # ---- sessions -------------------------------------------------------------------------------

    @precondition(lambda self: self.handles)
    @rule(pick=picks, pump=st.sampled_from(("inline", "thread")))
    def start_session(self, pick: int, pump: Any) -> None:
        handle = self.handles[pick % len(self.handles)]
        model = handle.of
        error: type[Exception] | None = None
        if model.connected and (model.there or self.backend == "embedded"):
            error = ringtun.AdapterBusy  # that it is gone, the session has not told yet
        elif not model.there:
            error = ringtun.AdapterNotFound
        with self.raises(error):
            session = handle.adapter.start_session(capacity=1 << 17, pump=pump)
            assert model.there
            handle.session, model.connected = session, True

    @precondition(lambda self: any(handle.session for handle in self.handles))
    @rule(pick=picks)
    def close_session(self, pick: int) -> None:
        handle = self.in_session(pick)
        assert handle.session is not None
        handle.session.close()
        handle.session, handle.of.connected = None, False

    @precondition(lambda self: any(handle.session for handle in self.handles))
    @rule(pick=picks)
    def exchange_packets(self, pick: int) -> None:
        handle = self.in_session(pick)
        session, model = handle.session, handle.of
        assert session is not None
        if not model.there:
            with pytest.raises(ringtun.SessionClosed) as caught:
                session.receive(10)
            assert caught.value.reason is ringtun.EndReason.ADAPTER_REMOVED
            return
        packet = udp(os.urandom(8))
        if not model.up and self.backend == "embedded":
            session.send(packet)  # dropped, and no harm done
            return
        with self.peer(model) as peer:
            peer.send(packet)
            while session.receive(10) != packet:  # the kernel has some of its own
                pass
            session.send(packet)
            while peer.receive(10) != packet:
                pass

    def in_session(self, pick: int) -> Handle:
        found = [handle for handle in self.handles if handle.session is not None]
        return found[pick % len(found)]

    @contextmanager
    def peer(self, model: Model) -> Iterator[Any]:
        """Who is at the host's end."""
        with ringtun.Adapter(memory.far_end(model.name, None)) as far:
            yield SessionPeer(far.start_session(capacity=1 << 17))

    # ---- ways -----------------------------------------------------------------------------------

    def goes(self, model: Model) -> None:
        model.there = False
        del self.models[model.name]

    @contextmanager
    def failing(self, fault: tuple[str, int] | None) -> Iterator[Callable[[], bool]]:
        """One change fails, its undoing does not; gives whether it came to that."""
        yield lambda: False

    @contextmanager
    def raises(
        self, error: type[Exception] | None, failed: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """The block raises ``error``, or an ``OSError`` where a change was made to fail."""
        raised: Exception | None = None
        try:
            yield
        except (OSError, ValueError) as caught:
            raised = caught
        if error is None and failed():
            error = OSError
        assert isinstance(raised, error or type(None)), raised
        assert "undone" not in str(raised), "all was"


def as_told(info: ringtun.AdapterInfo) -> ringtun.AdapterInfo:
    return replace(info, addresses=in_order(info.addresses), host_drops=0)


def apply(model: Model, given: dict[str, Any]) -> None:
    for key in ("mtu", "up", "txqueuelen"):
        if given.get(key) is not None:
            setattr(model, key, given[key])
    if given.get("addresses") is not None:
        model.addresses = set(given["addresses"])


def keep(model: Model, owner: int | None, group: int | None) -> None:
    if owner is None and group is None and not model.persistent:
        owner = os.geteuid()
    model.persistent = True
    model.owner = model.owner if owner is None else owner
    model.group = model.group if group is None else group


def fits(model: Model, given: dict[str, Any]) -> bool:
    """Whether the MTU is large enough for the addresses, where one of them is to change."""
    after = replace(model)
    apply(after, given)
    asked = given.get("mtu") is not None or given.get("addresses") is not None
    return not asked or not after.has_ipv6 or after.mtu >= MIN_IPV6_MTU


def udp(payload: bytes) -> bytes:
    """An IPv4 packet from 10.99.0.1 to 10.99.0.2."""
    size = 20 + len(payload)
    return (
        bytes((0x45, 0, 0, size, 0, 0, 0, 0, 64, 253, 0, 0, 10, 99, 0, 1, 10, 99, 0, 2)) + payload
    )


class MemoryHistories(Histories):
    backend = "memory"


class KernelHistories(Histories):
    """The same, and those who meddle. What ``ip`` says is the model's word as well."""

    backend = "embedded"

    @initialize(promote=st.booleans())
    def begin(self, promote: bool) -> None:
        """``promote``: an IPv4 address that goes leaves its place to another of its network."""
        self.promote = promote
        for place in ("all", "default"):
            path = DEVICE_CONF / place / "promote_secondaries"
            path.write_text("1" if promote and place == "all" else "0")

    def teardown(self) -> None:
        for model in self.models.values():
            if model.other is not None:
                model.other.close()
        super().teardown()

    @invariant()
    def the_kernel_is_as_the_model_says(self) -> None:
        self.seen = {
            link["ifname"]: link
            for link in ip("-j", "-d", "address", "show")
            if link.get("linkinfo", {}).get("info_kind") == "tun"
        }
        assert {name: told_by(link) for name, link in self.seen.items()} == {
            name: as_kernel(model) for name, model in self.models.items()
        }

    # ---- an administrator -----------------------------------------------------------------------

    @precondition(lambda self: self.models)
    @rule(pick=picks, up=st.booleans())
    def set_link(self, pick: int, up: bool) -> None:
        model = self.some(pick)
        ip("link", "set", model.name, "up" if up else "down")
        if model.up and not up:
            model.loses_ipv6()
        model.up = up

    @precondition(lambda self: self.models)
    @rule(pick=picks, mtu=st.sampled_from(MTUS))
    def set_mtu(self, pick: int, mtu: int) -> None:
        model = self.some(pick)
        ip("link", "set", model.name, "mtu", str(mtu))
        model.mtu = mtu
        if mtu < MIN_IPV6_MTU:
            model.loses_ipv6()

    @precondition(lambda self: self.models)
    @rule(pick=picks, address=st.sampled_from(POOL))
    def add_or_remove_address(self, pick: int, address: Interface) -> None:
        model = self.some(pick)
        if address in model.addresses:
            ip("address", "del", str(address), "dev", model.name)
            model.addresses -= self.taken_along(model, address) | {address}
            return
        same = {str(has.ip) for has in model.addresses if has.version == 6}
        if str(address.ip) in same or (address.version == 6 and model.mtu < MIN_IPV6_MTU):
            return
        ip("address", "add", str(address), "dev", model.name)
        model.addresses.add(address)

    def taken_along(self, model: Model, address: Interface) -> set[Interface]:
        """The first of an IPv4 network goes with all of that network, or leaves it to the next."""
        entries = {
            ip_interface(f"{entry['local']}/{entry['prefixlen']}"): entry
            for entry in self.seen[model.name]["addr_info"]
        }
        if address.version == 6 or self.promote or entries[address].get("secondary"):
            return set()
        return {has for has in model.addresses if has.network == address.network}

    @precondition(lambda self: self.models)
    @rule(name=seldom)
    def delete_link(self, name: str) -> None:
        if name in self.models:
            ip("link", "delete", name)
            self.goes(self.models[name])

    @precondition(lambda self: len(self.models) == 1)
    @rule()
    def rename(self) -> None:
        """To the name that is free; while it is up, not every kernel does."""
        (model,) = self.models.values()
        if model.up:
            return
        (free,) = {*NAMES} - {model.name}
        ip("link", "set", model.name, "name", free)
        self.models = {free: model}
        model.name = free

    @rule(name=names, owner=ids)
    def add_tuntap(self, name: str, owner: int | None) -> None:
        if name in self.models:
            return
        user = () if owner is None else ("user", str(owner))
        ip("tuntap", "add", name, "mode", "tun", *user)
        ifindex = ip("-j", "link", "show", name)[0]["ifindex"]
        self.models[name] = Model(
            name, ifindex, up=False, txqueuelen=500, persistent=True, owner=owner
        )

    # ---- another program ------------------------------------------------------------------------

    @rule(name=names)
    def another_program_takes(self, name: str) -> None:
        model = self.models.get(name)
        if model is None:
            other = LinuxTun.create(name, namespace=Namespace.current())
            model = Model(name, other.ifindex, up=False, txqueuelen=500, other=other)
            self.models[name] = model
        elif model.persistent and not model.handles and model.other is None:
            model.other = LinuxTun.attach(name, namespace=Namespace.current())

    @precondition(lambda self: any(model.other for model in self.models.values()))
    @rule(pick=picks)
    def another_program_ends(self, pick: int) -> None:
        held = [model for model in self.models.values() if model.other is not None]
        model = held[pick % len(held)]
        assert model.other is not None
        model.other.close()
        model.other = None
        if not model.persistent:
            self.goes(model)

    # ---- ways -----------------------------------------------------------------------------------

    def some(self, pick: int) -> Model:
        return list(self.models.values())[pick % len(self.models)]

    def goes(self, model: Model) -> None:
        super().goes(model)
        if model.other is not None:
            model.other.close()
            model.other = None

    @contextmanager
    def peer(self, model: Model) -> Iterator[Any]:
        peer = KernelPeer(model.name)
        try:
            yield peer
        finally:
            peer.close()

    @contextmanager
    def failing(self, fault: tuple[str, int] | None) -> Iterator[Callable[[], bool]]:
        if fault is None:
            yield lambda: False
            return
        step, nth = fault
        home: type = LinuxTun if step == "persist" else Changes
        original = getattr(home, step)
        calls = 0

        def change(*arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == nth + 1:
                raise OSError(f"{step} was made to fail")
            original(*arguments)

        with mock.patch.object(home, step, change):
            yield lambda: calls > nth


def ip(*arguments: str) -> Any:
    """An administrator's command; what it says, in JSON."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return json.loads(done.stdout) if done.stdout else None


def told_by(link: dict[str, Any]) -> dict[str, Any]:
    tun = link["linkinfo"]["info_data"]
    return {
        "ifindex": link["ifindex"],
        "alias": link.get("ifalias"),
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        "connected": "LOWER_UP" in link["flags"],
        "txqueuelen": link["txqlen"],
        "addresses": in_order(
            ip_interface(f"{entry['local']}/{entry['prefixlen']}") for entry in link["addr_info"]
        ),
        "persistent": tun["persist"],
        "owner": as_id(tun.get("user")),
        "group": as_id(tun.get("group")),
    }


def as_kernel(model: Model) -> dict[str, Any]:
    return {
        "ifindex": model.ifindex,
        "alias": model.guid and f"ringtun:{model.guid}",
        "mtu": model.mtu,
        "up": model.up,
        "connected": model.connected and model.up,
        "txqueuelen": model.txqueuelen,
        "addresses": in_order(model.addresses),
        "persistent": model.persistent,
        "owner": model.owner,
        "group": model.group,
    }


def as_id(name: str | int | None) -> int | None:
    return pwd.getpwnam(name).pw_uid if isinstance(name, str) else name


class TestMemory(MemoryHistories.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None, derandomize=True)


@pytest.mark.kernel
class TestKernel(KernelHistories.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=25, stateful_step_count=25, deadline=None, derandomize=True)


@pytest.mark.kernel
@pytest.mark.soak
class TestKernelForLong(KernelHistories.TestCase):  # type: ignore[misc, valid-type]
    settings = settings(max_examples=1000, stateful_step_count=50, deadline=None)
