"""Control of adapters of the driver service, over its Varlink socket.

A small client of its own: each call is one line of JSON there and one back, and so whoever only
uses a service needs nothing installed for it. An open adapter keeps its connection: by its end the
service knows that the handle is closed, however the program ended.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import uuid
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from ringtun import errors
from ringtun.control import Wanted, check_change, set_up
from ringtun.events import AdapterEvent, EventKind
from ringtun.host.interface import LinuxInterface
from ringtun.host.namespace import Namespace
from ringtun.host.netlink import Link, all_addresses, links
from ringtun.info import AdapterInfo, describe
from ringtun.statistics import Discards, Statistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ringtun.arguments import Interface
    from ringtun.device.embedded import Pump
    from ringtun.device.service import ServiceDevice
    from ringtun.events import EventSource

__all__ = [
    "ServiceAdapter",
    "ServiceStatus",
    "create_adapter",
    "delete_adapter",
    "lets_in",
    "list_adapters",
    "open_adapter",
    "runtime_directory",
    "status",
]

_INTERFACE = "org.ringtun.Driver"
_PATIENCE = 60.0  # seconds for an answer: it may wait for the kernel, and for others
_STATUS_PATIENCE = 5.0

_ERRORS: dict[str, type[Exception]] = {
    "AdapterExists": errors.AdapterExists,
    "AdapterNotFound": errors.AdapterNotFound,
    "AdapterBusy": errors.AdapterBusy,
    "PermissionDenied": errors.AdapterPermissionError,
    "Unavailable": errors.DriverUnavailable,
}


def runtime_directory() -> str:
    """Where the service's sockets are."""
    return os.environ.get("RINGTUN_RUNTIME_DIRECTORY") or "/run/ringtun"


def lets_in() -> bool:
    """Whether a service runs here whose control socket this process may use."""
    try:
        _Connection().close()
    except OSError:
        return False
    return True


