"""A time limit on a server that accepts what it is sent and answers nothing, which no limit of its own can end.

A stopped process or a stalled disk keeps connections alive, so neither keepalives nor the server's statement timeout
fire. When the time is over the socket is shut down; whoever waits on it then gets the driver's error for a lost
connection. A duplicate of the descriptor is held, so that never another connection's is shut down.
"""

import contextlib
import os
import socket
import threading
from types import TracebackType
from typing import Self


class Deadline:
    """A context in which connections are watched for `limit_s` in all, from the first one on; `expired` tells."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.expired = False
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._timer = threading.Timer(limit_s, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self._timer.cancel()
        with self._lock:
            self._release()

    def watch(self, descriptor: int) -> None:
        """Watch the socket behind this descriptor, and no longer the one before."""
        with self._lock:
            if self._timer.ident is None:
                self._timer.start()
            self._release()
            self._watched = socket.socket(fileno=os.dup(descriptor))
            if self.expired:
                self._shut()

    def _expire(self) -> None:
        with self._lock:
            self.expired = True
            self._shut()

    def _shut(self) -> None:
        if self._watched is not None:
            with contextlib.suppress(OSError):
                self._watched.shutdown(socket.SHUT_RDWR)

    def _release(self) -> None:
        if self._watched is not None:
            self._watched.close()
            self._watched = None
