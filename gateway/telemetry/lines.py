"""Lines out of the process, without ever waiting for whoever reads them.

Models a bounded queue of finished lines in front of a descriptor (stderr). A reader that stalls makes lines wait, a
full queue makes them drop, and drops are counted and told once lines flow again; the loop that serves never stalls.

Invariants: a line is at most MAX_LINE_BYTES and leaves whole, in one write with its neighbours: up to PIPE_BUF bytes
a pipe takes a write entirely or not at all, so lines of several processes do not mix. Nothing here changes the
descriptor's own flags: they are shared with the parent's shell and with every other process of the node. Lines are
held at most FLUSH_S after they were appended, so a process that is killed loses that much of its request log.

Left out: what a line says (`logs.py`).
"""

import asyncio
import os
import select
import socket
import stat
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

PIPE_BUF: Final = select.PIPE_BUF
MAX_LINE_BYTES: Final = PIPE_BUF
MAX_HELD_BYTES: Final = 1024 * 1024
FLUSH_S: Final = 0.02
_FILE_CHUNK: Final = 64 * 1024


class LineSink:
    """A queue of lines for one descriptor. `dropped` counts the lines given up since the process began.

    `notice` makes the line that tells how many were dropped. Without a loop (see `attach`) every line is written as
    it comes, as far as the reader lets it.
    """

    def __init__(self, fd: int, notice: Callable[[int], bytes]) -> None:
        self.dropped = 0
        self._told = 0
        self._notice = notice
        self._lines: deque[bytes] = deque()
        self._held_bytes = 0
        self._partial = b""  # of a chunk the descriptor took only in part
        self._lock = threading.Lock()  # log lines come from any thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scheduled = False
        self._channel = _Channel(fd)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on `append`, which is for this loop's thread alone, writes in batches."""
        self._loop = loop

    def append(self, line: bytes) -> None:
        """Queue one line, its newline included; it is written within FLUSH_S. Never waits, never raises."""
        with self._lock:
            held = self._held_bytes + len(line)
            if held > MAX_HELD_BYTES:
                self.dropped += 1
            else:
                self._held_bytes = held
                self._lines.append(line)
        if not self._scheduled:
            self._schedule()

    def emit(self, line: bytes) -> None:
        """Queue one line and write what is queued; for any thread, and for lines that a crash must not lose."""
        with self._lock:
            if self._held_bytes + len(line) > MAX_HELD_BYTES:
                self.dropped += 1
            else:
                self._held_bytes += len(line)
                self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what the descriptor takes now."""
        with self._lock:
            self._drain()
            if self.dropped > self._told and not self._lines and not self._partial:
                line = self._notice(self.dropped - self._told)
                self._told = self.dropped
                self._held_bytes += len(line)
                self._lines.append(line)
                self._drain()

    def close(self) -> None:
        """Write what can be written and let go; the descriptor itself stays open."""
        self.flush()
        self._channel.close()

    def _schedule(self) -> None:
        loop = self._loop
        if loop is None or loop.is_closed():
            self.flush()
        else:
            self._scheduled = True
            loop.call_later(FLUSH_S, self._flush_scheduled)

    def _flush_scheduled(self) -> None:
        self._scheduled = False
        self.flush()
        if (self._lines or self._partial) and not self._scheduled:
            self._schedule()

    def _drain(self) -> None:
        while chunk := self._partial or self._next_chunk():
            try:
                sent = self._channel.write(chunk)
            except BlockingIOError:
                self._partial = chunk
                return
            except OSError:  # nobody will ever read it
                self.dropped += chunk.count(b"\n") + len(self._lines)
                self._told = self.dropped
                self._lines.clear()
                self._held_bytes, self._partial = 0, b""
                return
            self._partial = chunk[sent:]

    def _next_chunk(self) -> bytes:
        limit, lines, taken = self._channel.chunk_bytes, self._lines, 0
        whole: list[bytes] = []
        while lines and (not whole or taken + len(lines[0]) <= limit):
            taken += len(lines[0])
            whole.append(lines.popleft())
        self._held_bytes -= taken
        return b"".join(whole)


class _Channel:
    """A descriptor written without waiting, in the way its kind allows. `chunk_bytes` is what one write may carry."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._socket: socket.socket | None = None
        self._own = -1
        self._poll: select.poll | None = None
        self.chunk_bytes = PIPE_BUF
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):  # the journal, under systemd
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISREG(mode):
            self.chunk_bytes = _FILE_CHUNK
        else:
            self._open_own()

    def write(self, chunk: bytes) -> int:
        """Bytes taken. Raises BlockingIOError when the reader is not ready, another OSError when it is gone."""
        if self._socket is not None:
            return self._socket.send(chunk, socket.MSG_DONTWAIT)
        if self._own >= 0:
            return os.write(self._own, chunk)
        if self._poll is not None and not self._poll.poll(0):
            raise BlockingIOError
        return os.write(self._fd, chunk)

    def close(self) -> None:
        """Close what was opened beside the descriptor."""
        if self._socket is not None:
            self._socket.close()
        if self._own >= 0:
            os.close(self._own)
            self._own = -1

    def _open_own(self) -> None:
        """A non-blocking description of the same pipe or terminal; where that is not permitted, ask before writing."""
        try:
            self._own = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError:  # as in a container whose stderr belongs to root
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLOUT)
