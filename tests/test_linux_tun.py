"""`ringtun.host.linux_tun`: one queue of a TUN device, from making it to losing it."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from ringtun.arguments import check_name
from ringtun.errors import (
    AdapterBusy,
    AdapterExists,
    AdapterNotFound,
    AdapterPermissionError,
    DriverUnavailable,
)
from ringtun.host import linux_tun, netlink
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link
from ringtun.host.offload import Coalesces
from ringtun.testing.netns import NAMED_NAMESPACES, NetworkNamespace
from tests.children import NOBODY, as_ordinary_user, descriptors, raised_in_child

pytestmark = pytest.mark.world

UDP_SEGMENT = 103  # linux/udp.h


@pytest.fixture
def network() -> Iterator[NetworkNamespace]:
    with NetworkNamespace("blue") as network:
        yield network


@pytest.fixture
def namespace(network: NetworkNamespace) -> Iterator[Namespace]:
    with Namespace.named("blue") as namespace:
        yield namespace


@pytest.fixture
def running(namespace: Namespace) -> Iterator[LinuxTun]:
    """A TUN that runs, 10.7.0.1/24, without IPv6: nothing comes that was not sent."""
    with LinuxTun.create("vpn0", namespace=namespace) as tun:
        run(tun)
        yield tun


def run(tun: LinuxTun) -> None:
    link = Link(tun.namespace, tun.ifindex)
    link.configure(mtu=1000, addresses=[ip_interface("10.7.0.1/24")], up=True)
    tun.carrier(True)
    link.wait_running(5)


def udp_socket(namespace: Namespace) -> socket.socket:
    return namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def udp_packet(source: str, target: str, port: int, payload: bytes) -> bytes:
    """An IPv4 packet with a UDP datagram, without a UDP checksum."""
    datagram = struct.pack("!HHHH", 7, port, 8 + len(payload), 0) + payload
    layout = struct.Struct("!BBHHHBBH4s4s")
    header = [0x45, 0, layout.size + len(datagram), 0, 0, 64, socket.IPPROTO_UDP, 0]
    addresses = [IPv4Address(source).packed, IPv4Address(target).packed]
    total = sum(struct.unpack("!10H", layout.pack(*header, *addresses)))
    header[7] = ~(total + total // 0xFFFF) & 0xFFFF
    return layout.pack(*header, *addresses) + datagram


class Faults:
    """Makes the ``nth`` of the system calls that it stands in for fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nth: int) -> None:
        self.left = nth
        self.hit = False
        for module, name in ((os, "open"), (fcntl, "ioctl"), (socket, "socket")):
            monkeypatch.setattr(module, name, self.faulty(getattr(module, name)))

    def faulty(self, call: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **options: object) -> object:
            self.left -= 1
            if self.left == 0:
                self.hit = True
                raise OSError(errno.ENOMEM, "no memory left for this test")
            return call(*arguments, **options)

        return wrapper


def each_fault(monkeypatch: pytest.MonkeyPatch, attempt: Callable[[], LinuxTun]) -> Iterator[int]:
    """Fail each system call of ``attempt`` once; yield after each failure, until it succeeds."""
    for nth in itertools.count(1):
        with monkeypatch.context() as patch:
            faults = Faults(patch, nth)
            made = None
            try:
                made = attempt()
            except OSError as error:
                assert error.errno == errno.ENOMEM  # noqa: PT017 - it may succeed, in the end
        if made is not None:
            made.close()
        assert faults.hit or nth > 1
        if not faults.hit:
            return
        yield nth