class _Connection:
    """A connection to the control socket; calls may come from any thread."""

    def __init__(self, directory: str | None = None, patience: float = _PATIENCE) -> None:
        """Raises `errors.DriverUnavailable`, `errors.AdapterPermissionError`."""
        self._lock = threading.Lock()
        self._unread = b""
        self.path = os.path.join(directory or runtime_directory(), "control")
        self._socket = _connect(self.path, patience)

    def call(
        self, method: str, *, descriptors: Sequence[int] = (), **parameters: Any
    ) -> dict[str, Any]:
        """Raises what the service answers, and `errors.DriverUnavailable` where it does not.

        A method without dots is of the driver's own interface.
        """
        given = {name: value for name, value in parameters.items() if value is not None}
        method = method if "." in method else f"{_INTERFACE}.{method}"
        return self._ask({"method": method, "parameters": given}, descriptors)

    def monitor(self, name: str) -> dict[str, Any]:
        """The first of many answers; `further` has the others. Raises what `call` does."""
        parameters = {"name": name}
        return self._ask(
            {"method": f"{_INTERFACE}.Monitor", "parameters": parameters, "more": True}
        )

    def _ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        with self._lock:
            try:
                line = json.dumps(request).encode() + b"\0"
                sent = socket.send_fds(self._socket, [line], descriptors) if descriptors else 0
                self._socket.sendall(line[sent:])
                while b"\0" not in self._unread:
                    self._read()
                line, _, self._unread = self._unread.partition(b"\0")
                answer = json.loads(line)
            except (OSError, ValueError) as error:
                self.close()
                raise _unavailable(error) from error
            except BaseException:  # what comes now is the answer to this, and to nothing else
                self.close()
                raise
        return _values(answer)

    def further(self) -> list[dict[str, Any]]:
        """The answers that are there. Never waits. Raises what `call` does."""
        try:
            self._socket.setblocking(False)
            with suppress(BlockingIOError):
                self._read()
            *lines, self._unread = self._unread.split(b"\0")
            answers = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise _unavailable(error) from error
        return [_values(answer) for answer in answers]

    def _read(self) -> None:
        more = self._socket.recv(1 << 16)
        if not more:
            raise BrokenPipeError(errno.EPIPE, "it has closed the connection")
        self._unread += more

    def fileno(self) -> int:
        """Readable when the service has said something."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()


def _connect(path: str, patience: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connection.settimeout(patience)
        connection.connect(path)
    except OSError as error:
        connection.close()
        if error.errno in (errno.EACCES, errno.EPERM):
            raise errors.AdapterPermissionError(
                errno.EACCES,
                f"no permission to use the driver service at {path}: join its group ringtun "
                "(as root: usermod -aG ringtun USER), and log in anew",
            ) from error
        raise errors.DriverUnavailable(
            errno.ENOENT,
            f"no driver service answers at {path} ({error.strerror}): start one, as root: "
            "ringtun driver",
        ) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _unavailable(error: Exception) -> errors.DriverUnavailable:
    why = getattr(error, "strerror", None) or str(error)
    return errors.DriverUnavailable(
        errno.EPIPE,
        f"the driver service does not answer: {why}; see whether it runs: ringtun driver status",
    )


def _values(answer: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = answer.get("parameters") or {}
    if "error" in answer:
        raise _error(answer["error"], values)
    return values


def _error(name: str, values: dict[str, Any]) -> Exception:
    kind = name.removeprefix(f"{_INTERFACE}.")
    code, message = values.get("errno", errno.EPROTO), str(values.get("message", name))
    if kind in _ERRORS:
        return _ERRORS[kind](code, message)
    if kind == "SystemFailure":
        return OSError(code, f"the driver service could not: {message}")
    if kind == "InvalidArgument":
        return ValueError(message)
    return errors.DriverUnavailable(errno.EPROTO, f"the driver service says: {name} {values}")


class ServiceAdapter:
    """An adapter of the service's, open; see `ringtun.control.OpenAdapter`.

    Where it is in another network namespace than the service, it is set up and watched there, by
    this process: ``interface`` does that.
    """

    def __init__(
        self,
        connection: _Connection,
        state: dict[str, Any],
        interface: LinuxInterface | None = None,
    ) -> None:
        """Takes over the connection, which has opened it, and the interface."""
        self._connection = connection
        self.interface = interface
        self._which = {"name": state["name"], "namespace": state.get("namespace")}
        self.name: str = state["name"]
        self.ifindex: int = state["ifindex"]
        self.offloads: bool = state["offloads"]
        self.device_path: str = state["device"]

    @property
    def state(self) -> str:
        """See `ringtun.control.OpenAdapter`."""
        return "open at the driver service"

    def info(self) -> AdapterInfo:
        """See `ringtun.control.OpenAdapter`."""
        if self.interface is not None:
            return describe(self.interface.info(), self.interface.addresses(), "service")
        return _info(self._connection.call("GetAdapter", **self._which)["adapter"])

    def configure(
        self,
        *,
        addresses: tuple[Interface, ...] | None,
        mtu: int | None,
        up: bool | None,
        txqueuelen: int | None,
    ) -> None:
        """See `ringtun.control.OpenAdapter`."""
        if self.interface is not None:
            check_change(self.interface, addresses, mtu)
            self.interface.configure(addresses=addresses, mtu=mtu, up=up, txqueuelen=txqueuelen)
            return
        self._connection.call(
            "ConfigureAdapter",
            name=self.name,
            addresses=_texts(addresses),
            mtu=mtu,
            up=up,
            txqueuelen=txqueuelen,
        )

    def device(self, pump: Pump) -> ServiceDevice:
        """See `ringtun.control.OpenAdapter`. The pump is the driver's: its threads."""
        from ringtun.device.service import ServiceDevice

        return ServiceDevice(self.name, self.device_path, self.interface)

    def statistics(self) -> Statistics:
        """See `ringtun.control.OpenAdapter`."""
        found = self._connection.call("GetStatistics", **self._which)
        return Statistics(**found["counters"], discards=Discards(**found["discards"]))

    def events(self) -> EventSource:
        """See `ringtun.control.OpenAdapter`. They have a connection of their own."""
        if self.interface is not None:
            from ringtun.control.embedded import HostEvents

            return HostEvents(self.interface)
        return ServiceEvents(self.name)

    def let_go(self) -> None:
        """See `ringtun.control.OpenAdapter`. Returns once the service has let it go."""
        with suppress(errors.DriverUnavailable):
            self._connection.call("CloseAdapter", **self._which)
        self.abandon()

    def abandon(self) -> None:
        """See `ringtun.control.OpenAdapter`."""
        self._connection.close()
        if self.interface is not None:
            self.interface.close()


class ServiceEvents:
    """See `ringtun.events.EventSource`: what the service tells."""

    def __init__(self, name: str) -> None:
        self._connection = _Connection()
        try:
            self._connection.monitor(name)
        except BaseException:
            self._connection.close()
            raise

    def fileno(self) -> int:
        """See `ringtun.events.EventSource`."""
        return self._connection.fileno()

    def read(self) -> list[AdapterEvent]:
        """See `ringtun.events.EventSource`."""
        return [_event(answer) for answer in self._connection.further()]

    def close(self) -> None:
        """See `ringtun.events.EventSource`."""
        self._connection.close()

    def abandon(self) -> None:
        """See `ringtun.events.EventSource`."""
        self._connection.close()


