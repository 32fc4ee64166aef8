"""A limit that is taken out of the config is forgotten: what was used counts no more, should it ever come back.

What is forgotten together is a *subject* (`replay.subject_of`): all buckets of a rule, by its name, or the one of a
key's or team's short form. A subject is gone when a snapshot is in use that does not have it. Two ways lead there: the
rules and teams of two snapshots are compared, and of all that is known (the rows of the node's table, what the journal
comes to) whatever the snapshot in use does not have is gone as well, so what happened while control was dead is made
up for. A rule that is changed is the same one; one of another name is another one.

Once every worker serves by that snapshot, so that nobody reserves of it any more, it is forgotten: in the table, in the
store (by the names of its buckets, which this node knows from its journal), in the journal, where a record says so to
whoever counts it again, and in the rows that were counted from it. A request that has been on its way since then
settles into nothing, or charges what it has used beyond its reservation, which is forgotten as well while the limit is
gone.

Nodes that share a store forget for themselves: the first one empties what all have used; whoever still has the limit in
force begins at zero, and forgets what was used since when it has the new config, too.

Invariants: what a snapshot in use has is never forgotten but once, where an earlier one did not have it; the record is
on the disk before the rows are without it. Left out: SLOTS, which count what is on its way,
and, without a journal, what is in a store: nobody knows its names, and it expires.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar
from urllib.parse import unquote

from gateway.config.keys import KeyRecord
from gateway.config.schema import Config
from gateway.control.readers.budgets import BudgetReader
from gateway.journal.journal import Journal
from gateway.journal.line import content_of
from gateway.limiter.engine import Reason, Unavailable
from gateway.limiter.forget import Named, forget, named
from gateway.limiter.layout import kept_name
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.replay import FORGOTTEN, SHORT_NAMES, subject_of
from gateway.limiter.spec import Kind
from gateway.limiter.store import Store
from gateway.limiter.table import Table
from gateway.record import Kind as RecordKind
from gateway.record import Record
from gateway.units import NS_PER_US, US_PER_S

if TYPE_CHECKING:
    from gateway.config.limits import Allowance

T = TypeVar("T")

AGAIN_US: Final = 10 * US_PER_S  # after which everything that was written before a reload has been read
AT_ONCE: Final = 128  # buckets of one call, and of one record
ACTOR: Final = "gateway"
_NAMED: Final = 3  # subjects in a log line
_KEY: Final = "key"
_TEAM: Final = "team"
_log: Final = logging.getLogger("gateway.limits")

Bucket = tuple[Kind, str]


class Books(NamedTuple):
    """What counts a node's limits again, where a journal is kept."""

    journal: Journal
    reader: BudgetReader


class Memories(NamedTuple):
    """Where limits count: the table of the node, and the store that takes its place where there is one."""

    table: Table
    store: Store | None = None


class Snapshot(NamedTuple):
    """What is in use at a time; `keys` None: not known."""

    config: Config
    keys: Iterable[KeyRecord] | None


