"""One worker's part in keeping its node's slices: which buckets are hot, and the exchanges with the store.

Requests are counted by bucket for half a second at a time; one that has HOT_PER_S of them gets a slice, which all
workers share that find it hot as well. Each looks at the slices it knows every TICK_S, and at once when one runs dry or
goes below zero, and begins the exchange that is due (`slicing.py`); the rows (`slicerows.py`) see to it that it is one
at a time, and that an exchange is asked again until it is answered.

Near the end of its window a slice is left alone: the store would count an exchange that comes late in the next window.
So clocks of nodes should be together within END_MS, or what one has used may be charged in two windows.

Invariants: a slice that this worker has open requests in is looked at; at most MAX_SLICED slices and MAX_COUNTED
counts. A new worker begins with every slice that its node has, since those who knew one may have died. Left out: what
is taken from a slice (`slices.py`).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from gateway.limiter.engine import Amount, Engine, Epoch, Unavailable
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.recorded import SLICE, slice_mark
from gateway.limiter.slicerows import BASE, Asked, Place, SliceRows
from gateway.limiter.slicing import HOT_PER_S, LEASE_MS, Ask, Known, abandoned, due, farewell
from gateway.limiter.spec import Kind, Spec
from gateway.limiter.table import Table
from gateway.tasks import spawn

TICK_S: Final = 0.1
HEAT_TICKS: Final = 5
EPOCH_TICKS: Final = 3
QUIET_TICKS: Final = 100  # after which an empty slice is let go of
END_MS: Final = 5_000
CLOSE_S: Final = 1.0
MAX_SLICED: Final = 1024  # buckets of one worker that have slices
MAX_COUNTED: Final = 16_384  # and of which requests are counted
HOT: Final = round(HOT_PER_S * HEAT_TICKS * TICK_S)
_END_USER: Final = "end_user="  # there are too many of them, and one of them is no load
_log: Final = logging.getLogger("gateway.limiter")


class SliceCounts(msgspec.Struct):
    """What happened so far; telemetry reads it at scrape time."""

    admitted: int = 0  # requests, from slices
    dry: int = 0  # requests that found too little in a slice
    exchanges: int = 0


class Account:
    """One generation of a slice, as one worker knows it."""

    __slots__ = (
        "adopted",
        "asking",
        "at_left",
        "at_mark",
        "at_used",
        "bucket",
        "epoch",
        "generation",
        "name",
        "open",
        "own",
        "place",
        "quiet",
        "shut",
        "spec",
        "take",
        "taken",
        "takes",
    )

    def __init__(self, bucket: str, spec: Spec, place: Place, *, adopted: bool) -> None:
        self.bucket = bucket
        self.spec = spec  # as the newest request has it: a limit may change
        self.adopted = spec if adopted else None  # while it is the spec, nobody has told the limit
        self.place = place
        self.name = place.bucket
        self.own = place.spec
        self.epoch = place.epoch
        self.generation = place.generation
        self.at_mark, self.at_left, self.at_used = place.words
        self.open = 0  # holds of this worker in it
        self.taken = 0  # wanted by requests, and not noted yet
        self.takes = 0  # how many these were
        self.take = 1  # what one request takes
        self.quiet = 0  # looks since a request wanted something
        self.asking: asyncio.Task[None] | None = None
        self.shut = True  # nothing is in it

    def suits(self, spec: Spec) -> bool:
        """Whether a take against this spec can be of this slice; its limit may have changed."""
        return _counts(spec) == _counts(self.spec)


def _counts(spec: Spec) -> tuple[int, ...]:
    """What a slice rests on; limits may differ."""
    return spec.kind, spec.amount, spec.period_ms, spec.start_ms


class Keeper:
    """The slices of one worker; `sliced` is what its requests ask."""

    def __init__(
        self, store: Engine, table: Table, node: str, nodes: int, ask_epoch: Callable[[], Awaitable[Epoch]] | None
    ) -> None:
        self.counts = SliceCounts()
        self.accounts: dict[str, Account] = {}
        self.rows = SliceRows(table)
        self._words = table.words
        self._wall_ms = table.wall_ms
        self._store = store
        self._node = node
        self._nodes = nodes
        self._ask_epoch = ask_epoch
        self.mark = slice_mark("")  # how a hold is recorded that is counted here
        self._epoch = 0 if ask_epoch is not None else 1  # of the store's memory; 0: not known yet
        self._past: set[int] = set()  # epochs that are over
        self._strange: set[int] = set()  # epochs of slices that are over, or that this worker has still to learn
        self._counted: dict[str, tuple[Spec, int]] = {}
        self._leaving: list[Account] = []  # other slices of the same buckets, which only need to be given back
        self._ticks = 0
        self._adopted = False

    # --- for requests -----------------------------------------------------------------------------------------------

    def sliced(self, takes: Sequence[Amount]) -> dict[str, Account] | None:
        """The slices of these buckets, if each has one that is not empty."""
        accounts, words, epoch, shut = self.accounts, self._words, self._epoch, not takes
        found: dict[str, Account] = {}
        for take in takes:
            bucket, spec = take.bucket, take.spec
            account = accounts.get(bucket)
            if account is None or not (spec is account.spec or account.suits(spec)):
                self._count(takes)
                return None
            account.spec = spec
            account.taken += take.amount
            account.takes += 1
            if account.shut or account.epoch != epoch or words[account.at_mark] != account.generation:
                shut = True
            found[bucket] = account
        return None if shut else found

    def is_void(self, account: Account) -> bool:
        """Whether the store has lost its data since this slice was granted."""
        return bool(self._words[account.at_mark] != account.generation)

    def level(self, account: Account) -> int:
        """What is left of the bucket, this node's slice included, as far as it is known here."""
        words = self._words
        level: int = account.spec.limit - words[account.at_used] + BASE - words[account.at_left]
        return level

    def left(self, account: Account) -> int:
        """What is left of a slice; below zero: used beyond it."""
        left: int = BASE - self._words[account.at_left]
        return left

    def hurry(self, accounts: Iterable[Account]) -> None:
        """Look at these at once."""
        with suppress(MutexLost):
            for account in accounts:
                self._look(account)

    def _count(self, takes: Sequence[Amount]) -> None:
        """Count a request that slices could do."""
        for take in takes:
            if take.spec.kind is Kind.SLOTS or _END_USER in take.bucket:
                return
        counted = self._counted
        for take in takes:
            _, times = counted.get(take.bucket, (take.spec, 0))
            if times or len(counted) < MAX_COUNTED:
                counted[take.bucket] = (take.spec, times + 1)

    # --- each tick --------------------------------------------------------------------------------------------------

    async def keep(self) -> None:
        """Look after slices for as long as this worker lives."""
        while True:
            await asyncio.sleep(TICK_S)
            try:
                await self.tick()
            except MutexLost as error:
                _log.error("limits: no slices any more: %s", error)
                self.accounts.clear()
                return

    async def tick(self) -> None:
        """Look at everything once. Raises MutexLost."""
        if self._ticks % EPOCH_TICKS == 0 and (self.accounts or self._counted or not self._adopted):
            await self._learn_epoch()
        if not self._adopted and self._epoch:
            self._adopt()
        self._ticks += 1
        if self._ticks % HEAT_TICKS == 0:
            self._open_hot()
        for account in [*self.accounts.values(), *self._leaving]:
            self._look(account)

    async def close(self) -> None:
        """Give back what is left, as far as the store is there."""
        with suppress(TimeoutError, MutexLost):
            async with asyncio.timeout(CLOSE_S):
                for account in [*self.accounts.values(), *self._leaving]:
                    with suppress(Unavailable, MutexBusy):
                        await self._give_back(account)

    async def _learn_epoch(self) -> None:
        if self._ask_epoch is None:
            return
        strange, self._strange = self._strange, set()
        try:
            named = await self._ask_epoch()
        except Unavailable:
            return
        mark = slice_mark(named.id)
        epoch = int(mark.removeprefix(SLICE), 16) + 1
        if self._epoch not in {0, epoch}:
            _log.warning("limits: the store has lost its data, so slices of this node begin anew")
        self._past |= (strange | {self._epoch}) - {0, epoch}
        self._epoch, self.mark = epoch, mark

    def _adopt(self) -> None:
        self._adopted = True
        for known in self.rows.known():
            if known.spec.kind is not Kind.WINDOW or self._wall_ms() < known.spec.end_ms:
                self._open(known.name, known.spec, adopted=True)

    def _open_hot(self) -> None:
        counted, self._counted = self._counted, {}
        for bucket, (spec, times) in counted.items():
            if times < HOT or not self._epoch or len(self.accounts) >= MAX_SLICED:
                continue
            before = self.accounts.get(bucket)
            if before is None or not before.suits(spec):
                self._open(bucket, spec)

    def _open(self, bucket: str, spec: Spec, *, adopted: bool = False) -> None:
        """Have the slice of a bucket; that of the same bucket which counts in another way is given back."""
        with suppress(MutexBusy):
            place = self.rows.open(bucket, spec, self._epoch)
            if place is not None:
                before = self.accounts.pop(bucket, None)
                self._leaving += [before] if before is not None else []
                self.accounts[bucket] = Account(bucket, spec, place, adopted=adopted)

    def _look(self, account: Account) -> None:
        """Begin the exchange that is due for a slice, if one is. Raises MutexLost."""
        if account.asking is not None:
            return
        if self._is_ending(account):
            account.shut = self.left(account) <= 0
            return
        if account.epoch != self._epoch:
            self._strange.add(account.epoch)
        asked = self._asked(account, self._decide(account))
        account.shut = self.left(account) <= 0
        if asked is not None:
            account.asking = spawn(self._exchange(account, asked), name="limit slice")
        elif self.is_void(account):
            self._let_go(account)
            self._open(account.bucket, account.spec, adopted=account.spec is account.adopted)
        elif account.shut and not account.open and account.quiet >= QUIET_TICKS:
            self._let_go(account)

    def _decide(self, account: Account) -> Callable[[Known], Ask | None]:
        spec, nodes, adopted = account.spec, self._nodes, account.spec is account.adopted

        def decide(known: Known) -> Ask | None:
            return abandoned(known, spec) if adopted else due(known, spec, nodes, account.take)

        return decide

    def _asked(self, account: Account, decide: Callable[[Known], Ask | None]) -> Asked | None:
        """Note what was wanted, and begin an exchange. Raises MutexLost."""
        taken, takes = account.taken, account.takes
        account.quiet = 0 if takes else account.quiet + 1
        account.take = max(taken // takes, 1) if takes else account.take
        try:
            asked = self.rows.look(account.place, taken, self._epoch, self._past, decide)
        except MutexBusy:
            return None
        account.taken = account.takes = 0
        return asked

    def _is_ending(self, account: Account) -> bool:
        """Whether the slice's window is nearly over; it is let go of when it is."""
        spec = account.spec
        if spec.kind is not Kind.WINDOW:
            return False
        now_ms = self._wall_ms()
        if now_ms >= spec.end_ms:
            self._let_go(account)
        return now_ms >= spec.end_ms - END_MS

    def _let_go(self, account: Account) -> None:
        if self.accounts.get(account.bucket) is account:
            del self.accounts[account.bucket]
        if account in self._leaving:
            self._leaving.remove(account)

    # --- exchanges --------------------------------------------------------------------------------------------------

    async def _exchange(self, account: Account, asked: Asked) -> None:
        """Have an exchange answered; one that is not is asked again by whoever looks next."""
        try:
            await self._have_answered(account, asked)
        except (Unavailable, MutexBusy, MutexLost):
            return
        finally:
            account.asking = None
        if self.left(account) < 0:
            self.hurry((account,))

    async def _have_answered(self, account: Account, asked: Asked) -> None:
        turn, ask = asked
        bucket, spec, place = account.bucket, account.spec, account.place
        self.counts.exchanges += 1
        if ask.charges:
            charge = Amount(bucket, spec, -ask.unused)
            (level,) = (await self._store.settle(f"slice|{self._name(spec)}|{turn}|{bucket}", (charge,))).levels
            granted = 0
        else:
            granted, level, _ = msgspec.structs.astuple(
                await self._store.lease(
                    self._name(spec), turn, bucket, spec, want=ask.want, least=0, unused=ask.unused, lease_ms=LEASE_MS
                )
            )
        self.rows.answer(place, asked, granted, spec.limit - level)
        account.shut = self.left(account) <= 0

    def _name(self, spec: Spec) -> str:
        """Who leases a slice: a bucket whose rate was changed has two for a while, which must not meet."""
        return f"{self._node}|{spec.amount}/{spec.period_ms}" if spec.kind is Kind.RATE else self._node

    async def _give_back(self, account: Account) -> None:
        """Have what is left taken back, and what is owed charged. Raises Unavailable, MutexBusy, MutexLost."""
        spec = account.spec

        def decide(known: Known) -> Ask | None:
            return farewell(known, spec)

        while not self._is_ending(account):
            if account.asking is not None:
                await asyncio.wait({account.asking})
            asked = self._asked(account, decide)
            if asked is None:
                return
            before = self.left(account)
            await self._have_answered(account, asked)
            if self.left(account) == before:
                return
