"""The file sink: JSON lines appended to a file that the operator's tools may rotate, and that rotates by itself.

    <path>                                the file being written
    <path>.20261121T141600.123456Z        the ones before it, by the time (UTC) they were put aside

Invariants: a batch counts as taken once it is synced; a write that stopped half way is cut back to the last whole line,
by the same process or by the next one that opens the file, so the file never keeps half a line; nothing is overwritten
by rotation; one process writes at a time (an flock on the file, which also keeps two exports apart that were given the
same path); who may read it is said by its mode, 0600, when it is made here.

Moved away by logrotate, deleted, or emptied in place (`copytruncate`): the file at `path` is looked at before each
batch, and made anew where it is missing. After a sync that failed the kernel may have thrown the pages away while it
calls them clean, so the batch is cut off and written once more. Left out: deleting old files, which is up to whoever
reads them.
"""

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from gateway.config.files import FILE_MODE, sync_directory
from gateway.control.sinks.base import SinkError
from gateway.units import MIB

_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK  # the last: a FIFO must not block
_CHUNK_BYTES: Final = MIB


class FileSink:
    """Appends to `path`; puts the file aside before it would grow beyond `rotate_bytes`, unless one batch is larger."""

    def __init__(self, path: Path, rotate_bytes: int, now_s: Callable[[], float] = time.time) -> None:
        self._path = path
        self._rotate_bytes = rotate_bytes
        self._now_s = now_s
        self._fd = -1
        self._closed = False
        self._busy = threading.Lock()  # `close` from another thread must not close a descriptor under a write

    def send(self, lines: Sequence[bytes]) -> None:
        """Append the lines and sync them. Raises SinkError."""
        data = b"".join([line + b"\n" for line in lines])
        with self._busy:
            if self._closed:
                raise SinkError(f"{self._path} takes no more lines: the gateway is stopping")
            try:
                self._ready(len(data))
                self._append(data)
            except OSError as error:
                self._let_go()  # the next try looks at everything again
                raise SinkError(f"{self._path} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """Close the file; everything sent is synced already."""
        with self._busy:
            self._closed = True
            self._let_go()

    def _let_go(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):  # what counts as sent was synced before
                os.close(fd)

    def _ready(self, more_bytes: int) -> None:
        """Have the right file open, with room for that much. Raises OSError, SinkError."""
        if self._fd >= 0 and not self._is_ours():
            self._let_go()
        if self._fd < 0:
            self._fd = self._opened()
        size = os.fstat(self._fd).st_size
        if size and size + more_bytes > self._rotate_bytes:
            self._put_aside()

    def _is_ours(self) -> bool:
        """Whether the file at the path is the one that is open."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))

    def _opened(self) -> int:
        """The file at the path, made if need be, locked, and ending with a whole line."""
        fd = os.open(self._path, _FLAGS, FILE_MODE)
        try:
            _claim(fd, self._path)
            _cut_to_whole_lines(fd)
            os.fsync(fd)  # what an earlier process wrote and did not live to sync
            sync_directory(self._path.resolve().parent)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _put_aside(self) -> None:
        """Give the file its dated name, and begin another."""
        path = self._path.resolve()  # behind a link, the file is put aside and the link stays
        path.rename(_free_name(path, self._now_s()))
        self._let_go()
        self._fd = self._opened()

    def _append(self, data: bytes) -> None:
        before = os.fstat(self._fd).st_size
        try:
            _write_all(self._fd, data)
        except OSError:
            with suppress(OSError):  # else the next to open the file does it
                _cut_to_whole_lines(self._fd)
            raise
        try:
            os.fsync(self._fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, before)
            raise


def _claim(fd: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise SinkError(f"{path} is not a file: give the export a path of its own")
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SinkError(f"{path} is being written by another process or export: give each its own path") from None


def _write_all(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]


def _cut_to_whole_lines(fd: int) -> None:
    """Cut the file back to the end of its last whole line."""
    size = end = os.fstat(fd).st_size
    while end:
        start = max(0, end - _CHUNK_BYTES)
        at = os.pread(fd, end - start, start).rfind(b"\n")
        if at >= 0:
            end = start + at + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)


def _free_name(path: Path, now_s: float) -> Path:
    """A dated name beside the path that nothing has yet. Only we choose such names, and we hold the file's lock."""
    at = datetime.fromtimestamp(now_s, UTC)
    while True:
        name = path.with_name(f"{path.name}.{at:%Y%m%dT%H%M%S.%f}Z")
        if not os.path.lexists(name):
            return name
        at += timedelta(microseconds=1)
