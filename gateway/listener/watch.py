"""Noticing that a caller has gone while we are not reading from it.

A paused transport sees neither FIN nor RST, because the kernel only tells a reader. The few connections that are
paused at any moment (uploads whose provider is slower than the caller) are asked with one poll(2) for POLLRDHUP
every 50 ms. Left out: connections that are being read; their transport notices by itself.
"""

import asyncio
import select
from collections.abc import Callable
from typing import Final

INTERVAL_S: Final = 0.05
_GONE: Final = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Watch:
    """The paused connections of one worker."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._gone: dict[int, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, fd: int, gone: Callable[[], None]) -> None:
        """Call `gone` once the peer of `fd` has closed; adding again replaces the callback."""
        self._poll.register(fd, _GONE)
        self._gone[fd] = gone
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._look)

    def remove(self, fd: int) -> None:
        """The connection is read again, or closed."""
        if self._gone.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _look(self) -> None:
        self._timer = None
        for fd, _ in self._poll.poll(0):
            gone = self._gone.get(fd)
            self.remove(fd)
            if gone is not None:
                gone()
        if self._gone:
            self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._look)


class Valve:
    """Reading from one connection: `close` stops it and has the watch look out for the caller's leaving."""

    __slots__ = ("_fd", "_gone", "_watch", "closed")

    def __init__(self, watch: Watch, gone: Callable[[], None]) -> None:
        self._watch = watch
        self._gone = gone
        self._fd = -1
        self.closed = False

    def close(self, transport: asyncio.Transport) -> None:
        """Stop reading."""
        if self.closed or transport.is_closing():
            return
        self.closed = True
        transport.pause_reading()
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._fd = sock.fileno()
            self._watch.add(self._fd, self._gone)

    def open(self, transport: asyncio.Transport) -> None:
        """Read on."""
        self.forget()
        self.closed = False
        if not transport.is_closing():
            transport.resume_reading()

    def forget(self) -> None:
        """The connection is gone, or read again: its descriptor may soon be another's."""
        if self._fd >= 0:
            self._watch.remove(self._fd)
            self._fd = -1
