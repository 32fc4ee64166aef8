"""A node leases slices of its hottest buckets, and admits from them without asking the store.

An Engine in front of the store (`engine.py` is the contract). A bucket that many requests take from gets a slice in the
node's limit table (`slicerows.py`), for all workers of the node. A request all of whose buckets have a slice with room
is reserved and settled there, under its own hold, as in an embedded table: in one step, whoever dies, and without a
call to the store. Everything else goes to the store as if there were no slices: a request in flight slots, one of an
end user, a bucket that is not hot or nearly empty. Only the store refuses.

Why nothing is admitted twice, and nothing lost:

- The store has charged a slice when it is granted. Requests move `left` by what they reserve and settle, exchanges by
  what they give back and are granted, and each counts once. So what the store has charged for a node is always left +
  reserved + settled. What was used beyond a slice (left < 0) is charged at once.
- What is given back goes to the bucket, and the window, that it came from: while in use what is too much, after a
  second without requests everything, as on `close`.
- A hold is in one place. An attempt that slices cannot serve moves all of it to the store, as a charge that cannot be
  refused any more, and its settlement with it.
- While the store is away, slices are used up, and what is settled waits in them.
- A worker that dies leaves what it had reserved charged, as everywhere, and its slices to the others. A node that dies
  leaves what its slices had left charged: of a RATE until it has refilled, of a budget until its window ends. What was
  used beyond them at that moment is not charged: the overuse of the last exchange's time.
- When the store has lost its data, slices begin anew, what they were granted since is given back, and a hold that has
  taken from an old one is settled with the store in full. Within EPOCH_TICKS, that is; what is left is used until then.
- The store never sees the holds that were counted here. To repeat their settlements from the journal would charge them
  again, so records tell them apart, and by which memory they were counted (`recorded.slice_mark`): in that memory they
  are not repeated, in a later one they are.

Not exact: a refusal may come early by what slices have left, which is at most half of what is free (`PART`); a refund
to a RATE that comes late is nothing where the bucket has refilled meanwhile; and a bucket in debt may take back less
than was granted, by less than the debt. Left out: how much and when (`slicing.py`), asking (`slicekeeping.py`). Nodes
that share a store must have different names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from msgspec.structs import replace

from gateway.limiter.engine import (
    NOTHING_BINDS,
    Amount,
    Engine,
    Epoch,
    Outcome,
    Ready,
    Reason,
    Renewal,
    Reserved,
    Settled,
    Slice,
    Standing,
    Unavailable,
)
from gateway.limiter.hold import State
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.slicekeeping import Account, Keeper, SliceCounts
from gateway.limiter.spec import Spec
from gateway.limiter.table import Table
from gateway.tasks import spawn

_ADMITTED: Final = Outcome.ADMITTED
_UNASKED: Final = frozenset({Reason.DOWN, Reason.BUSY})
_TROUBLE: Final = (MutexBusy, MutexLost)


class Sliced(Reserved, frozen=True, gc=False, array_like=True):
    """The answer to a RESERVE that was admitted from slices."""


class SettledHere(Ready[Settled]):
    """The answer to a SETTLE that was counted in slices; `mark` is how its hold is to be recorded."""

    __slots__ = ("mark",)

    def __init__(self, levels: tuple[int, ...], mark: str) -> None:
        super().__init__(Settled(State.OPEN, levels))
        self.mark = mark


class Held:
    """What a hold has taken from slices, from which by the name of the bucket, and in which memory (`mark`).

    `moving`: the store was asked to take the hold over, and has not refused.
    """

    __slots__ = ("accounts", "mark", "moving", "taken")

    def __init__(self, accounts: dict[str, Account], taken: Sequence[Amount], mark: str) -> None:
        self.mark = mark
        self.accounts = accounts
        self.taken = taken
        self.moving = False
        for account in accounts.values():
            account.open += 1

    def rest(self, over: Sequence[Amount]) -> list[Amount]:
        """What it has taken of other buckets than these."""
        names = {amount.bucket for amount in over}
        return [taken for taken in self.taken if taken.bucket not in names]

    def add(self, accounts: Mapping[str, Account], takes: Sequence[Amount], releases: Sequence[Amount]) -> None:
        """Another attempt was admitted."""
        self.taken = [*self.rest([*takes, *releases]), *takes]
        for bucket, account in accounts.items():
            if bucket not in self.accounts:
                self.accounts[bucket] = account
                account.open += 1

    def own(self, amounts: Sequence[Amount]) -> list[Amount]:
        """These as the table counts them; what it has never had is left out."""
        accounts = self.accounts
        known = [(accounts[one.bucket], one.amount) for one in amounts if one.bucket in accounts]
        return [Amount(account.name, account.own, amount) for account, amount in known]


class SlicedEngine:
    """A worker's engine; make it on the loop that uses it, then `start`.

    `node` names this node to the store, `nodes` is how many share it. `epoch` tells the name of the store's memory;
    without it, a store that lost its data is not noticed.
    """

    def __init__(
        self,
        store: Engine,
        table: Table,
        node: str,
        *,
        nodes: int = 1,
        epoch: Callable[[], Awaitable[Epoch]] | None = None,
    ) -> None:
        self.keeper = Keeper(store, table, node, nodes, epoch)
        self._store = store
        self._table = table
        self._held: dict[str, Held] = {}
        self._keeping: asyncio.Task[None] | None = None

    @property
    def counts(self) -> SliceCounts:
        """What happened so far."""
        return self.keeper.counts

    def start(self) -> None:
        """Begin to look after slices."""
        self._keeping = spawn(self.keeper.keep(), name="limit slices")

    # --- Engine -----------------------------------------------------------------------------------------------------

    def reserve(
        self,
        hold: str,
        takes: Sequence[Amount],
        *,
        owner: int,
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Awaitable[Reserved]:
        """RESERVE: from slices if all takes find room there, else from the store."""
        held = self._held.get(hold)
        if held is not None:
            if not attempt:  # a call that is repeated
                return self._admitted(held.accounts)
            here = partial(self._table.reserve, hold, owner=owner, lease_ms=lease_ms, attempt=attempt)
            there = partial(self._store.reserve, hold, owner=owner, lease_ms=lease_ms, attempt=attempt)
            return self._extend(hold, held, takes, releases, here, there)
        accounts = None if attempt or releases else self.keeper.sliced(takes)
        if accounts is not None:
            answer = self._take(accounts, takes, partial(self._table.reserve, hold, owner=owner, lease_ms=lease_ms))
            if answer is not None:
                self._held[hold] = Held(accounts, takes, self.keeper.mark)
                return answer
        return self._store.reserve(hold, takes, owner=owner, lease_ms=lease_ms, attempt=attempt, releases=releases)

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Awaitable[Settled]:
        """SETTLE: where it was reserved. Raises MutexBusy: nothing was settled, and it can be repeated."""
        held = self._held.get(hold)
        if held is None:
            return self._store.settle(hold, actuals)
        accounts = held.accounts
        own = held.own(actuals)
        beyond = len(own) < len(actuals) and any(actual.amount for actual in actuals if actual.bucket not in accounts)
        if held.moving or beyond or self._is_void(held):
            self._give_back(hold, held)
            return self._store.settle(hold, actuals)
        try:
            self._table.settle(hold, own)
        except MutexLost:  # and every slice with it
            self._forget(hold)
            return self._store.settle(hold, actuals)
        self._forget(hold)
        return SettledHere(self._settled_levels(accounts, actuals), held.mark)

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        """RENEW, where each hold is."""
        stored = [renewal for renewal in holds if renewal.hold not in self._held]
        if len(stored) == len(holds):
            return self._store.renew(holds, lease_ms=lease_ms)
        here = [Renewal(renewal.hold) for renewal in holds if renewal.hold in self._held]
        states = {renewal.hold: State.OPEN for renewal in here}
        with suppress(*_TROUBLE):  # they stand in no slots, and the charges of a lapsed hold stay
            states.update(zip(states, self._table.renew(here, lease_ms=lease_ms), strict=True))
        return _renewed(holds, states, stored, self._store.renew(stored, lease_ms=lease_ms) if stored else None)

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> Awaitable[Slice]:
        """LEASE: the store's."""
        return self._store.lease(node, turn, bucket, spec, want=want, least=least, unused=unused, lease_ms=lease_ms)

    def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
        """PEEK: the store's, to whom a slice is used."""
        return self._store.peek(asked)

    async def close(self) -> None:
        """Give back what is left of all slices, as far as the store is there, and let go of it."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})
        await self.keeper.close()
        await self._store.close()

    # --- within -----------------------------------------------------------------------------------------------------

    def _take(
        self, accounts: dict[str, Account], takes: Sequence[Amount], here: Callable[..., Reserved]
    ) -> Reserved | None:
        """Take from slices by this RESERVE of the table; None if that does not admit it."""
        pairs = zip(accounts.values(), takes, strict=True)
        try:
            answer = here([Amount(account.name, account.own, take.amount) for account, take in pairs])
        except _TROUBLE:
            return None
        if answer.outcome is _ADMITTED:
            return self._admitted(accounts)
        self.counts.dry += 1
        self.keeper.hurry(accounts.values())
        return None

    def _admitted(self, accounts: Mapping[str, Account]) -> Reserved:
        self.counts.admitted += 1
        levels = tuple(map(self.keeper.level, accounts.values()))
        return Sliced(_ADMITTED, NOTHING_BINDS, 0, levels)

    def _settled_levels(self, accounts: Mapping[str, Account], actuals: Sequence[Amount]) -> tuple[int, ...]:
        """What is left of these buckets; what was used beyond a slice is charged at once."""
        keeper, levels, owing = self.keeper, [], []
        for actual in actuals:
            account = accounts.get(actual.bucket)
            levels.append(actual.spec.limit if account is None else keeper.level(account))
            if account is not None and keeper.left(account) < 0:
                owing.append(account)
        if owing:
            keeper.hurry(owing)
        return tuple(levels)

    def _extend(
        self,
        hold: str,
        held: Held,
        takes: Sequence[Amount],
        releases: Sequence[Amount],
        here: Callable[..., Reserved],
        there: Callable[..., Awaitable[Reserved]],
    ) -> Awaitable[Reserved]:
        """A further attempt of a hold that is here: from slices if it can be, else the whole hold goes to the store."""
        accounts = self.keeper.sliced(takes) if held.mark == self.keeper.mark else None
        if accounts is not None:
            answer = self._take(accounts, takes, partial(here, releases=held.own(releases)))
            if answer is not None:
                held.add(accounts, takes, releases)
                return answer
        kept = held.rest([*takes, *releases])
        forced = [Amount(taken.bucket, replace(taken.spec, shadow=True), taken.amount) for taken in kept]
        held.moving = True
        return self._move(hold, held, len(takes), there([*takes, *forced], releases=releases))

    async def _move(self, hold: str, held: Held, count: int, answered: Awaitable[Reserved]) -> Reserved:
        """Once the store may have all of a hold, what it has here is given back: it is settled with the store."""
        try:
            answer = await answered
        except Unavailable as error:
            held.moving = error.reason not in _UNASKED
            raise
        held.moving = answer.outcome is _ADMITTED
        if held.moving:
            self._give_back(hold, held)
        return Reserved(answer.outcome, answer.binding, answer.wait_ms, answer.levels[:count])

    def _give_back(self, hold: str, held: Held) -> None:
        """This hold is the store's from now on. Should its slices be void, this is nothing to them."""
        with suppress(*_TROUBLE):  # then it stays charged here, as that of a worker which died
            self._table.settle(hold, [Amount(account.name, account.own, 0) for account in held.accounts.values()])
        self._forget(hold)

    def _is_void(self, held: Held) -> bool:
        return any(map(self.keeper.is_void, held.accounts.values()))

    def _forget(self, hold: str) -> None:
        held = self._held.pop(hold, None)
        for account in held.accounts.values() if held is not None else ():
            account.open -= 1


async def _renewed(
    holds: Sequence[Renewal],
    states: dict[str, State],
    stored: Sequence[Renewal],
    answered: Awaitable[tuple[State, ...]] | None,
) -> tuple[State, ...]:
    if answered is not None:
        states.update(zip((renewal.hold for renewal in stored), await answered, strict=True))
    return tuple(states[renewal.hold] for renewal in holds)
