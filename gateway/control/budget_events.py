"""Budgets that are heard: one event for each threshold of each window, whoever used it up.

Control looks each second at the budgets that its journal names and asks the engine how much of each is used, which is
over all workers, and over all nodes where they share a store. Requests of this node that are still on their way are
left out, so that one large reservation, given back a moment later, alarms nobody. A threshold that is passed is told in
the journal (`admin`, action `budget.crossed`), to webhooks, and by a counter.

Asked is about budgets that this node has used since it last asked: what another node used up, that node tells. Once in
LOOKS_AT_ALL looks, and after `again`, all are asked about, should a settlement have reached the engine late.

What was told is kept in the checkpoint, after it was told: a crash in between tells it twice, under the same id, and
nodes that share a store tell it under one id as well. Whoever must know once goes by the id.

Invariants: events of one budget and window come in the order of their thresholds, each once in a process's life, also
when the limit is raised and reached again. Left out: refusals, which callers and metrics show.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol
from urllib.parse import unquote

import msgspec

from gateway.config.limits import Allowance, Limits, Rule
from gateway.limiter.checkpoint import Told
from gateway.limiter.engine import Amount, Standing
from gateway.limiter.replay import Used
from gateway.limiter.spec import window
from gateway.record import Kind as RecordKind
from gateway.record import Record

ACTION: Final = "budget.crossed"
ACTOR: Final = "gateway"
ASKED_AT_ONCE: Final = 16
LOOKS_AT_ALL: Final = 60
_MICRO: Final = 1_000_000
_ALL: Final = 100


class Budget(NamedTuple):
    """What the config says of one budget: its limit in the bucket's own unit, and its thresholds in percent."""

    rule: str
    limit: int
    alerts: tuple[int, ...]
    unit: str


class Crossing(msgspec.Struct, frozen=True, kw_only=True):
    """One event, as journal and webhooks tell it. `used` and `limit` are whole tokens, requests or micro-USD."""

    id: str
    rule: str
    bucket: str
    percent: int
    used: int
    limit: int
    unit: str
    start_ms: int
    end_ms: int
    estimated: int = 0  # of it reserved by requests whose worker died


def record_of(crossing: Crossing, at_us: int) -> Record:
    """An event as the journal tells it."""
    detail = msgspec.json.encode(crossing).decode()
    return Record(RecordKind.ADMIN, "", at_us, action=ACTION, subject=crossing.bucket, actor=ACTOR, detail=detail)


class Memory(Protocol):
    """What is remembered of what was told."""

    @property
    def told(self) -> Mapping[str, Told]:
        """By the name of the bucket."""

    def tell(self, bucket: str, told: Told) -> None:
        """This threshold is told."""


class Engine(Protocol):
    """The part of an engine that looking needs."""

    def peek(self, asked: Sequence[Amount]) -> Awaitable[Sequence[Standing]]:
        """How buckets stand. Raises Unavailable when awaited."""


