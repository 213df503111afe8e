"""`ringtun.host.offload`: what is agreed on with kernels of all kinds, and what is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest

import ringtun
from ringtun import DriverUnavailable, _native
from ringtun.host import linux_tun, offload
from ringtun.host.linux import LinuxHost
from ringtun.host.linux_tun import LinuxTun
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, delete, find
from ringtun.host.offload import Coalesces, Offload, offload_of, probe
from ringtun.session import Session
from ringtun.testing.conformance import packet
from ringtun.testing.netns import NetworkNamespace
from tests.children import NOBODY, as_ordinary_user, raised_in_child
from tests.inside import embedded
from tests.offload.packets import checksums_right
from tests.system.programs import Program
from tests.system.sites import SOON, next_packet, until

pytestmark = pytest.mark.kernel

UDP_SEGMENT = 103  # linux/udp.h
USO = linux_tun.TUN_F_USO4 | linux_tun.TUN_F_USO6
TCP_MASK = linux_tun.TUN_F_CSUM | linux_tun.TUN_F_TSO4 | linux_tun.TUN_F_TSO6
HOST, PEER = ("10.99.0.1", 4001), ("10.99.0.2", 4000)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with NetworkNamespace("blue"), Namespace.named("blue") as namespace:
        yield namespace


@pytest.fixture
def sender(namespace: Namespace) -> Iterator[socket.socket]:
    with namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as datagrams:
        yield datagrams


class Kernel:
    """This kernel, but for what it is told to refuse."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.without_features = 0
        self.without_mask = 0
        self.masks: list[int] = []
        self._ioctl = fcntl.ioctl
        monkeypatch.setattr(fcntl, "ioctl", self.ioctl)

    def ioctl(self, fd: Any, request: int, argument: Any = 0) -> Any:
        if request == linux_tun.TUNSETOFFLOAD:
            if argument & self.without_mask:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            self.masks.append(argument)
        reply = self._ioctl(fd, request, argument)
        if request == linux_tun.TUNGETFEATURES:
            (features,) = struct.unpack("i", reply)
            return struct.pack("i", features & ~self.without_features)
        return reply


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def create(**options: Any) -> ringtun.Adapter:
    return ringtun.create_adapter("vpn0", netns="blue", addresses=[f"{HOST[0]}/24"], **options)


def host_of(adapter: ringtun.Adapter) -> LinuxHost:
    return cast(LinuxHost, embedded(adapter).host)


def has_uso(namespace: Namespace) -> bool:
    with LinuxTun.create("uso0", namespace=namespace) as tun:
        try:
            fcntl.ioctl(tun.fileno(), linux_tun.TUNSETOFFLOAD, TCP_MASK | USO)
        except OSError:
            return False
        return True


def send_segments(sender: socket.socket, count: int = 3) -> None:
    """So many datagrams of 500 bytes by one call, which offload hands over as one packet."""
    sender.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 500)
    sender.sendto(bytes(500 * count), PEER)


def works(adapter: ringtun.Adapter, namespace: Namespace, sender: socket.socket) -> Session:
    """Packets pass both ways, ordinary ones all; gives the session, which is closed."""
    with (
        adapter.start_session() as session,
        closing(namespace.run(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))) as host,
    ):
        host.settimeout(SOON)
        host.bind(HOST)
        send_segments(sender)
        for _ in range(3):
            received = next_packet(session)
            assert len(received) == 528
            assert checksums_right(received, 20)
        sent = [packet(number, 600) for number in range(10)]
        assert session.send_many(sent) == len(sent)
        assert [host.recv(1 << 16) for _ in sent] == [each[28:] for each in sent]
    return session


# probing -----------------------------------------------------------------------------------------


def test_probing_sends_nothing(namespace: Namespace) -> None:
    with LinuxTun.create("vpn0", namespace=namespace) as tun:
        taken = probe(tun.fileno())
        assert taken & (Coalesces.TCP4 | Coalesces.TCP6) == Coalesces.TCP4 | Coalesces.TCP6
        if has_uso(namespace):
            assert taken == Coalesces.ALL
        info = Link(namespace, tun.ifindex).info()
        assert (info.rx_packets, info.tx_packets) == (0, 0)


