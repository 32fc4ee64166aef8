"""Why, and when: every bucket of a request, without charging any."""

import pytest

from gateway.config.limits import Rule
from gateway.limiter.explain import Explained, explain, in_words
from gateway.limiter.lines import Lines
from gateway.limiter.use import Estimate, use
from tests.fakes.limits import START_MS, FakeEngine, Setting, estimate, limits_of, run

TPM = Rule(name="tpm", per=("team",), tokens=1000, every="minute")
SLOTS = Rule(name="slots", per=("key",), in_flight=2)
BUDGET = Rule(name="money", usd=1, every="day", shadow=True)
LIMITS = limits_of(TPM, SLOTS, BUDGET)


def asked(engine: FakeEngine, lines: Lines, wanted: Estimate, at_most: int = 0) -> list[Explained]:
    return run(explain(engine, lines, wanted, use(10, at_most, 5) if at_most else None))


def test_every_bucket_is_told_with_its_level_wait_and_refill() -> None:
    setting = Setting()
    run(setting.limiter.reserve(LIMITS, "h", estimate(100, 850, 250_000)))
    tpm, slots, money = asked(setting.engine, LIMITS.lines(START_MS), estimate(100, 0, 900_000))
    assert (tpm.rule, tpm.limit, tpm.bucket) == ("tpm", "1000 tokens a minute for team search", "tpm|team=acme/search")
    assert (tpm.kind, tpm.unit, tpm.capacity, tpm.level, tpm.debt) == ("rate", 1000, 1_000_000, 50_000, 0)
    assert (tpm.asked, tpm.wait_ms, tpm.refill, tpm.period_ms) == (100_000, 3_000, 1_000_000, 60_000)
    assert (slots.kind, slots.capacity, slots.level, slots.asked, slots.wait_ms) == ("slots", 2, 1, 1, 0)
    assert (money.kind, money.level, money.shadow) == ("budget", 750_000, True)
    assert money.end_ms - money.start_ms == 86_400_000
    assert money.wait_ms == money.end_ms - START_MS


def test_debt_is_told_as_such() -> None:
    setting = Setting()
    hold = run(setting.limiter.reserve(LIMITS, "h", estimate(100, 100)))
    hold.settle(use(100, 2_900))
    (tpm, *_) = asked(setting.engine, LIMITS.lines(START_MS), estimate(100))
    assert (tpm.level, tpm.debt, tpm.wait_ms) == (-2_000_000, 2_000_000, 126_000)
    assert in_words(tpm, LIMITS.lines(START_MS).lines[0]) == (
        "tpm: 1000 tokens a minute for team search: 2000 in debt, of 1000; 100 fits in 2 min 6 s"
    )


def test_what_is_asked_is_what_would_be_taken() -> None:
    engine, lines = FakeEngine(), LIMITS.lines(START_MS)
    assert [row.asked for row in asked(engine, lines, estimate(10, 5_000))] == [1_000_000, 1, 0]
    (tpm, *_) = asked(engine, lines, estimate(5_000))
    assert (tpm.asked, tpm.wait_ms) == (5_000_000, -1)
    assert in_words(tpm, lines.lines[0]).endswith("1000 of 1000 left; 5000 never fits")
    assert engine.named("reserve") == []


@pytest.mark.parametrize(("rules", "bound"), [((TPM, SLOTS), 2 * 400_000), ((TPM,), -1)])
def test_the_debt_that_is_possible_has_a_bound(rules: tuple[Rule, ...], bound: int) -> None:
    lines = limits_of(*rules).lines(START_MS)
    (tpm, *_) = asked(FakeEngine(), lines, estimate(10, 90), at_most=490)
    assert tpm.debt_bound == bound
    (unknown, *_) = asked(FakeEngine(), lines, estimate(10, 90))
    assert unknown.debt_bound == -1


def test_what_fits_now_and_what_never_refuses_are_said() -> None:
    lines = LIMITS.lines(START_MS)
    *_, money = asked(FakeEngine(), lines, estimate(10, 0, 5))
    assert in_words(money, lines.lines[2]) == (
        "money: 1 USD a day: 1 USD of 1 USD left; 0.000005 USD fits now (shadow: never refuses)"
    )
