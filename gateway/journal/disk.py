"""The disk, as far as writing a journal goes: every call that can fail on the way to it stands here and nowhere else.

Models the few system calls whose order decides what a journal is after a kill, a full disk or a power cut. The writer
is handed one `Disk`; a test hands it another one, whose Nth call fails, writes short, or whose unsynced bytes vanish.

Invariants: every method is one system call and raises OSError when that fails, but for `syncs`, which opens a way to
have them made while the loop goes on; nothing is retried, buffered or hidden here. Left out: listing and reading for
people (`layout.py`, `read.py`), which leave nothing behind.
"""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

from gateway.journal.aio import KernelSyncs, OnDone

_MODE: Final = 0o600
_DIR_MODE: Final = 0o700


class Syncs(Protocol):
    """Syncs that go on while the loop does, one at a time."""

    def begin(self, fd: int) -> None:
        """As `Disk.sync`, and how it ended is told later. Raises OSError when it cannot be begun."""

    def close(self) -> None:
        """Give it back."""


class Disk:
    """The real one."""

    __slots__ = ()

    def create(self, path: Path) -> int:
        """A descriptor to read and write a file, made when it is not there; nothing of one that is there is lost."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE)

    def close(self, fd: int) -> None:
        """Give a descriptor back; its lock as well."""
        os.close(fd)

    def make_dir(self, path: Path) -> None:
        """Make a directory; one that is there is fine."""
        path.mkdir(mode=_DIR_MODE, exist_ok=True)

    def lock(self, fd: int) -> None:
        """Take a file's lock; BlockingIOError when another process holds it. It ends with the descriptor."""
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def size(self, fd: int) -> int:
        """How many bytes a file holds."""
        return os.fstat(fd).st_size

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes from `offset` on; b"" at the end."""
        return os.pread(fd, length, offset)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        """Write at `offset`; how many bytes of `data` were taken, which may be fewer than there are."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(fd, size)

    def sync(self, fd: int) -> None:
        """Bring a file's bytes and its size to the disk."""
        os.fdatasync(fd)

    def syncs(self, loop: asyncio.AbstractEventLoop, on_done: OnDone) -> Syncs:
        """Syncs that the kernel makes while this loop goes on; `on_done` hears how each ended."""
        return KernelSyncs(loop, on_done)

    def sync_dir(self, path: Path) -> None:
        """Bring the names in a directory to the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, at once or not at all."""
        source.rename(target)