def test_a_kernel_that_takes_no_udp_merged(
    namespace: Namespace, sender: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    writev = os.writev

    def older(fd: int, pieces: Any) -> int:
        if pieces[0][1] == 5:  # VIRTIO_NET_HDR_GSO_UDP_L4
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return writev(fd, pieces)

    monkeypatch.setattr(os, "writev", older)
    with create() as adapter:
        assert host_of(adapter).coalesces == Coalesces.TCP4 | Coalesces.TCP6
        session = works(adapter, namespace, sender)
        assert session.statistics().merged == 0


def test_a_kernel_that_takes_it(namespace: Namespace, sender: socket.socket) -> None:
    if not has_uso(namespace):
        pytest.skip("NOT TRIED: this kernel has no UDP segmentation offload for TUN")
    with create() as adapter:
        session = works(adapter, namespace, sender)
        assert session.statistics().merged == 1
        assert session.statistics().split == 1


def test_what_a_session_learnt_is_kept(namespace: Namespace) -> None:
    with create() as adapter:
        host = host_of(adapter)
        host.coalesces = Coalesces.ALL
        learnt = Coalesces.TCP4 | Coalesces.UDP6
        host._native = cast(_native.TunHost, SimpleNamespace(coalesces=learnt.value))
        host.disconnect()
        assert host.coalesces == learnt
        host.disconnect()
        assert host.coalesces == learnt
        with adapter.start_session():
            assert host._native is not None
            assert host._native.coalesces == learnt
        assert host.coalesces == learnt


# what the kernel gives ---------------------------------------------------------------------------


def test_the_mask_is_on_while_a_session_runs(namespace: Namespace, kernel: Kernel) -> None:
    with create() as adapter:
        assert kernel.masks == []
        for _ in range(2):
            kernel.masks.clear()
            with adapter.start_session():
                assert kernel.masks in ([TCP_MASK | USO], [TCP_MASK])
            assert kernel.masks[1:] == [0]


def test_a_kernel_without_udp_offload(
    namespace: Namespace, sender: socket.socket, kernel: Kernel
) -> None:
    kernel.without_mask = USO
    with create() as adapter:
        session = works(adapter, namespace, sender)
        assert kernel.masks == [TCP_MASK, 0]
        assert session.statistics().split == 0
        with adapter.start_session(offload=True) as whole:
            send_segments(sender)
            for _ in range(3):
                received = whole.receive(SOON)
                assert (len(received), received.gso_type) == (528, ringtun.GsoType.NONE)


def test_a_kernel_without_any_offload(
    namespace: Namespace, sender: socket.socket, kernel: Kernel
) -> None:
    kernel.without_mask = ~0
    with create() as adapter:
        kernel.without_mask = TCP_MASK | USO
        session = works(adapter, namespace, sender)
        assert session.statistics().split == 0
        with adapter.start_session(offload=True) as whole:
            send_segments(sender)
            assert [len(whole.receive(SOON)) for _ in range(3)] == [528] * 3


def test_a_kernel_without_headers(
    namespace: Namespace, sender: socket.socket, kernel: Kernel
) -> None:
    kernel.without_features = linux_tun.IFF_VNET_HDR
    with create() as adapter:
        assert not host_of(adapter).offloads
        assert host_of(adapter).coalesces == Coalesces(0)
        session = works(adapter, namespace, sender)
        assert set(kernel.masks) == {0}
        assert (session.statistics().split, session.statistics().merged) == (0, 0)
        with pytest.raises(DriverUnavailable, match="vpn0 has no offload=True: .* native core"):
            adapter.start_session(offload=True)
        with adapter.start_session(verify_checksums=False):
            pass


@pytest.mark.usefixtures("pure_python")
@pytest.mark.filterwarnings("ignore:packets are moved by plain Python:RuntimeWarning")
def test_the_engine_in_plain_python(
    namespace: Namespace, sender: socket.socket, kernel: Kernel
) -> None:
    with create() as adapter:
        session = works(adapter, namespace, sender)
        assert set(kernel.masks) == {0}
        assert (session.statistics().split, session.statistics().merged) == (0, 0)
        with pytest.raises(DriverUnavailable, match="no offload=True: it takes ringtun's native"):
            adapter.start_session(offload=True)


# what is said of it ------------------------------------------------------------------------------


def test_what_the_kernel_says(namespace: Namespace, kernel: Kernel) -> None:
    nothing = Offload(checksum=False, tcp=False, udp=False)
    uso = has_uso(namespace)
    with create() as adapter:
        assert offload_of(namespace, "vpn0") == nothing
        with adapter.start_session():
            assert offload_of(namespace, "vpn0") == Offload(checksum=True, tcp=True, udp=uso)
        assert offload_of(namespace, "vpn0") == nothing
        kernel.without_mask = USO
        with adapter.start_session():
            assert offload_of(namespace, "vpn0") == Offload(checksum=True, tcp=True, udp=False)
    with pytest.raises(OSError, match="vpn0"):
        offload_of(namespace, "vpn0")


@as_ordinary_user
def test_asking_takes_no_rights(namespace: Namespace) -> None:
    with create(), Namespace.current() as here:
        said = namespace.run(lambda: raised_in_child(lambda: offload_of(here, "vpn0"), user=NOBODY))
    assert said == ""


def test_a_name_that_is_no_text(namespace: Namespace) -> None:
    with pytest.raises(OSError, match="says no features"):
        offload_of(namespace, "a\udcff")


# what is left behind -----------------------------------------------------------------------------


@pytest.fixture
def kept(namespace: Namespace) -> Iterator[int]:
    """A persistent adapter that nobody holds, by its index."""
    create(persist=True, owner=0).close()
    index = find(namespace, "vpn0")
    assert index is not None
    yield index
    delete(namespace, index)


def foreign(namespace: Namespace, flags: int = 0) -> int:
    """A descriptor of another program's, to the persistent adapter."""

    def attach() -> int:
        fd = os.open(linux_tun.TUN_NODE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        request = linux_tun.IFREQ_FLAGS.pack(
            b"vpn0", linux_tun.IFF_TUN | linux_tun.IFF_NO_PI | flags
        )
        fcntl.ioctl(fd, linux_tun.TUNSETIFF, request)
        return fd

    return namespace.run(attach)


def read_all(fd: int) -> list[bytes]:
    """What is queued."""
    found = []
    try:
        while True:
            found.append(os.read(fd, 1 << 17))
    except BlockingIOError:
        return found


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.usefixtures("kept")
def test_a_foreign_program_gets_ordinary_packets_afterwards(
    namespace: Namespace, sender: socket.socket, whole: bool
) -> None:
    with (
        ringtun.open_adapter("vpn0", netns="blue") as adapter,
        adapter.start_session(offload=True) if whole else adapter.start_session() as session,
    ):
        send_segments(sender)
        assert session.receive(SOON)
    fd = foreign(namespace)
    try:
        fcntl.ioctl(fd, linux_tun.TUNSETCARRIER, struct.pack("i", 1))
        running(namespace)
        read_all(fd)  # of the time before
        send_segments(sender)
        packets = read_all(fd)
    finally:
        os.close(fd)
    assert [len(each) for each in packets] == [528] * 3
    assert all(checksums_right(each, 20) for each in packets)


@pytest.mark.usefixtures("kept")
def test_a_foreign_program_with_headers_gets_those_of_the_kernels_own_size(
    namespace: Namespace, sender: socket.socket
) -> None:
    """10 bytes, which who does not ask for another size takes for granted."""
    with (
        ringtun.open_adapter("vpn0", netns="blue") as adapter,
        adapter.start_session(),
    ):
        pass
    fd = foreign(namespace, linux_tun.IFF_VNET_HDR)
    try:
        fcntl.ioctl(fd, linux_tun.TUNSETCARRIER, struct.pack("i", 1))
        running(namespace)
        read_all(fd)
        sender.sendto(bytes(100), PEER)
        assert [len(each) for each in read_all(fd)] == [10 + 128]
    finally:
        os.close(fd)


def running(namespace: Namespace) -> None:
    index = find(namespace, "vpn0")
    assert index is not None
    Link(namespace, index).wait_running(SOON)


@pytest.mark.usefixtures("kept")
def test_what_a_killed_program_left_is_put_right(
    namespace: Namespace, sender: socket.socket, kernel: Kernel
) -> None:
    through = ["ip", "netns", "exec", "blue"]
    with Program("open", "vpn0", "inline", through=through) as program:
        assert program.line() == "ready"
        assert any(features_of(namespace))
        program.signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
    assert any(features_of(namespace)), "then there is nothing to put right"
    with ringtun.open_adapter("vpn0", netns="blue") as adapter:
        assert kernel.masks == [0]
        assert not any(features_of(namespace))
        works(adapter, namespace, sender)


def features_of(namespace: Namespace) -> list[bool]:
    return list(offload_of(namespace, "vpn0").as_dict().values())


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.usefixtures("kept")
def test_drained_packets_are_counted(
    namespace: Namespace, sender: socket.socket, offload: bool
) -> None:
    """Large ones count once."""
    with ringtun.open_adapter("vpn0", netns="blue") as adapter:
        tun = host_of(adapter)._tun
        tun.offload(Coalesces.ALL)
        tun.carrier(True)
        running(namespace)
        assert tun.drain() == 0
        for _ in range(5):
            send_segments(sender)
        with adapter.start_session(offload=offload) as session:  # type: ignore[call-overload]
            assert session.statistics().discards.drained == 5
            sender.sendto(bytes(10), PEER)
            until(lambda: session.try_receive() is not None)
            assert session.statistics().received_packets == 1


def test_an_idle_session_has_no_wakeups(namespace: Namespace) -> None:
    with create() as adapter, adapter.start_session(pump="thread", offload=True) as session:
        with pytest.raises(TimeoutError):
            session.receive(0.1)
        before = session.statistics().wakeups
        with pytest.raises(TimeoutError):
            session.receive(0.5)
        assert session.statistics().wakeups == before


def test_the_header_is_the_native_cores() -> None:
    assert offload.VNET_HEADER_SIZE == ringtun.offload.HEADER_SIZE == 12
