"""The table of the proof: which limit, on how many nodes, counted where, under which load, and what is killed.

Requests are limited to 600 a minute, 18,000 where slices are leased, tokens to 3,000,000. Where something is killed the
bucket is smaller (twenty seconds of its rate): what a kill adds or loses is then paid back within the run, and is more
than an outage refills. It is streams of a second there, so that some are under way. Every key has a budget of tokens,
too, which no load comes near: what it counted in the end is compared with what callers were told they used. Slots are
limited where nothing is leased, for the same reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bench.limits.evidence import Rate

REQUESTS, TOKENS = "requests", "tokens"
RPM: Final = 600
HOT_RPM: Final = 18_000  # what is leased must be worth leasing
TPM: Final = 3_000_000
BUDGET: Final = 1_000_000_000
SLOTS: Final = 1_000
BUDGET_RULE, SLOTS_RULE, RATE_RULE, SHORT_RULE = "bench-budget", "key.max_in_flight", "bench-rate", "key.rpm"
PROMPT_TOKENS: Final = 20  # more than the prompt comes to, by any count
_QUICK: Final = "tokens=5"
_SECOND: Final = "ttft-ms=20; tokens=20; token-ms=50"


@dataclass(frozen=True)
class Scenario:
    """One row. `used` of the reservation is what an answer's usage comes to; 0: whatever the provider says."""

    name: str
    what: str
    resource: str = REQUESTS
    nodes: int = 1
    workers: int = 4
    store: bool = False
    slices: bool = False
    per_minute: int = RPM  # of the resource
    capacity: float = RPM
    reserved: int = 100  # tokens that a request asks for at most
    used: float = 0.0
    behave: str = _QUICK
    pause_s: float = 0.0  # of a caller who was refused
    kills: str = ""  # worker, node or store

    @property
    def rate(self) -> Rate:
        """The limit that is proved."""
        return Rate(self.capacity, self.per_minute / 60)

    @property
    def rate_rule(self) -> str:
        """The name of that limit: the key's short form where its capacity is a minute's amount."""
        return SHORT_RULE if self.resource == REQUESTS and self.capacity == self.per_minute == RPM else RATE_RULE

    @property
    def sim(self) -> str:
        """The provider's behaviour. Hidden reasoning is usage without events, so a long answer costs little here."""
        if not self.used:
            return self.behave
        return f"ttft-ms=20; tokens=5; reasoning={round(self.reserved * self.used) - 5 - PROMPT_TOKENS // 2}"

    def settings(self, store_url: str, secret: str) -> dict[str, object]:
        """What is laid over a node's config."""
        key: dict[str, object] = {"id": "bench", "secret": secret, "org": "bench", "models": ["*"]}
        rules: list[dict[str, object]] = [
            {"name": BUDGET_RULE, "per": ["key"], "tokens": BUDGET, "every": "month", "budget": True}
        ]
        if self.rate_rule == SHORT_RULE:
            key["rpm"] = RPM
        else:
            per_key: dict[str, object] = {"per": ["key"], "every": "minute", "capacity": self.capacity}
            rules.append({"name": RATE_RULE, **per_key, self.resource: self.per_minute})
        limits: dict[str, object] = {
            "domain": "proof",
            "nodes": self.nodes,
            "on_store_failure": "closed",
            "rules": rules,
        }
        if self.store:
            limits["store"] = store_url
        if self.slices:
            limits["slices"] = True
        if not self.slices:
            key["max_in_flight"] = SLOTS
        return {"listen": {"workers": self.workers}, "limits": limits, "keys": [key]}


def _killed(name: str, what: str, kills: str, **more: object) -> Scenario:
    values: Mapping[str, object] = {"capacity": 200, "behave": _SECOND, "pause_s": 0.01, **more}
    return Scenario(name, what, kills=kills, **values)  # type: ignore[arg-type] # rows are plainer than a call each


def _tokens(name: str, what: str, reserved: int, used: float, *, store: bool) -> Scenario:
    capacity = TPM / 60
    return Scenario(
        name, what, TOKENS, store=store, per_minute=TPM, capacity=capacity, reserved=reserved, used=used, pause_s=0.01
    )  # fmt: skip


SCENARIOS: Final[Sequence[Scenario]] = (
    Scenario("requests-table", "600 requests a minute, four workers, shared memory"),
    Scenario("requests-store", "the same, a store", store=True, pause_s=0.005),
    _tokens("tokens-fifth-table", "usage 0.2 × the estimate, shared memory", 3_000, 0.2, store=False),
    _tokens("tokens-triple-table", "usage 3 × the estimate, shared memory", 300, 3.0, store=False),
    _tokens("tokens-fifth-store", "usage 0.2 × the estimate, a store", 3_000, 0.2, store=True),
    _tokens("tokens-triple-store", "usage 3 × the estimate, a store", 300, 3.0, store=True),
    Scenario("nodes", "600 requests a minute, three nodes, one store", nodes=3, workers=1, store=True, pause_s=0.005),
    Scenario(
        "nodes-slices",
        "18,000 requests a minute, three nodes lease slices of the bucket",
        per_minute=HOT_RPM,
        capacity=HOT_RPM / 60,
        nodes=3,
        workers=1,
        store=True,
        slices=True,
        pause_s=0.005,
    ),
    _killed("worker-table", "a worker is killed, shared memory", "worker"),
    _killed("worker-store", "a worker is killed, a store", "worker", store=True),
    _killed("node-table", "the node is killed and started again, shared memory", "node"),
    _killed("node-store", "one of three nodes is killed and started again", "node", nodes=3, workers=1, store=True),
    _killed("store", "the store is killed and comes back empty, one node", "store", store=True),
    _killed("store-nodes", "the same, three nodes", "store", nodes=3, workers=1, store=True),
)
BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}
