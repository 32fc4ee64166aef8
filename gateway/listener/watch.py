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
