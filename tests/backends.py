"""The backends that the conformance suites run on here."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Sequence

import ringtun
from ringtun import abi
from ringtun.control.embedded import EmbeddedAdapter
from ringtun.control.service import ServiceAdapter
from ringtun.device.embedded import Pump
from ringtun.driver.adapter import DriverAdapter, Handle
from ringtun.driver.registration import Refusal
from ringtun.host.linux import LinuxHost
from ringtun.host.memory import link_hosts
from ringtun.session import Session
from ringtun.statistics import Statistics
from ringtun.testing import Impairment, memory_link
from ringtun.testing.conformance import HostPeer
from ringtun.wire import Answer, send_request, unpack_statistics
from tests.inside import embedded
from tests.offload.model_segment import VnetHeader, segment

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
PACKET_OUTGOING = 4  # linux/if_packet.h
SOL_PACKET, PACKET_VNET_HDR = 263, 15
VNET_SIZE = len(VnetHeader().pack())


class KernelPeer:
    """The kernel's side of an interface: packets are put in and seen by a packet socket.

    It sees packets as the program's driver merged them, and cuts them up as the kernel would.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        self._socket.bind((name, ETH_P_ALL))
        self._cut: list[bytes] = []

    def send(self, packet: bytes) -> None:
        protocol = ETH_P_IP if packet[0] >> 4 == 4 else ETH_P_IPV6
        self._socket.sendto(VnetHeader().pack() + packet, (self._name, protocol))

    def receive(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        while not self._cut:
            self._socket.settimeout(max(0.0, deadline - time.monotonic()))
            packet, address = self._socket.recvfrom(VNET_SIZE + (1 << 16))
            if address[2] != PACKET_OUTGOING:
                self._cut = segment(VnetHeader.unpack(packet[:VNET_SIZE]), packet[VNET_SIZE:])
        return self._cut.pop(0)

    def close(self) -> None:
        self._socket.close()


class SessionPeer:
    """The host's end of a link in memory: a session of the other adapter."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def send(self, packet: bytes) -> None:
        self.session.send(packet)

    def receive(self, timeout: float) -> bytes:
        return self.session.receive(timeout)

    def close(self) -> None:
        self.session.close()


class MemoryBackend:
    """An adapter of a link in memory, the other one at the host's end."""

    def __init__(self, pump: Pump, impairment: Impairment | None = None) -> None:
        self.pump = pump
        self.adapter, self._far = memory_link(impairment)
        self.host: HostPeer = SessionPeer(self._far.start_session())

    def start_session(self, *, capacity: int = 4 << 20, spin: float = 0.0) -> Session:
        return self.adapter.start_session(capacity=capacity, pump=self.pump, spin=spin)

    def remove(self) -> None:
        embedded(self.adapter).driver.remove()

    def adapter_statistics(self) -> Statistics:
        return self.adapter.statistics()

    def close(self) -> None:
        self._far.close()
        self.adapter.close()


class KernelBackend:
    """An adapter of the kernel's, a packet socket at the host's end."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.adapter = ringtun.create_adapter("conf0", mtu=65535)
        self.peer = KernelPeer("conf0")
        self.host: HostPeer = self.peer

    def start_session(self, *, capacity: int = 4 << 20, spin: float = 0.0) -> Session:
        return self.adapter.start_session(capacity=capacity, pump=self.pump, spin=spin)

    def remove(self) -> None:
        host = embedded(self.adapter).host
        assert isinstance(host, LinuxHost)
        host.delete()

    def adapter_statistics(self) -> Statistics:
        return self.adapter.statistics()

    def close(self) -> None:
        self.peer.close()
        self.adapter.close()


class ServiceBackend:
    """An adapter of a driver service's in another process, a packet socket at the host's end."""

    pump: Pump = "thread"

    def __init__(self) -> None:
        self.adapter = ringtun.create_adapter("conf0", mtu=65535, backend="service")
        self.peer = KernelPeer("conf0")
        self.host: HostPeer = self.peer

    def start_session(self, *, capacity: int = 4 << 20, spin: float = 0.0) -> Session:
        return self.adapter.start_session(capacity=capacity, spin=spin)

    def remove(self) -> None:
        ringtun.delete_adapter("conf0", backend="embedded")

    def adapter_statistics(self) -> Statistics:
        return self.adapter.statistics()

    def close(self) -> None:
        self.peer.close()
        self.adapter.close()


class ServiceHandle:
    """A handle of the driver service, by nothing but its messages."""

    def __init__(self, path: str) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.settimeout(30)
        self._connection.connect(path)
        self._final: Statistics | None = None

    def _answer(self) -> Answer:
        return Answer.unpack(self._connection.recv(4096))

    def register(self, code: int, payload: bytes, descriptors: Sequence[int]) -> int:
        try:
            send_request(self._connection, code, payload, descriptors)
        except OSError as error:
            if error.errno == errno.EBADF:  # a descriptor that is closed does not even leave
                return abi.Status.INVALID_PARAMETER
            raise
        return self._answer().status

    def pump(self) -> None:
        """The driver's threads do."""

    def statistics(self) -> Statistics:
        if self._final is not None:
            return self._final
        send_request(self._connection, abi.IOCTL_GET_STATISTICS, b"")
        return unpack_statistics(self._answer().output)[1]

    def drop(self) -> None:
        """As a client that dies."""
        self._connection.close()

    def close(self) -> None:
        if self._final is None:
            self._connection.shutdown(socket.SHUT_WR)
            self._final = unpack_statistics(self._answer().output)[1]
            self._connection.close()


class RawServiceBackend:
    """`ServiceBackend` without a session."""

    signals_each_batch = True

    def __init__(self) -> None:
        self._adapter = ringtun.create_adapter("conf0", mtu=65535, backend="service")
        self.peer = KernelPeer("conf0")
        self.host: HostPeer = self.peer

    def open(self) -> ServiceHandle:
        opened = self._adapter._opened
        assert isinstance(opened, ServiceAdapter)
        return ServiceHandle(opened.device_path)

    def remove(self) -> None:
        ringtun.delete_adapter("conf0", backend="embedded")

    def close(self) -> None:
        self.peer.close()
        self._adapter.close()


class EmbeddedHandle:
    """A handle of the embedded driver, answering in statuses."""

    def __init__(self, handle: Handle, pump: Pump) -> None:
        self._handle = handle
        self._pump = pump

    def register(self, code: int, payload: bytes, descriptors: Sequence[int]) -> int:
        try:
            self._handle.register(code, payload, descriptors, threads=self._pump == "thread")
        except Refusal as refusal:
            return refusal.status
        return abi.Status.SUCCESS

    def pump(self) -> None:
        if self._pump == "inline":
            self._handle.engine.step_to_host(1 << 16)
            self._handle.engine.step_to_client(1 << 16)

    def statistics(self) -> Statistics:
        return self._handle.statistics()

    def close(self) -> None:
        self._handle.close()


class RawMemoryBackend:
    """`MemoryBackend` without a session on the near side."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.signals_each_batch = pump == "thread"
        near, far = link_hosts()
        self._adapter = DriverAdapter("near", near)
        self._far = ringtun.Adapter(EmbeddedAdapter(DriverAdapter("far", far), far))
        self.host: HostPeer = SessionPeer(self._far.start_session())

    def open(self) -> EmbeddedHandle:
        return EmbeddedHandle(self._adapter.open(), self.pump)

    def remove(self) -> None:
        self._adapter.remove()

    def close(self) -> None:
        self._far.close()
        self._adapter.remove()


class RawKernelBackend:
    """`KernelBackend` without a session."""

    def __init__(self, pump: Pump) -> None:
        self.pump = pump
        self.signals_each_batch = pump == "thread"
        self._adapter = ringtun.create_adapter("conf0", mtu=65535)
        self.peer = KernelPeer("conf0")
        self.host: HostPeer = self.peer

    def open(self) -> EmbeddedHandle:
        return EmbeddedHandle(embedded(self._adapter).driver.open(), self.pump)

    def remove(self) -> None:
        host = embedded(self._adapter).host
        assert isinstance(host, LinuxHost)
        host.delete()

    def close(self) -> None:
        self.peer.close()
        self._adapter.close()
