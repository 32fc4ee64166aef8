"""Why, and when: every bucket of a request, without charging any."""

import random

import pytest

from gateway.config.limits import Rule, RuleMatch
from gateway.errors import NeverFits, RateLimited
from gateway.limiter.explain import Explained, Need, binding, binding_first, explain, refusal
from gateway.limiter.lines import Lines
from gateway.limiter.reservation import Hold
from gateway.limiter.rules import Limits
from gateway.limiter.use import Estimate, use
from tests.fakes.limits import START_MS, FakeEngine, Setting, estimate, limits_of, run

TPM = Rule(name="tpm", per=("team",), tokens=1000, every="minute")
SLOTS = Rule(name="slots", per=("key",), in_flight=2)
BUDGET = Rule(name="money", usd=1, every="day", shadow=True)
DAILY = Rule(name="daily", per=("org",), tokens=1500, every="day", budget=True)
TIGHT = Rule(name="tight", per=("key",), tokens=150, every="second")
LIMITS = limits_of(TPM, SLOTS, BUDGET)
BIG = Rule(name="big", per=("provider",), tokens=1000, every="minute", match=RuleMatch(provider="big"))
TINY = Rule(name="tiny", per=("provider",), tokens=10, every="minute", match=RuleMatch(provider="tiny"))


def asked(engine: FakeEngine, lines: Lines, wanted: Estimate, at_most: int = 0) -> list[Explained]:
    return run(explain(engine, lines, Need(wanted, use(10, at_most, 5) if at_most else None, {})))


def test_every_bucket_is_told_with_its_level_and_wait() -> None:
    setting = Setting()
    run(setting.limiter.reserve(LIMITS, "h", estimate(100, 850, 250_000)))
    tpm, slots, money = asked(setting.engine, LIMITS.lines(START_MS), estimate(100, 0, 900_000))
    assert (tpm.line.rule, tpm.line.bucket) == ("tpm", "tpm|team=acme/search")
    assert (tpm.kind, tpm.capacity, tpm.level, tpm.debt) == ("rate", 1_000_000, 50_000, 0)
    assert (tpm.asked, tpm.wait_ms, tpm.refuses) == (100_000, 3_000, True)
    assert (slots.kind, slots.capacity, slots.level, slots.asked, slots.wait_ms) == ("slots", 2, 1, 1, 0)
    assert (money.kind, money.level, money.refuses) == ("budget", 750_000, False)
    assert money.wait_ms == money.line.spec.end_ms - START_MS


def test_debt_is_told_as_such() -> None:
    setting = Setting()
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(100, 100)))
    hold.settle(use(100, 2_900))
    (tpm, *_) = asked(setting.engine, LIMITS.lines(START_MS), estimate(100))
    assert (tpm.level, tpm.debt, tpm.wait_ms) == (-2_000_000, 2_000_000, 126_000)
    assert tpm.said == ("tpm: 1000 tokens a minute for team search: 2000 in debt, of 1000; 100 fits in 2 min 6 s")


def test_what_is_asked_is_what_would_be_taken() -> None:
    engine, lines = FakeEngine(), LIMITS.lines(START_MS)
    wanted = estimate(10, 5_000, 7_000_000)
    assert [row.asked for row in asked(engine, lines, wanted)] == [take.amount for take in lines.takes(wanted)]
    (tpm, *_) = asked(engine, lines, estimate(5_000))
    assert (tpm.asked, tpm.wait_ms) == (5_000_000, -1)
    assert tpm.said.endswith("1000 of 1000 left; 5000 never fits")
    assert engine.named("reserve") == []


OF_TEAM = Rule(name="slots", per=("team",), in_flight=2)


@pytest.mark.parametrize(("rules", "bound"), [((TPM, OF_TEAM), 2 * 400_000), ((TPM, SLOTS), None), ((TPM,), None)])
def test_the_debt_that_is_possible_has_a_bound(rules: tuple[Rule, ...], bound: int | None) -> None:
    lines = limits_of(*rules).lines(START_MS)
    (tpm, *_) = asked(FakeEngine(), lines, estimate(10, 90), at_most=490)
    assert tpm.debt_bound == bound
    (unknown, *_) = asked(FakeEngine(), lines, estimate(10, 90))
    assert unknown.debt_bound is None


def test_requests_and_slots_have_no_debt() -> None:
    lines = limits_of(SLOTS, Rule(name="rpm", requests=5, every="minute")).lines(START_MS)
    assert [row.debt_bound for row in asked(FakeEngine(), lines, estimate(10, 90))] == [0, 0]


def test_what_fits_now_and_what_never_refuses_are_said() -> None:
    *_, money = asked(FakeEngine(), LIMITS.lines(START_MS), estimate(10, 0, 5))
    assert money.said == "money: 1 USD a day: 1 USD of 1 USD left; 0.000005 USD fits now (shadow: never refuses)"


