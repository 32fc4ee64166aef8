"""Bringing a chain to the disk, in a thread: the loop never waits for a sync, a directory or a new file.

Models group commit. A write makes the chain dirty; within `sync_s` one round brings all that was written so far to the
disk, at once when somebody waits for it. A round also closes the segments that are full, and has the next one ready
before it is needed.

Invariants: a round reports a position only when every byte before it is on the disk. A sync that failed proves
nothing about the next one (the kernel reports an error once and may drop the bytes), so the same bytes are written
again at the same place before it is asked again. The next segment is made only after all earlier ones are synced:
what a power cut can take is in the last two. When a segment is not ready in time, the old one grows on. The loop is
called only when somebody waits or something failed. Left out: what failing means to callers (`journal.py`).
"""

import asyncio
import contextlib
import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol, TypeVar

from gateway.journal import layout
from gateway.journal.chain import Chain, SegmentFile
from gateway.units import NS_PER_S, NS_PER_US

_log: Final = logging.getLogger("gateway.journal")
RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 2.0
_PREPARE_AGAIN_NS: Final = NS_PER_S
_Told = TypeVar("_Told")


class Listener(Protocol):
    """Who is told, on the loop's thread."""

    def on_synced(self, position: int) -> None:
        """Everything before this position is on the disk, and somebody waited for that."""

    def on_sync_failed(self, error: OSError) -> None:
        """A sync failed; the thread goes on trying."""

    def on_sync_healed(self, position: int) -> None:
        """What could not be synced now is, and everything before this position with it."""


