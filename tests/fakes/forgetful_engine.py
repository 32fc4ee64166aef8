"""An engine with a memory that can be lost, and that can be away: the model, or a table, behind an engine's face."""

from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import NoReturn

from gateway.control.limits_keeper import Memory
from gateway.limiter.engine import Amount, Epoch, Ready, Reason, Renewal, Reserved, Settled, Standing, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.spec import Spec
from tests.fakes.limit_engines import TimedEngine
from tests.fakes.limit_model import LimitModel

LEASE_MS = 9_000


class ForgetfulEngine:
    """`now_ms` is its clock; `make` makes a memory that is empty."""

    def __init__(self, now_ms: int, *, marked: bool = False, make: Callable[[], TimedEngine] = LimitModel) -> None:
        self.now_ms = now_ms
        self.away = False
        self.fails_after = -1  # settlements until it goes away; -1: it stays
        self.make = make
        self.model = make()
        self.number = 1
        self.fresh = True
        self.known_us = 0
        self.back = False
        self.memory = Memory(self, self.epoch, marked)

    def forget(self) -> None:
        """All is lost, and somebody has made a new epoch."""
        self.model = self.make()
        self.number += 1

    async def epoch(self, known: str, known_us: int) -> Epoch:
        if self.away:
            raise Unavailable(Reason.DOWN, "it is away")
        epoch = Epoch(f"e{self.number}", self.fresh, self.known_us, behind=self.back)
        self.back = False
        self.known_us = known_us if known == epoch.id else 0
        return epoch

    def go_back(self, to_us: int) -> None:
        """All that it was told since is lost, its name is not; the test sees to the buckets."""
        self.known_us, self.back = to_us, True

    def reserve(self, hold: str, takes: Sequence[Amount]) -> Reserved:
        return self.model.reserve(self.now_ms, hold, takes, lease_ms=LEASE_MS)

    def settle(self, hold: str, actuals: tuple[Amount, ...]) -> Awaitable[Settled]:
        if self.fails_after == 0:
            self.away = True
        self.fails_after -= self.fails_after > 0
        return _Away() if self.away else Ready(self.model.settle(self.now_ms, hold, actuals))

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        return _Away() if self.away else Ready(self.model.renew(self.now_ms, holds, lease_ms=lease_ms))

    def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
        return _Away() if self.away else Ready(self.model.peek(self.now_ms, asked))

    def used(self, bucket: str, spec: Spec) -> int:
        (standing,) = self.model.peek(self.now_ms, [Amount(bucket, spec, 0)])
        return spec.limit - standing.level


class _Away:
    """An answer that never comes."""

    def __await__(self) -> Generator[None, None, NoReturn]:
        yield from ()
        raise Unavailable(Reason.LOST, "it went away")
