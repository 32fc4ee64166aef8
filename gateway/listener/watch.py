"""When a connection is read, and noticing that its caller has gone while it is not.

A paused transport sees neither FIN nor RST, because the kernel only tells a reader. The few connections that are
paused at any moment (uploads whose provider is slower than the caller) are asked with one poll(2) for POLLRDHUP
every 50 ms.

Fairness: a fast upload has one read that fills the buffer in a turn of the loop. uvloop alone would read on, up to 32
times, so after such a read the valve rests until the next turn.

Left out: connections that are being read, or rest; their transport notices by itself.
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
    """Reading from one connection: `close` stops it and has the watch look out for the caller's leaving.

    Read is what is neither `closed` nor resting.
    """

    __slots__ = ("_fd", "_gone", "_resting", "_watch", "closed")

    def __init__(self, watch: Watch, gone: Callable[[], None]) -> None:
        self._watch = watch
        self._gone = gone
        self._fd = -1
        self._resting = False
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
        self._read_on(transport)

    def rest(self, transport: asyncio.Transport) -> None:
        """Read on in the next turn of the loop."""
        if self._resting or transport.is_closing():
            return
        self._resting = True
        transport.pause_reading()
        asyncio.get_running_loop().call_soon(self._rested, transport)

    def forget(self) -> None:
        """The connection is gone, or read again: its descriptor may soon be another's."""
        if self._fd >= 0:
            self._watch.remove(self._fd)
            self._fd = -1

    def _rested(self, transport: asyncio.Transport) -> None:
        self._resting = False
        self._read_on(transport)

    def _read_on(self, transport: asyncio.Transport) -> None:
        if not (self.closed or self._resting or transport.is_closing()):
            transport.resume_reading()
