"""Bringing a chain to the disk: the loop never waits for a sync, a directory or a new file.

Models group commit, in rounds. A write makes the chain dirty; within `sync_s` a round begins that brings all that was
written so far to the disk, at once when somebody waits for it; one round at a time. The loop begins a round and hears
of its end (one that is held up syncs late, and writes nothing meanwhile); who makes it depends on what there is to do.
One segment to sync and nothing else, which is all but a few rounds of a busy worker, is made by the kernel (`aio.py`).
All else is made by a thread: to bring first what the lines rest on, to write again what a failed sync may have lost,
to sync and close segments that are full, and to have the next one ready before it is needed; and every round where
the kernel makes no syncs by itself.

Invariants: a round reports a position only when every byte before it is on the disk. A sync that failed proves
nothing about the next one (the kernel reports an error once and may drop the bytes), so the same bytes are written
again at the same place before it is asked again. The next segment is made only after all earlier ones are synced:
what a power cut can take is in the last two. When a segment is not ready in time, the old one grows on. All state
belongs to the loop's thread; of the segments a round was handed, `synced` belongs to who makes it until its end.
Left out: what failing means to callers (`journal.py`).
"""

import asyncio
import errno
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, NamedTuple, Protocol

from gateway.journal import layout
from gateway.journal.aio import refuses
from gateway.journal.chain import Chain, SegmentFile
from gateway.journal.disk import Syncs
from gateway.units import NS_PER_S

_log: Final = logging.getLogger("gateway.journal")
RETRY_S: Final = 0.1
MAX_RETRY_S: Final = 2.0
_PREPARE_AGAIN_NS: Final = NS_PER_S


class Listener(Protocol):
    """Who is told, on the loop's thread."""

    def on_synced(self, position: int) -> None:
        """Everything before this position is on the disk."""

    def on_sync_failed(self, error: OSError) -> None:
        """A round failed; it is tried again."""

    def on_sync_healed(self, position: int) -> None:
        """What could not be synced now is, and everything before this position with it."""


class Footing(Protocol):
    """What lines rest on, and must be on the disk before them."""

    @property
    def unsynced(self) -> bool:
        """Whether lines written by now rest on anything that is not on the disk; asked on the loop's thread."""

    def sync(self) -> None:
        """Bring it there, in the sync thread. Raises OSError, which counts as a failed sync of the lines."""


class _Nothing:
    """These lines rest on nothing else."""

    unsynced = False

    def sync(self) -> None:
        """It is there."""


class _Round(NamedTuple):
    """A round that goes on: the state of the chain when it began, and the segment it makes, 0 for none."""

    position: int
    files: tuple[SegmentFile, ...]
    size: int  # of the current segment, the last of them
    following: int


