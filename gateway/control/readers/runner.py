"""What all readers have in common: following the journal, waiting, and not being stopped by one bad record.

A runner gives its reader batches up to what is signed, chain by chain, each from the reader's own cursor. Three things
go wrong, and each is met in its own way. *Trouble* is of the reader's surroundings: the same batch again, after a
pause that doubles from `first_wait_s` to `longest_wait_s`, said once when it begins and once when it is over. A
*poison* record is one that cannot be taken whatever one does: it is found by halving the batch, set aside (`aside.py`)
and passed over. And a cursor that has *moved* (another control took over, a user was forgotten) is read again. A
defect counts as trouble, since skipping what we do not understand would lose it.

Invariants: nothing beyond the signed places is read, so whatever a reader did can be replayed; after any failure the
cursors are asked for again, so that a commit nobody heard the answer of is neither lost nor done twice; a cursor never
goes back within one run unless its reader says so. A reader that starts anew begins at the journal's oldest line;
what had been dropped before it is counted as `missing`.

Everything but `run` happens in a thread. The attributes are plain values that may be read at any time. Left out: a
journal that was replaced by an older copy of itself, which `verify` tells; then the reader's database has to go too.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from gateway.control.pace import Pace
from gateway.control.readers.aside import Aside
from gateway.control.readers.base import Batch, Cursor, Moved, Poison, Reader, Trouble
from gateway.control.readers.lately import Lately
from gateway.journal import layout
from gateway.journal.read import START, Entry, Place, entries, pieces
from gateway.units import MIB, NS_PER_US, US_PER_S

FAR_BEHIND: Final = 100_000  # signed lines not yet taken: from there on there is no time for pauses,
LATE_S: Final = 3.0  # nor once the oldest of them has waited so long; the usual wait is a second and a half
_log: Final = logging.getLogger("gateway.readers")


class Source(NamedTuple):
    """A journal, and how far its chains are signed: the place and the number of the last signed line."""

    journal: Path
    node: str
    signed: Callable[[], Mapping[str, Place]]
    heads: Callable[[], Mapping[str, int]]
    lately: Lately | None = None  # what readers share of what they have read


class Limits(NamedTuple):
    """What bounds a batch, to a piece read at once for `raw_bytes` and `read_s`; and the pauses."""

    records: int = 2_000
    raw_bytes: int = 16 * MIB
    read_s: float = 0.2
    poll_s: float = 0.25
    first_wait_s: float = 0.1
    longest_wait_s: float = 30.0


LIMITS: Final = Limits()
PIECE_BY_PIECE: Final = LIMITS._replace(raw_bytes=1)
"""For a reader to which a batch costs nothing: small ones, which stay in a core's cache from reading to taking."""


class _Ahead:
    """Signed lines of a chain, a piece at a time: as others have read them just now, or from its files."""

    def __init__(self, source: Source, chain: str, end: Place) -> None:
        self._source = source
        self._chain = chain
        self._end = end
        self._at: Place | None = None  # where those of `_pieces` go on
        self._pieces: Iterator[list[Entry]] = iter(())

    def read(self, start: Place) -> list[Entry]:
        """The next lines from `start` on; none at the end."""
        if start >= self._end:
            return []
        lately = self._source.lately
        if lately is None:
            return self._decoded(start)
        return lately.read(self._chain, start, self._end, lambda: self._decoded(start))

    def _decoded(self, start: Place) -> list[Entry]:
        if start != self._at:
            self._pieces = pieces(self._source.journal, self._chain, start, self._end)
        found = next(self._pieces, [])
        self._at = found[-1].after if found else None
        return found


