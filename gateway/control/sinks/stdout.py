"""The stdout sink: whole lines to control's standard output, for a container's log collector.

A pipe that nobody reads fills up. So nothing is written that the kernel would not take at once: `poll` first, and then
no more than PIPE_BUF bytes, which a pipe that is ready takes whole. After STALL_S without a place the sink gives up and
the reader comes back later. O_NONBLOCK would be simpler and is out of the question: it would change the descriptor for
every process that shares it, the operator's shell among them.

Invariant: a line that was begun is finished before anything else is written. Lines up to PIPE_BUF go out in one write
and do not mix with what other processes write to the same pipe, nor does a kill of this one cut them; longer ones may.
"Durable" means: the kernel has it.
"""

import os
import select
import threading
import time
from collections.abc import Sequence
from typing import Final

from gateway.control.sinks.base import SinkError

STALL_S: Final = 5.0
_STDOUT: Final = 1
_PIECE_BYTES: Final = select.PIPE_BUF
_LOOK_S: Final = 0.2  # how soon a waiting `send` notices that the sink was closed
_MS_PER_S: Final = 1000


class StdoutSink:
    """Lines to a descriptor that is not ours: it is neither changed nor closed."""

    def __init__(self, fd: int = _STDOUT, stall_s: float = STALL_S) -> None:
        self._fd = fd
        self._stall_s = stall_s
        self._rest = b""  # of a line that was begun
        self._closed = threading.Event()

    def send(self, lines: Sequence[bytes]) -> None:
        """Write the lines; on SinkError the last one may be out in part, and is finished first next time."""
        data = self._rest + b"".join([line + b"\n" for line in lines])
        at = 0
        try:
            while at < len(data):
                self._wait()
                at += self._write(data[at : _end_of_piece(data, at)])
        finally:
            self._rest = self._begun(data, at)

    def close(self) -> None:
        """End a `send` that waits; standard output stays open."""
        self._closed.set()

    def _begun(self, data: bytes, at: int) -> bytes:
        """What is left of the line that is out in part; the lines after it are sent again by the caller."""
        if at == 0:
            return self._rest
        return b"" if data[at - 1 : at] == b"\n" else data[at : data.find(b"\n", at) + 1]

    def _write(self, piece: bytes) -> int:
        try:
            return os.write(self._fd, piece)
        except OSError as error:
            raise SinkError(f"standard output cannot be written: {error.strerror}") from error

    def _wait(self) -> None:
        """Until the descriptor takes a piece. A broken one counts as ready: the write then says why."""
        asked = select.poll()
        asked.register(self._fd, select.POLLOUT)
        until = time.monotonic() + self._stall_s
        while not self._closed.is_set():
            left_s = until - time.monotonic()
            if asked.poll(max(0.0, min(_LOOK_S, left_s)) * _MS_PER_S):
                return
            if left_s <= 0:
                raise SinkError(f"nobody has read standard output for {self._stall_s:g} s: see what it is piped to")
        raise SinkError("standard output takes no more lines: the gateway is stopping")


def _end_of_piece(data: bytes, at: int) -> int:
    """Where to stop so that a ready pipe takes it all: after as many whole lines as fit, or inside of a long one."""
    most = at + _PIECE_BYTES
    if most >= len(data):
        return len(data)
    return data.rfind(b"\n", at, most) + 1 or most
