"""Programs that make their own adapters, and a test that plays the host."""

from __future__ import annotations

import asyncio

import pytest

import ringtun
from ringtun.testing import far_end, in_memory
from ringtun.testing.conformance import packet
from tests.children import descriptors


def serve() -> list[bytes]:
    """Somebody's program: it knows nothing of tests."""
    with (
        ringtun.create_adapter("vpn0", addresses=["10.7.0.1/24"]) as adapter,
        adapter.start_session() as session,
        far_end("vpn0") as far,
        far.start_session() as host,
    ):
        for number in range(3):
            host.send(packet(number))
            session.send(session.receive(10))
        return [host.receive(10) for _ in range(3)]


def test_a_program_that_makes_its_own_adapter() -> None:
    with in_memory():
        assert serve() == [packet(number) for number in range(3)]
        assert ringtun.list_adapters() == []


def test_with_asyncio() -> None:
    async def program() -> bytes:
        with ringtun.create_adapter("vpn0") as adapter, far_end("vpn0") as far:
            async with adapter.start_async_session() as session, far.start_async_session() as host:
                await host.send(packet(1))
                await session.send(await session.receive())
                return await host.receive()

    with in_memory():
        assert asyncio.run(program()) == packet(1)


def test_what_is_left_goes_with_the_block() -> None:
    before = descriptors()
    with in_memory():
        adapter = ringtun.create_adapter("vpn0", persist=True)
        ringtun.create_adapter("vpn1", persist=True, netns="blue").close()
        session = adapter.start_session()
        far = far_end("vpn0")
    with pytest.raises(ringtun.SessionClosed) as caught:
        session.receive()
    assert caught.value.reason is ringtun.EndReason.ADAPTER_REMOVED
    for netns in (None, "blue"):
        assert ringtun.list_adapters(backend="memory", netns=netns) == []
    session.close()
    adapter.close()
    with far.start_session() as host:
        host.send(packet(1))  # it goes nowhere
    far.close()
    del session, adapter, far, host, caught
    assert descriptors() == before


def test_there_is_no_far_end_without_an_adapter() -> None:
    with in_memory(), pytest.raises(ringtun.AdapterNotFound, match="vpn0"):
        far_end("vpn0")
    with pytest.raises(ValueError, match="contains"):
        far_end("a b")


@pytest.mark.parametrize("plain", [False, True], ids=["native", "plain"])
@pytest.mark.filterwarnings("ignore:packets are moved by plain Python:RuntimeWarning")
def test_an_adapter_that_is_down_passes_nothing(
    plain: bool, request: pytest.FixtureRequest
) -> None:
    if plain:
        request.getfixturevalue("pure_python")
    with (
        in_memory(),
        ringtun.create_adapter("vpn0", up=False) as adapter,
        far_end("vpn0") as far,
        adapter.start_session() as session,
        far.start_session() as host,
    ):
        session.send(packet(1))
        host.send(packet(2))
        assert host.try_receive() is None
        assert session.try_receive() is None
        assert session.statistics().discards.host_down == 1
        assert session.statistics().discards.host_queue_full == 1
        adapter.configure(up=True)
        session.send(packet(3))
        host.send(packet(4))
        assert host.receive(10) == packet(3)
        assert session.receive(10) == packet(4)
