"""Ordinary lives: requests that reserve, stream and settle, on a few buckets that everybody shares.

Beside `limit_sequences.py`, where everything collides, this is what most requests look like, so that it takes a table's
short way: new holds, the same buckets in the same order, specs that stay the same objects until their limit changes.
Now and then something else comes between.
"""

import random
from collections.abc import Iterator
from typing import Any

from gateway.limiter.engine import Amount, Renewal
from gateway.limiter.spec import MAX_AMOUNT, Spec, rate, slots, window
from tests.fakes.limit_sequences import START_MS, WINDOW_MS, Operation

LEASE_MS = 20_000
PATTERNS = (
    ("rpm", "tpm", "usd", "flights"),
    ("rpm", "tpm"),
    ("tpm",),
    ("usd", "shadow", "flights"),
    ("big", "vast"),
    (),
)


class Lives:
    """What a sequence remembers while it is made."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._now_ms = START_MS
        self._seed = seed
        self._count = 0
        self._open: list[tuple[str, tuple[str, ...]]] = []
        self._specs: dict[str, Spec] = {
            "rpm": rate(60_000, 60_000, 60_000),
            "tpm": rate(3_000, 5_000, 7_919),
            "flights": slots(6),
            "shadow": rate(10, 1, 1_000, shadow=True),
            "big": rate(MAX_AMOUNT, 1, 1_000, shadow=True),
        }

    def operations(self, count: int) -> Iterator[Operation]:
        for _ in range(count):
            self._now_ms += self.chance.choice((0, 0, 0, 1, 7, 400, 5_000))
            yield self._operation()

    def _operation(self) -> Operation:
        dice = self.chance.random()
        if dice < 0.02:
            self._specs["tpm"] = rate(self.chance.choice((2_000, 3_000)), 5_000, 7_919)
        if dice < 0.06 and self._open:
            hold, names = self.chance.choice(self._open)
            slot_names = tuple(name for name in names if name == "flights")
            return self._call("renew", [Renewal(hold, slot_names)], lease_ms=LEASE_MS)
        if dice < 0.1 and self._open:
            hold, names = self.chance.choice(self._open)
            return self._call("reserve", hold, self._amounts(("tpm",)), lease_ms=LEASE_MS, attempt=1)
        if dice < 0.13:
            return self._call("peek", self._amounts(("rpm", "tpm", "usd", "flights")))
        if dice < 0.55 or not self._open:
            return self._reserve()
        hold, names = self._open.pop(self.chance.randrange(len(self._open)))
        if self.chance.random() < 0.05:
            self._open.append((hold, names))  # it will be settled again
        return self._call("settle", hold, self._amounts(names if "tpm" in names else (*names, "tpm")))

    def _reserve(self) -> Operation:
        self._count += 1
        hold, names = f"{self._seed}-{self._count}", self.chance.choice(PATTERNS)
        if len(self._open) < 20:
            self._open.append((hold, names))
        return self._call("reserve", hold, self._amounts(names), lease_ms=LEASE_MS)

    def _call(self, name: str, *arguments: Any, **options: Any) -> Operation:
        return Operation(self._now_ms, name, arguments, options)

    def _amounts(self, names: tuple[str, ...]) -> list[Amount]:
        return [Amount(name, self._spec(name), self._amount(name)) for name in names]

    def _amount(self, name: str) -> int:
        if name in {"big", "vast"}:
            return self.chance.choice((0, 1, MAX_AMOUNT, MAX_AMOUNT - 1))
        return self.chance.choice((0, 1, 1_000, self.chance.randint(0, 2_500)))

    def _spec(self, name: str) -> Spec:
        if name not in {"usd", "vast"}:
            return self._specs[name]
        start_ms = self._now_ms - self._now_ms % WINDOW_MS
        if self.chance.random() < 0.05:
            start_ms -= WINDOW_MS  # a caller who is behind
        limit, shadow = (20_000, False) if name == "usd" else (MAX_AMOUNT, True)
        key = f"{name} {start_ms}"
        return self._specs.setdefault(key, window(limit, start_ms, start_ms + WINDOW_MS, shadow=shadow))


def lives(seed: int, count: int = 200) -> Iterator[Operation]:
    """The calls of so many ordinary lives."""
    return Lives(seed).operations(count)
