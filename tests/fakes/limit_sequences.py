"""Random lives of a few buckets and holds, for engines that must agree on every number.

Made to collide: six buckets, five holds, amounts of all sizes up to the bounds, leases that end, windows that turn,
callers behind them, limits that change, calls that are repeated and come late. A sequence is a seed: it can be named.

Kept out, since engines may differ there (`engine.py` says so): a slot that a settlement does not name, and a RATE that
gets another rate (its limit may change).
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.limiter.engine import Amount, Renewal
from gateway.limiter.spec import MAX_AMOUNT, MAX_PERIOD_MS, Kind, Spec, rate, slots, window

START_MS = 1_700_000_000_000
WINDOW_MS = 60_000
STEPS_MS = (0, 0, 1, 10, 500, 999, 5_000, 20_000, 61_000)
BACK_MS = (1, 500, 3_000)
PERIODS_MS = (1_000, 7_919, 60_000, 86_400_000, MAX_PERIOD_MS)
SLOTS = ("s1", "s2")
NAMES = ("r1", "r2", "w1", "w2", *SLOTS)


@dataclass
class Operation:
    """One call: `getattr(engine, name)(now_ms, *arguments, **options)`."""

    now_ms: int
    name: str
    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)

    def on(self, engine: object) -> object:
        return getattr(engine, self.name)(self.now_ms, *self.arguments, **self.options)


class Life:
    """What a sequence remembers while it is made."""

    def __init__(self, seed: int, *, backwards: bool) -> None:
        self.chance = random.Random(seed)
        self._backwards = backwards
        self._most = self.chance.choice((3_000, 3_000, MAX_AMOUNT))
        self._now_ms = START_MS
        self._specs = {name: self._spec(name) for name in NAMES}
        self._holds = [f"{seed}-{number}" for number in range(5)]
        self._turns: dict[tuple[str, str], int] = {}

    def operation(self) -> Operation:
        """The next call."""
        back = self._backwards and self.chance.random() < 0.1
        self._now_ms += -self.chance.choice(BACK_MS) if back else self.chance.choice(STEPS_MS)
        if self.chance.random() < 0.05:
            self._change_a_limit()
        if self.chance.random() < 0.1:
            self._holds[self.chance.randrange(5)] += "'"
        make = self.chance.choice(
            [self._reserve] * 4 + [self._settle] * 3 + [self._renew, self._peek, self._lease, self._lease]
        )
        return make()

    def _reserve(self) -> Operation:
        releases = self._amounts(3) if self.chance.random() < 0.4 else []
        options = {
            "lease_ms": self.chance.choice((1, 1_000, 30_000)),
            "attempt": self.chance.choice((0, 0, 1, 2)),
            "releases": releases,
        }
        return Operation(self._now_ms, "reserve", (self.chance.choice(self._holds), self._amounts(6)), options)

    def _settle(self) -> Operation:
        named = [amount for amount in self._amounts(6) if amount.spec.kind is not Kind.SLOTS]
        all_slots = [Amount(name, self._current(name), 1) for name in SLOTS]
        return Operation(self._now_ms, "settle", (self.chance.choice(self._holds), named + all_slots))

    def _renew(self) -> Operation:
        holds = [Renewal(hold, SLOTS) for hold in self.chance.sample(self._holds, self.chance.randint(1, 3))]
        return Operation(self._now_ms, "renew", (holds,), {"lease_ms": self.chance.choice((1_000, 30_000))})

    def _peek(self) -> Operation:
        return Operation(self._now_ms, "peek", (self._amounts(6) or [Amount("r1", self._specs["r1"], 5)],))

    def _lease(self) -> Operation:
        name, node = self.chance.choice(("r1", "r2", "w1")), self.chance.choice("ab")
        turn = max(self._turns.get((node, name), 0) + self.chance.choice((1, 1, 1, 0, -1)), 0)
        self._turns[node, name] = turn
        want = self._amount()
        options = {
            "want": want,
            "least": self.chance.randint(0, want),
            "unused": self.chance.choice((0, 1, -1)) * self._amount(),
            "lease_ms": self.chance.choice((1_000, 30_000)),
        }
        return Operation(self._now_ms, "lease", (node, turn, name, self._current(name)), options)

    def _amounts(self, most: int) -> list[Amount]:
        names = self.chance.sample(NAMES, self.chance.randint(0, most))
        return [Amount(name, self._current(name), self._amount()) for name in names]

    def _amount(self) -> int:
        return self.chance.choice(
            (0, 1, self.chance.randint(0, self._most), self.chance.randint(0, self._most // 10 + 1))
        )

    def _current(self, name: str) -> Spec:
        spec = self._specs[name]
        if spec.kind is not Kind.WINDOW:
            return spec
        start_ms = self._now_ms - self._now_ms % WINDOW_MS
        if self.chance.random() < 0.1:
            start_ms -= WINDOW_MS
        return window(spec.limit, start_ms, start_ms + WINDOW_MS, shadow=spec.shadow)

    def _spec(self, name: str) -> Spec:
        shadow = self.chance.random() < 0.2
        limit = self.chance.choice((0, 1, self._most, self.chance.randint(0, self._most)))
        if name.startswith("s"):
            return slots(self.chance.randint(0, 3), shadow=shadow)
        if name.startswith("w"):
            return window(limit, 1, 2, shadow=shadow)
        amount = self.chance.choice((1, self._most, self.chance.randint(1, self._most)))
        return rate(limit, amount, self.chance.choice(PERIODS_MS), shadow=shadow)

    def _change_a_limit(self) -> None:
        name = self.chance.choice(NAMES)
        old, new = self._specs[name], self._spec(name)
        if new.kind is Kind.RATE:
            new = rate(new.limit, old.amount, old.period_ms, shadow=new.shadow)
        self._specs[name] = new


def sequence(seed: int, length: int = 60, *, backwards: bool = False) -> Iterator[Operation]:
    """The calls of one life; `backwards`: its clock now and then steps back by up to three seconds."""
    life = Life(seed, backwards=backwards)
    for _ in range(length):
        yield life.operation()


def play(operations: Iterator[Operation], engines: Sequence[object]) -> int:
    """Do the same on all engines, which must give the same; returns how many operations it was."""
    count = 0
    for operation in operations:
        first, *others = [operation.on(engine) for engine in engines]
        for number, other in enumerate(others, 1):
            assert other == first, (count, operation, number)
        count += 1
    return count