class Forgetting:
    """Forgets on one node; belongs to one loop.

    `adopted` tells whether every worker serves by the snapshot in use; `keys` are that one's, None while not known.
    """

    def __init__(
        self,
        config: Config,
        keys: Callable[[], Iterable[KeyRecord] | None],
        memories: Memories,
        adopted: Callable[[], bool],
        books: Books | None = None,
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        self.forgotten = 0  # subjects
        self._config = config
        self._keys = keys
        self._memories = memories
        self._adopted = adopted
        self._books = books
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._snapshots = [Snapshot(config, keys())]  # that are yet to be looked at
        self._again_us = 0
        self._removed = set[str]()  # by the snapshots that are yet to be looked at
        self._gone = set[str]()
        self._untold = dict[int, frozenset[str]]()  # when it was emptied, and what, that no record says yet

    def follow(self, config: Config) -> None:
        """Another snapshot is in use."""
        self._removed |= _rules(self._config) - _rules(config)
        self._config = config
        self._snapshots.append(Snapshot(config, self._keys()))

    async def turn(self) -> None:
        """Forget what is gone. Raises Unavailable, Trouble, OSError; then it is not done, and the next turn goes on."""
        await self._judge()
        if self._gone and self._adopted():
            subjects, at_us = frozenset(self._gone), self._clock_us()
            try:
                await self._empty(subjects)
            except (MutexBusy, MutexLost) as error:
                reason = Reason.BUSY if isinstance(error, MutexBusy) else Reason.DOWN
                raise Unavailable(reason, str(error)) from error
            self._gone -= subjects
            self._untold[at_us] = subjects
        for at_us, subjects in tuple(self._untold.items()):
            if self._books is not None:
                await self._tell(self._books, at_us, subjects)
            del self._untold[at_us]
            self.forgotten += len(subjects)

    # --- what is gone -----------------------------------------------------------------------------------------------

    async def _judge(self) -> None:
        snapshots, self._snapshots = self._snapshots, []
        in_use = [Snapshot(self._config, self._keys())]
        self._gone |= self._removed  # with their snapshots: one that comes meanwhile is the next turn's, and told once
        self._removed = set()
        now_us = self._clock_us()
        if snapshots or 0 < self._again_us <= now_us:
            self._again_us = now_us + AGAIN_US if snapshots else 0
            subjects = await asyncio.to_thread(self._subjects)
        else:
            subjects = self._stirred()
        for snapshot in snapshots or in_use:
            if subjects:
                self._gone |= await asyncio.to_thread(_missing, snapshot, subjects)

    def _stirred(self) -> set[str]:
        """Of what is forgotten, and was charged again."""
        if self._books is None:
            return set()
        return {subject_of(key.bucket) for key in self._books.reader.take_stirred()}

    def _subjects(self) -> set[str]:
        """Of everything that is known."""
        found = {subject for row in named(self._memories.table) if (subject := _subject(row))}
        return found | {subject_of(name) for _, name in self._known()}

    def _known(self) -> set[Bucket]:
        """The buckets that the journal comes to."""
        return set() if self._books is None else {(key.kind, key.bucket) for key in self._books.reader.buckets()}

    # --- forgetting it ----------------------------------------------------------------------------------------------

    async def _empty(self, subjects: frozenset[str]) -> None:
        """Forget these where they are counted. The store comes first: one that is away keeps the node's part."""
        rows, buckets = await asyncio.to_thread(self._of, subjects)
        if self._memories.store is not None:
            for part in _batches(buckets):
                await self._memories.store.forget(part)
        for some in _batches(rows):
            forget(self._memories.table, some)
            await asyncio.sleep(0)
        names = sorted(subjects)
        _log.warning(
            "limits: the config has no %s any more: what was used of it is forgotten",
            ", ".join([*names[:_NAMED], "…"][: len(names)]),
        )

    async def _tell(self, books: Books, at_us: int, subjects: Collection[str]) -> None:
        """Have it in the journal, on the disk, and then in what is counted from it. Raises OSError, Trouble."""
        for records in _batches(list(_records(subjects, at_us))):
            written = [books.journal.commit(content_of(record), synced=True) for record in records]
            if not all(await asyncio.gather(*written)):
                raise OSError("a limit is forgotten, and the journal cannot be written at the moment")
        books.reader.forget(subjects, at_us)
        await asyncio.to_thread(books.reader.save)

    def _of(self, subjects: frozenset[str]) -> tuple[list[Named], list[Bucket]]:
        """The rows and the buckets of these."""
        buckets = {bucket for bucket in self._known() if subject_of(bucket[1]) in subjects}
        cut = {kept_name(name).decode(errors="replace") for _, name in buckets}
        rows = [row for row in named(self._memories.table) if _subject(row) in subjects or row.name in cut]
        return rows, sorted(buckets | {(row.kind, row.name) for row in rows if not row.cut})


def _records(subjects: Collection[str], at_us: int) -> Iterator[Record]:
    """A record for each rule, and for each AT_ONCE buckets of one short form."""
    buckets: dict[str, list[str]] = {}
    for subject in sorted(subjects):
        buckets.setdefault(subject.partition("|")[0], []).append(subject)
    for rule, names in buckets.items():
        for some in _batches(names):
            detail = json.dumps({"buckets": some}) if rule in SHORT_NAMES else ""
            yield Record(RecordKind.ADMIN, "", at_us, action=FORGOTTEN, subject=rule, actor=ACTOR, detail=detail)


def _rules(config: Config) -> set[str]:
    return {rule.name for rule in config.limits.rules}


def _subject(row: Named) -> str:
    """What a row would be forgotten with; "" where its name does not tell, or is no bucket's, as a slice's."""
    rule, *scopes = row.name.split("|")
    if any("=" not in scope for scope in scopes):
        return ""
    return "" if row.cut and (not scopes or rule in SHORT_NAMES) else subject_of(row.name)


def _missing(snapshot: Snapshot, subjects: Collection[str]) -> set[str]:
    """What of these a snapshot does not have; a pass over all keys where there are some of keys."""
    shorts = {subject: _short(subject) for subject in subjects if subject.partition("|")[0] in SHORT_NAMES}
    missing = set(subjects) - shorts.keys() - _rules(snapshot.config)
    of_keys = {short.name for short in shorts.values() if short.whose != _TEAM}
    found: dict[tuple[str, str], Allowance | None] = {
        (_TEAM, name): allowance for name, allowance in snapshot.config.teams.items()
    }
    if of_keys and snapshot.keys is not None:
        found |= {(_KEY, record.id): record.allowance for record in snapshot.keys if record.id in of_keys}
    for subject, (whose, form, name) in shorts.items():
        allowance = found.get((whose, name))
        known = whose == _TEAM or snapshot.keys is not None
        if known and (allowance is None or getattr(allowance, form) is None):
            missing.add(subject)
    return missing


class _Short(NamedTuple):
    """A short form: of a `key` or a `team`, which one, and whose by its name in the config."""

    whose: str
    form: str
    name: str


def _short(bucket: str) -> _Short:
    rule, _, scope = bucket.partition("|")
    whose, _, form = rule.partition(".")
    value = scope.partition("=")[2]
    if whose == _TEAM and "/" in value:  # behind its org's
        value = value.partition("/")[2]
    return _Short(whose, form, unquote(value))


def _batches(found: Sequence[T]) -> Iterator[list[T]]:
    waiting = iter(found)
    while some := list(islice(waiting, AT_ONCE)):
        yield some
