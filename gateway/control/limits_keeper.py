"""What was used survives whatever counts it: given back before the node is ready, and whenever it was forgotten.

The engine counts in memory: of this node, or of a store that many nodes share. Such a memory has an *epoch*, a name
that is made with it. Control remembers the epoch that its rows were last given to (`readers/budgets.py`); another one
means that the memory began anew, so what the journal says was used goes into it again, bucket by bucket, as settlements
of holds that never were. Each has an id made of node, time and bucket, so doing it twice, after a crash in the middle,
charges nothing twice. Every node gives back what its own journal says, so a store has the sum.

    the node began anew     the journal is read to its end first; reservations of killed workers count as they are
    a store lost its data   requests go on: what they have reserved is not given back, they will settle in full
    a store was away        nothing is given back, but what was settled meanwhile is settled again, under its own ids;
                            so it is when single settlements were not delivered, or a worker died, who may have had some

    a store went back       it kept its name and lost the last of what it was told, as a replica may: as if it was away
                            since, which it remembers itself, since each look leaves there how far all was known

For these nobody knows which of the settlements since the store was last seen it has; all of them are repeated, which
it marks for a day. Memory of this node cannot be away, and forgets its marks sooner: nothing is repeated there,
but it knows which holds it waits for in vain. Where a worker wrote the outcome of one and did not get to settle it,
that is done here, once: a hold that is settled is not waited for any more.

What a worker held that has died is certain to get no outcome. A store is told of it once more, as it was reserved and
under its own id: should it have lost the hold, or never heard of it, it is charged all the same. Of holds that may have
been counted in slices (`sliced`), which no store knows by their ids, this is done where its memory is younger only.

Requests that come after a memory began anew, and before what was used is given back, charge a bucket that seems fresh,
and it refills. So does the journal's count of what was used before, and no time may refill twice: what has refilled of
those requests is given back as well.

What is given back, and what is settled again, is parted by when a look began that found the memory there. Before
anything is given back, that is in the checkpoint: a control that is killed meanwhile is followed by one that parts it
in the same place, and counts nothing on both sides. While workers still have settlements to deliver, which may go to
any memory, looks do not count for this.

Invariants: an epoch is adopted only when all was given back. Left out: who makes an epoch (the engine), and that what
another node used is lost with its journal.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from gateway.control.limits_repeat import Engine, Fold, Repetition, Settlement, batches, settle
from gateway.control.readers.base import Trouble
from gateway.control.readers.budgets import BudgetReader
from gateway.limiter.engine import Amount, Epoch, Reason, Renewal, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.layout import AT_KEY, hold_key, hold_name
from gateway.limiter.limiter import LEASE_MS
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.recorded import Key, key_of
from gateway.limiter.replay import Fact, Used, is_counted
from gateway.limiter.spec import MAX_AMOUNT, Spec
from gateway.limiter.sweep import lapsed
from gateway.limiter.table import Table, TableEngine
from gateway.units import NS_PER_US, US_PER_S

TURN_S: Final = 1.0
MARKED_US: Final = 20 * 3600 * US_PER_S  # how far back a settlement may be repeated: an engine's marks last a day
UNSURE_US: Final = 3 * US_PER_S  # before a look: what was under way, and what workers have not said yet (a second)
RIPE_US: Final = 5 * US_PER_S  # after which the outcome of a lapsed hold is signed and read, if there is one
SEARCHED_US: Final = 600 * US_PER_S  # before a lapse was noticed: a lease, and a control that was away
SAVING_SHARE: Final = 10  # at most one part in so many of the time goes into writing checkpoints
_US_PER_MS: Final = 1_000
_FAILURES: Final = (Unavailable, Trouble, OSError)
_log: Final = logging.getLogger("gateway.limits")


def _none() -> Sequence[str]:
    return ()


def _never() -> int:
    return 0


class Memory(NamedTuple):
    """An engine, and what is known of its memory.

    `marked`: it marks what was settled for a day, as stores do. `sliced`: it may have granted slices. `lapsed` names
    the holds, as `layout.hold_name` does, whose lease has ended without a settlement. Raises Unavailable. `undelivered`
    is another number whenever workers could not deliver a settlement, or died with some: then what was settled since
    the last look is settled again. `owed` is how many they still try to deliver.
    `epoch` is told the memory that was seen last, and up to when all that was settled is known to be there. `kept`: a
    checkpoint was written since the memory was made, so it has been given what was used. `pause` waits so long, or
    until it has come back.
    """

    engine: Engine
    epoch: Callable[[str, int], Awaitable[Epoch]]
    marked: bool
    sliced: bool = False
    lapsed: Callable[[], Sequence[str]] = _none
    undelivered: Callable[[], int] = _never
    owed: Callable[[], int] = _never
    kept: bool = False
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep


def of_table(table: Table, *, kept: bool) -> Memory:
    """The table in this node's shared memory; `kept` as in Memory."""
    made = hashlib.blake2b(table.words[AT_KEY : AT_KEY + 2].tobytes(), digest_size=8).hexdigest()

    async def epoch(_known: str, _known_us: int) -> Epoch:
        return Epoch(made, fresh=not kept)

    def waiting() -> Sequence[str]:
        try:
            return [found.hold for found in lapsed(table)]
        except MutexBusy:
            return ()  # another look will do
        except MutexLost as error:
            raise Unavailable(Reason.DOWN, str(error)) from error

    return Memory(TableEngine(table), epoch, marked=False, lapsed=waiting, kept=kept)


