"""This node's part of a limit, for the time when the store that knows the whole of it is away.

With `nodes` nodes each counts for itself up to a `nodes`th of every limit, rounded down, but at least one of what is
counted. A node begins with a full part; what it had used of the whole before is with the store. What it has used of its
part it remembers: a second outage does not begin anew.

Invariants: the parts together are no more than the limit, and refill no faster, unless it is smaller than one for each
node; so while the store is away, as much again is admitted as the limit allows at once, and no more.
Left out: how many nodes there are, which the config says.
"""

from typing import Final

from gateway.limiter.engine import Amount
from gateway.limiter.lines import Lines
from gateway.limiter.spec import Kind, Spec, rate, slots, window

_MAX_REMEMBERED: Final = 4096


class Shares:
    """The parts of one node."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._known: dict[tuple[Spec, int], Spec] = {}

    def of(self, lines: Lines, amounts: list[Amount]) -> list[tuple[int, Amount]]:
        """Of the lines whose mode is `share`: their index, and the amount against this node's part."""
        return [
            (index, self._amount(amount, line.unit))
            for index, (line, amount) in enumerate(zip(lines.lines, amounts, strict=True))
            if line.on_failure == "share"
        ]

    def _amount(self, amount: Amount, unit: int) -> Amount:
        spec = self._known.get((amount.spec, unit))
        if spec is None:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            spec = self._known[amount.spec, unit] = self._part(amount.spec, unit)
        return Amount(amount.bucket, spec, amount.amount)

    def _part(self, spec: Spec, unit: int) -> Spec:
        limit = max(spec.limit // self._nodes, min(unit, spec.limit))
        if spec.kind is Kind.RATE:
            return rate(limit, max(spec.amount // self._nodes, 1), spec.period_ms, shadow=spec.shadow)
        if spec.kind is Kind.WINDOW:
            return window(limit, spec.start_ms, spec.end_ms, shadow=spec.shadow)
        return slots(limit, shadow=spec.shadow)