def test_a_slot_is_free_when_a_request_ends_and_not_at_a_time() -> None:
    setting = Setting()
    for name in ("h1", "h2"):
        run(setting.limiter.reserve(LIMITS, name, estimate(1)))
    _, slots, _ = asked(setting.engine, LIMITS.lines(START_MS), estimate(1))
    assert slots.said == "slots: 2 requests in flight for key demo: 0 of 2 left; 1 fits when another has ended"
    assert slots.refuses


def test_what_binds_first_stands_first() -> None:
    setting = Setting()
    never = Rule(name="never", per=("key",), tokens=5, every="minute")
    long = Rule(name="long", per=("key",), tokens=100, every="hour")
    limits = limits_of(BUDGET, SLOTS, TPM, long)
    run(setting.limiter.reserve(limits, "h", estimate(100)))
    rows = asked(setting.engine, limits_of(BUDGET, SLOTS, TPM, long, never).lines(START_MS), estimate(50))
    order = [row.line.rule for row in binding_first(rows)]
    assert order == ["never", "long", "slots", "tpm", "money"]
    bound = binding(rows)
    assert bound is not None
    assert bound.line.rule == "never"
    assert isinstance(refusal(bound), NeverFits)
    (late,) = [row for row in rows if row.line.rule == "long"]
    told = refusal(late)
    assert isinstance(told, RateLimited)
    assert (told.rule, told.retry_after_ms) == ("long", 1_800_000)


def test_nothing_binds_where_all_fits_or_only_shadows_do_not() -> None:
    assert binding(asked(FakeEngine(), LIMITS.lines(START_MS), estimate(10, 0, 2_000_000))) is None


def of_providers(*names: str) -> list[Explained]:
    limits, engine, rows = limits_of(SLOTS, BIG, TINY), FakeEngine(), list[Explained]()
    for name in names:
        lines = limits.lines(START_MS, "", name)
        rows += run(explain(engine, lines, Need(estimate(50), None, {}), name, lines.own if rows else 0))
    return rows


def test_one_provider_that_admits_is_enough() -> None:
    rows = of_providers("tiny", "big")
    assert [(row.line.rule, row.provider) for row in rows] == [("slots", ""), ("tiny", "tiny"), ("big", "big")]
    assert binding(rows, ("tiny", "big")) is None
    bound = binding(rows, ("tiny",))
    assert bound is not None
    assert (bound.line.rule, bound.wait_ms) == ("tiny", -1)


def test_nothing_is_asked_where_there_is_nothing() -> None:
    limits, engine = limits_of(BIG), FakeEngine()
    assert run(explain(engine, limits.lines(START_MS, "", "other"), Need(estimate(1), None, {}))) == []
    assert engine.calls == []


def reserved(
    setting: Setting, limits: Limits, name: str, wanted: Estimate, providers: list[str]
) -> tuple[RateLimited | NeverFits | None, Hold | None]:
    """What really comes of it."""
    try:
        return None, run(setting.limiter.reserve(limits, name, wanted, providers=providers))
    except (RateLimited, NeverFits) as error:
        return error, None


@pytest.mark.parametrize("seed", range(60))
def test_what_is_foretold_is_what_a_request_then_meets(seed: int) -> None:
    draw = random.Random(seed)
    rules = (TPM, SLOTS, BIG, TINY, BUDGET, DAILY, TIGHT, Rule(name="rpm", per=("key",), requests=3, every="second"))
    limits, setting = limits_of(*draw.sample(rules, draw.randint(1, len(rules)))), Setting()
    names = draw.choice((["big"], ["tiny"], ["tiny", "big"], ["big", "tiny"]))
    for step in range(12):
        wanted = estimate(
            draw.choice((0, 1, 9, 11, 200, 1_200)), draw.choice((0, 5, 3_000)), draw.randint(0, 2_000_000)
        )
        rows = list[Explained]()
        for name in names:
            lines, own = limits.lines(setting.engine.now_ms, "", name), bool(rows)
            rows += run(explain(setting.engine, lines, Need(wanted, None, {}), name, lines.own if own else 0))
        bound = binding(rows, names)
        met, hold = reserved(setting, limits, f"h{step}", wanted, names)
        assert (met is None) == (bound is None)
        if met is not None and bound is not None:
            assert (type(met), str(met)) == (type(refusal(bound)), str(refusal(bound)))
        if hold is not None and draw.random() < 0.7:
            hold.settle(use(draw.randint(0, 2_000), draw.randint(0, 2_000), draw.randint(0, 10**6)))
        setting.engine.now_ms += draw.choice((0, 100, 5_000, 200_000))