class Runner:
    """One reader on its way through a journal. `state_dir` is where poison records go, `pace` the reader's as well."""

    def __init__(
        self, reader: Reader, source: Source, state_dir: Path, limits: Limits = LIMITS, pace: Pace | None = None
    ) -> None:
        self.name: Final = reader.name
        self._reader = reader
        self._source = source
        self._limits = limits
        self._pace = pace or Pace()
        self._aside = Aside(state_dir, reader.name, source.node)
        self._set_aside: dict[str, set[Place]] = {}  # of the batch in hand: not again when it comes again
        self._stopping = False
        self._wake = asyncio.Event()
        self._cursors: dict[str, Cursor] = {}  # replaced, never edited: others read it meanwhile
        self._fresh = False  # whether `_cursors` is what the reader last said, and not only what it once said
        self._oldest_us: dict[str, int] = {}  # when the first line not yet taken was written
        self._wait_s = 0.0
        # for metrics
        self.failing = ""  # why nothing goes on; "" while all is well
        self.failures = 0
        self.records = 0  # taken
        self.batches = 0
        self.moved = 0  # times that a cursor was found moved

    # --- to be read at any time -------------------------------------------------------------------------------------

    @property
    def poisoned(self) -> int:
        """Records set aside since this process began."""
        return self._aside.count

    @property
    def missing(self) -> int:
        """Lines that were dropped before they were read, as far back as the reader remembers."""
        return sum(cursor.missing for cursor in self._cursors.values())

    @property
    def lag_records(self) -> int:
        """Signed lines not yet taken."""
        cursors = self._cursors
        return sum(max(0, head - cursors.get(chain, Cursor()).seq) for chain, head in self._source.heads().items())

    @property
    def lag_s(self) -> float:
        """How long the oldest line not yet taken has been waiting, as far as it has been looked at."""
        oldest_us = min(self._oldest_us.copy().values(), default=0)
        return max(0, time.time_ns() // NS_PER_US - oldest_us) / US_PER_S if oldest_us else 0.0

    def places(self) -> dict[str, Place]:
        """How far it has got; a chain it has not come to is not named."""
        return {chain: cursor.place for chain, cursor in self._cursors.items()}

    def seqs(self) -> dict[str, int]:
        """The number of the last line it has taken, of each chain it has come to."""
        return {chain: cursor.seq for chain, cursor in self._cursors.items()}

    # --- running ----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the journal until told to stop."""
        while not self._stopping:
            wait_s = await asyncio.to_thread(self._steps)
            if wait_s:
                await self._pause(wait_s if self.failing else _to_next(wait_s, time.monotonic()))

    def stop(self) -> None:
        """Leave after the batch in hand; to be called on the loop that runs."""
        self._stopping = True
        self._wake.set()

    def _steps(self) -> float:
        """Steps, until there is nothing to do at once or it is to stop."""
        while not (wait_s := self.step()) and not self._stopping:
            self._pace.step()
        return wait_s

    async def _pause(self, wait_s: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), wait_s)
        except TimeoutError:
            return

    def step(self) -> float:
        """One batch of every chain that has something new; how long to wait before the next. Raises nothing."""
        try:
            more, failure = self._round()
        except Moved:
            self._fresh = False
            self.moved += 1
            return self._limits.first_wait_s
        except Exception as error:  # noqa: BLE001 - what is not understood is tried again, never skipped
            more, failure = False, error
        if failure is None:
            self._well()
            return 0.0 if more else self._limits.poll_s
        wait_s = self._failed(failure)
        return 0.0 if more else wait_s

    def _failed(self, error: Exception) -> float:
        known = isinstance(error, Trouble | OSError)
        reason = str(error) if known else f"a defect of the gateway: {type(error).__name__}: {error}"
        if reason != self.failing:
            trace = None if known else error
            _log.error("reader %s waits, and tries again: %s", self.name, reason, exc_info=trace)
        with suppress(OSError):
            self._look_ahead()
        self._fresh = False
        self.failing = reason
        self.failures += 1
        self._wait_s = min(max(2 * self._wait_s, self._limits.first_wait_s), self._limits.longest_wait_s)
        return self._wait_s

    def _look_ahead(self) -> None:
        """See since when lines have been waiting that nothing can be done about now."""
        for chain, end in self._source.signed().items():
            cursor = self._cursors.get(chain)
            if cursor is not None and cursor.place < end and chain not in self._oldest_us:
                first = next(entries(self._source.journal, chain, cursor.place, end), None)
                if first is not None and not first.error:
                    self._oldest_us[chain] = first.record.at_us

    def _well(self) -> None:
        if self.failing:
            _log.warning("reader %s goes on: %d records behind", self.name, self.lag_records)
        self.failing = ""
        self._wait_s = 0.0

    # --- one round --------------------------------------------------------------------------------------------------

    def _round(self) -> tuple[bool, Exception | None]:
        """A batch of each chain: whether there is more at once, and what one failed of while the others went on."""
        signed = self._source.signed()
        self._know(signed)
        self._pace.hurried = self.lag_records > FAR_BEHIND or self.lag_s > LATE_S
        more, failure = False, None
        for chain, end in signed.items():
            if self._stopping:
                break
            try:
                more |= self._follow(chain, end)
            except (Trouble, Moved):
                raise
            except Exception as error:  # noqa: BLE001 - a segment that cannot be read is no reason to leave the rest
                failure = failure or error
        return more, failure

    def _know(self, chains: Iterable[str]) -> None:
        """Have a cursor for each of these chains, as the reader says it is."""
        wanted = list(chains)
        if not self._fresh or any(chain not in self._cursors for chain in wanted):
            self._cursors = self._cursors | self._reader.cursors(wanted)
            self._fresh = True

    def _follow(self, chain: str, end: Place) -> bool:
        before = self._cursors[chain]
        lines = self._read(chain, before.place, end) if before.place < end else []
        if not lines:
            self._oldest_us.pop(chain, None)
            if before.place < end and self._is_dropped(chain):
                self._apply(Batch(chain, (), before, self._past(chain, before, end)))
            return False
        self._oldest_us[chain] = next((line.record.at_us for line in lines if not line.error), 0)
        self._take(chain, lines)
        more = lines[-1].after < end
        if not more:
            self._oldest_us.pop(chain, None)
        return more

    def _read(self, chain: str, start: Place, end: Place) -> list[Entry]:
        limits, found, ahead = self._limits, list[Entry](), _Ahead(self._source, chain, end)
        until = time.monotonic() + limits.read_s
        raw_bytes = 0
        while piece := ahead.read(start):
            found += piece[: limits.records - len(found)]
            raw_bytes += sum(len(line.raw) for line in piece)
            start = found[-1].after
            self._pace.step()
            if len(found) >= limits.records or raw_bytes >= limits.raw_bytes or time.monotonic() >= until:
                break
        return found

    def _is_dropped(self, chain: str) -> bool:
        """Whether all of a chain's segments are gone; a chain that is not there at all may be on its way back."""
        journal = self._source.journal
        return (journal / chain).is_dir() and not layout.segments(journal, chain)

    def _past(self, chain: str, before: Cursor, end: Place) -> Cursor:
        seq = max(before.seq, self._source.heads().get(chain, before.seq))
        return Cursor(end, seq, before.missing + seq - before.seq)

    # --- one batch --------------------------------------------------------------------------------------------------

    def _take(self, chain: str, lines: Sequence[Entry]) -> None:
        """Hand lines to the reader; where it finds poison, in ever smaller parts, until only that is left out."""
        parts, aside = [lines], self._set_aside.setdefault(chain, set())
        while parts:
            part, before = parts.pop(), self._cursors[chain]
            for line in part:
                if line.error:
                    self._put_aside(line, line.error, aside)
            good = [line for line in part if line.after not in aside] if aside else part
            try:
                self._apply(Batch(chain, good, before, _after(before, part)))
            except Poison as poison:
                if len(good) == 1:
                    self._put_aside(good[0], str(poison), aside)
                parts.extend(reversed(_split(part, good, poison)))
        del self._set_aside[chain]

    def _apply(self, batch: Batch) -> None:
        self._reader.apply(batch)
        self._cursors = self._cursors | {batch.chain: batch.after}
        self.records += len(batch.entries)
        self.batches += 1

    def _put_aside(self, line: Entry, reason: str, aside: set[Place]) -> None:
        if line.after in aside:
            return
        self._aside.add(line, reason)
        aside.add(line.after)
        if len(aside) == 1:  # one line a batch: a damaged segment must not flood the log as well
            where, name = self._aside.path, line.id(self._source.node)
            _log.error("reader %s cannot take record %s, it is set aside in %s: %s", self.name, name, where, reason)