def one_period(_bucket: str, spec: Spec) -> int:
    """What a RATE has at most, where nothing else is said."""
    return spec.amount


class LimitsKeeper:
    """Keeps one node's part. `began_us`: when the node began, by the wall clock; older processes are its past.

    `nodes` is how many share the memory, `capacity_of` what a RATE has at most.
    """

    def __init__(
        self,
        reader: BudgetReader,
        memory: Memory,
        node: str,
        began_us: int,
        clock_us: Callable[[], int] | None = None,
        *,
        nodes: int = 1,
        capacity_of: Callable[[str, Spec], int] = one_period,
    ) -> None:
        self.ready = False  # what was used is where it counts
        self.given_back = 0  # times that an engine was
        self.repeated = 0  # settlements
        self.corrected = 0  # holds that nobody lived to settle
        self._reader = reader
        self._memory = memory
        self._node = node
        self._nodes = reader.nodes = nodes
        self._capacity_of = capacity_of
        self._began_us = began_us
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._failing: dict[str, str] = {}
        self._away = False
        self._gone_us = 0  # when the memory was found away first, since it was last there
        self._undelivered = 0
        self._save_s = 0.0
        self._waiting: dict[str, int] = {}  # lapsed holds, and since when
        self._searched: set[str] = set()  # of them, those without an outcome

    @property
    def failing(self) -> str:
        """Why something could not be done yet; "" while all is well."""
        return "; ".join(self._failing.values())

    async def begin(self) -> None:
        """Return when what was used is where it counts, or a store is away; before that, readers must not run."""
        while True:
            if await self._tried(self._begin):
                break
            await asyncio.sleep(TURN_S)
        self.ready = True
        await self._tried(self._save)

    async def run(self, *also: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Look after it each second, and when it is back, and do these as well; begins where `begin` has ended."""
        loop = asyncio.get_running_loop()
        while True:
            began_s = loop.time()
            await self.turn()
            for step in also:
                await self._tried(step)
            await self._memory.pause(max(TURN_S - (loop.time() - began_s), self._save_s * SAVING_SHARE, 0))

    async def turn(self) -> None:
        """One look: whether the engine is there and remembers, and a checkpoint. Raises nothing that may pass."""
        known = await self._tried(self._look)
        self._away |= not known
        started_s = time.monotonic()
        await self._tried(self._save)
        self._save_s = time.monotonic() - started_s

    async def close(self) -> None:
        """Keep all there is; but what was not given back yet is found as it was by whoever begins again."""
        if self.ready:
            await self._tried(self._save_all)

    # --- within -----------------------------------------------------------------------------------------------------

    @property
    def _known_us(self) -> int:
        """Up to when all that was settled is known to be in the memory that was seen last; 0 for nothing."""
        return max(0, self._reader.seen_us - UNSURE_US)

    async def _tried(self, step: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        name = step.__name__
        try:
            await step()
        except _FAILURES as error:
            if self._failing.get(name) != str(error):
                _log.warning("limits: tried again each second: %s", error)
            self._failing[name] = str(error)
            return False
        self._failing.pop(name, None)
        return True

    async def _save(self) -> None:
        await asyncio.to_thread(self._reader.save)

    async def _save_all(self) -> None:
        await asyncio.to_thread(self._reader.save, last=True)

    async def _save_anyhow(self) -> None:
        await asyncio.to_thread(self._reader.save, anyhow=True)

    async def _begin(self) -> None:
        reader = self._reader
        await asyncio.to_thread(reader.load)
        if reader.saved_us < self._began_us:
            await asyncio.to_thread(reader.rebuild, self._began_us)
            _log.info("limits: %d lines of the journal were counted", reader.rebuilt)
            if self._memory.kept:
                reader.adopt("", 0)  # no checkpoint could be written since it was given back
        at_us, self._undelivered = self._now_unless_owed(), self._memory.undelivered()
        try:
            await self._remind(await self._epoch(), at_us)
        except Unavailable:
            if not self._memory.marked:
                raise
            self._away = True  # a store that is away keeps no node from serving; each limit says what holds meanwhile

    async def _look(self) -> None:
        at_us, undelivered = self._now_unless_owed(), self._memory.undelivered()
        self._away |= undelivered != self._undelivered
        epoch = await self._epoch()
        if self._away or epoch.behind or epoch.id != self._reader.epoch:
            await self._remind(epoch, at_us)
        due = self._reader.take_due()
        try:
            await self._repeat(lambda: iter(due), epoch.id)
        except Unavailable:
            self._reader.give_back_due(due)
            raise
        await self._lay_to_rest()
        await self._correct()
        self._reader.adopt(epoch.id, at_us)
        self._away, self._gone_us, self._undelivered = False, 0, undelivered

    async def _lay_to_rest(self) -> None:
        """Make sure that a store has what the dead held."""
        orphans = self._reader.orphans() if self._memory.marked else []
        if orphans:
            await self._repeat(lambda: filter(self._may_be_missing, orphans), "")
            self._reader.laid_to_rest(orphans)

    def _may_be_missing(self, orphan: Fact) -> bool:
        at_us = orphan.at_ms * _US_PER_MS
        if self._clock_us() - at_us >= MARKED_US:
            return False
        return not self._memory.sliced or at_us <= self._reader.epoch_us

    async def _correct(self) -> None:
        """Settle what a worker wrote the outcome of and did not live to settle."""
        now_us = self._clock_us()
        self._waiting = {name: self._waiting.get(name, now_us) for name in self._memory.lapsed()}
        self._searched &= self._waiting.keys()
        ripe = {name: since_us for name, since_us in self._waiting.items() if now_us - since_us >= RIPE_US}
        wanted = ripe.keys() - self._searched
        if wanted:
            wanted -= {hold_name(hold_key(hold)) for hold in self._reader.holds()}  # of these there is no outcome yet
        if not wanted:
            return
        places = self._reader.standing().places
        outcomes = self._reader.settled(places, min(ripe[name] for name in wanted) - SEARCHED_US)
        found = await asyncio.to_thread(lambda: [fact for fact in outcomes if hold_name(hold_key(fact.hold)) in wanted])
        await settle(self._memory.engine, ((fact.hold, fact.amounts) for fact in found))
        self.corrected += len(found)
        self._searched |= wanted

    def _now_unless_owed(self) -> int:
        """When this look begins; where it does not count, when the last one began that did."""
        return self._reader.seen_us if self._memory.owed() else self._clock_us()

    async def _epoch(self) -> Epoch:
        try:
            return await self._memory.epoch(self._reader.epoch, self._known_us)
        except Unavailable:
            self._gone_us = self._gone_us or self._clock_us()
            raise

    async def _remind(self, epoch: Epoch, at_us: int) -> None:
        """Give the engine what it does not have, as far as that is known. `at_us`: when the look began."""
        reader, now_us = self._reader, self._clock_us()
        forgot = epoch.id != reader.epoch and bool(reader.epoch or epoch.fresh)
        known_us = min(self._known_us, epoch.known_us) if epoch.behind else self._known_us
        since_us = max(known_us, now_us - MARKED_US)
        if self._memory.marked:
            reader.await_due(now_us + UNSURE_US)
            if forgot:
                await self._tried(self._save_anyhow)
        if epoch.behind:
            reader.disturb()
        standing = await asyncio.to_thread(reader.standing)
        counted = "" if epoch.behind else epoch.id  # one that went back in time may not have what slices cost
        refilled = await self._refilled(standing.at_ms) if forgot else {}
        again = (
            await self._repeat(lambda: reader.settled(standing.places, since_us), counted)
            if self._memory.marked
            else {}
        )
        if forgot:
            rows = [self._missing(used, again, refilled) for used in standing.used]
            await settle(self._memory.engine, self._gifts(known_us, rows))
            if (await self._epoch()).id != epoch.id:
                raise Unavailable(Reason.LOST, "the memory of limits was lost while what was used was given back")
            reader.laid_to_rest(standing.orphans)
            self.given_back += 1
            if rows:
                _log.warning("limits: what was used of %d buckets was given back", len(rows))
        reader.adopt(epoch.id, at_us)

    async def _repeat(self, facts: Callable[[], Iterator[Fact]], epoch: str) -> Mapping[Key, int]:
        """Settle these again, but for those counted in slices of this memory; what all of them come to."""
        repetition = Repetition(self._memory.engine, self._nodes, lambda fact: is_counted(fact, epoch))
        async for some in _batches(facts()):
            await repetition.see(some)
        now_ms = self._clock_us() // _US_PER_MS
        async for some in _batches(facts()):
            await repetition.settle(some, now_ms)
        self.repeated += repetition.settled
        return repetition.there(now_ms)

    async def _refilled(self, now_ms: int) -> Mapping[Key, int]:
        """What had refilled in this memory by then of what was reserved there since it began anew.

        A hold from before that was settled here since is known here, too: none is older than the absence.
        """
        fold, since_us = Fold(self._nodes), max(self._reader.seen_us, self._began_us, self._gone_us)
        async for some in _batches(self._reader.reserved(since_us)):
            asked = [Renewal(fact.hold) for fact in some]
            states = await self._memory.engine.renew(asked, lease_ms=LEASE_MS)
            for fact, state in zip(some, states, strict=True):
                if state is not State.UNKNOWN:
                    fold.add(fact)
        return fold.refilled(now_ms)

    def _missing(self, used: Used, again: Mapping[Key, int], refilled: Mapping[Key, int]) -> Amount:
        """What of a bucket is to be given back: all that is neither settled again nor going to be.

        What nodes that share a RATE have used between them, none of them knows: each relies on its part of the refill,
        and gives back what may be missing by that, as much as the bucket can have. While all use their parts that is
        exact; else it is too much by what some have used and others have left since.
        """
        key = key_of(used.bucket, used.spec)
        there = used.live + again.get(key, 0) - refilled.get(key, 0)
        certain, possible = used.used - there, used.used + used.more - there
        most = self._capacity_of(used.bucket, used.spec) if used.more else possible
        return Amount(used.bucket, used.spec, max(certain, min(possible, most), 0))

    def _gifts(self, known_us: int, rows: Iterable[Amount]) -> Iterator[Settlement]:
        """Settlements that come to these amounts, each within what one may have.

        Their ids are of the time up to which they count, not of a memory: should one be lost while it is given to, the
        next may have taken some of them already.
        """
        for row in rows:
            left, part = row.amount, 0
            while left:
                some = min(left, MAX_AMOUNT)
                hold = f"restored|{self._node}|{known_us}|{row.spec.kind.name}|{row.spec.start_ms}|{part}|{row.bucket}"
                yield hold, (Amount(row.bucket, row.spec, some),)
                left, part = left - some, part + 1


async def _batches(facts: Iterator[Fact]) -> AsyncIterator[list[Fact]]:
    """Read in a thread, since it is the journal."""
    groups = batches(facts)
    while some := await asyncio.to_thread(next, groups, None):
        yield some
