"""Writing to the journal from one loop: records in, one write per turn, and a truthful answer about each decision.

Models the writer of one chain. `append` and `commit` only put a record into this turn's batch; numbers and hashes are
made when the batch is written, so a batch that fails has nothing to roll back. A decision's future says whether its
line is in the journal (`written`) or on the disk (`synced`); what to do when it is not is the caller's choice.

Invariants: lines stand in the order in which they were handed over. While the journal fails, decisions are told so at
once, and what was appended waits, bounded, until a write succeeds again; what is given up is counted and told in the
journal itself. After `start` no file is opened, no directory synced and no sync done on the loop's thread.

Each waiter has a future of its own: a task that is cancelled cancels what it awaits, so a shared future would let one
caller who leaves take the answer from all the others. Measured per waiter, 64 a turn: shared 2.4 µs, own 2.6 µs,
shared behind `asyncio.shield` 3.6 µs; a shared one that refuses to be cancelled would hold its callers on a hung disk.
Left out: files and hashes (`chain.py`), syncing (`syncer.py`), what an outage leaves to be told (`outage.py`).
"""

import logging
import time
from asyncio import AbstractEventLoop, Future, TimerHandle, get_running_loop
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.journal.chain import Chain, NotWritten, Origin
from gateway.journal.disk import Disk
from gateway.journal.end import Signed
from gateway.journal.line import MAX_LINE_BYTES
from gateway.journal.outage import Outage, kind_of
from gateway.journal.recover import Signer, lock_chain, open_chain
from gateway.journal.syncer import MAX_RETRY_S, RETRY_S, Footing, Syncer
from gateway.record import Kind
from gateway.units import MIB, NS_PER_S

_log: Final = logging.getLogger("gateway.journal")
MAX_CONTENT_BYTES: Final = MAX_LINE_BYTES - 128  # what makes a line of a content is shorter
_TICK_S: Final = 1.0
_AHEAD: Final = 0.8  # of a segment's size or time: when the next one is made


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    """Where and as whom to write, and how much a segment takes."""

    journal: Path
    node: str
    region: str
    segment_bytes: int
    segment_s: float
    sync_s: float = 0.005
    backlog_bytes: int = 8 * MIB


_Waiter = tuple[int, Future[bool], bool]  # a decision's place in this turn's batch, who waits, and if for the disk


