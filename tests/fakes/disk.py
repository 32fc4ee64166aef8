"""Disks that fail when they are told to, and disks that lose their power.

Both write real files. `FaultyDisk` fails chosen calls. `PowerDisk` remembers what was synced, so that it can leave
on the disk what a power cut might have left: all that was synced, and any part of the rest, in blocks, each name for
itself.

Syncs that go on beside the loop end when a test lets its `HandLoop` do what goes on elsewhere, or never. They are calls
of two names: `begin`, which may be refused, and `synced`, its end, which may be that it failed.
"""

import asyncio
import errno
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

from gateway.journal.aio import OnDone
from gateway.journal.disk import Disk
from tests.fakes.handloop import HandLoop

BLOCK = 512

Fault = BaseException | int  # what to raise, or how many bytes a write takes
Write = tuple[int, bytes | None]  # offset and data; None: cut at this offset


class HandSyncs:
    """Syncs beside a loop that is turned by hand."""

    def __init__(self, disk: "FaultyDisk", loop: HandLoop, on_done: OnDone) -> None:
        self._disk = disk
        self._loop = loop
        self._on_done = on_done
        self._going_on = False
        self.closed = False

    def begin(self, fd: int) -> None:
        assert not self._going_on, "one at a time"
        end = self._disk.begin_sync(fd)
        self._going_on = True
        self._loop.begin_elsewhere(lambda: self._end(end))

    def close(self) -> None:
        assert not self._going_on
        self.closed = True

    def _end(self, end: Callable[[], None]) -> None:
        failed = None
        try:
            end()
        except OSError as error:
            failed = error
        self._loop.call_soon(self._tell, failed)

    def _tell(self, failed: OSError | None) -> None:
        self._going_on = False
        self._on_done(failed)


class FaultyDisk(Disk):
    """`fault(name, number)` is asked before each call that may change something; what it returns happens.

    `kernel`: it can sync beside the loop, which has to be a `HandLoop`.
    """

    def __init__(
        self, fault: Callable[[str, int], Fault | None] = lambda _name, _number: None, *, kernel: bool = True
    ) -> None:
        self.fault = fault
        self.kernel = kernel
        self.calls: list[str] = []
        self.fds: dict[int, Path] = {}

    def _call(self, name: str) -> int | None:
        self.calls.append(name)
        fault = self.fault(name, len(self.calls))
        if isinstance(fault, BaseException):
            raise fault
        return fault

    def _opened(self, fd: int, path: Path) -> int:
        self.fds[fd] = path
        return fd

    def create(self, path: Path) -> int:
        self._call("create")
        return self._opened(super().create(path), path)

    def close(self, fd: int) -> None:
        del self.fds[fd]
        super().close(fd)

    def make_dir(self, path: Path) -> None:
        self._call("make_dir")
        super().make_dir(path)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        taken = self._call("pwrite")
        return super().pwrite(fd, data if taken is None else data[:taken], offset)

    def truncate(self, fd: int, size: int) -> None:
        self._call("truncate")
        super().truncate(fd, size)

    def sync(self, fd: int) -> None:
        self._call("sync")
        super().sync(fd)

    def syncs(self, loop: asyncio.AbstractEventLoop, on_done: OnDone) -> HandSyncs:
        by_hand: object = loop
        if not self.kernel or not isinstance(by_hand, HandLoop):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        return HandSyncs(self, by_hand, on_done)

    def begin_sync(self, fd: int) -> Callable[[], None]:
        """Begin a sync beside the loop; what is returned ends it."""
        self._call("begin")
        return lambda: self._end_sync(fd)

    def _end_sync(self, fd: int) -> None:
        self._call("synced")
        os.fdatasync(fd)

    def sync_dir(self, path: Path) -> None:
        self._call("sync_dir")
        super().sync_dir(path)

    def rename(self, source: Path, target: Path) -> None:
        self._call("rename")
        super().rename(source, target)

    def kill(self) -> None:
        """The process is gone: its descriptors close, nothing else happens."""
        for fd in list(self.fds):
            super().close(fd)
        self.fds.clear()


def no_space() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken() -> OSError:
    return OSError(errno.EIO, os.strerror(errno.EIO))


def unsupported() -> OSError:
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))


