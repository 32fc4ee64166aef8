"""The tightest limit of each resource is what a caller is told."""

import pytest

from gateway.config.limits import Rule
from gateway.dialects.quota import Quota
from gateway.limiter.headers import limit_headers, quotas
from tests.fakes.limits import START_MS, limits_of

RPM = Rule(name="rpm", requests=600, every="minute")
WIDE = Rule(name="wide", tokens=1_000, every="second")
TIGHT = Rule(name="tight", tokens=100, every="minute")
BUDGET = Rule(name="budget", tokens=5_000, every="hour", budget=True)


def told(rules: tuple[Rule, ...], *levels: int, later_ms: int = 0) -> list[Quota]:
    return quotas(limits_of(*rules).lines(START_MS), levels, START_MS + later_ms)


def test_a_rate_is_full_when_all_that_was_used_has_refilled() -> None:
    assert told((RPM,), 599_000) == [("requests", 600, 599, 100)]
    assert told((RPM,), 598_999) == [("requests", 600, 598, 101)]  # rounded: less is left, and it takes longer
    assert told((RPM,), 600_000) == [("requests", 600, 600, 0)]


def test_debt_is_nothing_left_and_takes_longer() -> None:
    assert told((RPM,), -60_000) == [("requests", 600, 0, 66_000)]


def test_a_budget_is_full_when_its_window_ends() -> None:
    assert told((BUDGET,), 4_000, later_ms=1) == [("tokens", 5_000, 4_000, 3_599_999)]
    assert told((BUDGET,), 4_000, later_ms=4_000_000) == [("tokens", 5_000, 4_000, 0)]


@pytest.mark.parametrize(
    ("levels", "limit"), [((50_000, 50_000, 51), 100), ((1_000, 50_000, 5_000), 1_000), ((99_000, 99_000, 7), 5_000)]
)
def test_the_one_of_which_least_is_left_wins(levels: tuple[int, ...], limit: int) -> None:
    ((_, shown, *_),) = told((WIDE, TIGHT, BUDGET), *levels)
    assert shown == limit


def test_of_equals_the_one_that_is_full_last_wins() -> None:
    assert told((WIDE, TIGHT), 50_000, 50_000)[0][1] == 100


def test_each_resource_has_its_own() -> None:
    rules = (RPM, TIGHT, Rule(name="i", input_tokens=9, every="day"), Rule(name="o", output_tokens=9, every="day"))
    assert [kind for kind, *_ in told(rules, 1, 2, 3, 4)] == ["requests", "tokens", "input-tokens", "output-tokens"]


def test_lines_are_in_the_callers_dialect() -> None:
    lines = limits_of(RPM).lines(START_MS)
    assert limit_headers(lines, (599_000,), START_MS, "openai").startswith(b"x-ratelimit-limit-requests: 600\r\n")
    assert limit_headers(lines, (599_000,), START_MS, "anthropic").startswith(b"anthropic-ratelimit-requests-limit: 6")
    assert limit_headers(lines, (), START_MS, "openai") == b""
    assert limit_headers(limits_of(Rule(name="s", in_flight=1)).lines(START_MS), (1,), START_MS, "openai") == b""
