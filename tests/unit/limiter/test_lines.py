"""What a request takes from its buckets, and what it has used of them."""

import msgspec
import pytest

from gateway.config.limits import Rule
from gateway.limiter.engine import MAX_CHARGES, Amount
from gateway.limiter.lines import Line, Lines, TooLarge
from gateway.limiter.recorded import amounts_of
from gateway.limiter.spec import MAX_AMOUNT, rate
from gateway.limiter.use import NOTHING, Estimate, Resource, Use, use
from tests.fakes.limits import START_MS, estimate, limits_of

RULES = (
    Rule(name="rpm", requests=10, every="minute"),
    Rule(name="slots", in_flight=2),
    Rule(name="tpm", tokens=1000, every="minute"),
    Rule(name="in", input_tokens=1000, every="minute"),
    Rule(name="out", output_tokens=1000, every="minute"),
    Rule(name="money", usd=1, every="day", alerts=(70, 100)),
    Rule(name="at", per=("provider",), tokens=1000, every="minute"),
)


def lines_of(*rules: Rule) -> Lines:
    return limits_of(*rules).lines(START_MS, provider="p")


def costs(amounts: list[Amount]) -> list[int]:
    return [amount.amount for amount in amounts]


def test_every_bucket_is_taken_from_in_its_own_unit() -> None:
    takes = lines_of(*RULES).takes(Estimate(use(100, 50, 700), use(100, 0)))
    assert costs(takes) == [1_000, 1, 150_000, 100_000, 50_000, 700, 150_000]
    assert [take.bucket for take in takes] == ["rpm", "slots", "tpm", "in", "out", "money", "at|provider=p"]


def test_the_takes_of_an_attempt_are_those_of_its_provider() -> None:
    lines = lines_of(*RULES)
    assert [take.bucket for take in lines.takes(estimate(1), lines.own)] == ["at|provider=p"]


def test_what_always_costs_the_same_is_made_once() -> None:
    lines = lines_of(*RULES)
    one, two = lines.takes(estimate(1)), lines.takes(estimate(2))
    assert [first is second for first, second in zip(one, two, strict=True)] == [True, True, *[False] * 5]


def test_an_answer_that_never_fits_takes_all_there_is() -> None:
    """A fresh key at 1000 tokens a minute, a model that may answer 128,000, and no maximum."""
    (take,) = lines_of(RULES[2]).takes(estimate(10, 128_000))
    assert take.amount == 1_000_000


def test_a_prompt_that_never_fits_is_told_by_its_line() -> None:
    with pytest.raises(TooLarge) as caught:
        lines_of(*RULES).takes(estimate(1001, 5))
    assert (caught.value.index, caught.value.cost) == (2, 1_001_000)


def test_a_prompt_that_fits_by_all_there_is_is_taken() -> None:
    (take,) = lines_of(RULES[2]).takes(estimate(1000, 1))
    assert take.amount == 1_000_000


TIGHT = Rule(name="tight", per=("key",), tokens=500, every="minute")
WIDE = Rule(name="wide", per=("org",), tokens=10**6, every="day", budget=True)
ENDLESS = estimate(10, 10**8)


def test_nowhere_more_is_taken_than_the_tightest_limit_has() -> None:
    """One key with a small budget must not empty its org's: thousandths here, whole tokens there."""
    assert costs(lines_of(WIDE, TIGHT).takes(ENDLESS)) == [500, 500_000]
    assert costs(lines_of(TIGHT, WIDE).takes(ENDLESS)) == [500_000, 500]
    dollars = (Rule(name="org", per=("org",), usd=100, every="month"), Rule(name="key", usd=0.5, every="hour"))
    assert costs(lines_of(*dollars).takes(Estimate(use(1, 1, 10**9), use(1, 0, 5)))) == [500_000, 500_000]


def test_the_limits_of_one_resource_are_no_ceiling_of_another() -> None:
    out = Rule(name="out", output_tokens=1000, every="minute")
    assert costs(lines_of(TIGHT, out).takes(ENDLESS)) == [500_000, 1_000_000]


