"""Thresholds of budgets: each told once a window, in order, by what is really used, and again only under its own id."""

import asyncio
from collections.abc import Mapping

import msgspec
import pytest

from gateway.config.limits import Allowance, Limits, Rule
from gateway.control.budget_events import (
    ASKED_AT_ONCE,
    LOOKS_AT_ALL,
    Budget,
    BudgetEvents,
    Budgets,
    Crossing,
    record_of,
)
from gateway.limiter.checkpoint import Told
from gateway.limiter.engine import Amount, Unavailable
from gateway.limiter.replay import Used
from gateway.limiter.spec import Spec, window
from tests.fakes.forgetful_engine import ForgetfulEngine
from tests.fakes.limit_records import BUDGET, DAY_MS, MINUTE, NOON_MS

NAME = "org-budget|org=a"
ORG = Budget("org-budget", 1_000, (70, 90, 100), "micro-USD")


class Watch:
    """A node's budgets, and who listens."""

    def __init__(self, budgets: Mapping[str, Budget] | None = None) -> None:
        self.engine = ForgetfulEngine(NOON_MS)
        self.told: dict[str, Told] = {}
        self.heard: list[Crossing] = []
        self.budgets = dict(budgets) if budgets is not None else {NAME: ORG}
        self.deaf = False
        self.used = 1  # as the journal says
        self.begin()

    def begin(self) -> None:
        self.events = BudgetEvents("main", self.budgets.get, self.engine, self, self.hear)

    def tell(self, bucket: str, told: Told) -> None:
        self.told[bucket] = told

    async def hear(self, crossing: Crossing) -> None:
        if self.deaf:
            raise OSError("nobody listens")
        self.heard.append(crossing)

    def use(self, amount: int, bucket: str = NAME, spec: Spec = BUDGET) -> None:
        self.used += amount
        self.engine.model.settle(self.engine.now_ms, f"h{amount}{bucket}", [Amount(bucket, spec, amount)])

    def look(self, *used: Used) -> list[int]:
        """Which thresholds this look tells."""
        before = len(self.heard)
        asyncio.run(self.events.look(used or (Used(NAME, BUDGET, self.used),)))
        return [crossing.percent for crossing in self.heard[before:]]


def test_nothing_is_told_below_the_first_threshold() -> None:
    watch = Watch()
    watch.use(699)
    assert watch.look() == []
    watch.use(1)
    assert watch.look() == [70]


def test_each_threshold_is_told_once_and_in_order() -> None:
    watch = Watch()
    watch.use(950)
    assert watch.look() == [70, 90]
    assert watch.look() == []
    watch.use(50)
    assert watch.look() == [100]
    assert watch.events.crossed == {"org-budget": 3}


def test_an_event_says_what_it_is_about() -> None:
    watch = Watch()
    watch.use(700)
    watch.look(Used(NAME, BUDGET, 700, estimated=30))
    (crossing,) = watch.heard
    assert (crossing.rule, crossing.bucket, crossing.percent) == ("org-budget", NAME, 70)
    assert (crossing.used, crossing.limit, crossing.unit, crossing.estimated) == (700, 1_000, "micro-USD", 30)
    assert (crossing.start_ms, crossing.end_ms) == (BUDGET.start_ms, BUDGET.end_ms)


def test_an_event_as_a_record() -> None:
    watch = Watch()
    watch.use(700)
    watch.look()
    record = record_of(watch.heard[0], 5)
    assert (record.kind.value, record.action, record.subject, record.actor) == (
        "admin",
        "budget.crossed",
        NAME,
        "gateway",
    )
    assert msgspec.json.decode(record.detail, type=Crossing) == watch.heard[0]


def test_requests_on_their_way_are_not_spent() -> None:
    watch = Watch()
    watch.use(900)
    assert watch.look(Used(NAME, BUDGET, 900, live=250)) == []
    assert watch.look(Used(NAME, BUDGET, 900, live=200)) == [70]


def test_what_others_have_used_counts_as_well() -> None:
    watch = Watch()
    watch.use(800)
    assert watch.look(Used(NAME, BUDGET, 5)) == [70]


def test_a_new_window_is_told_anew() -> None:
    watch = Watch()
    watch.use(700)
    assert watch.look() == [70]
    tomorrow = window(1, BUDGET.end_ms, BUDGET.end_ms + DAY_MS)
    watch.use(701, spec=tomorrow)
    assert watch.look(Used(NAME, tomorrow, 701)) == [70]
    assert len({crossing.id for crossing in watch.heard}) == 2


def test_a_process_that_was_replaced_tells_nothing_again() -> None:
    watch = Watch()
    watch.use(700)
    watch.look()
    watch.begin()
    assert watch.look() == []