class PowerDisk(FaultyDisk):
    """The files of one directory tree; syncs are noted and not made, which is faster.

    A sync that fails loses what it should have brought to the disk, as kernels do: only what is written again counts.
    """

    def __init__(
        self,
        root: Path,
        fault: Callable[[str, int], Fault | None] = lambda _name, _number: None,
        *,
        kernel: bool = True,
    ) -> None:
        super().__init__(fault, kernel=kernel)
        self.root = root
        self._durable: dict[int, bytearray] = {}  # content by inode
        self._writes: dict[int, list[Write]] = {}  # not synced, by inode
        self._names: dict[Path, int] = {}  # durable ones
        self._renames: list[tuple[Path, Path | None, int]] = []  # not synced: new name, old one, inode

    def create(self, path: Path) -> int:
        made = not path.exists()
        fd = super().create(path)
        if made:
            inode = os.fstat(fd).st_ino
            self._renames.append((path, None, inode))
            self._durable[inode] = bytearray()
            self._writes[inode] = []
        return fd

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        taken = super().pwrite(fd, data, offset)
        self._writes[os.fstat(fd).st_ino].append((offset, bytes(data[:taken])))
        return taken

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        self._writes[os.fstat(fd).st_ino].append((size, None))

    def sync(self, fd: int) -> None:
        self._sync("sync", os.fstat(fd).st_ino, list(self._writes[os.fstat(fd).st_ino]))

    def begin_sync(self, fd: int) -> Callable[[], None]:
        self._call("begin")
        inode = os.fstat(fd).st_ino
        before = list(self._writes[inode])  # it promises nothing about what is written while it goes on
        return lambda: self._sync("synced", inode, before)

    def _sync(self, name: str, inode: int, before: list[Write]) -> None:
        writes = self._writes[inode]
        try:
            self._call(name)
        except OSError:
            writes[:] = [write for write in writes if write[1] is None]
            raise
        if writes[: len(before)] == before:  # else all of it is there already
            _apply(self._durable[inode], before)
            del writes[: len(before)]

    def sync_dir(self, path: Path) -> None:
        self._call("sync_dir")
        for entry in [entry for entry in self._renames if entry[0].parent == path]:
            self._rename_durably(*entry)
            self._renames.remove(entry)

    def rename(self, source: Path, target: Path) -> None:
        inode = source.stat().st_ino
        super().rename(source, target)
        self._renames.append((target, source, inode))

    def keep(self, path: Path) -> None:
        """This file is on the disk as it is now, its name too."""
        inode = path.stat().st_ino
        self._names[path] = inode
        self._durable[inode] = bytearray(path.read_bytes())
        self._writes[inode] = []

    def lose_power(self, dice: random.Random) -> None:
        """The process and what was not synced are gone, except for what happened to reach the disk."""
        self.kill()
        for entry in self._renames:
            if dice.random() < 0.5:
                self._rename_durably(*entry)
        for inode, writes in self._writes.items():
            _apply(self._durable[inode], [part for write in writes for part in _parts(*write) if dice.random() < 0.5])
        contents = {path: bytes(self._durable[inode]) for path, inode in self._names.items()}
        for path in [path for path in self.root.rglob("*") if path.is_file()]:
            path.unlink()
        for known in (self._durable, self._writes, self._names, self._renames):
            known.clear()
        for path, data in contents.items():
            path.write_bytes(data)
            self.keep(path)

    def _rename_durably(self, new: Path, old: Path | None, inode: int) -> None:
        if old is not None and self._names.get(old) == inode:
            del self._names[old]
        self._names[new] = inode


def _parts(offset: int, data: bytes | None) -> list[Write]:
    """A write as the blocks that reach the disk one by one."""
    if data is None:
        return [(offset, None)]
    cuts = [0, *range(BLOCK - offset % BLOCK, len(data), BLOCK), len(data)]
    return [(offset + begin, data[begin:end]) for begin, end in itertools.pairwise(cuts)]


def _apply(content: bytearray, writes: list[Write]) -> None:
    for offset, data in writes:
        if data is None:
            del content[offset:]
            content.extend(bytes(offset - len(content)))
        else:
            content.extend(bytes(max(0, offset - len(content))))
            content[offset : offset + len(data)] = data