class Journal:
    """The journal as one process writes it. Counters are read at scrape time, from any thread."""

    def __init__(self, settings: JournalSettings, chain: Chain) -> None:
        self.chain = chain.origin.chain
        self.failing = False  # the last write or sync failed, and what waited since is not in yet
        self._loop: AbstractEventLoop
        self._refused: Future[bool]
        self._chain = chain
        self._first_seq = chain.seq
        self._syncer = Syncer(chain, settings.sync_s, self)
        self._outage = Outage(settings.backlog_bytes)
        self._pending: list[bytes] = []
        self._waiters: list[_Waiter] = []
        self._unsynced = deque[tuple[int, Future[bool]]]()  # by the position they wait for
        self._scheduled = True  # until `start`, nothing is
        self._write_failures = 0
        self._sync_failing = False
        self._aged = False
        self._closing = False
        self._closed = False
        self._retry_s = RETRY_S
        self._timers: dict[str, TimerHandle] = {}
        self.adopt(settings)

    @classmethod
    def open(
        cls,
        settings: JournalSettings,
        names: Iterable[str],
        sign: Callable[[], Signer],
        signed: Callable[[str], Signed | None] = lambda _: None,
        disk: Disk | None = None,
    ) -> Self:
        """Open the first of these chains that no other process writes, and repair it where it is torn.

        Blocking, for before serving. `sign` is called for a repair only; `signed` tells the newest place of a chain
        that a manifest covers. Raises OSError, NoFreeChain, ForeignChain.
        """
        disk = disk or Disk()
        name, lock_fd = lock_chain(disk, settings.journal, list(names))
        try:
            origin = Origin(settings.node, settings.region, name)
            return cls(settings, open_chain(disk, settings.journal, origin, lock_fd, signed(name), sign))
        except BaseException:
            disk.close(lock_fd)
            raise

    def rest_on(self, footing: Footing) -> None:
        """Before `start`: have this on the disk before the lines, which rest on it (the keys of their sealed parts)."""
        self._syncer.footing = footing

    def start(self, loop: AbstractEventLoop) -> None:
        """Begin to write, once per turn of this loop, and to sync."""
        self._loop = loop
        self._refused = loop.create_future()
        self._refused.set_result(False)
        self._syncer.start(loop)
        loop.call_soon(self._flush)
        self._call_later("tick", _TICK_S, self._tick)

    def adopt(self, settings: JournalSettings) -> None:
        """Follow a reload: how large and how old a segment gets, how often to sync, how much may wait."""
        self._segment_bytes = settings.segment_bytes
        self._segment_ns = int(settings.segment_s * NS_PER_S)
        self._syncer.sync_s = settings.sync_s
        self._syncer.prepare_bytes = int(_AHEAD * settings.segment_bytes)
        self._outage.backlog_bytes = self._chain.keep_bytes = settings.backlog_bytes

    # --- counters ---------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> int:
        """Lines written since it was opened, the segments' own included."""
        return self._chain.seq - self._first_seq

    @property
    def written_bytes(self) -> int:
        """Bytes of those lines."""
        return self._chain.written_bytes

    @property
    def lost(self) -> int:
        """Records given up, and decisions acted on without theirs."""
        return self._outage.lost

    @property
    def failures(self) -> int:
        """Writes and syncs that failed."""
        return self._write_failures + self._syncer.failures

    @property
    def syncs(self) -> int:
        """Syncs that succeeded."""
        return self._syncer.syncs

    @property
    def synced_by_thread(self) -> bool:
        """Whether a thread makes the syncs, because the kernel makes none by itself."""
        return self._syncer.by_thread

    # --- records in -------------------------------------------------------------------------------------------------

    def append(self, content: bytes) -> None:
        """Write a record with this turn's batch; while the journal fails it waits, beyond the bound it is lost."""
        if self.failing or len(content) > MAX_CONTENT_BYTES:
            self._set_aside(content)
            return
        self._pending.append(content)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def commit(self, content: bytes, *, synced: bool) -> Future[bool]:
        """Write a decision with this turn's batch, and tell if it is in the journal, or with `synced` on the disk.

        False: do as if it had not been written, though a `synced` one may turn up after all. To act on it all the
        same, call `unrecorded`. The future may be cancelled, the record is written then too. After `start` only.
        """
        if self.failing or len(content) > MAX_CONTENT_BYTES:
            return self._refused
        future: Future[bool] = self._loop.create_future()
        self._waiters.append((len(self._pending), future, synced))
        self._pending.append(content)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)
        return future

    def unrecorded(self) -> None:
        """Count a decision that is acted on though its `commit` said False."""
        self._outage.lose(Kind.DECISION.value)

    async def close(self) -> None:
        """Write and sync everything, and give the chain back. What cannot be written now is lost, and logged."""
        if self._closing:
            return
        self._closing = True
        self._loop = get_running_loop()
        self._write_out()
        await self._syncer.drain()
        self._write_out()  # what came meanwhile
        self._closed = self.failing = True
        self._outage.give_up()
        if self._chain.file.size > self._chain.file.synced:
            await self._syncer.drain()
        self._syncer.close()
        for timer in self._timers.values():
            timer.cancel()
        self._refuse_unsynced()
        self._chain.close()
        if self._outage.owed() or self._syncer.failed:
            _log.error(
                "journal %s: closed while it could not be written: %d records are lost, and of the last that were "
                "written some may not be on the disk",
                self.chain, self._outage.owed(),
            )  # fmt: skip

    # --- a turn's batch ---------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        self._scheduled = False
        contents, waiters = self._pending, self._waiters
        self._pending, self._waiters = [], []
        if self.failing:  # since these were handed over
            self._not_written(contents, waiters, 0)
            return
        if self._chain.file.size >= self._segment_bytes or self._aged:
            self._roll()
        if not contents and self._chain.file.size:
            return
        try:
            self._chain.write(contents)
        except NotWritten as failed:
            self._write_failed(failed.error)
            self._not_written(contents, waiters, failed.lines)
        else:
            self._written(waiters)

    def _written(self, waiters: list[_Waiter]) -> None:
        urgent = False
        for _, future, synced in waiters:
            if synced:
                self._unsynced.append((self._chain.written_bytes, future))
                urgent = True
            elif not future.done():  # as `_answer` does, without the call: it is on every request's path
                future.set_result(True)
        self._syncer.written(urgent=urgent)

    def _not_written(self, contents: list[bytes], waiters: list[_Waiter], lines: int) -> None:
        """All but the first `lines` of a batch: decisions are told so, the rest waits."""
        decisions = {index for index, _, _ in waiters}
        for index in range(lines, len(contents)):
            if index not in decisions:
                self._outage.wait(contents[index])
        self._written([waiter for waiter in waiters if waiter[0] < lines])
        for index, future, _ in waiters:
            if index >= lines:
                _answer(future, written=False)

    def _set_aside(self, content: bytes) -> None:
        """A record that cannot go with this turn's batch."""
        if len(content) <= MAX_CONTENT_BYTES:
            self._outage.wait(content)
            return
        self._outage.lose(kind_of(content))
        _log.error("journal %s: a record of %d bytes is larger than a line may be", self.chain, len(content))

    def _roll(self) -> None:
        following = self._syncer.take_next()
        if following is not None:
            self._chain.roll(following, "time" if self._aged else "size")
            self._aged = False

    def _tick(self) -> None:
        self._call_later("tick", _TICK_S, self._tick)
        if self.failing:
            return
        file = self._chain.file
        age_ns = time.monotonic_ns() - file.opened_ns
        if file.size > file.header_bytes and age_ns >= _AHEAD * self._segment_ns:
            self._syncer.want_next()
            self._aged = age_ns >= self._segment_ns
            self._flush()
        if self._outage.owed():
            self._drain()

    # --- failing, and trying again ----------------------------------------------------------------------------------

    def _write_failed(self, error: OSError) -> None:
        self._write_failures += 1
        self._fail("write", error)
        self._call_later("retry", self._retry_s, self._retry)
        self._retry_s = min(2 * self._retry_s, MAX_RETRY_S)

    def _fail(self, what: str, error: OSError) -> None:
        if not self.failing:
            self.failing = True
            self._retry_s = RETRY_S
            self._outage.begin(error)
            _log.error(
                "journal %s: cannot %s %s: %s. Until that is mended, requests are refused or go on unrecorded, as "
                "journal.on_failure says; it is tried again every %g s at the latest",
                self.chain, what, self._chain.path, error.strerror or error, MAX_RETRY_S,
            )  # fmt: skip
            self._flush()  # what this turn has brought so far waits in front of what it will bring

    def _retry(self) -> None:
        if self.failing and not self._sync_failing and not self._closed:
            self._drain()

    def _drain(self) -> None:
        """Write what an outage left, as much as one turn may take."""
        batch = self._outage.batch()
        try:
            self._chain.write(batch)
        except NotWritten as failed:
            self._outage.wrote(failed.lines)
            self._syncer.written(urgent=False)
            self._write_failed(failed.error)
            return
        self._syncer.written(urgent=False)
        if not self._outage.wrote(len(batch)):
            self._loop.call_soon(self._retry)
        elif self.failing:
            self.failing = False
            _log.warning("journal %s: written again", self.chain)

    def _write_out(self) -> None:
        """Write what there is, as far as that is possible at once."""
        if self._pending:
            self._flush()
        before = -1
        while (self.failing or self._outage.owed()) and not self._sync_failing and before != self._chain.seq:
            before = self._chain.seq
            self._drain()

    def _call_later(self, name: str, delay_s: float, what: Callable[[], None]) -> None:
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = self._loop.call_later(delay_s, what)

    # --- told by the syncer -----------------------------------------------------------------------------------------

    def on_synced(self, position: int) -> None:
        """Answer those whose lines are on the disk."""
        while self._unsynced and self._unsynced[0][0] <= position:
            _answer(self._unsynced.popleft()[1], written=True)

    def on_sync_failed(self, error: OSError) -> None:
        """Tell whoever waits for the disk, and decide nothing until it works again."""
        self._sync_failing = True
        self._fail("sync", error)
        self._refuse_unsynced()

    def on_sync_healed(self, position: int) -> None:
        """Go on."""
        self._sync_failing = False
        self.on_synced(position)
        self._retry()

    def _refuse_unsynced(self) -> None:
        while self._unsynced:
            _answer(self._unsynced.popleft()[1], written=False)


def _answer(future: Future[bool], *, written: bool) -> None:
    """Tell a waiter, unless it has left."""
    if not future.done():
        future.set_result(written)