def test_a_crash_before_it_was_kept_tells_it_again_under_the_same_id() -> None:
    watch = Watch()
    watch.use(700)
    watch.look()
    watch.told.clear()
    watch.begin()
    watch.look()
    assert watch.heard[0] == watch.heard[1]
    assert watch.heard[0].id.startswith("budget_")


def test_what_nobody_heard_is_not_told() -> None:
    watch = Watch()
    watch.use(700)
    watch.deaf = True
    with pytest.raises(OSError, match="nobody listens"):
        watch.look()
    assert (watch.told, watch.events.crossed) == ({}, {})
    watch.deaf = False
    assert watch.look() == [70]


def test_a_limit_that_was_raised_and_reached_again_is_not_told_again() -> None:
    watch = Watch()
    watch.use(700)
    assert watch.look() == [70]
    watch.budgets[NAME] = ORG._replace(limit=2_000)
    watch.use(800)
    assert watch.look() == []
    watch.use(300)
    assert watch.look() == [90]


def test_rates_and_what_the_config_does_not_know_are_not_watched() -> None:
    watch = Watch({})
    watch.engine.away = True
    assert watch.look(Used(NAME, MINUTE, 10), Used("gone|org=a", BUDGET, 10**9)) == []


def test_many_budgets_are_asked_about_in_parts() -> None:
    names = [f"b|org={number}" for number in range(2 * ASKED_AT_ONCE + 1)]
    watch = Watch(dict.fromkeys(names, ORG))
    for name in names:
        watch.use(750, name)
    assert watch.look(*(Used(name, BUDGET, 1) for name in names)) == [70] * len(names)
    assert [crossing.bucket for crossing in watch.heard] == names


def test_what_has_not_moved_is_not_asked_about() -> None:
    watch = Watch()
    watch.use(100)
    assert watch.look() == []
    watch.engine.away = True
    assert watch.look() == []
    for moved in (Used(NAME, BUDGET, watch.used + 1), Used(NAME, BUDGET, watch.used, live=1)):
        with pytest.raises(Unavailable):
            watch.look(moved)


def test_what_came_to_the_engine_late_is_found_all_the_same() -> None:
    watch = Watch()
    assert watch.look() == []
    watch.engine.model.settle(NOON_MS, "late", [Amount(NAME, BUDGET, 700)])
    assert [watch.look() for _ in range(LOOKS_AT_ALL)][-2:] == [[70], []]


def test_a_limit_that_was_lowered_is_looked_at_again() -> None:
    watch = Watch()
    watch.use(500)
    assert watch.look() == []
    watch.budgets[NAME] = ORG._replace(limit=700)
    watch.events.again()
    assert watch.look() == [70]


def test_an_engine_that_is_away_is_asked_another_time() -> None:
    watch = Watch()
    watch.use(700)
    watch.engine.away = True
    with pytest.raises(Unavailable):
        watch.look()
    watch.engine.away = False
    assert watch.look() == [70]


# --- which budgets there are ----------------------------------------------------------------------------------------

CONFIG = Limits(
    rules=(
        Rule(name="org-budget", per=("org",), usd=12.5, every="month", alerts=(90, 70, 90)),
        Rule(name="tokens", per=("org",), tokens=9_000, every="day", budget=True, alerts=()),
        Rule(name="rate", per=("org",), tokens=9_000, every="day"),
        Rule(name="flight", in_flight=4),
    )
)
ALLOWED = Allowance(usd_per_month=3, rpm=5)


@pytest.mark.parametrize(
    ("bucket", "budget"),
    [
        ("org-budget|org=a", Budget("org-budget", 12_500_000, (70, 90), "micro-USD")),
        ("tokens|org=a", Budget("tokens", 9_000, (), "tokens")),
        ("key.usd_per_month|key=my%7Ckey", Budget("key.usd_per_month", 3_000_000, (70,), "micro-USD")),
        ("team.usd_per_month|team=acme/search", Budget("team.usd_per_month", 3_000_000, (70,), "micro-USD")),
        ("team.usd_per_month|team=search", Budget("team.usd_per_month", 3_000_000, (70,), "micro-USD")),
        ("team.usd_per_month|team=a%2Fb%257C/search", Budget("team.usd_per_month", 3_000_000, (70,), "micro-USD")),
        ("team.usd_per_month|team=other", None),
        ("key.usd_per_month|key=nobody", None),
        ("key.usd_per_month|key=poor", None),
        ("rate|org=a", None),
        ("flight", None),
        ("removed|org=a", None),
    ],
)
def test_the_budget_of_a_bucket(bucket: str, budget: Budget | None) -> None:
    keys = {"my|key": ALLOWED, "poor": Allowance(rpm=5)}
    assert Budgets(CONFIG, {"search": ALLOWED}, keys.get).find(bucket) == budget
