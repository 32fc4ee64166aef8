"""Settling again what a store may not have: each settlement of a time under its own id, which charges nothing twice.

What a settlement comes to depends on what the store knows of its hold:

    OPEN, EXPIRED  reserved there, and not settled: it is settled at what was used, as its worker would
    SETTLED        it is there
    UNKNOWN        it was counted while the store was away, so nothing of it is there

What is UNKNOWN is charged as one bucket would have it by now: what was used since refills between one settlement and
the next, so the oldest of them may be refilled already. What of the others has refilled in the store is not known here
(`there`). Where several nodes share a store each of them counts on its part of the refill only: all of them charge at
most too much, and never too little.

Invariants: no settlement is charged more than was used; what is UNKNOWN comes, over all, to what is left of it after
its refill. Left out: which settlements these are, and when (`limits_keeper.py`).
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from gateway.limiter.bucket import Row, charged_at, current
from gateway.limiter.engine import Amount, Renewal, Settled
from gateway.limiter.hold import State
from gateway.limiter.recorded import Key
from gateway.limiter.replay import Charge, Fact, part_of

if TYPE_CHECKING:
    from gateway.limiter.spec import Spec

AT_ONCE: Final = 100  # calls under way, and holds that are asked about in one
_LEASE_MS: Final = 1_000  # of holds that are over: asking for their state renews them

Settlement = tuple[str, tuple[Amount, ...]]
"""A hold's id, and what it comes to."""


class Engine(Protocol):
    """The part of an engine that giving back needs."""

    def settle(self, hold: str, actuals: tuple[Amount, ...]) -> Awaitable[Settled]:
        """Apply what was used, once. Raises Unavailable when awaited."""

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        """Prolong leases; the state of each hold. Raises Unavailable when awaited."""


class Repetition:
    """One time's settlements, seen twice: first `see` all of them, then `settle` all of them.

    `is_there` tells of a settlement that the store has charged without knowing its hold.
    """

    def __init__(self, engine: Engine, nodes: int, is_there: Callable[[Fact], bool]) -> None:
        self.settled = 0
        self._engine = engine
        self._is_there = is_there
        self._there = Counter[Key]()  # what is settled, as it was charged
        self._sliced = Fold(nodes)
        self._unknown = Fold(nodes)
        self._refilled: dict[Key, int] | None = None  # of what is not known there, what need not be charged any more

    async def see(self, facts: Sequence[Fact]) -> None:
        """These are to be settled. Raises Unavailable."""
        asked = [fact for fact in facts if not self._is_there(fact)]
        for fact in facts:
            if self._is_there(fact):
                self._sliced.add(fact)
        for fact, state in zip(asked, await self._states(asked), strict=True):
            if state is State.UNKNOWN:
                self._unknown.add(fact)

    async def settle(self, facts: Sequence[Fact], now_ms: int) -> None:
        """Settle them. Raises Unavailable."""
        if self._refilled is None:
            self._refilled = self._unknown.refilled(now_ms)
        facts = [fact for fact in facts if not self._is_there(fact)]
        settlements: list[Settlement] = []
        for fact, state in zip(facts, await self._states(facts), strict=True):
            # by its state of now: one that was UNKNOWN when it was seen may have been delivered in full since
            charged = _left(fact, self._refilled) if state is State.UNKNOWN else fact
            for one in charged.charges:
                self._there[one.key] += one.amount
            if state is not State.SETTLED:
                settlements.append((fact.hold, charged.amounts))
        await settle(self._engine, settlements)
        self.settled += len(settlements)

    def there(self, now_ms: int) -> dict[Key, int]:
        """What of them is charged, once they are settled; of those that the store knew as if nothing had refilled."""
        charged = self._there.copy()
        charged.update(self._sliced.used(now_ms))
        return charged

    async def _states(self, facts: Sequence[Fact]) -> tuple[State, ...]:
        asked = [Renewal(fact.hold) for fact in facts]
        return await self._engine.renew(asked, lease_ms=_LEASE_MS) if asked else ()


def _left(fact: Fact, refilled: dict[Key, int]) -> Fact:
    """What is left of a settlement; the refill is that of the oldest first, and is taken from `refilled`."""
    left = []
    for one in fact.charges:
        gone = min(refilled.get(one.key, 0), one.amount)
        if gone:
            refilled[one.key] -= gone
        left.append(Charge(one.key, one.spec, one.amount - gone))
    return fact._replace(charges=left)


class Fold:
    """Settlements as one bucket would count them, refilled between one and the next."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._rows: dict[Key, tuple[tuple[int, int, int], Spec]] = {}
        self._sums: dict[Key, int] = {}

    def add(self, fact: Fact) -> None:
        """One more; they come in the order of their time, by and large."""
        for actual in fact.charges:
            key, spec = actual.key, part_of(actual.spec, self._nodes)
            row, _ = self._rows.get(key) or ((0, spec.end_ms, spec.start_ms or fact.at_ms), spec)
            self._rows[key] = charged_at(row, spec, fact.at_ms, actual.amount), spec
            self._sums[key] = self._sums.get(key, 0) + actual.amount

    def used(self, now_ms: int) -> dict[Key, int]:
        """What is left of them, by bucket."""
        rows = self._rows.items()
        return {key: current(Row(*row), spec, now_ms).used for key, (row, spec) in rows}

    def refilled(self, now_ms: int) -> dict[Key, int]:
        """What of them has been refilled since, by bucket."""
        return {key: self._sums[key] - used for key, used in self.used(now_ms).items()}


def batches(facts: Iterator[Fact]) -> Iterator[list[Fact]]:
    """As many as are settled at once; for a thread, since it reads the journal."""
    while some := list(islice(facts, AT_ONCE)):
        yield some


async def settle(engine: Engine, settlements: Iterable[Settlement]) -> None:
    """Settle all of them. Raises Unavailable."""
    waiting = iter(settlements)
    while some := [engine.settle(*settlement) for settlement in islice(waiting, AT_ONCE)]:
        answers = await asyncio.gather(*map(_answer, some), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        await asyncio.sleep(0)


async def _answer(settled: Awaitable[Settled]) -> Settled:
    return await settled