class Syncer:
    """The rounds of one chain. All but what is said to be the thread's is for the loop's thread."""

    def __init__(self, chain: Chain, sync_s: float, listener: Listener) -> None:
        self.sync_s = sync_s
        self.footing: Footing = _Nothing()
        self.prepare_bytes = 0  # from this size of the current segment on, the next one is made
        self.syncs = 0
        self.failures = 0
        self.failed = False  # the last round did not bring everything to the disk
        self._chain = chain
        self._disk = chain.disk
        self._listener = listener
        self._files = [chain.file]  # those not closed yet, the current one last
        self._next: SegmentFile | None = None
        self._next_wanted = False
        self._next_not_before_ns = 0
        self._dirty = False
        self._urgent = False
        self._running = False
        self._round: _Round | None = None
        self._ended: asyncio.Future[None] | None = None  # somebody waits for the end of the round
        self._timer: asyncio.TimerHandle | None = None
        self._retry_s = RETRY_S
        self._loop: asyncio.AbstractEventLoop
        self._kernel: Syncs | None = None
        self._thread = ThreadPoolExecutor(1, f"journal-{chain.origin.chain}")  # begins with its first round

    @property
    def by_thread(self) -> bool:
        """Whether the thread makes every round, because the kernel makes none."""
        return self._running and self._kernel is None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to sync, and to report, on this loop; after the fork."""
        self._loop = loop
        self._running = True
        try:
            self._kernel = self._disk.syncs(loop, self._kernel_done)
        except OSError as error:
            self._tell_refused(error)

    def written(self, *, urgent: bool) -> None:
        """Something was written; `urgent`: somebody waits for it. A comparison or two when that is known already."""
        if not self._dirty or (urgent and not self._urgent):
            self._dirty = True
            self._urgent = self._urgent or urgent
            self._arrange()

    def want_next(self) -> None:
        """Make the next segment soon, whatever the size of the current one."""
        if self._next is None:
            self._next_wanted = self._dirty = True
            self._arrange()

    def take_next(self) -> SegmentFile | None:
        """The next segment, the current one from now on; None when it is not ready."""
        file, self._next = self._next, None
        if file is not None:
            self._files.append(file)
        return file

    async def drain(self) -> None:
        """Bring to the disk all that was written: a round, and one that writes again if that failed.

        From now on no round begins but by this.
        """
        self._loop = asyncio.get_running_loop()
        self._running = False
        await self._end_of_round()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        for _ in range(2):
            self._begin()
            await self._end_of_round()
            if not self.failed:
                return

    def close(self) -> None:
        """After `drain`: end the thread, and close every segment but the current one."""
        self._thread.shutdown(wait=False)
        *full, current = self._files
        for file in [*full, *([self._next] if self._next is not None else [])]:
            self._disk.close(file.fd)
        self._files, self._next = [current], None

    # --- a round, on the loop's thread ------------------------------------------------------------------------------

    def _arrange(self) -> None:
        """Begin a round, or have it begin when it is due; the end of one that goes on will."""
        if self._round is not None or not self._running:
            return
        if self._urgent and not self.failed:
            self._begin()
        elif self._timer is None and (self._dirty or self.failed):
            self._timer = self._loop.call_later(self._retry_s if self.failed else self.sync_s, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._dirty = self._urgent = False
        file = self._chain.file
        begun = self._round = _Round(self._chain.written_bytes, tuple(self._files), file.size, self._missing())
        plain = not (self.failed or begun.following or len(begun.files) > 1 or self.footing.unsynced)
        if self._kernel is None or not plain:
            self._begin_in_thread(begun)
        elif file.size == file.synced:
            self._over(None)
        else:
            self._begin_in_kernel(self._kernel, begun)

    def _missing(self) -> int:
        """The number of the segment that is to be made now, 0 for none."""
        file = self._chain.file
        wanted = self._running and (self._next_wanted or file.size >= self.prepare_bytes)
        if not wanted or self._next is not None or time.monotonic_ns() < self._next_not_before_ns:
            return 0
        return file.number + 1

    def _begin_in_kernel(self, kernel: Syncs, begun: _Round) -> None:
        try:
            kernel.begin(begun.files[-1].fd)
        except OSError as error:  # one that is about this moment alone, say EAGAIN, is another's next time
            if refuses(error):
                self._do_without(kernel, error)
            self._begin_in_thread(begun)

    def _begin_in_thread(self, begun: _Round, *, again: bool = False) -> None:
        work = partial(self._make, begun.files, begun.following, again=again or self.failed)
        self._loop.run_in_executor(self._thread, work).add_done_callback(self._thread_done)

    def _kernel_done(self, error: OSError | None) -> None:
        begun, kernel = self._round, self._kernel
        if begun is None or kernel is None:
            raise RuntimeError("the kernel ended a sync that nobody began")
        if error is not None and refuses(error):  # or it has tried, and this is all that a file system says of it
            self._do_without(kernel, error)
            self._begin_in_thread(begun, again=True)
            return
        if error is None:
            self.syncs += 1
            begun.files[-1].synced_to(begun.size)
        self._over(error)

    def _thread_done(self, made: "asyncio.Future[SegmentFile | None]") -> None:
        crash = made.exception()
        if crash is not None and not isinstance(crash, OSError):  # a defect here must not leave callers waiting
            _log.error("journal %s: the sync thread crashed", self._chain.origin.chain, exc_info=crash)
            crash = OSError(errno.EIO, f"the sync thread crashed: {crash}")
        if crash is None and self._round is not None:
            del self._files[: len(self._round.files) - 1]
            if self._round.following:
                self._prepared(made.result())
        self._over(crash)

    def _prepared(self, file: SegmentFile | None) -> None:
        self._next = file
        if file is None:
            self._next_not_before_ns = time.monotonic_ns() + _PREPARE_AGAIN_NS
        else:
            self._next_wanted = False

    def _over(self, error: OSError | None) -> None:
        """A round ended: say so, and see to the next."""
        begun, self._round = self._round, None
        healed, self.failed = self.failed and error is None, error is not None
        if error is not None:
            self.failures += 1
            self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)
            self._listener.on_sync_failed(error)
        elif begun is not None:
            self._retry_s = RETRY_S
            (self._listener.on_sync_healed if healed else self._listener.on_synced)(begun.position)
        if self._ended is not None:
            self._ended.set_result(None)
            self._ended = None
        self._arrange()

    async def _end_of_round(self) -> None:
        if self._round is not None:
            self._ended = self._loop.create_future()
            await self._ended

    def _do_without(self, kernel: Syncs, error: OSError) -> None:
        kernel.close()
        self._kernel = None
        self._tell_refused(error)

    def _tell_refused(self, error: OSError) -> None:
        _log.warning(
            "journal %s: the kernel makes no syncs by itself (%s), a thread does: each request costs a little more",
            self._chain.origin.chain,
            error.strerror or error,
        )

    # --- a round, in the thread -------------------------------------------------------------------------------------

    def _make(self, files: tuple[SegmentFile, ...], following: int, *, again: bool) -> SegmentFile | None:
        """Bring these to the disk, `again`: what is not there is written again; close the full ones.

        Returns the following segment if it was asked for and could be made. Raises OSError when not all is on the disk.
        """
        self.footing.sync()
        for file in files:
            self._bring(file, again=again)
        made = self._try_to_prepare(following) if following else None
        for file in files[:-1]:
            self._close(file)
        return made

    def _bring(self, file: SegmentFile, *, again: bool) -> None:
        mark = file.size
        if mark == file.synced:
            return
        if again:
            for offset, data in file.unsynced(self._disk, mark):
                self._write_again(file.fd, data, offset)
        self._disk.sync(file.fd)
        self.syncs += 1
        file.synced_to(mark)

    def _write_again(self, fd: int, data: bytes, offset: int) -> None:
        while data:
            taken = self._disk.pwrite(fd, data, offset)
            if not taken:
                raise OSError(errno.EIO, "the disk took no byte of a line")
            data, offset = data[taken:], offset + taken

    def _close(self, file: SegmentFile) -> None:
        try:
            self._disk.close(file.fd)
        except OSError as error:  # all of it is on the disk: nothing is lost
            _log.warning("journal %s: segment %d: %s", self._chain.origin.chain, file.number, error)

    def _try_to_prepare(self, number: int) -> SegmentFile | None:
        try:
            return self._prepare(number)
        except OSError as error:
            _log.warning("journal %s: segment %d cannot be made: %s", self._chain.origin.chain, number, error)
            return None

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
