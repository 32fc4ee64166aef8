"""Why was I limited, and when do I get in: every bucket that applies to a request, and how it stands.

The rows are those that would be taken from; what each is asked for is what such a request would take. Nothing is
charged. `debt_bound` is how far below zero such requests can take a limit on tokens or money: as many as may be in
flight, each using all that the model can answer instead of what was reserved for it.

The limits of one attempt's provider are rows, too, one set for each provider that may be tried: a request is refused by
them only where every provider's refuse.

Left out: whose request it is (`rules.py` is told), and how the rows are laid out for whoever asks.
"""

import math
from collections.abc import Awaitable, Iterable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from gateway.errors import NeverFits, RateLimited
from gateway.limiter.bucket import NEVER
from gateway.limiter.debt import Matches, in_flight
from gateway.limiter.engine import Amount, Standing
from gateway.limiter.lines import Line, Lines
from gateway.limiter.refusal import amount, limited, span, too_large
from gateway.limiter.spec import MAX_AMOUNT, Kind
from gateway.limiter.use import Estimate, Resource, Use

_KINDS: Final = {Kind.RATE: "rate", Kind.WINDOW: "budget", Kind.SLOTS: "slots"}
_PER_ANSWER: Final = (Resource.TOKENS, Resource.OUTPUT_TOKENS, Resource.USD)


class Engine(Protocol):
    """The part of an engine that explaining needs."""

    def peek(self, asked: Sequence[Amount]) -> Awaitable[Sequence[Standing]]:
        """How buckets stand, and when so much would fit. Raises Unavailable when awaited."""


class Need(NamedTuple):
    """What such a request would take; what it can use when the model says all it can; whom each rule is for."""

    estimate: Estimate
    at_most: Use | None  # None: not known
    matches: Matches


class Explained(msgspec.Struct, frozen=True):
    """One bucket, in the bucket's own units: `unit` of them are one of the resource (of USD: a millionth).

    `wait_ms` is how long until `asked` fits: 0 now, -1 never. `debt_bound` None: nothing bounds the requests in flight,
    or it is not known how much the model can answer. `provider`: of whose attempts it is, "" of all.
    """

    line: Line
    asked: int
    level: int
    wait_ms: int
    debt_bound: int | None = None
    provider: str = ""

    @property
    def kind(self) -> str:
        """How it counts: rate, budget or slots."""
        return _KINDS[self.line.spec.kind]

    @property
    def capacity(self) -> int:
        """What it has when nothing is used."""
        return self.line.spec.limit

    @property
    def debt(self) -> int:
        """How far below zero it is."""
        return max(-self.level, 0)

    @property
    def refuses(self) -> bool:
        """Whether it would refuse such a request now."""
        return self.wait_ms != 0 and not self.line.spec.shadow

    @property
    def said(self) -> str:
        """All of it in one sentence."""
        line, left = self.line, amount(self.line, self.level)
        state = f"{left} of {amount(line, self.capacity)} left"
        if self.debt:
            state = f"{amount(line, self.debt)} in debt, of {amount(line, self.capacity)}"
        when = {0: "fits now", NEVER: "never fits"}.get(self.wait_ms) or f"fits in {span(self.wait_ms)}"
        if line.spec.kind is Kind.SLOTS and self.wait_ms > 0:
            when = "fits when another has ended"
        shadow = " (shadow: never refuses)" if line.spec.shadow else ""
        return f"{line.rule}: {line.told}{line.whom}: {state}; {amount(line, self.asked)} {when}{shadow}"


async def explain(engine: Engine, lines: Lines, need: Need, provider: str = "", first: int = 0) -> list[Explained]:
    """How every bucket stands, from line `first` on. `provider`: the one whose own buckets these lines have.

    Raises Unavailable when the engine cannot answer.
    """
    costs = [_cost(line, ceiling, need.estimate) for line, ceiling in zip(lines.lines, lines.ceilings, strict=True)]
    takes = [
        Amount(line.bucket, line.spec, cost) for line, cost in zip(lines.lines[first:], costs[first:], strict=True)
    ]
    standings: Sequence[Standing] = await engine.peek(takes) if takes else ()
    return [
        Explained(
            line,
            take.amount,
            standing.level,
            standing.wait_ms,
            _bound(line, take.amount, lines, need),
            provider if at >= lines.own else "",
        )
        for at, (line, take, standing) in enumerate(zip(lines.lines[first:], takes, standings, strict=True), first)
    ]


def binding_first(rows: Iterable[Explained]) -> list[Explained]:
    """What never fits, what is waited for (the longest first), what has room for the fewest more; shadows last."""
    return sorted(rows, key=_order)


def binding(rows: Sequence[Explained], providers: Iterable[str] = ()) -> Explained | None:
    """The bucket that would refuse such a request now, None when it would be admitted.

    `providers` are tried in this order, and the first that its own buckets do not refuse admits. Where all refuse the
    caller is told of the first, as `Limiter.reserve` does; of one attempt's buckets the longest wait binds.
    """
    first = None
    for name in providers or ("",):
        found = _longest(row for row in rows if row.provider in ("", name))
        if found is None or not found.provider:
            return found
        first = first or found
    return first


def refusal(row: Explained) -> RateLimited | NeverFits:
    """What a caller that this bucket refuses is told."""
    if row.wait_ms == NEVER:
        return too_large(row.line, row.asked)
    return limited(row.line, row.asked, row.level, row.wait_ms, ())


def _longest(rows: Iterable[Explained]) -> Explained | None:
    return max((row for row in rows if row.refuses), key=_patience, default=None)


def _patience(row: Explained) -> tuple[bool, int]:
    return (row.wait_ms == NEVER, row.wait_ms)


def _order(row: Explained) -> tuple[bool, bool, int, float]:
    never, wait_ms = _patience(row)
    more = row.level / row.asked if row.asked else math.inf
    return (row.line.spec.shadow, not never, -wait_ms, more)


def _cost(line: Line, ceiling: int, estimate: Estimate) -> int:
    """What such a request would take, as `Lines.takes` has it; a prompt that never fits is asked for, too."""
    full, prompt = estimate.full[line.resource] * line.unit, estimate.prompt[line.resource] * line.unit
    return full if full <= ceiling else min(max(prompt, ceiling), MAX_AMOUNT)


def _bound(line: Line, taken: int, lines: Lines, need: Need) -> int | None:
    if line.resource not in _PER_ANSWER:
        return 0
    if need.at_most is None:
        return None
    over = max(need.at_most[line.resource] * line.unit - taken, 0)
    if not over:
        return 0
    requests = in_flight(line, lines.lines, need.matches)
    return None if requests is None else over * requests
