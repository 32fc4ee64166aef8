"""What a refused caller reads."""

import pytest

from gateway.config.limits import Rule
from gateway.limiter.lines import Line
from gateway.limiter.refusal import limited, span, too_large, unavailable, unpriced, unread
from tests.fakes.limits import START_MS, limits_of


def line_of(rule: Rule) -> Line:
    (line,) = limits_of(rule).lines(START_MS).lines
    return line


def test_a_limit_is_named_with_whom_it_is_for_what_is_left_and_the_wait() -> None:
    line = line_of(Rule(name="team-tpm", per=("team", "model"), tokens=1000, every="minute"))
    error = limited(line, 900_000, 120_500, 46_770, (120_500,))
    assert error.message == (
        "the limit team-tpm (1000 tokens a minute for team search and model gpt-*) is used up: 120.5 left, "
        "this request needs 900; retry in 46.77 s"
    )
    assert (error.rule, error.retry_after_ms, error.levels) == ("team-tpm", 46_770, (120_500,))


def test_money_is_told_in_usd() -> None:
    line = line_of(Rule(name="b", usd=1_000_000, every="day"))
    message = limited(line, 250_000, 123, 1, ()).message
    assert "(1000000 USD a day)" in message
    assert "0.000123 USD left, this request needs 0.25 USD" in message
    assert "-1.5 USD left, this request needs 10 USD" in limited(line, 10_000_000, -1_500_000, 1, ()).message


def test_a_budget_may_have_room_before_its_window_is_over() -> None:
    """One request under way may hold all of it, and use next to nothing."""
    error = limited(line_of(Rule(name="b", usd=1, every="month")), 250_000, 0, 9 * 86_400_000, (0,))
    assert error.message.endswith("; retry in 216 h 0 min, or sooner: requests under way may give some back")
    assert error.retry_after_ms == 9 * 86_400_000


def test_slots_have_no_time() -> None:
    error = limited(line_of(Rule(name="s", per=("key",), in_flight=2)), 1, 0, 1_000, (0,))
    assert error.message == (
        "the limit s (2 requests in flight for key demo) is used up: retry when one of your requests has ended"
    )


def test_a_prompt_that_never_fits_is_told_that_waiting_does_not_help() -> None:
    error = too_large(line_of(Rule(name="tpm", tokens=1000, every="minute")), 1_500_000)
    assert error.message == (
        "this request needs 1500, and the limit tpm (1000 tokens a minute) never allows more than 1000 at once: "
        "send less, waiting does not help"
    )


def test_the_reason_why_a_limit_is_not_known_is_for_the_log() -> None:
    error = unavailable(line_of(Rule(name="s", in_flight=2)), "late: no answer")
    assert (error.detail, error.retry_after_s) == ("late: no answer", 1)
    assert "late" not in error.message


@pytest.mark.parametrize(
    ("wait_ms", "told"),
    [
        (1, "0.001 s"),
        (59_999, "59.999 s"),
        (60_000, "1 min 0 s"),
        (61_001, "1 min 2 s"),
        (3_599_001, "1 h 0 min"),
        (90_000_000, "25 h 0 min"),
    ],
)
def test_waits_are_rounded_up_and_readable(wait_ms: int, told: str) -> None:
    assert span(wait_ms) == told


def test_a_model_without_a_price_is_named_with_the_limit_that_wants_one() -> None:
    error = unpriced("key.usd_per_month", "m")
    assert error.param == "model"
    assert "model 'm' has no price" in error.message
    assert "key.usd_per_month" in error.message
    assert "the limit key.usd_per_month counts money" in unread("key.usd_per_month").message
