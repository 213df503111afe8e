"""`ringtun.host.namespace`: entering a network namespace, and coming back."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import threading
import weakref
from collections.abc import Iterator

import pytest

from ringtun.host.namespace import Namespace
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY, as_ordinary_user, descriptors, raised_in_child

pytestmark = pytest.mark.world


@pytest.fixture
def network() -> Iterator[NetworkNamespace]:
    with NetworkNamespace("blue") as network:
        yield network


def here() -> tuple[int, int]:
    """The identity of the calling thread's network namespace."""
    status = os.stat("/proc/thread-self/ns/net")
    return status.st_dev, status.st_ino


def test_current_runs_in_a_thread_of_its_own_in_the_callers_namespace() -> None:
    with Namespace.current() as namespace:
        assert namespace.fileno() is None
        assert namespace.run(here) == here()
        assert namespace.run(threading.get_ident) != threading.get_ident()


def test_named_runs_inside_and_leaves_the_caller_outside(network: NetworkNamespace) -> None:
    outside = here()
    with Namespace.named("blue") as namespace:
        status = os.stat(network.path)
        assert namespace.run(here) == (status.st_dev, status.st_ino) != outside
        assert here() == outside


def test_a_path_names_a_namespace_too(network: NetworkNamespace) -> None:
    with Namespace.named("blue") as by_name, Namespace.named(network.path) as by_path:
        assert by_name.run(here) == by_path.run(here)
    with Namespace.named("/proc/self/ns/net") as own:
        assert own.run(here) == here()


def test_the_thread_is_over_when_run_returns(network: NetworkNamespace) -> None:
    threads = threading.active_count()
    with Namespace.named("blue") as namespace:
        namespace.run(here)
        assert threading.active_count() == threads


def test_an_error_comes_out_as_it_is_and_leaves_no_cycle() -> None:
    class Mine(Exception):
        pass

    def fail() -> None:
        raise Mine

    gc.disable()
    try:
        with pytest.raises(Mine) as caught:
            Namespace.current().run(fail)
        gone = weakref.ref(caught.value)
        del caught
        assert gone() is None
    finally:
        gc.enable()


def test_run_works_under_a_running_event_loop(network: NetworkNamespace) -> None:
    async def main() -> tuple[int, int]:
        def loop_of_its_own() -> tuple[int, int]:
            async def inside() -> tuple[int, int]:
                return here()

            return asyncio.run(inside())

        with Namespace.named("blue") as namespace:
            return namespace.run(loop_of_its_own)

    assert asyncio.run(main()) != here()


def test_a_missing_name_says_how_to_make_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"no network namespace 'red'.*ip netns add red"):
        Namespace.named("red")
    with pytest.raises(FileNotFoundError, match="/nowhere/red"):
        Namespace.named("/nowhere/red")


@pytest.mark.parametrize("name", ["/dev/null", "/proc/self/ns/uts", ".", ""])
def test_what_is_no_network_namespace_is_refused(name: str) -> None:
    before = descriptors()
    with pytest.raises(ValueError, match="is not a network namespace"):
        Namespace.named(name)
    assert descriptors() == before


def test_it_owns_one_descriptor_that_no_child_inherits(network: NetworkNamespace) -> None:
    before = descriptors()
    namespace = Namespace.named("blue")
    fd = namespace.fileno()
    assert fd is not None
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    namespace.run(here)
    assert descriptors() == before + 1
    namespace.close()
    namespace.close()
    assert descriptors() == before


def test_the_kernel_tells_what_another_descriptor_is(network: NetworkNamespace) -> None:
    for namespace in (Namespace.current(), Namespace.named("blue")):
        with namespace, namespace.open() as descriptor:
            inode = namespace.inode()
            assert os.readlink(f"/proc/self/fd/{descriptor.fileno()}") == f"net:[{inode}]"
            assert not os.get_inheritable(descriptor.fileno())


def test_one_is_handed_over_unless_that_fails(network: NetworkNamespace) -> None:
    with Namespace.handing_over("blue") as namespace:
        pass
    assert namespace.run(here) != here()
    namespace.close()
    with pytest.raises(LookupError), Namespace.handing_over("blue") as namespace:
        raise LookupError
    with pytest.raises(ValueError, match="closed"):
        namespace.run(here)


def test_a_closed_one_says_so(network: NetworkNamespace) -> None:
    namespace = Namespace.named("blue")
    namespace.close()
    with pytest.raises(ValueError, match="'blue' is closed"):
        namespace.run(here)


def test_a_forgotten_one_warns_and_closes(network: NetworkNamespace) -> None:
    before = descriptors()
    namespace = Namespace.named("blue")
    with pytest.warns(ResourceWarning, match="unclosed <Namespace blue>"):
        del namespace
    assert descriptors() == before


def test_it_stays_the_same_when_its_name_goes_to_another() -> None:
    with NetworkNamespace("green"):
        namespace = Namespace.named("green")
        first = namespace.run(here)
    with namespace, NetworkNamespace("green"), Namespace.named("green") as second:
        assert namespace.run(here) == first != second.run(here)


@as_ordinary_user
def test_an_ordinary_user_may_not_enter(network: NetworkNamespace) -> None:
    with Namespace.named("blue") as namespace:
        namespace.run(here)
        raised = raised_in_child(lambda: namespace.run(here), NOBODY)
    assert raised.startswith("AdapterPermissionError: [Errno 1] no permission to enter network")
    assert "run as root" in raised


def test_one_whose_making_was_interrupted_ends_quietly() -> None:
    Namespace.__new__(Namespace).__del__()