class BudgetEvents:
    """Looks and tells; `hear` is awaited with each crossing before it counts as told, and may raise."""

    def __init__(
        self,
        domain: str,
        budget_of: Callable[[str], Budget | None],
        engine: Engine,
        memory: Memory,
        hear: Callable[[Crossing], Awaitable[None]],
    ) -> None:
        self.crossed: dict[str, int] = {}  # by the name of the rule
        self._domain = domain
        self._budget_of = budget_of
        self._engine = engine
        self._memory = memory
        self._hear = hear
        self._looks = 0
        self._seen: dict[str, tuple[int, int, int]] = {}  # what the journal said of a bucket when it was asked about

    def again(self) -> None:
        """Ask about all of them at the next look: what is a budget has changed."""
        self._seen.clear()

    async def look(self, used: Iterable[Used]) -> None:
        """Tell what has been crossed of these budgets. Raises Unavailable, and whatever `hear` does."""
        self._looks += 1
        if self._looks % LOOKS_AT_ALL == 0:
            self._seen.clear()
        budgets = [(found, budget) for found in used if (budget := self._watched(found)) is not None]
        for first in range(0, len(budgets), ASKED_AT_ONCE):
            some = budgets[first : first + ASKED_AT_ONCE]
            standings = await self._engine.peek([_asked(found, budget) for found, budget in some])
            for (found, budget), standing in zip(some, standings, strict=True):
                await self._judge(found, budget, budget.limit - standing.level - found.live)
                self._seen[found.bucket] = _said(found)

    def _watched(self, found: Used) -> Budget | None:
        """The budget of a bucket that may have something to tell."""
        if self._seen.get(found.bucket) == _said(found):
            return None
        budget = self._budget_of(found.bucket)
        return budget if budget is not None and self._untold(found, budget) else None

    def _untold(self, found: Used, budget: Budget) -> list[int]:
        told = self._memory.told.get(found.bucket)
        last = told.percent if told is not None and told.start_ms == found.spec.start_ms else 0
        return [percent for percent in budget.alerts if percent > last]

    async def _judge(self, found: Used, budget: Budget, used: int) -> None:
        for percent in self._untold(found, budget):
            if used * _ALL < budget.limit * percent:
                return
            await self._hear(self._crossing(found, budget, used, percent))
            self.crossed[budget.rule] = self.crossed.get(budget.rule, 0) + 1
            self._memory.tell(found.bucket, Told(found.spec.start_ms, percent))

    def _crossing(self, found: Used, budget: Budget, used: int, percent: int) -> Crossing:
        spec = found.spec
        identity = f"{self._domain}\0{found.bucket}\0{spec.start_ms}\0{spec.end_ms}\0{percent}"
        return Crossing(
            id=f"budget_{hashlib.sha256(identity.encode()).hexdigest()[:32]}",
            rule=budget.rule,
            bucket=found.bucket,
            percent=percent,
            used=used,
            limit=budget.limit,
            unit=budget.unit,
            start_ms=spec.start_ms,
            end_ms=spec.end_ms,
            estimated=found.estimated,
        )


def _said(found: Used) -> tuple[int, int, int]:
    return found.spec.start_ms, found.used, found.live


def _asked(found: Used, budget: Budget) -> Amount:
    return Amount(found.bucket, window(budget.limit, found.spec.start_ms, found.spec.end_ms), 0)


# --- which budgets there are ----------------------------------------------------------------------------------------


class Budgets:
    """The budgets of a config, by the names of their buckets. `allowance_of` knows the short forms of a key."""

    def __init__(
        self, limits: Limits, teams: Mapping[str, Allowance], allowance_of: Callable[[str], Allowance | None]
    ) -> None:
        rules = [rule for rule in limits.rules if rule.in_flight is None and rule.is_budget]
        self._rules = {rule.name: _budget(rule) for rule in rules}
        self._short: Mapping[str, Callable[[str], Allowance | None]] = {
            "key.usd_per_month": lambda key: allowance_of(unquote(key)),
            "team.usd_per_month": lambda team: _of_team(teams, team),
        }

    def find(self, bucket: str) -> Budget | None:
        """The budget of a bucket; None for one that the config does not know (any more)."""
        name, _, scopes = bucket.partition("|")
        if name in self._rules:
            return self._rules[name]
        if name not in self._short:
            return None
        allowance = self._short[name](scopes.partition("=")[2])
        if allowance is None or allowance.usd_per_month is None:
            return None
        return _budget(Rule(name=name, usd=allowance.usd_per_month, every="month"))


def _of_team(teams: Mapping[str, Allowance], escaped: str) -> Allowance | None:
    """Of a team by the name in its buckets: alone, or behind its org's."""
    return teams.get(unquote(escaped)) or teams.get(unquote(escaped.partition("/")[2]))


def _budget(rule: Rule) -> Budget:
    (resource,) = rule.resources
    amount = getattr(rule, resource)
    in_usd = resource == "usd"
    limit = round(amount * _MICRO) if in_usd else int(amount)
    return Budget(rule.name, limit, tuple(sorted(set(rule.alerts))), "micro-USD" if in_usd else resource)
