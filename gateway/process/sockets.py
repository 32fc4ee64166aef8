"""The listening sockets of a node: bound once, owned by the supervisor, lent to whoever accepts.

Models a SO_REUSEPORT group on the data port, one socket a worker: the kernel spreads connections over the group, while
one socket inherited by all put 86-100 % of 64 connections on one of two workers. Some more sockets are bound and not
listened on: the kernel gives them nothing until a reload asks for more workers, and the running workers, which
inherited them, can stand in for the new ones. Sockets received from the service manager are used as they come.

Invariant: a socket that once listened is closed only on the way down, since closing resets what is queued on it.
"""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from gateway.process.notify import Received
from gateway.process.settings import ServeSettings, StartError

_ADMIN_NAME: Final = "admin"
_ADMIN_BACKLOG: Final = 128


@dataclass(slots=True)
class Listening:
    """A node's sockets. The first `open` of `data` listen, the rest are bound in reserve."""

    data: list[socket.socket]
    open: int
    admin: socket.socket
    backlog: int

    def grow(self, workers: int) -> None:
        """Listen on as many sockets as there are workers, as far as the reserve goes."""
        while self.open < min(workers, len(self.data)):
            self.data[self.open].listen(self.backlog)
            self.open += 1

    def close_data(self) -> None:
        """Let go of the data port; it closes for callers once no worker holds it either."""
        for listener in self.data:
            listener.close()
        self.data.clear()
        self.open = 0

    def close(self) -> None:
        """Let go of both ports."""
        self.close_data()
        self.admin.close()


def open_sockets(settings: ServeSettings, received: Sequence[Received]) -> Listening:
    """Bind what was not received; raises StartError with the fix when that is not possible, and then leaves nothing."""
    with ExitStack() as undo:
        adopted = [(item.name, undo.enter_context(_adopted(item))) for item in received]
        admins = [listener for name, listener in adopted if _is_admin(name, listener, settings)]
        data = [listener for _, listener in adopted if listener not in admins]
        count = len(data) or settings.worker_count()
        if not data:
            data = [undo.enter_context(listener) for listener in _bind_group(settings)]
        for listener in data[:count]:
            _listen(listener, settings.backlog, "listen")
        if not admins:
            admins = [undo.enter_context(_bind(settings.admin_host, settings.admin_port, "admin", shared=False))]
        _listen(admins[0], _ADMIN_BACKLOG, "admin")
        undo.pop_all()
    return Listening(data, count, admins[0], settings.backlog)


def _is_admin(name: str, listener: socket.socket, settings: ServeSettings) -> bool:
    return name == _ADMIN_NAME or port_of(listener) == settings.admin_port != settings.port


def port_of(listener: socket.socket) -> int:
    """The TCP port a socket is bound to."""
    return int(listener.getsockname()[1])


def _bind_group(settings: ServeSettings) -> Iterator[socket.socket]:
    """A socket for each worker there is room for, all on one port."""
    if settings.port:
        # With SO_REUSEPORT a second gateway of this user would share the port in silence; without it, it is told.
        _bind(settings.host, settings.port, "listen", shared=False).close()
    first = _bind(settings.host, settings.port, "listen", shared=True)
    yield first
    for _ in range(settings.room() - 1):
        yield _bind(settings.host, port_of(first), "listen", shared=True)


def _listen(listener: socket.socket, backlog: int, section: str) -> None:
    try:
        listener.listen(backlog)
    except OSError as error:
        host, port = listener.getsockname()[:2]
        raise StartError(_why(section, host, port, error)) from error


def _bind(host: str, port: int, section: str, *, shared: bool) -> socket.socket:
    family, address = _resolve(host, port, section)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and address[0] == "::":
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # "::" means every address
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise StartError(_why(section, host, port, error)) from error
    return listener


def _resolve(host: str, port: int, section: str) -> tuple[int, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise StartError(f"{section}.host {host!r} does not resolve: use an address of this machine") from error
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)  # "localhost" is 127.0.0.1 for most callers
    family, _, _, _, address = found[0]
    return family, (str(address[0]), int(address[1]))


def _why(section: str, host: str, port: int, error: OSError) -> str:
    where = f"{host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return f"{where} is in use: stop the program that has it, or choose another: --set {section}.port=N"
    if error.errno in {errno.EACCES, errno.EPERM}:
        return (
            f"no permission to listen on {where}: choose a port from 1024 up (--set {section}.port=N), grant "
            "CAP_NET_BIND_SERVICE, or let systemd pass the socket"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine: set {section}.host to one that is, or to 0.0.0.0 for all"
    return f"cannot listen on {where}: {error.strerror}"


def _adopted(item: Received) -> socket.socket:
    """A received descriptor as a socket, or StartError when it is not a listening TCP socket."""
    try:
        listener = socket.socket(fileno=item.fd)
    except OSError as error:
        raise StartError(_unusable(item, error.strerror or "not a socket")) from error
    listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if listener.family not in {socket.AF_INET, socket.AF_INET6} or listener.type != socket.SOCK_STREAM or not listening:
        listener.detach()
        raise StartError(_unusable(item, "not a listening TCP socket"))
    listener.set_inheritable(False)
    return listener


def _unusable(item: Received, why: str) -> str:
    return f"socket activation passed descriptor {item.fd} ({item.name}): {why}: use ListenStream=host:port"