def create_adapter(wanted: Wanted) -> ServiceAdapter:
    """See `ringtun.create_adapter`."""
    with Namespace.handing_over(wanted.netns) as namespace, namespace.open() as descriptor:
        adapter = _opened(
            "CreateAdapter",
            namespace,
            descriptors=[descriptor.fileno()],
            name=wanted.name,
            addresses=_texts(wanted.addresses),
            mtu=wanted.mtu,
            guid=wanted.guid and str(wanted.guid),
            up=wanted.up,
            exist_ok=wanted.exist_ok,
            persist=wanted.persist,
            owner=wanted.owner,
            group=wanted.group,
            txqueuelen=wanted.txqueuelen,
            namespace=0,
        )
        try:
            if adapter.interface is not None:
                _set_up(adapter.interface, wanted)
        except BaseException:
            adapter.let_go()
            raise
    return adapter


def _set_up(interface: LinuxInterface, wanted: Wanted) -> None:
    """What the service would do itself, were it in its own namespace."""
    from ringtun.control.kernel import check_guid

    if wanted.guid is not None:
        check_guid(interface.namespace, wanted.guid, wanted.name)
    set_up(interface, wanted)


def open_adapter(name: str, netns: str | None) -> ServiceAdapter:
    """See `ringtun.open_adapter`."""
    with Namespace.handing_over(netns) as namespace:
        return _opened("OpenAdapter", namespace, name=name, namespace=namespace.inode())


def _opened(
    method: str, where: Namespace, *, descriptors: Sequence[int] = (), **parameters: Any
) -> ServiceAdapter:
    """Takes over the namespace when it succeeds."""
    connection = _Connection()
    try:
        state = connection.call(method, descriptors=descriptors, **parameters)["adapter"]
        if state.get("namespace") is None:
            adapter = ServiceAdapter(connection, state)
            where.close()
            return adapter
        interface = LinuxInterface(Link(where, state["ifindex"]), "service")
        return ServiceAdapter(connection, state, interface)
    except BaseException:
        connection.close()
        raise


def list_adapters(netns: str | None) -> list[AdapterInfo]:
    """See `ringtun.list_adapters`: those that this process may open."""
    with Namespace.of(netns) as namespace:
        states = _once("ListAdapters", namespace=namespace.inode())["adapters"]
        elsewhere = {each["ifindex"] for each in states if each.get("namespace") is not None}
        if not elsewhere:
            return [_info(state) for state in states]
        addresses = all_addresses(namespace)  # which the service does not know
        return [
            describe(link, addresses.get(link.ifindex, ()), "service")
            for link in links(namespace)
            if link.ifindex in elsewhere
        ]


def delete_adapter(name: str, netns: str | None) -> None:
    """See `ringtun.delete_adapter`."""
    with Namespace.of(netns) as namespace:
        _once("DeleteAdapter", name=name, namespace=namespace.inode())


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service that answers."""

    socket: str
    """The path of its control socket."""
    version: str
    """Of ringtun, there."""
    adapters: list[AdapterInfo]
    """Those that this process may open."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the names are promised."""
        adapters = [info.as_dict() for info in self.adapters]
        return {"socket": self.socket, "version": self.version, "adapters": adapters}


def status(directory: str | None = None) -> ServiceStatus:
    """Ask the service whose sockets are in ``directory``, by default `runtime_directory`.

    Raises `errors.DriverUnavailable` where none answers, `errors.AdapterPermissionError` where this
    process may not ask.
    """
    connection = _Connection(directory, _STATUS_PATIENCE)
    try:
        about = connection.call("org.varlink.service.GetInfo")
        states = connection.call("ListAdapters")["adapters"]
    finally:
        connection.close()
    return ServiceStatus(connection.path, str(about["version"]), [_info(each) for each in states])


def _once(method: str, **parameters: Any) -> dict[str, Any]:
    connection = _Connection()
    try:
        return connection.call(method, **parameters)
    finally:
        connection.close()


def _texts(addresses: tuple[Interface, ...] | None) -> list[str] | None:
    return None if addresses is None else [str(address) for address in addresses]


def _info(state: dict[str, Any]) -> AdapterInfo:
    values = dict(state)
    values.pop("namespace", None)
    del values["offloads"], values["device"]
    guid = values.pop("guid", None)
    values.setdefault("owner", None)
    values.setdefault("group", None)
    addresses = tuple(map(ip_interface, values.pop("addresses")))
    return AdapterInfo(
        **values,
        guid=None if guid is None else uuid.UUID(guid),
        addresses=addresses,
        backend="service",
    )


def _event(answer: dict[str, Any]) -> AdapterEvent:
    state = answer.get("adapter")
    try:
        return AdapterEvent(EventKind(answer.get("event")), None if state is None else _info(state))
    except ValueError:  # it ends, and says so
        raise errors.DriverUnavailable(
            errno.EPIPE, "the driver service tells no more of this adapter: it ends"
        ) from None
