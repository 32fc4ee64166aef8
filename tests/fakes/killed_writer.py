"""Processes that write to a journal as fast as they can, until they are killed.

`python -m tests.fakes.killed_writer DIR kernel|thread` forks one for every line of its input: `random MS FIRST` is
killed after MS milliseconds, `writing MS FIRST` as long after it was promised something, `before N FIRST` and
`after N FIRST` before or after their Nth call of the disk. FIRST is the number of their first record. What they are
answered is printed: `written N`, `synced N`, and `killed` when they are gone. Their syncs are made by the kernel where
it can, or by a thread.
"""

import asyncio
import errno
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gateway.journal.aio import OnDone
from gateway.journal.disk import Disk, Syncs
from gateway.journal.journal import Journal, JournalSettings
from gateway.record import Kind
from tests.fakes.journal_writer import FakeSigner, content, settings

SEGMENT_BYTES = 12_000
A_TURN = 5  # records


class KillingDisk(Disk):
    """Kills its own process at the Nth call, where it is to be killed at one."""

    def __init__(self, when: str, number: int, *, kernel: bool) -> None:
        self._when = when
        self._number = number
        self._kernel = kernel
        self._count = itertools.count(1)  # two threads call

    def _step(self, call: Callable[[], object]) -> None:
        number = next(self._count)
        if number == self._number and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        call()
        if number == self._number and self._when == "after":
            os.kill(os.getpid(), signal.SIGKILL)

    def create(self, path: Path) -> int:
        fds: list[int] = []
        self._step(lambda: fds.append(super(KillingDisk, self).create(path)))
        return fds[0]

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        taken: list[int] = []
        half = max(1, len(data) // 2)  # so that a kill falls within a line, too
        self._step(lambda: taken.append(super(KillingDisk, self).pwrite(fd, data[:half], offset)))
        return taken[0]

    def truncate(self, fd: int, size: int) -> None:
        self._step(lambda: super(KillingDisk, self).truncate(fd, size))

    def sync(self, fd: int) -> None:
        self._step(lambda: super(KillingDisk, self).sync(fd))

    def syncs(self, loop: asyncio.AbstractEventLoop, on_done: OnDone) -> Syncs:
        if not self._kernel:
            raise OSError(errno.ENOSYS, "not here")
        return KillingSyncs(super().syncs(loop, on_done), self._step)

    def sync_dir(self, path: Path) -> None:
        self._step(lambda: super(KillingDisk, self).sync_dir(path))

    def rename(self, source: Path, target: Path) -> None:
        self._step(lambda: super(KillingDisk, self).rename(source, target))


class KillingSyncs:
    """Syncs whose beginning is a call, too."""

    def __init__(self, syncs: Syncs, step: Callable[[Callable[[], object]], None]) -> None:
        self._syncs = syncs
        self._step = step
        self.close = syncs.close

    def begin(self, fd: int) -> None:
        self._step(lambda: self._syncs.begin(fd))


def given(directory: Path) -> JournalSettings:
    return settings(directory, segment_bytes=SEGMENT_BYTES)


async def write_for_ever(directory: Path, disk: Disk, first: int, promised: int) -> None:
    journal = Journal.open(given(directory), ["w0"], FakeSigner, disk=disk)
    journal.start(asyncio.get_running_loop())
    for number in itertools.count(first, A_TURN):
        for more in range(A_TURN - 2):
            journal.append(content(f"{number + more}", detail="x" * (number * 7 % 300)))
        written = journal.commit(content(f"{number + A_TURN - 2}", Kind.DECISION), synced=False)
        synced = journal.commit(content(f"{number + A_TURN - 1}", Kind.DECISION), synced=True)
        if await written:
            say(f"written {number + A_TURN - 2}")
            with suppress(BlockingIOError):  # nobody reads more than the first
                os.write(promised, b"!")
        if number // A_TURN % 4 == 0 and await synced:
            say(f"synced {number + A_TURN - 1}")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    directory = Path(sys.argv[1])
    for line in sys.stdin:
        when, number, first = line.split()
        disk = KillingDisk(when, int(number), kernel=sys.argv[2] == "kernel")
        told, promised = os.pipe()
        os.set_blocking(promised, False)
        pid = os.fork()
        if pid == 0:
            asyncio.run(write_for_ever(directory, disk, int(first), promised))
            os._exit(1)
        os.close(promised)
        if when == "writing":
            os.read(told, 1)
        if when in {"random", "writing"}:
            time.sleep(int(number) / 1_000)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(told)
        say("killed" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL else f"ended {status}")


if __name__ == "__main__":
    main()