def _to_next(every_s: float, now_s: float) -> float:
    """All readers look for news at the same moments: then one can have what another has just read."""
    return every_s - now_s % every_s


def _split(part: Sequence[Entry], good: Sequence[Entry], poison: Poison) -> list[Sequence[Entry]]:
    """The part again, in pieces that tell more; as it is where the one at fault is set aside by now."""
    if not good:
        raise Trouble(f"nothing was given, and it was poison: {poison}") from poison
    if len(good) == 1:
        return [part]
    places = [line.after for line in part]
    if poison.entry is not None and poison.entry.after in places:
        at = places.index(poison.entry.after)
        return [piece for piece in (part[:at], part[at : at + 1], part[at + 1 :]) if piece]
    return [part[: len(part) // 2], part[len(part) // 2 :]]


def _after(before: Cursor, lines: Sequence[Entry]) -> Cursor:
    """The cursor behind these lines, with the gaps between their numbers counted."""
    seq, missing = before.seq, before.missing
    for line in lines:
        if line.seq >= 0:
            missing += max(0, line.seq - seq - 1)
            seq = line.seq
        else:
            seq += 1
    return Cursor(lines[-1].after, seq, missing)


class Readers:
    """All readers of a node, each at its own pace."""

    def __init__(self, source: Source, runners: Sequence[Runner]) -> None:
        self._source = source
        self.runners: Final = tuple(runners)

    def places(self) -> dict[str, Place]:
        """For each chain how far the slowest reader has got: what lies before it nobody needs any more."""
        signed = self._source.signed()
        every = [runner.places() for runner in self.runners]
        return {chain: min([end, *(places.get(chain, START) for places in every)]) for chain, end in signed.items()}

    async def run(self) -> None:
        """Follow the journal with every reader until told to stop."""
        await asyncio.gather(*(runner.run() for runner in self.runners))

    def stop(self) -> None:
        """Leave, each reader after the batch in hand; to be called on the loop that runs."""
        for runner in self.runners:
            runner.stop()
