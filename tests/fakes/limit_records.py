"""Records as limits leave them: decisions that reserve and outcomes that settle."""

from collections.abc import Mapping

from gateway.limiter.recorded import name_of
from gateway.limiter.spec import Spec, rate, window
from gateway.record import Kind, Record

DAY_MS = 86_400_000
NOON_MS = 1_800_014_400_000
BUDGET = window(10_000, NOON_MS - DAY_MS // 2, NOON_MS + DAY_MS // 2)
YESTERDAY = window(10_000, BUDGET.start_ms - DAY_MS, BUDGET.start_ms)
MINUTE = rate(60_000, 60_000, 60_000)  # one milli-unit a millisecond


def told(amounts: Mapping[tuple[str, Spec], int]) -> dict[str, int]:
    return {name_of(bucket, spec): amount for (bucket, spec), amount in amounts.items()}


def decision(hold: str, at_ms: int, amounts: Mapping[tuple[str, Spec], int]) -> Record:
    return Record(Kind.DECISION, f"x-{hold}", at_ms * 1000, decision="allow", hold_id=hold, hold_amounts=told(amounts))


def outcome(hold: str, at_ms: int, amounts: Mapping[tuple[str, Spec], int]) -> Record:
    return Record(Kind.OUTCOME, f"x-{hold}", at_ms * 1000, hold_id=hold, settled_amounts=told(amounts))