@pytest.fixture
def open_node(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A TUN node that every user may open, wherever the system's own stands."""
    node = NAMED_NAMESPACES / "net-tun"  # in this process's own mount namespace
    try:
        os.mknod(node, 0o20666, os.makedev(10, 200))
    except PermissionError:
        pytest.skip("no device nodes can be made here")
    try:
        node.chmod(0o666)
        monkeypatch.setattr(linux_tun, "TUN_NODE", str(node))
        yield
    finally:
        node.unlink()


# names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "vpn0", "a" * 15, "ünï", "tun-1.2_x", "..."])
def test_good_names_pass(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "has 0 bytes, not 1 to 15"),
        ("a" * 16, "has 16 bytes, not 1 to 15"),
        ("ü" * 8, "has 16 bytes, not 1 to 15"),
        (".", "is no interface name"),
        ("..", "is no interface name"),
        ("a/b", "contains '/'"),
        ("a:b", "contains ':'"),
        ("tun%d", "contains '%'"),
        ("a b", "contains ' '"),
        ("a\n", r"contains '\\n'"),
        ("a\0b", r"contains '\\x00'"),
    ],
)
def test_bad_names_say_what_is_wrong(name: str, complaint: str, namespace: Namespace) -> None:
    with pytest.raises(ValueError, match=complaint):
        check_name(name)
    with pytest.raises(ValueError, match=complaint):
        LinuxTun.create(name, namespace=namespace)
    with pytest.raises(ValueError, match=complaint):
        LinuxTun.attach(name, namespace=namespace)


@pytest.mark.kernel
@pytest.mark.parametrize("name", ["a", "a" * 15, "ünï", "tun-1.2_x", "..."])
def test_the_kernel_takes_good_names_literally(name: str, namespace: Namespace) -> None:
    with LinuxTun.create(name, namespace=namespace) as tun:
        assert tun.name == name
        assert netlink.find(namespace, name) == tun.ifindex


