"""The buckets of one request, ready to be taken from: everything that does not change from request to request is done.

`rows` is what the hot loop unpacks, one for each bucket; what it does not need stands in `lines`, at the same index.
The buckets of the attempt's provider come last, from `own` on.

A request takes nowhere more of a resource than the tightest of its limits on it has at all, its *ceiling* there: one
that asks for a billion tokens under a key of a thousand must not empty the bucket of the key's whole org. What a
provider's limit has is no ceiling for the request's own buckets: the next attempt may be at another provider.

Invariants: nothing here changes after it was made; a new window makes new Lines. Left out: how they are found
(`rules.py`), and what is taken from them (`takes` is told).
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from gateway.limiter.engine import MAX_CHARGES, Amount
from gateway.limiter.recorded import name_of
from gateway.limiter.spec import MAX_AMOUNT, Kind, Spec
from gateway.limiter.use import Estimate, Resource, Use

FOREVER: Final = 2**62  # until when Lines without a window hold
_TOLD: Final = (
    (Resource.REQUESTS, "requests"),
    (Resource.TOKENS, "tokens"),
    (Resource.INPUT_TOKENS, "input-tokens"),
    (Resource.OUTPUT_TOKENS, "output-tokens"),
)
_ONE_EACH: Final = (Resource.REQUESTS, Resource.IN_FLIGHT)


class Line(NamedTuple):
    """One bucket, and the limit it is of in words. `unit`: how many of the bucket's units one of the resource is."""

    bucket: str
    spec: Spec
    resource: Resource
    unit: int
    rule: str
    told: str
    whom: str
    on_failure: str  # as config.limits.OnStoreFailure


Row = tuple[str, Spec, int, int, Amount | None, int]
"""Bucket, spec, place in a Use, unit; what a request takes of it where that is always the same; its ceiling."""

Told = tuple[int, int, int, int, int, int, int]
"""What the headers need of a line: index, unit, limit in the resource; limit, amount, period, end of its spec."""
Family = tuple[str, tuple[Told, ...]]
"""The lines of one resource, by its name in headers."""


class TooLarge(Exception):
    """The prompt alone is more than a limit ever allows; `index` is the line, `cost` in its bucket's unit."""

    def __init__(self, index: int, cost: int) -> None:
        super().__init__(index, cost)
        self.index = index
        self.cost = cost


class Lines:
    """The buckets of a request. Raises ValueError for more than one step can take from."""

    __slots__ = ("ceilings", "families", "lines", "own", "recorded", "rows", "shadows", "slots", "until_ms")

    def __init__(self, lines: Sequence[Line], own: int) -> None:
        if len(lines) > MAX_CHARGES:
            raise ValueError(f"{len(lines)} limits on one request, and at most {MAX_CHARGES} can be taken from at once")
        self.lines = tuple(lines)
        self.own = own
        self.ceilings = tuple(_ceiling(line, lines[:own] if at < own else lines) for at, line in enumerate(lines))
        self.rows: tuple[Row, ...] = tuple(map(_row, lines, self.ceilings))
        budgets = [line.spec.end_ms for line in lines if line.spec.kind is Kind.WINDOW]
        self.until_ms = min(budgets, default=FOREVER)
        self.slots = tuple(line.bucket for line in lines if line.spec.kind is Kind.SLOTS)
        self.shadows = tuple(index for index, line in enumerate(lines) if line.spec.shadow)
        self.families: tuple[Family, ...] = tuple(
            (kind, told) for resource, kind in _TOLD if (told := tuple(_told(self.lines, resource)))
        )
        self.recorded = tuple(
            (index, name_of(line.bucket, line.spec))
            for index, line in enumerate(lines)
            if line.spec.kind is not Kind.SLOTS
        )

    def takes(self, estimate: Estimate, first: int = 0) -> list[Amount]:
        """What a request is to take, from line `first` on. Raises TooLarge."""
        full = estimate.full
        takes = []
        for bucket, spec, resource, unit, fixed, ceiling in self.rows[first:] if first else self.rows:
            if fixed is None:
                cost = full[resource] * unit
                if cost > ceiling:
                    cost = self._all_there_is(bucket, estimate.prompt[resource] * unit, ceiling)
                takes.append(Amount(bucket, spec, cost))
            else:
                takes.append(fixed)
        return takes

    def actuals(self, own: Use, attempt: Use) -> list[Amount]:
        """What a request has used: of its own buckets, and of those of its last attempt's provider."""
        if self.own == len(self.rows):
            return _used(self.rows, own)
        return _used(self.rows[: self.own], own) + _used(self.rows[self.own :], attempt)

    def amounts(self, amounts: Sequence[Amount]) -> dict[str, int]:
        """Takes or actuals of these lines as a record names them; slots are not recorded."""
        return {name: amounts[index].amount for index, name in self.recorded}

    def _all_there_is(self, bucket: str, prompt: int, ceiling: int) -> int:
        """What is taken where all of the estimate never fits: the ceiling, if the limit has room for the prompt.

        Where the prompt is above the ceiling, another line is the one that has no room for it, and raises.
        """
        index = next(index for index, line in enumerate(self.lines) if line.bucket == bucket)
        spec = self.lines[index].spec
        if prompt > spec.limit and not spec.shadow:
            raise TooLarge(index, prompt)
        return ceiling


def _used(rows: tuple[Row, ...], used: Use) -> list[Amount]:
    actuals = []
    for bucket, spec, resource, unit, fixed, _ in rows:
        cost = used[resource] * unit
        if fixed is not None and cost:
            actuals.append(fixed)
        else:
            actuals.append(Amount(bucket, spec, cost if cost < MAX_AMOUNT else MAX_AMOUNT))  # noqa: FURB136 - hot
    return actuals


def _row(line: Line, ceiling: int) -> Row:
    bucket, spec, resource, unit = line[:4]
    fixed = Amount(bucket, spec, unit) if resource in _ONE_EACH else None
    return (bucket, spec, int(resource), unit, fixed, ceiling)


def _ceiling(line: Line, lines: Sequence[Line]) -> int:
    """The most of a line's bucket, in its own unit, that the limits of its resource can ever admit at once."""
    binding = [other for other in lines if other.resource is line.resource and not other.spec.shadow]
    return min((-(-other.spec.limit * line.unit // other.unit) for other in binding), default=MAX_AMOUNT)


def _told(lines: Sequence[Line], resource: Resource) -> Iterator[Told]:
    """The lines that callers are told about: those that refuse, and are full again at a time that is known."""
    for index, line in enumerate(lines):
        spec = line.spec
        if line.resource is resource and not spec.shadow:
            yield (index, line.unit, spec.limit // line.unit, spec.limit, spec.amount, spec.period_ms, spec.end_ms)
