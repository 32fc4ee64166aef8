"""The service manager's two conventions: sd_notify datagrams out, listening sockets in.

Models systemd's documented protocols (sd_notify(3), sd_listen_fds(3), "notify-reload") without its library. Without
NOTIFY_SOCKET every call does nothing: a gateway in a terminal runs the same code. Telling the manager never fails the
gateway: a manager that does not listen is the manager's trouble.
"""

import os
import socket
from collections.abc import MutableMapping
from typing import Final, NamedTuple

from gateway.units import NS_PER_US

_FIRST_FD: Final = 3
_LISTEN_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")


class Received(NamedTuple):
    """A descriptor passed by socket activation, with its FileDescriptorName."""

    name: str
    fd: int


def take_listen_fds(environ: MutableMapping[str, str]) -> list[Received]:
    """The descriptors meant for this process; the variables are removed so that no child takes them for its own."""
    pid, count, names = (environ.pop(name, "") for name in _LISTEN_VARIABLES)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    labels = names.split(":") if names else []
    labels += ["unknown"] * (int(count) - len(labels))
    return [Received(labels[index], _FIRST_FD + index) for index in range(int(count))]


class Notifier:
    """Sends this node's state to the service manager."""

    def __init__(self, address: str, watchdog_ns: int = 0) -> None:
        self._address = address
        self._ping_every_ns = watchdog_ns // 2
        self._next_ping_ns = 0

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Notifier":
        """As the service manager asked; the variables stay, an upgrade needs them again."""
        watchdog = environ.get("WATCHDOG_USEC", "")
        meant_for = environ.get("WATCHDOG_PID", str(os.getpid()))
        mine = watchdog.isdigit() and meant_for == str(os.getpid())
        return cls(environ.get("NOTIFY_SOCKET", ""), int(watchdog) * NS_PER_US if mine else 0)

    def ready(self, status: str) -> None:
        """Start-up or a reload is over."""
        self._send("READY=1", f"STATUS={status}")

    def reloading(self, now_ns: int) -> None:
        """A reload has begun; the time ties the later READY to it, as Type=notify-reload wants."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={now_ns // NS_PER_US}", "STATUS=reloading the configuration")

    def stopping(self, status: str) -> None:
        """The way down has begun."""
        self._send("STOPPING=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def watchdog(self, now_ns: int) -> None:
        """Tell the watchdog that the supervisor's loop turns; call it on every tick, it sends when due."""
        if self._ping_every_ns and now_ns >= self._next_ping_ns:
            self._next_ping_ns = now_ns + self._ping_every_ns
            self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
                channel.sendto("\n".join(assignments).encode(), address)
        except OSError:
            pass  # the manager is gone or its buffer is full; the next message says more than a retry would