# making ------------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_it_is_there_while_it_is_open(namespace: Namespace) -> None:
    before = descriptors()
    tun = LinuxTun.create("vpn0", namespace=namespace)
    assert descriptors() == before + 1
    assert fcntl.fcntl(tun.fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert fcntl.fcntl(tun.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
    assert (tun.name, tun.namespace, tun.persistent) == ("vpn0", namespace, False)
    assert netlink.find(namespace, "vpn0") == tun.ifindex
    tun.close()
    tun.close()
    assert descriptors() == before
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
def test_two_namespaces_may_use_one_name() -> None:
    with (
        NetworkNamespace("blue"),
        NetworkNamespace("green"),
        Namespace.named("blue") as blue,
        Namespace.named("green") as green,
        LinuxTun.create("vpn0", namespace=blue) as first,
        LinuxTun.create("vpn0", namespace=green) as second,
    ):
        Link(blue, first.ifindex).set_mtu(1300)
        assert Link(green, second.ifindex).info().mtu == 1500


@pytest.mark.kernel
def test_it_works_under_a_running_event_loop(namespace: Namespace) -> None:
    async def main() -> str:
        with LinuxTun.create("vpn0", namespace=namespace) as tun:
            return tun.name

    assert asyncio.run(main()) == "vpn0"


@pytest.mark.kernel
@pytest.mark.parametrize("persist", [False, True])
@pytest.mark.parametrize("no_carrier", [True, False])
def test_a_failure_at_any_step_leaves_nothing(
    persist: bool, no_carrier: bool, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not no_carrier:
        hide_no_carrier(monkeypatch)
    before = descriptors()

    def attempt() -> LinuxTun:
        tun = LinuxTun.create("vpn0", namespace=namespace)
        try:
            if persist:
                tun.persist(owner=0, group=0)
        except OSError:
            tun.close()
            raise
        return tun

    steps = 0
    for steps in each_fault(monkeypatch, attempt):  # noqa: B007
        assert descriptors() == before
        assert netlink.find(namespace, "vpn0") is None
    # open, features, interface, (carrier,) check, headers, socket, index, (owner, group, persist)
    assert steps == 7 + 3 * persist + (not no_carrier)


def hide_no_carrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a kernel without IFF_NO_CARRIER."""
    ioctl = fcntl.ioctl

    def older(fd: Any, request: int, argument: Any = 0) -> Any:
        reply = ioctl(fd, request, argument)
        if request == linux_tun.TUNGETFEATURES:
            (features,) = struct.unpack("i", reply)
            return struct.pack("i", features & ~linux_tun.IFF_NO_CARRIER)
        return reply

    monkeypatch.setattr(fcntl, "ioctl", older)


@pytest.mark.kernel
@pytest.mark.parametrize("no_carrier", [True, False])
def test_it_is_made_without_a_carrier(
    no_carrier: bool, namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not no_carrier:
        hide_no_carrier(monkeypatch)
    with LinuxTun.create("vpn0", namespace=namespace) as tun:
        link = Link(namespace, tun.ifindex)
        link.set_up(True)
        with pytest.raises(TimeoutError, match="no carrier"):
            link.wait_running(0)
        tun.carrier(True)
        link.wait_running(5)


@pytest.mark.kernel
def test_a_taken_name_is_an_adapter_that_exists(namespace: Namespace) -> None:
    with LinuxTun.create("vpn0", namespace=namespace):
        for name in ("vpn0", "lo"):
            with pytest.raises(AdapterExists, match=f"called {name} already in") as caught:
                LinuxTun.create(name, namespace=namespace)
            assert caught.value.errno == errno.EBUSY


@pytest.mark.kernel
def test_another_device_than_asked_for_is_refused(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ioctl = fcntl.ioctl

    def odd(fd: Any, request: int, argument: Any = 0) -> Any:
        reply = ioctl(fd, request, argument)
        if request == linux_tun.TUNGETIFF:
            return linux_tun.IFREQ_FLAGS.pack(b"vpn0", linux_tun.IFF_TAP)
        return reply

    monkeypatch.setattr(fcntl, "ioctl", odd)
    with pytest.raises(DriverUnavailable, match="another device than TUN vpn0"):
        LinuxTun.create("vpn0", namespace=namespace)
    monkeypatch.undo()
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV, errno.ENXIO])
def test_no_driver_says_how_to_load_it(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with Namespace.current() as namespace:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(DriverUnavailable, match=r"modprobe tun.*--device") as caught:
            LinuxTun.create("vpn0", namespace=namespace)
    assert caught.value.errno == code


def test_a_container_without_the_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with Namespace.current() as namespace:
        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(AdapterPermissionError, match=r"container or service .* --device"):
            LinuxTun.create("vpn0", namespace=namespace)


def test_a_node_that_is_no_tun_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_tun, "TUN_NODE", "/dev/null")
    before = descriptors()
    with Namespace.current() as namespace, pytest.raises(OSError, match="vpn0") as caught:
        LinuxTun.create("vpn0", namespace=namespace)
    assert caught.value.errno == errno.ENOTTY
    assert descriptors() == before


@as_ordinary_user
def test_a_closed_node_is_a_matter_of_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "tun"
    node.touch(mode=0o600)
    monkeypatch.setattr(linux_tun, "TUN_NODE", str(node))
    with Namespace.current() as namespace:
        raised = raised_in_child(lambda: LinuxTun.create("vpn0", namespace=namespace), NOBODY)
    assert raised.startswith("AdapterPermissionError: [Errno 13] no permission to use an adapter: ")
    assert "tun is closed to this user; run as root, or open it to all" in raised


@pytest.mark.kernel
@as_ordinary_user
@pytest.mark.usefixtures("open_node")
def test_an_ordinary_user_lacks_a_capability() -> None:
    with Namespace.current() as namespace:
        raised = raised_in_child(lambda: LinuxTun.create("vpn0", namespace=namespace), NOBODY)
    assert raised.startswith("AdapterPermissionError: [Errno 1] no permission to create adapter")
    assert (
        "no CAP_NET_ADMIN in this network namespace; run as root, or use the driver service"
        in raised
    )


# persistence and attaching -----------------------------------------------------------------------


def persistent(
    name: str, namespace: Namespace, owner: int | None = 0, group: int | None = None
) -> LinuxTun:
    tun = LinuxTun.create(name, namespace=namespace)
    try:
        tun.persist(owner, group)
    except BaseException:
        tun.close()
        raise
    return tun


@pytest.mark.kernel
def test_a_persistent_one_outlives_its_queue(namespace: Namespace) -> None:
    with persistent("vpn0", namespace) as tun:
        assert tun.persistent
        index = tun.ifindex
    assert netlink.find(namespace, "vpn0") == index
    with LinuxTun.attach("vpn0", namespace=namespace) as tun:
        assert (tun.name, tun.ifindex, tun.persistent) == ("vpn0", index, True)
        tun.unpersist()
        tun.unpersist()
        assert not tun.persistent
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("owner", "group", "shown"),
    [
        (0, None, "user root"),
        (None, 0, "group root"),
        (0, 0, "user root group root"),
    ],
)
def test_a_persistent_one_has_an_owner(
    owner: int | None,
    group: int | None,
    shown: str,
    network: NetworkNamespace,
    namespace: Namespace,
) -> None:
    persistent("vpn0", namespace, owner, group).close()
    details = network.run("ip", "-d", "link", "show", "vpn0").stdout
    assert f"persist on {shown} " in details
    assert ("user" in details) == ("user" in shown)


@pytest.mark.kernel
def test_an_owner_that_cannot_be_leaves_nothing(namespace: Namespace) -> None:
    with pytest.raises(OSError, match="cannot give user -1 adapter vpn0: ") as caught:
        persistent("vpn0", namespace, owner=-1)
    assert caught.value.errno == errno.EINVAL
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
@as_ordinary_user
@pytest.mark.usefixtures("open_node")
def test_its_owner_attaches_without_rights_and_nobody_else_does() -> None:
    with Namespace.current() as namespace:
        for name, owner, group in (
            ("mine", NOBODY, None),
            ("ours", None, NOBODY),
            ("theirs", 1, None),
        ):
            persistent(name, namespace, owner, group).close()
        try:
            assert raised_in_child(lambda: LinuxTun.attach("mine", namespace=namespace)) == ""
            assert raised_in_child(lambda: LinuxTun.attach("ours", namespace=namespace)) == ""
            raised = raised_in_child(lambda: LinuxTun.attach("theirs", namespace=namespace), NOBODY)
            assert raised.startswith("AdapterPermissionError: [Errno 1] no permission to attach")
            assert "it belongs to another user or group" in raised
            raised = raised_in_child(lambda: LinuxTun.attach("none", namespace=namespace), NOBODY)
            assert raised.startswith("AdapterNotFound: ")
        finally:
            for name in ("mine", "ours", "theirs"):
                index = netlink.find(namespace, name)
                assert index is not None
                netlink.delete(namespace, index)


@pytest.mark.kernel
def test_attaching_to_what_is_not_there_makes_nothing(namespace: Namespace) -> None:
    with pytest.raises(AdapterNotFound, match="there is no adapter vpn0") as caught:
        LinuxTun.attach("vpn0", namespace=namespace)
    assert caught.value.errno == errno.ENODEV
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
def test_a_device_that_goes_just_before_is_not_made_anew(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    persistent("vpn0", namespace).close()
    open_node = linux_tun._open_node

    def and_gone() -> int:
        index = netlink.find(namespace, "vpn0")
        assert index is not None
        netlink.delete(namespace, index)
        return open_node()

    monkeypatch.setattr(linux_tun, "_open_node", and_gone)
    with pytest.raises(AdapterNotFound):
        LinuxTun.attach("vpn0", namespace=namespace)
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
@pytest.mark.parametrize("persist", [True, False])
def test_a_held_queue_is_busy(persist: bool, namespace: Namespace) -> None:
    with LinuxTun.create("vpn0", namespace=namespace) as tun:
        if persist:
            tun.persist(0)
        with pytest.raises(AdapterBusy, match="vpn0 is held by another") as caught:
            LinuxTun.attach("vpn0", namespace=namespace)
        assert caught.value.errno == errno.EBUSY


@pytest.mark.kernel
@pytest.mark.parametrize("arguments", [["mode", "tap"], ["mode", "tun", "multi_queue"]])
def test_another_kind_of_interface_is_no_adapter(
    arguments: list[str], network: NetworkNamespace, namespace: Namespace
) -> None:
    network.run("ip", "tuntap", "add", "other0", *arguments)
    before = descriptors()
    for name in ("other0", "lo"):
        with pytest.raises(AdapterNotFound, match="no TUN device, or one with several queues"):
            LinuxTun.attach(name, namespace=namespace)
    assert descriptors() == before


@pytest.mark.kernel
def test_what_the_last_holder_left_is_undone(namespace: Namespace) -> None:
    """A header before each packet goes with the attaching itself; offload has to be taken back."""
    flags = linux_tun.IFF_TUN | linux_tun.IFF_NO_PI | linux_tun.IFF_VNET_HDR
    checksums, udp_segments = 0x01, 0x20 | 0x40  # TUN_F_CSUM, TUN_F_USO4 | TUN_F_USO6

    def leave() -> None:
        node = os.open("/dev/net/tun", os.O_RDWR)
        try:
            fcntl.ioctl(node, linux_tun.TUNSETIFF, linux_tun.IFREQ_FLAGS.pack(b"vpn0", flags))
            try:
                fcntl.ioctl(node, linux_tun.TUNSETOFFLOAD, checksums | udp_segments)
            except OSError:
                pytest.skip("this kernel has no UDP segmentation offload for TUN")
            fcntl.ioctl(node, linux_tun.TUNSETPERSIST, 1)
        finally:
            os.close(node)

    namespace.run(leave)
    with LinuxTun.attach("vpn0", namespace=namespace) as tun, udp_socket(namespace) as sender:
        run(tun)
        sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 500)
        sender.sendto(bytes(1500), ("10.7.0.2", 9))
        assert [len(packet) for packet in iter(tun.read_packet, None)] == [528, 528, 528]


@pytest.mark.kernel
def test_a_failure_while_attaching_leaves_the_device(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    persistent("vpn0", namespace).close()
    index = netlink.find(namespace, "vpn0")
    before = descriptors()
    steps = 0
    for steps in each_fault(  # noqa: B007
        monkeypatch, lambda: LinuxTun.attach("vpn0", namespace=namespace)
    ):
        assert descriptors() == before
        assert netlink.find(namespace, "vpn0") == index
    # socket, index, open, features, interface, check, headers, socket, index, offload
    assert steps == 10


@pytest.mark.kernel
def test_a_queue_that_another_process_joined_is_taken_over(namespace: Namespace) -> None:
    """As the service manager keeps it: the device never loses its queue."""
    with persistent("vpn0", namespace) as before:
        run(before)
        before.offload(Coalesces.ALL)
        kept = os.dup(before.fileno())
    os.set_inheritable(kept, True)
    with udp_socket(namespace) as sender, LinuxTun.take_over(kept, namespace=namespace) as tun:
        assert (tun.name, tun.ifindex, tun.persistent) == ("vpn0", before.ifindex, True)
        assert tun.vnet == before.vnet
        assert (os.get_inheritable(kept), os.get_blocking(kept)) == (False, False)
        assert not Link(namespace, tun.ifindex).info().carrier
        tun.carrier(True)
        Link(namespace, tun.ifindex).wait_running(5)
        tun.drain()
        sender.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 500)
        sender.sendto(bytes(1500), ("10.7.0.2", 9))  # what comes is cut: offload is off
        assert [len(packet) for packet in iter(tun.read_packet, None)] == [528, 528, 528]


@pytest.mark.kernel
def test_what_cannot_be_taken_over_is_closed(namespace: Namespace) -> None:
    before = descriptors()

    def take_over(fd: int, error: type[Exception], words: str) -> None:
        with pytest.raises(error, match=words):
            LinuxTun.take_over(fd, namespace=namespace)

    take_over(os.open("/dev/null", os.O_RDWR), OSError, "this is no queue of a TUN")
    take_over(os.open("/dev/net/tun", os.O_RDWR), AdapterNotFound, "no adapter of this queue")
    with LinuxTun.create("vpn0", namespace=namespace) as tun:
        take_over(os.dup(tun.fileno()), DriverUnavailable, "vpn0 is not persistent")
    with Namespace.current() as here, persistent("vpn1", here) as tun:
        take_over(os.dup(tun.fileno()), AdapterNotFound, "vpn1 is not in .*'blue' any more")
        netlink.delete(here, tun.ifindex)
        take_over(os.dup(tun.fileno()), AdapterNotFound, "no adapter of this queue")
    assert descriptors() == before


# packets -----------------------------------------------------------------------------------------


@pytest.mark.kernel
def test_what_the_host_sends_is_read(running: LinuxTun) -> None:
    assert running.read_packet() is None
    with udp_socket(running.namespace) as sender:
        sender.sendto(b"hello", ("10.7.0.2", 9))
    packet = running.read_packet()
    assert packet is not None
    assert packet[12:20] == IPv4Address("10.7.0.1").packed + IPv4Address("10.7.0.2").packed
    assert packet[28:] == b"hello"
    assert running.read_packet() is None


@pytest.mark.kernel
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_what_is_written_the_host_receives(
    kind: Callable[[bytes], bytes | bytearray | memoryview], running: LinuxTun
) -> None:
    with udp_socket(running.namespace) as receiver:
        receiver.bind(("10.7.0.1", 0))
        receiver.settimeout(5)
        port = receiver.getsockname()[1]
        running.write_packet(kind(udp_packet("10.7.0.2", "10.7.0.1", port, b"hello")))
        assert receiver.recv(100) == b"hello"


@pytest.mark.kernel
def test_drain_counts_what_it_throws_away(running: LinuxTun) -> None:
    assert running.drain() == 0
    with udp_socket(running.namespace) as sender:
        for size in (0, 1, 900):
            sender.sendto(bytes(size), ("10.7.0.2", 9))
    running.carrier(False)
    assert running.drain() == 3
    assert running.read_packet() is None


@pytest.mark.kernel
def test_errors_of_packets_are_the_kernels_own(running: LinuxTun) -> None:
    packet = udp_packet("10.7.0.2", "10.7.0.1", 9, b"")
    link = Link(running.namespace, running.ifindex)

    def refused(packet: bytes) -> int | None:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            running.write_packet(packet)
        return caught.value.errno

    assert refused(b"\0" + packet) == errno.EINVAL
    link.set_up(False)
    assert refused(packet) == errno.EIO
    netlink.delete(link.namespace, link.ifindex)
    assert refused(packet) == errno.EBADFD
    calls: list[Callable[[], object]] = [
        running.read_packet,
        running.drain,
        lambda: running.carrier(True),
    ]
    for call in calls:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            call()
        assert caught.value.errno == errno.EBADFD


@pytest.mark.kernel
def test_reading_while_it_is_down_finds_nothing(running: LinuxTun) -> None:
    Link(running.namespace, running.ifindex).set_up(False)
    assert running.read_packet() is None
    assert running.drain() == 0


@pytest.mark.kernel
def test_a_closed_queue_says_so(namespace: Namespace) -> None:
    tun = LinuxTun.create("vpn0", namespace=namespace)
    tun.close()
    calls: list[Callable[[], object]] = [
        tun.fileno,
        tun.drain,
        tun.read_packet,
        tun.unpersist,
        lambda: tun.write_packet(b"E"),
        lambda: tun.carrier(True),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the queue of adapter vpn0 is closed"):
            call()


@pytest.mark.kernel
def test_a_forgotten_queue_warns_and_closes(namespace: Namespace) -> None:
    before = descriptors()
    tun = LinuxTun.create("vpn0", namespace=namespace)
    with pytest.warns(ResourceWarning, match="unclosed <LinuxTun vpn0 fd="):
        del tun
    assert descriptors() == before
    assert netlink.find(namespace, "vpn0") is None


@pytest.mark.kernel
def test_a_child_that_abandons_it_leaves_its_headers_alone(namespace: Namespace) -> None:
    with persistent("vpn0", namespace) as tun:
        run(tun)
        assert raised_in_child(tun.abandon) == ""
        with udp_socket(namespace) as sender:
            sender.sendto(b"hello", ("10.7.0.2", 9))
        packet = tun.read_packet()
        assert packet is not None
        assert packet[28:] == b"hello"
        tun.unpersist()