class Syncer:
    """The sync thread of one chain, and what it shares with the loop's."""

    def __init__(self, chain: Chain, sync_s: float, listener: Listener) -> None:
        self.sync_s = sync_s
        self.before_sync: Callable[[], None] = _nothing  # brings to the disk what the lines so far rest on
        self.prepare_bytes = 0  # from this size of the current segment on, the next one is made
        self.syncs = 0
        self.failures = 0
        self.last_sync_us = 0  # how long the last sync took
        self._chain = chain
        self._disk = chain.disk
        self._files = [chain.file]  # those not closed yet, the current one last
        self._next: SegmentFile | None = None
        self._next_wanted = False
        self._next_not_before_ns = 0
        self.failed = False  # the last round did not bring everything to the disk
        self._dirty = False
        self._urgent = False
        self._stopping = False
        self._wake = threading.Condition(threading.Lock())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener = listener
        self._thread: threading.Thread | None = None

    # --- the loop's side --------------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to sync in a thread, and to report to this loop."""
        self._loop = loop
        self._thread = threading.Thread(target=self._run, name=f"journal-{self._chain.origin.chain}", daemon=True)
        self._thread.start()

    def written(self, *, urgent: bool) -> None:
        """Something was written; `urgent`: somebody waits for it. A comparison or two when the thread knows already."""
        if not self._dirty or (urgent and not self._urgent):
            with self._wake:
                self._dirty = True
                self._urgent = self._urgent or urgent
                self._wake.notify()

    def want_next(self) -> None:
        """Make the next segment soon, whatever the size of the current one."""
        if self._next is None:
            with self._wake:
                self._next_wanted = self._dirty = True
                self._wake.notify()

    def take_next(self) -> SegmentFile | None:
        """The next segment, the current one from now on; None when it is not ready."""
        with self._wake:
            file, self._next = self._next, None
            if file is not None:
                self._files.append(file)
        return file

    async def stop(self) -> None:
        """Sync what was written, end the thread, and close every segment but the current one."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        if self._thread is None:
            self._last_turns()
        else:
            await asyncio.to_thread(self._thread.join)
        *full, current = self._files
        for file in [*full, *([self._next] if self._next is not None else [])]:
            self._disk.close(file.fd)
        self._files, self._next = [current], None

    # --- the thread's side ------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """One round: bring what was written so far to the disk, and see to the next segment."""
        with self._wake:
            urgent, self._urgent, self._dirty = self._urgent, False, False
            position = self._chain.written_bytes
            files = list(self._files)  # with the lock held: they hold every byte before the position
        try:
            self.before_sync()
            for file in files:
                self._bring(file)
        except OSError as error:
            self.failures += 1
            self.failed = True
            self._report(self._listener.on_sync_failed, error)
            return
        healed, self.failed = self.failed, False
        if healed:
            self._report(self._listener.on_sync_healed, position)
        elif urgent:
            self._report(self._listener.on_synced, position)
        self._close_full(files[:-1])
        with self._wake:  # without a next one the loop cannot roll; if it has during this round, that is for another
            following = self._next is None and self._files[-1] is files[-1] and not self._stopping
        if following and (self._next_wanted or files[-1].size >= self.prepare_bytes):
            self._try_to_prepare(files[-1].number + 1)

    def _run(self) -> None:
        try:
            self._turns()
        except Exception as error:  # noqa: BLE001 - a defect here must not leave callers waiting
            _log.exception("journal %s: the sync thread crashed, nothing is synced any more", self._chain.origin.chain)
            self._report(self._listener.on_sync_failed, OSError(errno.EIO, f"the sync thread crashed: {error}"))

    def _turns(self) -> None:
        delay_s = RETRY_S
        while not self._wait(delay_s):
            self.turn()
            delay_s = min(2 * delay_s, MAX_RETRY_S) if self.failed else RETRY_S
        self._last_turns()

    def _wait(self, delay_s: float) -> bool:
        """Wait for something to do; True when it is time to stop."""
        with self._wake:
            if self.failed:
                self._wake.wait_for(lambda: self._stopping, timeout=delay_s)
            else:
                self._wake.wait_for(lambda: self._dirty or self._stopping)
                self._wake.wait_for(lambda: self._urgent or self._stopping, timeout=self.sync_s)
            return self._stopping

    def _last_turns(self) -> None:
        """A round, and one that writes again if that failed."""
        self.turn()
        if self.failed:
            self.turn()

    def _bring(self, file: SegmentFile) -> None:
        mark = file.size
        if mark == file.synced:
            return
        if self.failed:
            for offset, data in file.unsynced(self._disk, mark):
                self._write_again(file.fd, data, offset)
        before_ns = time.monotonic_ns()
        self._disk.sync(file.fd)
        self.last_sync_us = (time.monotonic_ns() - before_ns) // NS_PER_US
        self.syncs += 1
        file.synced_to(mark)

    def _write_again(self, fd: int, data: bytes, offset: int) -> None:
        while data:
            taken = self._disk.pwrite(fd, data, offset)
            if not taken:
                raise OSError(errno.EIO, "the disk took no byte of a line")
            data, offset = data[taken:], offset + taken

    def _close_full(self, files: list[SegmentFile]) -> None:
        for file in files:
            with self._wake:
                self._files.remove(file)
            try:
                self._disk.close(file.fd)
            except OSError as error:  # all of it is on the disk: nothing is lost
                _log.warning("journal %s: segment %d: %s", self._chain.origin.chain, file.number, error)

    def _try_to_prepare(self, number: int) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < self._next_not_before_ns:
            return
        try:
            self._next = self._prepare(number)
        except OSError as error:
            self._next_not_before_ns = now_ns + _PREPARE_AGAIN_NS
            _log.warning("journal %s: segment %d cannot be made: %s", self._chain.origin.chain, number, error)
        else:
            self._next_wanted = False

    def _prepare(self, number: int) -> SegmentFile:
        """An empty segment, its name on the disk; one that an earlier try left behind is taken."""
        path = layout.segment_path(self._chain.journal, self._chain.origin.chain, number)
        fd = self._disk.create(path)
        try:
            self._disk.sync_dir(path.parent)
            size = self._disk.size(fd)
        except BaseException:
            self._disk.close(fd)
            raise
        if size:
            self._disk.close(fd)
            raise OSError(errno.EEXIST, "it is there already and not empty", str(path))
        return SegmentFile(fd, number)

    def _report(self, what: Callable[[_Told], None], told: _Told) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(what, told)


def _nothing() -> None:
    """These lines rest on nothing else."""
