"""Why was I limited, and when do I get in: every bucket that applies to a request, and how it stands.

The rows are those that would be taken from; what each is asked for is what such a request would take. Nothing is
charged. `debt_bound` is how far below zero a limit on tokens or money can go: as many requests as may be in flight,
each using all that the model can answer instead of what was reserved for it.

Left out: whose request it is (`rules.py` is told), and how the rows are laid out for whoever asks.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from gateway.limiter.bucket import NEVER
from gateway.limiter.engine import Amount, Engine, Standing
from gateway.limiter.lines import Line, Lines
from gateway.limiter.refusal import amount, span
from gateway.limiter.spec import Kind
from gateway.limiter.use import Estimate, Resource, Use

_KINDS: Final = {Kind.RATE: "rate", Kind.WINDOW: "budget", Kind.SLOTS: "slots"}
_PER_ANSWER: Final = (Resource.TOKENS, Resource.OUTPUT_TOKENS, Resource.USD)


class Explained(msgspec.Struct, frozen=True):
    """One bucket, in the bucket's own units: `unit` of them are one of the resource (of USD: a million).

    `wait_ms` is how long until `asked` fits: 0 now, -1 never. `debt_bound` -1: nothing bounds the requests in flight.
    """

    rule: str
    limit: str  # in words
    bucket: str
    resource: str
    kind: str
    unit: int
    capacity: int
    level: int
    debt: int
    asked: int
    wait_ms: int
    refill: int = 0  # of a rate: so much every
    period_ms: int = 0
    start_ms: int = 0  # of a budget: its window, wall clock
    end_ms: int = 0
    shadow: bool = False
    debt_bound: int = -1


async def explain(engine: Engine, lines: Lines, estimate: Estimate, at_most: Use | None = None) -> list[Explained]:
    """How every bucket stands. `at_most`: what one request can use when the model says all it can.

    Raises Unavailable when the engine cannot answer.
    """
    asked = [Amount(line.bucket, line.spec, _cost(line, estimate)) for line in lines.lines]
    standings = await engine.peek(asked)
    return explained(lines, asked, standings, _in_flight(lines), estimate, at_most)


def explained(
    lines: Lines,
    asked: Sequence[Amount],
    standings: Sequence[Standing],
    in_flight: int,
    estimate: Estimate,
    at_most: Use | None,
) -> list[Explained]:
    """The rows, from what the engine has said."""
    return [
        _row(line, take.amount, standing, _bound(line, in_flight, estimate, at_most))
        for line, take, standing in zip(lines.lines, asked, standings, strict=True)
    ]


def in_words(row: Explained, line: Line) -> str:
    """One row as a sentence."""
    state = f"{amount(line, row.level)} of {amount(line, row.capacity)} left"
    if row.debt:
        state = f"{amount(line, row.debt)} in debt, of {amount(line, row.capacity)}"
    when = {0: "fits now", NEVER: "never fits"}.get(row.wait_ms) or f"fits in {span(row.wait_ms)}"
    shadow = " (shadow: never refuses)" if row.shadow else ""
    return f"{row.rule}: {row.limit}: {state}; {amount(line, row.asked)} {when}{shadow}"


def _cost(line: Line, estimate: Estimate) -> int:
    """What such a request would take, as `Lines.takes` has it; a prompt that never fits is asked for, too."""
    full, prompt = estimate.full[line.resource] * line.unit, estimate.prompt[line.resource] * line.unit
    return full if full <= line.spec.limit else max(prompt, min(full, line.spec.limit))


def _row(line: Line, asked: int, standing: Standing, debt_bound: int) -> Explained:
    spec = line.spec
    return Explained(
        line.rule,
        line.told + line.whom,
        line.bucket,
        line.resource.name.lower(),
        _KINDS[spec.kind],
        line.unit,
        spec.limit,
        standing.level,
        max(-standing.level, 0),
        asked,
        standing.wait_ms,
        spec.amount,
        spec.period_ms,
        spec.start_ms,
        spec.end_ms,
        spec.shadow,
        debt_bound,
    )


def _in_flight(lines: Lines) -> int:
    """How many requests may be in flight at once by these limits, -1 for any number."""
    bounds = [line.spec.limit for line in lines.lines if line.spec.kind is Kind.SLOTS and not line.spec.shadow]
    return min(bounds, default=-1)


def _bound(line: Line, in_flight: int, estimate: Estimate, at_most: Use | None) -> int:
    if line.resource not in _PER_ANSWER:
        return 0
    if in_flight < 0 or at_most is None:
        return -1
    over = at_most[line.resource] * line.unit - _cost(line, estimate)
    return in_flight * max(over, 0)
