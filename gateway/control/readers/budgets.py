"""The reader of budgets: what the journal says was used, ready to be given back to whatever forgot it.

It folds decisions and outcomes as they are signed (`limiter/replay.py`) and keeps the result with its cursors on the
disk, each second (`limiter/changes.py`). While everything lives, nobody asks: the engine counts. After its memory
began anew, `rebuild` folds what else is in the journal, and `standing` tells what to give back.

A store that many nodes share may be away, or lose its data, while requests go on. Then nobody can say which of the
settlements since then it took. They are handed out one by one, under the ids of their holds, so the store takes what
it has not: those that are read already by `settled`, those that are signed later by `take_due`. What a worker held that
has died, and nobody will settle, is handed out likewise, by `orphans`.

Invariants: rows and cursors move together, in memory and on the disk; places there are never ahead of the rows.
Methods may be called from any thread. Left out: when (`limits_keeper.py`).
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from gateway.control.readers.aside import Aside
from gateway.control.readers.base import Batch, Cursor, Moved, Poison, Trouble
from gateway.control.readers.earlier import beginnings, earlier, reserved, settled
from gateway.journal.read import Entry, Place
from gateway.limiter.changes import CheckpointFiles
from gateway.limiter.checkpoint import At, Checkpoint, Damaged, Told, path_of
from gateway.limiter.crowd import Crowd
from gateway.limiter.recorded import Key
from gateway.limiter.replay import Fact, Ledger, Used, What, fact_of, subject_of
from gateway.units import NS_PER_US

NAME: Final = "budgets"
LONGEST_WINDOW_US: Final = 32 * 86_400 * 1_000_000
PRUNE_US: Final = 60_000_000
AT_ONCE: Final = 256  # lines folded while others wait: a millisecond
BREATH_S: Final = 0.0001  # between them: a lock that is let go of and taken again at once is not given away
_US_PER_MS: Final = 1_000
_log: Final = logging.getLogger("gateway.readers")


class Standing(NamedTuple):
    """What is used of every bucket at a time, by the lines before these places; what the dead held is in it."""

    used: list[Used]
    places: dict[str, Place]
    orphans: list[Fact]
    at_ms: int


class BudgetReader:
    """One node's reader. `node` is the journal's."""

    name: Final = NAME

    def __init__(self, state_dir: Path, journal: Path, node: str, clock_us: Callable[[], int] | None = None) -> None:
        self.path: Final = path_of(state_dir)
        self._files = CheckpointFiles(self.path, node)
        self._journal = journal
        self._node = node
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._aside = Aside(state_dir, NAME, node)
        self._busy = threading.RLock()
        self._saving = threading.Lock()
        self._ledger = Ledger()
        self._crowd = Crowd()
        self._cursors: dict[str, Cursor] = {}
        self._loaded = False
        self._changed = False
        self._pruned_us = 0
        self._due: list[Fact] = []
        self._due_until_ms = 0
        self.epoch = ""  # which memory the rows were last given to
        self.epoch_us = 0  # and when that was
        self.seen_us = 0  # when that memory was last known to be there
        self.told: dict[str, Told] = {}
        self._newly_told: dict[str, Told] = {}
        self._untold = False  # something of it since it was kept, which no change can say
        self.saved_us = 0  # when the file was last written; 0: there is none
        self.saved_places: dict[str, Place] = {}  # what lies before them nobody needs any more
        self.rebuilt = 0  # lines that `rebuild` folded

    @property
    def nodes(self) -> int:
        """How many nodes share the memory that counts the same."""
        return self._ledger.nodes

    @nodes.setter
    def nodes(self, nodes: int) -> None:
        self._ledger.nodes = nodes

    def bound(self, crowd: Crowd) -> None:
        """Count no more end users one by one than this."""
        with self._busy:
            self._crowd = crowd
            self._ledger.bound(crowd)

    # --- Reader -----------------------------------------------------------------------------------------------------

    def cursors(self, chains: Sequence[str]) -> dict[str, Cursor]:
        """How far it has got. Raises Trouble."""
        with self._busy:
            self._load()
            return {chain: self._cursors.get(chain, Cursor()) for chain in chains}

    def apply(self, batch: Batch) -> None:
        """Fold a batch, some lines at a time, since others wait for them. Raises Poison, Moved.

        Should it be Moved on the way, the cursor stands behind what was folded.
        """
        facts = [_fact(entry) for entry in batch.entries]
        done, before = 0, batch.before
        while True:
            some, last = facts[done : done + AT_ONCE], batch.entries[done : done + AT_ONCE][-1:]
            done += len(some)
            after = batch.after if done == len(facts) else _past(before, last[0], len(some))
            self._fold(batch.chain, some, before, after)
            if done == len(facts):
                return
            before = after
            time.sleep(BREATH_S)

    def _fold(self, chain: str, facts: Iterable[Fact | None], before: Cursor, after: Cursor) -> None:
        with self._busy:
            if self._cursors.get(chain, Cursor()).place != before.place:
                raise Moved(f"the budgets of {chain} have been read further")
            for fact in facts:
                if fact is not None:
                    self._take(chain, fact)
            self._cursors[chain] = after
            self._changed = True

    # --- the file ---------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Have what was kept. Raises Trouble."""
        with self._busy:
            self._load()

    def save(self, *, anyhow: bool = False, last: bool = False) -> None:
        """Keep what is new, if anything is but the time of `seen_us`, or `anyhow`; the `last` time all there is.

        Raises Trouble, and then it is kept as it was.
        """
        with self._saving:
            with self._busy:
                if not (self._changed or anyhow or (last and not self._files.is_whole)):
                    return
                self._changed = False
                now_us, places = self._clock_us(), self._places()
                told, self._newly_told = self._newly_told, {}
                anew, self._untold = last or self._untold, False
                written = self._files.encoded(self._checkpoint(now_us), told, anew=anew)
            try:
                self._files.write(written)
            except OSError as error:
                self._changed = True
                raise Trouble(f"{self.path} cannot be written: {error.strerror}") from error
            self.saved_us, self.saved_places = now_us, places

    def adopt(self, epoch: str, seen_us: int) -> None:
        """The rows are in this memory, which is there at this time."""
        with self._busy:
            if self.epoch != epoch:
                self._changed, self.epoch_us = True, self._clock_us()
            self.epoch, self.seen_us = epoch, seen_us

    def tell(self, bucket: str, told: Told) -> None:
        """This threshold is told."""
        with self._busy:
            self.told[bucket] = self._newly_told[bucket] = told
            self._changed = True

    # --- giving back ------------------------------------------------------------------------------------------------

    def rebuild(self, before_us: int) -> None:
        """Fold everything by processes that began before `before_us`; none of them lives. Raises Trouble, OSError."""
        with self._busy:
            self._loaded = False  # should this fail, it begins with the file again
            self._load()
            self._loaded = False
            cursors = beginnings(self._journal, self._cursors, before_us - LONGEST_WINDOW_US)
            for entry in earlier(self._journal, cursors, before_us):
                self._replay(entry)
                cursors[entry.chain] = _past(cursors[entry.chain], entry)
            self._ledger.bury()
            self._cursors = cursors
            self._loaded = self._changed = True

    def standing(self) -> Standing:
        """What is used now."""
        with self._busy:
            now_ms = self._clock_us() // _US_PER_MS
            return Standing(list(self._ledger.used(now_ms)), self._places(), self._ledger.orphans(), now_ms)

    def budgets(self) -> list[Used]:
        """What is used of every budget now."""
        with self._busy:
            return list(self._ledger.budgets(self._clock_us() // _US_PER_MS))

    def orphans(self) -> list[Fact]:
        """What the dead held of which nobody has made sure that a store has it."""
        with self._busy:
            return self._ledger.orphans()

    def laid_to_rest(self, orphans: Iterable[Fact]) -> None:
        """A store has them."""
        with self._busy:
            self._ledger.laid_to_rest(orphan.hold for orphan in orphans)
            self._changed = True

    def disturb(self) -> None:
        """The store may have lost what it was told of the dead."""
        with self._busy:
            self._ledger.disturb()
            self._changed = True

    def holds(self) -> list[str]:
        """The holds of which there is no outcome yet."""
        with self._busy:
            return list(self._ledger.holds)

    def settled(self, places: Mapping[str, Place], since_us: int) -> Iterator[Fact]:
        """What was settled since then, by the lines before these places, and is not forgotten. Raises OSError."""
        return map(self._ledger.remembered, settled(self._journal, places, since_us))

    def reserved(self, since_us: int) -> Iterator[Fact]:
        """What was reserved since then, also by lines that are yet to be read. Raises OSError."""
        return reserved(self._journal, since_us)

    def buckets(self) -> set[Key]:
        """Everything of which something is known."""
        with self._busy:
            return {*self._ledger.accounts, *self._ledger.stirred}

    def take_stirred(self) -> set[Key]:
        """What is forgotten, and was charged again since it was asked for last."""
        with self._busy:
            stirred, self._ledger.stirred = self._ledger.stirred, set()
            return stirred

    def forget(self, subjects: Iterable[str], at_us: int) -> None:
        """Nothing of these that was reserved up to then counts any more; thresholds are told anew."""
        gone = set(subjects)
        with self._busy:
            self._ledger.forget(gone, at_us // _US_PER_MS)
            told = {bucket: told for bucket, told in self.told.items() if subject_of(bucket) not in gone}
            self._untold |= len(told) < len(self.told)
            self.told, self._changed = told, True

    def await_due(self, until_us: int) -> None:
        """What was settled until then, and is read from now on, is to be handed out."""
        with self._busy:
            self._due_until_ms = until_us // _US_PER_MS

    def take_due(self) -> list[Fact]:
        """What is to be settled again, under its own id."""
        with self._busy:
            due, self._due = self._due, []
            return due

    def give_back_due(self, facts: Sequence[Fact]) -> None:
        """These could not be settled yet."""
        with self._busy:
            self._due = [*facts, *self._due]

    # --- within -----------------------------------------------------------------------------------------------------

    def _take(self, chain: str, fact: Fact) -> None:
        self._ledger.take(chain, fact)
        if fact.what is What.SETTLED and fact.at_ms <= self._due_until_ms:
            self._due.append(self._ledger.remembered(fact))

    def _replay(self, entry: Entry) -> None:
        try:
            fact = _fact(entry)
        except Poison as poison:
            self._aside.add(entry, str(poison))
            _log.error("budgets cannot take record %s, it is set aside: %s", entry.id(self._node), poison)
            return
        self.rebuilt += 1
        if fact is not None:
            self._take(entry.chain, fact)

    def _load(self) -> None:
        """Raises Trouble."""
        if self._loaded:
            return
        try:
            found = self._files.load()
        except OSError as error:
            raise Trouble(f"{self.path} cannot be read: {error.strerror}") from error
        except Damaged as error:
            _log.error("%s counts for nothing, the journal is counted from its beginning: %s", self.path, error)
            found = None
        if found is not None and found.unread:
            _log.error(
                "%d lines of %s are damaged: what they say is counted from the journal",
                found.unread,
                self._files.changes,
            )
        kept = found.checkpoint if found is not None else Checkpoint(node=self._node, ledger=Ledger())
        kept.ledger.nodes = self._ledger.nodes
        kept.ledger.bound(self._crowd)
        self._ledger = kept.ledger
        self._cursors = {
            chain: Cursor(Place(at.segment, at.offset), at.seq, at.missing) for chain, at in kept.places.items()
        }
        self.epoch, self.epoch_us, self.seen_us = kept.epoch, kept.epoch_us, kept.seen_us
        self.told, self.saved_us = dict(kept.told), kept.at_us
        self.saved_places = self._places()
        self._loaded = True

    def _checkpoint(self, now_us: int) -> Checkpoint:
        if now_us - self._pruned_us >= PRUNE_US:
            self._pruned_us = now_us
            self._ledger.prune(now_us // _US_PER_MS)
            over_ms = (now_us - LONGEST_WINDOW_US) // _US_PER_MS
            self.told = {bucket: told for bucket, told in self.told.items() if told.start_ms > over_ms}
        places = {
            chain: At(cursor.place.segment, cursor.place.offset, cursor.seq, cursor.missing)
            for chain, cursor in self._cursors.items()
        }
        return Checkpoint(
            node=self._node,
            at_us=now_us,
            epoch=self.epoch,
            epoch_us=self.epoch_us,
            seen_us=self.seen_us,
            places=places,
            told=self.told,
            ledger=self._ledger,
        )

    def _places(self) -> dict[str, Place]:
        return {chain: cursor.place for chain, cursor in self._cursors.items()}


def _fact(entry: Entry) -> Fact | None:
    if entry.error:
        raise Poison(entry.error, entry)
    try:
        return fact_of(entry.record)
    except ValueError as error:
        raise Poison(str(error), entry) from error


def _past(cursor: Cursor, last: Entry, lines: int = 1) -> Cursor:
    """The cursor behind so many more lines."""
    seq = last.seq if last.seq >= 0 else cursor.seq + 1
    return Cursor(last.after, seq, cursor.missing + max(0, seq - cursor.seq - lines))
