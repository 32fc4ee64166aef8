"""Signals as a queue: the handlers only enqueue, the supervisor's loop decides.

Python's wakeup descriptor carries the numbers, so a signal both ends a wait and arrives in order. Around fork and exec
the signals are blocked, because a handler that runs between the two would speak for the wrong process.
"""

import selectors
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

HANDLED: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD})
_IGNORED: Final = (signal.SIGUSR1,)  # the default would end the node, and nothing asks for it on purpose


class SignalQueue:
    """The signals that reached this process, waited for and read by one loop."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0)
        self._writer.settimeout(0)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in HANDLED:
            signal.signal(number, _enqueued)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)  # an exec left them blocked, and kept what came meanwhile

    def wait(self, timeout_s: float) -> list[int]:
        """Signal numbers in the order they came; empty when none did within `timeout_s`."""
        if not self._selector.select(timeout_s):
            return []
        return list(self._reader.recv(4096))

    def close(self) -> None:
        """Stop listening; in a child before anything else, so that its signals do not reach the parent's queue."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        self._reader.close()
        self._writer.close()


@contextmanager
def blocked() -> Iterator[None]:
    """Signals that arrive meanwhile are kept by the kernel and delivered after, also to an executed program."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _enqueued(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor has the number already."""