def test_a_shadow_limit_has_a_ceiling_and_is_none() -> None:
    shadow = msgspec.structs.replace(TIGHT, name="shadow", tokens=5, shadow=True)
    assert costs(lines_of(shadow, WIDE, TIGHT).takes(ENDLESS)) == [500_000, 500, 500_000]


def test_a_fraction_of_a_token_is_rounded_up_where_tokens_are_whole() -> None:
    odd = Rule(name="odd", tokens=500, capacity=499.5, every="minute")
    assert costs(lines_of(odd, WIDE).takes(ENDLESS)) == [499_500, 500]


def test_a_prompt_above_the_tightest_limit_is_told_by_that_line() -> None:
    for rules, index in (((WIDE, TIGHT), 1), ((TIGHT, WIDE), 0)):
        with pytest.raises(TooLarge) as caught:
            lines_of(*rules).takes(estimate(501, 5))
        assert (caught.value.index, caught.value.cost) == (index, 501_000)


def test_a_providers_limit_is_no_ceiling_for_the_others_but_theirs_are_for_it() -> None:
    """The next attempt may be at a provider with more room, and then nothing more is taken of the others."""
    small = Rule(name="small", per=("provider",), tokens=100, every="minute")
    large = Rule(name="large", per=("provider",), tokens=5000, every="minute")
    assert costs(lines_of(WIDE, TIGHT, small, large).takes(ENDLESS)) == [500, 500_000, 100_000, 100_000]
    lines = lines_of(WIDE, TIGHT, large)
    assert costs(lines.takes(ENDLESS, lines.own)) == [500_000]


def test_a_shadow_limit_takes_it_all_within_what_can_be_counted() -> None:
    shadow = msgspec.structs.replace(RULES[2], shadow=True)
    lines = lines_of(shadow)
    assert costs(lines.takes(estimate(5000, 5))) == [5_005_000]
    assert costs(lines.takes(estimate(10**12))) == [MAX_AMOUNT]
    assert lines.shadows == (0,)


def test_the_requests_own_buckets_and_those_of_its_last_attempt_differ() -> None:
    actuals = lines_of(*RULES).actuals(use(100, 50, 700), use(1, 2, 3))
    assert costs(actuals) == [1_000, 1, 150_000, 100_000, 50_000, 700, 3_000]


def test_nothing_used_gives_the_request_back_as_well() -> None:
    assert costs(lines_of(*RULES).actuals(NOTHING, NOTHING)) == [0] * 7


def test_more_than_can_be_counted_is_settled_as_the_most_that_can() -> None:
    assert costs(lines_of(RULES[2]).actuals(use(10**10, 0), NOTHING)) == [MAX_AMOUNT]


def test_amounts_are_told_as_a_record_names_them_and_slots_are_not() -> None:
    lines = lines_of(*RULES)
    takes = lines.takes(Estimate(use(100, 50, 700), use(100, 0)))
    assert lines.amounts(takes) == amounts_of(takes)
    assert len(lines.amounts(takes)) == len(RULES) - 1


def test_what_stands_in_slots_is_named_for_renewals() -> None:
    assert lines_of(*RULES).slots == ("slots",)


def test_what_callers_are_told_about_leaves_out_shadow_money_and_slots() -> None:
    shadow = msgspec.structs.replace(RULES[0], name="s", shadow=True)
    families = lines_of(shadow, *RULES).families
    told = {kind: [index for index, *_ in of_kind] for kind, of_kind in families}
    assert told == {"requests": [1], "tokens": [3, 7], "input-tokens": [4], "output-tokens": [5]}


def test_no_request_has_more_buckets_than_one_step_takes() -> None:
    one = Line("b", rate(1, 1, 1000), Resource.TOKENS, 1, "r", "", "", "open")
    Lines([one] * MAX_CHARGES, 1)
    with pytest.raises(ValueError, match="17 limits on one request"):
        Lines([one] * (MAX_CHARGES + 1), 1)


def test_a_use_says_how_much_of_each() -> None:
    odd = Use(0, 5, 0, 0, 0, 0)
    assert costs(lines_of(*RULES).takes(Estimate(odd, odd)))[2:4] == [5_000, 0]
