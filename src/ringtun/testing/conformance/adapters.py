"""What holds of adapters on every backend: made, found, set up, listed, taken away."""

from __future__ import annotations

import asyncio
import errno
import gc
import select
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface
from typing import Any

import pytest

import ringtun
from ringtun.control import Backend

__all__ = ["AdapterConformance"]

V4, MORE_V4, V6 = map(ip_interface, ("10.7.0.1/24", "10.8.0.1/24", "fd07::1/64"))
SOON = 10.0  # seconds within which what must come has come
GUID = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


class AdapterConformance:
    """Inherit from it, and say which ``backend`` is asked for. It begins without adapters."""

    backend: Backend

    @pytest.fixture(autouse=True)
    def nothing_is_left(self) -> Iterator[None]:
        assert self.names() == []
        yield
        left = self.names()
        for name in left:
            ringtun.delete_adapter(name, backend=self.backend)

    def create(self, name: str = "vpn0", **options: Any) -> ringtun.Adapter:
        return ringtun.create_adapter(name, backend=self.backend, **options)

    def open(self, name: str = "vpn0") -> ringtun.Adapter:
        return ringtun.open_adapter(name, backend=self.backend)

    def delete(self, name: str = "vpn0", **options: Any) -> None:
        ringtun.delete_adapter(name, backend=self.backend, **options)

    def listed(self) -> list[ringtun.AdapterInfo]:
        return ringtun.list_adapters(backend=self.backend)

    def names(self) -> list[str]:
        return [info.name for info in self.listed()]

    # ---- made, listed, taken away ---------------------------------------------------------------

    def test_made_as_asked(self) -> None:
        with self.create(addresses=[V4, str(V6)], mtu=1420, guid=GUID, txqueuelen=77) as adapter:
            info = adapter.info()
            assert info == ringtun.AdapterInfo(
                name="vpn0",
                ifindex=adapter.ifindex,
                guid=GUID,
                mtu=1420,
                addresses=(V4, V6),
                up=True,
                connected=False,
                persistent=False,
                owner=None,
                group=None,
                txqueuelen=77,
                host_drops=info.host_drops,
                backend=self.backend,
            )
            assert (adapter.name, adapter.guid, adapter.mtu) == ("vpn0", GUID, 1420)
            assert (adapter.addresses, adapter.up) == ((V4, V6), True)
            (listed,) = self.listed()
            assert listed.as_dict() | {"host_drops": 0} == info.as_dict() | {"host_drops": 0}
        assert self.names() == []

    def test_made_as_by_default(self) -> None:
        with self.create() as adapter:
            info = adapter.info()
        assert (info.mtu, info.addresses, info.up, info.txqueuelen) == (1500, (), True, 5000)
        assert info.guid is not None
        with self.create() as adapter:
            assert adapter.guid not in (None, info.guid), "a random one each time"

    def test_a_guid_is_the_same_again(self) -> None:
        for given in (GUID, str(GUID), GUID.hex):
            with self.create(guid=given) as adapter:
                assert adapter.guid == GUID

    def test_a_guid_belongs_to_one(self) -> None:
        with self.create(guid=GUID):
            with pytest.raises(ringtun.AdapterExists, match="that of adapter vpn0"):
                self.create("vpn1", guid=GUID)
            assert self.names() == ["vpn0"]

    def test_connected_while_a_session_runs(self) -> None:
        with self.create() as adapter:
            with adapter.start_session():
                assert adapter.info().connected
                assert self.listed()[0].connected
            assert not self.listed()[0].connected

    def test_listed_in_the_order_of_their_making(self) -> None:
        with self.create("b"), self.create("a"), self.create("c"):
            assert self.names() == ["b", "a", "c"]

    def test_a_name_that_is_taken(self) -> None:
        with self.create() as adapter:
            with pytest.raises(ringtun.AdapterExists, match="vpn0"):
                self.create()
            assert self.names() == ["vpn0"]
            adapter.start_session().close()

    def test_what_is_not_there(self) -> None:
        with pytest.raises(ringtun.AdapterNotFound, match="vpn0") as caught:
            self.open()
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(ringtun.AdapterNotFound, match="vpn0") as caught:
            self.delete()
        assert caught.value.errno == errno.ENODEV
        self.delete(missing_ok=True)

    def test_taken_away_under_a_session(self) -> None:
        with self.create() as adapter, adapter.start_session() as session:
            self.delete()
            assert self.names() == []
            with pytest.raises(ringtun.SessionClosed) as caught:
                session.receive(10)
            assert caught.value.reason is ringtun.EndReason.ADAPTER_REMOVED
            with pytest.raises(ringtun.AdapterNotFound):
                adapter.mtu  # noqa: B018
            with pytest.raises(ringtun.AdapterNotFound):
                adapter.configure(mtu=1400)
            with self.create() as again:
                again.start_session().close()

    # ---- persistent -----------------------------------------------------------------------------

    def test_it_stays_until_it_is_taken_away(self) -> None:
        with self.create(persist=True, owner=0, addresses=[V4], guid=GUID) as adapter:
            assert adapter.info().persistent
        with self.open() as adapter:
            info = adapter.info()
            assert (info.guid, info.addresses, info.owner, info.group) == (GUID, (V4,), 0, None)
            adapter.start_session().close()
        assert self.names() == ["vpn0"]
        self.delete()
        assert self.names() == []

    def test_it_goes_with_its_last_handle(self) -> None:
        with self.create():
            other = self.open()
        assert self.names() == ["vpn0"]
        other.start_session().close()
        other.close()
        assert self.names() == []

    # ---- exist_ok -------------------------------------------------------------------------------

    def test_exist_ok_makes_what_is_not_there(self) -> None:
        with self.create(exist_ok=True, addresses=[V4]) as adapter:
            assert adapter.addresses == (V4,)

    def test_exist_ok_twice_is_as_once(self) -> None:
        asked: dict[str, Any] = {
            "exist_ok": True, "addresses": [V4, V6], "mtu": 1400, "guid": GUID, "up": False,
            "txqueuelen": 33, "persist": True, "owner": 0, "group": 0,
        }  # fmt: skip
        with self.create(**asked) as one:
            info = one.info()
            with self.create(**asked) as other:
                assert other.info() == info
        with self.create(**asked) as again:
            assert again.info() == info

    def test_exist_ok_makes_what_is_there_as_asked(self) -> None:
        self.create(persist=True, addresses=[V4, MORE_V4], mtu=1400, up=False).close()
        with self.create(exist_ok=True, addresses=[MORE_V4, V6], mtu=1500, guid=GUID) as adapter:
            info = adapter.info()
            assert set(info.addresses) == {MORE_V4, V6}
            assert (info.mtu, info.guid, info.up, info.persistent) == (1500, GUID, True, True)

    def test_exist_ok_leaves_what_is_not_given(self) -> None:
        with self.create(addresses=[V4], mtu=1400, guid=GUID) as adapter:
            with self.create(exist_ok=True):
                pass
            info = adapter.info()
            assert (info.addresses, info.mtu, info.guid) == ((V4,), 1400, GUID)
            assert not info.persistent
            with self.create(exist_ok=True, persist=True):
                pass
        assert self.names() == ["vpn0"]

    def test_exist_ok_looks_at_what_is_there(self) -> None:
        """What it has already has to go with what is asked for."""
        with self.create(addresses=[V4, V6]) as adapter:
            before = adapter.info()
            with pytest.raises(ValueError, match="IPv6 needs an mtu of at least 1280"):
                self.create(exist_ok=True, mtu=1279, txqueuelen=9)
            assert adapter.info() == before
        with self.create(mtu=1279) as adapter:
            before = adapter.info()
            with pytest.raises(ValueError, match="IPv6 needs"):
                self.create(exist_ok=True, addresses=[V6], up=False)
            assert adapter.info() == before

    # ---- configure ------------------------------------------------------------------------------

    def test_configure_changes_what_is_given(self) -> None:
        with self.create(addresses=[V4], mtu=1400) as adapter:
            adapter.configure(mtu=1300)
            assert (adapter.mtu, adapter.addresses, adapter.up) == (1300, (V4,), True)
            adapter.configure(addresses=[V6, V4])
            assert (adapter.mtu, set(adapter.addresses), adapter.up) == (1300, {V4, V6}, True)
            adapter.configure(up=False)
            assert (adapter.mtu, set(adapter.addresses), adapter.up) == (1300, {V4, V6}, False)
            adapter.configure(txqueuelen=9, up=True)
            assert adapter.info().txqueuelen == 9
            assert (adapter.mtu, set(adapter.addresses), adapter.up) == (1300, {V4, V6}, True)
            adapter.configure(addresses=())
            assert adapter.addresses == ()
            before = adapter.info()
            adapter.configure()
            assert adapter.info() == before

    def test_a_small_mtu_and_ipv6_go_apart(self) -> None:
        with self.create(addresses=[V4, V6]) as adapter:
            with pytest.raises(ValueError, match="IPv6 needs an mtu of at least 1280"):
                adapter.configure(mtu=1279)
            adapter.configure(mtu=1279, addresses=[V4])
            with pytest.raises(ValueError, match="IPv6 needs"):
                adapter.configure(addresses=[V6])
            assert (adapter.mtu, adapter.addresses) == (1279, (V4,))
            adapter.configure(mtu=1280, addresses=[V4, V6])
            assert (adapter.mtu, adapter.addresses) == (1280, (V4, V6))

    @pytest.mark.parametrize(
        ("changes", "error", "says"),
        [
            ({"mtu": 67}, ValueError, "68 to 65535"),
            ({"mtu": 65536}, ValueError, "68 to 65535"),
            ({"mtu": "1500"}, TypeError, "mtu is an integer"),
            ({"mtu": True}, TypeError, "mtu is an integer"),
            ({"txqueuelen": 0}, ValueError, "txqueuelen"),
            ({"up": 1}, TypeError, "up is True or False"),
            ({"addresses": "10.7.0.1/24"}, TypeError, "addresses is a list"),
            ({"addresses": ["10.7.0.1"]}, ValueError, "write 10.7.0.1/24"),
            ({"addresses": ["fd07::1"]}, ValueError, "write fd07::1/64"),
            ({"addresses": ["10.7.0.1/33"]}, ValueError, "is none"),
            ({"addresses": ["0.0.0.0/8"]}, ValueError, "none that a host can have"),
            ({"addresses": ["224.0.0.1/4"]}, ValueError, "none that a host can have"),
            ({"addresses": ["ff02::1/64"]}, ValueError, "none that a host can have"),
            ({"addresses": ["fe80::1%lo/64"]}, ValueError, "names an interface"),
            ({"addresses": ["10.7.0.1/24", "10.7.0.1/24"]}, ValueError, "twice"),
            ({"addresses": ["fd07::1/64", "fd07::1/48"]}, ValueError, "twice"),
        ],
    )
    def test_what_cannot_be_changes_nothing(
        self, changes: dict[str, Any], error: type[Exception], says: str
    ) -> None:
        with self.create(addresses=[V4, V6]) as adapter:
            before = adapter.info()
            with pytest.raises(error, match=says):
                adapter.configure(**{"mtu": 1400, "up": False, **changes})
            assert adapter.info() == before
        for exist_ok in (False, True):
            with pytest.raises(error, match=says):
                self.create(exist_ok=exist_ok, **changes)
        assert self.names() == []

    def test_a_closed_handle_says_so(self) -> None:
        adapter = self.create()
        adapter.close()
        for call in (adapter.info, adapter.configure, adapter.start_session, adapter.statistics):
            with pytest.raises(ringtun.AdapterNotFound, match="is closed"):
                call()

    # ---- events ---------------------------------------------------------------------------------

    def test_events_tell_what_happens(self) -> None:
        with self.create(addresses=[V4], mtu=1400) as adapter, adapter.events() as events:
            adapter.configure(mtu=1300)
            assert _next(events, ringtun.EventKind.MTU).mtu == 1300
            adapter.configure(addresses=[V4, V6])
            assert set(_next(events, ringtun.EventKind.ADDRESSES).addresses) == {V4, V6}
            adapter.configure(addresses=[V4])
            assert _next(events, ringtun.EventKind.ADDRESSES).addresses == (V4,)
            adapter.configure(up=False)
            assert not _next(events, ringtun.EventKind.DOWN).up
            with adapter.start_session():
                assert _next(events, ringtun.EventKind.CONNECTED).connected, "while it is down"
            assert not _next(events, ringtun.EventKind.DISCONNECTED).connected
            adapter.configure(up=True)
            assert _next(events, ringtun.EventKind.UP).up
            with adapter.start_session():
                info = _next(events, ringtun.EventKind.CONNECTED)
                assert info == replace(adapter.info(), host_drops=info.host_drops)
            assert _next(events, ringtun.EventKind.DISCONNECTED).up
            adapter.configure(txqueuelen=7)
            self.delete()
            event = events.wait(SOON)
            assert event == ringtun.AdapterEvent(ringtun.EventKind.REMOVED, None)
            assert events.wait(SOON) is None
            assert list(events) == []

    def test_events_begin_with_the_call(self) -> None:
        with self.create(mtu=1400) as adapter:
            adapter.configure(mtu=1300)
            with adapter.events() as events:
                adapter.configure(mtu=1200)
                assert _next(events, ringtun.EventKind.MTU).mtu == 1200
                with pytest.raises(TimeoutError, match="nothing happened to vpn0"):
                    events.wait(0.01)

    def test_events_of_what_others_do(self) -> None:
        with self.create() as adapter, adapter.events() as events, self.open() as other:
            other.configure(mtu=1300)
            assert _next(events, ringtun.EventKind.MTU).mtu == 1300
            with other.start_session():
                assert _next(events, ringtun.EventKind.CONNECTED).connected
            assert not _next(events, ringtun.EventKind.DISCONNECTED).connected

    def test_events_of_one_adapter_alone(self) -> None:
        with self.create() as adapter, adapter.events() as events:
            with self.create("vpn1", addresses=[V4]) as other, other.start_session():
                other.configure(mtu=1300, up=False)
            adapter.configure(mtu=1200)
            assert _next(events, ringtun.EventKind.MTU).mtu == 1200

    def test_each_stream_has_them_all(self) -> None:
        with self.create() as adapter, adapter.events() as one, adapter.events() as other:
            adapter.configure(mtu=1300)
            assert _next(one, ringtun.EventKind.MTU) == _next(other, ringtun.EventKind.MTU)
            one.close()
            adapter.configure(mtu=1200)
            assert _next(other, ringtun.EventKind.MTU).mtu == 1200

    def test_events_are_iterated_over(self) -> None:
        with self.create() as adapter, adapter.events() as events:
            kinds = []
            adapter.configure(up=False)
            for event in events:
                kinds.append(event.kind)
                if event.kind is ringtun.EventKind.DOWN:
                    self.delete()
            assert kinds == [ringtun.EventKind.DOWN, ringtun.EventKind.REMOVED]

    def test_events_are_iterated_over_in_a_loop(self) -> None:
        async def listen(events: ringtun.AdapterEvents) -> list[ringtun.EventKind]:
            return [event.kind async for event in events]

        async def main() -> list[ringtun.EventKind]:
            async with adapter.events() as events:
                task = asyncio.create_task(listen(events))
                await asyncio.sleep(0)  # it waits now
                adapter.configure(up=False)
                await asyncio.to_thread(self.delete)
                return await asyncio.wait_for(task, SOON)

        with self.create() as adapter:
            kinds = asyncio.run(main())
        assert kinds[-1] is ringtun.EventKind.REMOVED
        assert kinds[:-1] in ([ringtun.EventKind.DOWN], []), "it may be gone before the look"

    @pytest.mark.parametrize("of_the_adapter", [False, True])
    def test_a_close_ends_the_events(self, of_the_adapter: bool) -> None:
        with self.create() as adapter:
            events = adapter.events()
            ended: list[list[ringtun.AdapterEvent]] = []
            waiter = threading.Thread(target=lambda: ended.append(list(events)))
            waiter.start()
            if of_the_adapter:
                adapter.close()
                with pytest.raises(ringtun.AdapterNotFound, match="is closed"):
                    adapter.events()
            else:
                events.close()
            waiter.join(SOON)
            assert ended == [[]]
            assert events.wait() is None
            with pytest.raises(ValueError, match="closed"):
                events.fileno()
            events.close()

    def test_a_close_ends_the_events_in_a_loop(self) -> None:
        async def main() -> None:
            events = adapter.events()
            task = asyncio.ensure_future(anext(events, None))
            await asyncio.sleep(0)  # it waits now
            with pytest.raises(ringtun.ConcurrencyError, match="waits for these events"):
                await anext(events)
            events.close()
            assert await asyncio.wait_for(task, SOON) is None
            async with adapter.events() as events:
                task = asyncio.ensure_future(anext(events, None))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                adapter.configure(mtu=1300)
                event = await asyncio.wait_for(anext(events), SOON)
                assert event.kind is ringtun.EventKind.MTU, "who gives up loses nothing"

        with self.create() as adapter:
            asyncio.run(main())

    def test_the_events_descriptor(self) -> None:
        with self.create() as adapter, adapter.events() as events:
            poll = select.poll()
            poll.register(events.fileno(), select.POLLIN)
            with pytest.raises(TimeoutError):
                events.wait(0)
            assert poll.poll(0) == []
            adapter.configure(mtu=1300)
            assert poll.poll(SOON * 1000)
            assert _next(events, ringtun.EventKind.MTU).mtu == 1300
            assert poll.poll(0) == []

    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    def test_forgotten_events_say_so(self) -> None:
        with self.create() as adapter:
            events = adapter.events()
            with pytest.warns(ResourceWarning, match="unclosed <AdapterEvents of vpn0>"):
                del events
                gc.collect()

    def test_events_of_what_is_gone(self) -> None:
        with self.create() as adapter:
            self.delete()
            with pytest.raises(ringtun.AdapterNotFound):
                adapter.events()


def _next(events: ringtun.AdapterEvents, kind: ringtun.EventKind) -> ringtun.AdapterInfo:
    """How the adapter was after the next event, which is of this kind."""
    event = events.wait(SOON)
    assert event is not None
    assert event.kind is kind
    assert event.info is not None
    return event.info
