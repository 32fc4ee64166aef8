"""A limiter that needs neither memory nor a store: the model engine behind the Protocol, with a clock to turn.

setting = Setting()                     # a Limiter over a FakeEngine
limits = limits_of(Rule(...))           # the limits of the key `demo`
hold = run(setting.limiter.reserve(limits, "h1", estimate))
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from gateway.config import limits as config
from gateway.config.limits import Allowance, Rule
from gateway.limiter.deny import DENIALS, Denials
from gateway.limiter.engine import Amount, Ready, Reason, Renewal, Reserved, Settled, Slice, Standing, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.limiter import Engines, Limiter
from gateway.limiter.reservation import Origin
from gateway.limiter.rules import Limits, Rules, Subject
from gateway.limiter.slices import SettledHere, Sliced
from gateway.limiter.spec import Spec
from gateway.limiter.use import Estimate, use
from gateway.units import NS_PER_MS
from tests.fakes.limit_model import LimitModel

T = TypeVar("T")

START_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z, a Friday
SUBJECT = Subject(
    "demo",
    org="acme",
    team="search",
    user="ann",
    role="analyst",
    labels={"app": "ui"},
    model="gpt-1",
    entry="gpt-*",
    route="default",
    data_class="internal",
)


class FakeEngine:
    """The model. `failure` comes instead of an answer, `lost` after the model has done what was asked.

    With `futures`, answers are futures, as a store's are; a failure that is not Unavailable is raised at once, as a
    table does.
    """

    def __init__(self, *, futures: bool = False) -> None:
        self.model = LimitModel()
        self.now_ms = START_MS
        self.failure: Exception | None = None
        self.lost: Exception | None = None
        self.futures = futures
        self.calls: list[tuple[str, Any]] = []

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
        return self._asked(
            "reserve",
            (hold, list(takes), owner),
            lambda: self.model.reserve(self.now_ms, hold, takes, lease_ms=lease_ms, attempt=attempt, releases=releases),
        )

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Awaitable[Settled]:
        return self._asked("settle", (hold, list(actuals)), lambda: self.model.settle(self.now_ms, hold, actuals))

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        return self._asked("renew", list(holds), lambda: self.model.renew(self.now_ms, holds, lease_ms=lease_ms))

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> Awaitable[Slice]:
        raise AssertionError((node, turn, bucket, spec, want, least, unused, lease_ms))

    def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
        return self._asked("peek", list(asked), lambda: self.model.peek(self.now_ms, asked))

    async def close(self) -> None:
        """Nothing to let go of."""

    def named(self, name: str) -> list[Any]:
        """What the operation of that name was asked."""
        return [asked for called, asked in self.calls if called == name]

    def _asked(self, name: str, asked: object, work: Callable[[], T]) -> Awaitable[T]:
        self.calls.append((name, asked))
        failure = self.failure
        if failure is not None and not isinstance(failure, Unavailable):
            raise failure
        answer = work() if failure is None else None
        if failure is None and self.lost is None and answer is not None and not self.futures:
            return Ready(answer)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if failure is None and self.lost is None and answer is not None:
            future.set_result(answer)
        else:
            future.set_exception(failure or self.lost or AssertionError())
            future.exception()  # nobody has to ask for it
        return future


class SliceEngine(FakeEngine):
    """Answers as an engine does that has slices of everything."""

    def reserve(self, hold: str, takes: Sequence[Amount], **_: Any) -> Awaitable[Reserved]:
        return Ready(Sliced(*msgspec.structs.astuple(self.model.reserve(self.now_ms, hold, takes, lease_ms=9_000))))

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Awaitable[Settled]:
        return SettledHere(self.model.settle(self.now_ms, hold, actuals).levels, "slice:abc")


class Setting:
    """A limiter and all that is around it."""

    def __init__(self, engine: FakeEngine | None = None, *, local: bool = False, nodes: int = 1) -> None:
        self.engine = engine or FakeEngine()
        self.local = FakeEngine() if local else None
        self.denials = Denials(memoryview(bytearray(8 * DENIALS.words(0))).cast("q"))
        origin = Origin.STORE if local else Origin.TABLE
        self.limiter = self.of(Engines(self.engine, origin, self.local, nodes))

    def of(self, engines: Engines, denials: Denials | None = None) -> Limiter:
        """A limiter of this setting."""
        return Limiter(engines, owner=7, denials=denials, wall_ns=self.now_ns, monotonic_ns=self.now_ns)

    def now_ns(self) -> int:
        return self.engine.now_ms * NS_PER_MS

    def level(self, limits: Limits, rule: str, *, end_user: str = "", provider: str = "") -> int:
        """What is left of the bucket of a rule."""
        lines = limits.lines(self.engine.now_ms, end_user, provider)
        (line,) = [line for line in lines.lines if line.rule == rule]
        (standing,) = self.engine.model.peek(self.engine.now_ms, [Amount(line.bucket, line.spec, 0)])
        return standing.level


def rules_of(
    *rules: Rule, teams: dict[str, Allowance] | None = None, name_key: bytes = b"key of the tests", **settings: Any
) -> Rules:
    """These rules, compiled."""
    return Rules(config.Limits(rules=rules, **settings), teams, name_key=name_key)


def limits_of(*rules: Rule, subject: Subject = SUBJECT, **settings: Any) -> Limits:
    """What these rules come to for a subject; there must be something."""
    limits = rules_of(*rules, **settings).limits(subject)
    assert limits is not None
    return limits


def estimate(prompt: int, output: int = 0, microusd: int = 0) -> Estimate:
    """So many tokens; all of the cost is the answer's."""
    return Estimate(use(prompt, output, microusd), use(prompt, 0, 0))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run something that never waits for anything outside."""
    return asyncio.run(work)


def away(reason: Reason = Reason.DOWN) -> Unavailable:
    """What a store that cannot answer raises."""
    return Unavailable(reason, "it is not there")
