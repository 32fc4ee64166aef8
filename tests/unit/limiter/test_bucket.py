"""The arithmetic of a bucket: refill without drift, debt, refunds, waits that are exact to the millisecond."""

import random

import pytest

from gateway.limiter.bucket import (
    FRESH,
    MAX_WAIT_MS,
    NEVER,
    SLOT_WAIT_MS,
    Row,
    charged,
    charged_at,
    current,
    level,
    most_used,
    wait_ms,
)
from gateway.limiter.spec import (
    MAX_AMOUNT,
    MAX_PERIOD_MS,
    MAX_RATE_USED,
    MAX_WINDOW_USED,
    MIN_PERIOD_MS,
    Spec,
    rate,
    slots,
    window,
)

FIVE_A_SECOND = rate(5_000, 1_000, 1_000)
BUDGET = window(100, 10_000, 20_000)


def edge(chance: random.Random, least: int, most: int) -> int:
    """A number of any size within bounds, the bounds themselves and small ones often."""
    kind = chance.randrange(4)
    if kind == 0:
        return chance.choice((least, most))
    if kind == 1:
        return min(least + chance.randrange(10), most)
    return min(max(int(2 ** chance.uniform(0, most.bit_length())), least), most)


def any_rate(chance: random.Random) -> Spec:
    return rate(edge(chance, 0, MAX_AMOUNT), edge(chance, 1, MAX_AMOUNT), edge(chance, MIN_PERIOD_MS, MAX_PERIOD_MS))


def any_row(chance: random.Random, spec: Spec) -> Row:
    used = edge(chance, 0, MAX_RATE_USED)
    return Row(used, chance.randrange(spec.period_ms) if used else 0, 1_000_000)


def test_a_row_of_zeros_is_a_full_bucket() -> None:
    for spec in (FIVE_A_SECOND, BUDGET, slots(7)):
        row = current(FRESH, spec, 15_000)
        assert level(row, spec) == spec.limit
        assert wait_ms(row, spec, spec.limit, 15_000) == 0


@pytest.mark.parametrize(
    ("elapsed_ms", "used", "left"),
    [(0, 5_000, 0), (1, 5_000, 1), (1_500, 5_000, 1_500), (4_999, 5_000, 4_999), (5_000, 5_000, 5_000)],
)
def test_it_refills_continuously(elapsed_ms: int, used: int, left: int) -> None:
    row = current(Row(used, 0, 100), FIVE_A_SECOND, 100 + elapsed_ms)
    assert level(row, FIVE_A_SECOND) == left
    assert row.mark_ms == 100 + elapsed_ms


def test_it_never_holds_more_than_its_capacity() -> None:
    row = current(Row(5_000, 999, 0), FIVE_A_SECOND, 10**12)
    assert row == Row(0, 0, 10**12)
    assert charged(row, FIVE_A_SECOND, -4_000) == row


def test_the_rest_of_a_unit_is_carried() -> None:
    third = rate(1_000, 1, 3_000)  # one unit every three seconds
    row = Row(10, 0, 0)
    for now_ms in range(1, 6_001):
        row = current(row, third, now_ms)
    assert row == Row(8, 0, 6_000)


def test_bringing_up_to_date_in_steps_is_the_same_as_at_once() -> None:
    chance = random.Random(1)
    for _ in range(2_000):
        spec = any_rate(chance)
        row = any_row(chance, spec)
        until_ms = row.mark_ms + edge(chance, 1, 10 * MAX_PERIOD_MS)
        stepped = row
        for now_ms in sorted(chance.randint(row.mark_ms, until_ms) for _ in range(5)):
            stepped = current(stepped, spec, now_ms)
        assert current(stepped, spec, until_ms) == current(row, spec, until_ms)


def test_time_that_runs_backwards_refills_nothing() -> None:
    row = Row(3_000, 5, 1_000)
    assert current(row, FIVE_A_SECOND, 999) == row
    assert current(row, FIVE_A_SECOND, 0) == row
    assert wait_ms(row, FIVE_A_SECOND, 3_000, 400) == wait_ms(row, FIVE_A_SECOND, 3_000, 1_000) + 600


def test_a_wait_is_exact_to_the_millisecond() -> None:
    chance = random.Random(2)
    waited = 0
    for _ in range(5_000):
        spec = any_rate(chance)
        row = any_row(chance, spec)
        now_ms = row.mark_ms + edge(chance, 0, MAX_PERIOD_MS)
        row = current(row, spec, now_ms)
        cost = edge(chance, 0, MAX_AMOUNT)
        wait = wait_ms(row, spec, cost, now_ms)
        if cost > spec.limit:
            assert wait == NEVER
        elif wait == 0:
            assert row.used + cost <= spec.limit
        elif wait < MAX_WAIT_MS:
            waited += 1
            assert wait_ms(current(row, spec, now_ms + wait - 1), spec, cost, now_ms + wait - 1) == 1
            assert wait_ms(current(row, spec, now_ms + wait), spec, cost, now_ms + wait) == 0
    assert waited > 200


def test_a_wait_beyond_ten_years_reads_as_ten_years() -> None:
    slow = rate(MAX_AMOUNT, 1, MAX_PERIOD_MS)
    assert wait_ms(Row(MAX_RATE_USED, 0, 0), slow, MAX_AMOUNT, 0) == MAX_WAIT_MS


def test_debt_is_waited_out_and_bounded() -> None:
    row = charged(Row(5_000, 0, 0), FIVE_A_SECOND, 2_000)
    assert level(row, FIVE_A_SECOND) == -2_000
    assert wait_ms(row, FIVE_A_SECOND, 0, 0) == 2_000
    assert charged(Row(MAX_RATE_USED - 1, 0, 0), FIVE_A_SECOND, MAX_AMOUNT).used == MAX_RATE_USED
    assert charged(Row(MAX_WINDOW_USED, 20_000, 10_000), BUDGET, 5).used == MAX_WINDOW_USED
    assert most_used(slots(1)) == MAX_WINDOW_USED


def test_a_changed_limit_keeps_what_was_used() -> None:
    row = Row(400, 0, 0)
    assert level(current(row, rate(1_000, 1, 60_000), 1), rate(1_000, 1, 60_000)) == 600
    assert level(current(row, rate(2_000, 1, 60_000), 1), rate(2_000, 1, 60_000)) == 1_600
    assert level(current(row, rate(100, 1, 60_000), 1), rate(100, 1, 60_000)) == -300


def test_a_shorter_period_wins_nothing_from_the_old_rest() -> None:
    row = Row(1_000_000, MAX_PERIOD_MS - 1, 0)
    assert current(row, rate(10, 1, MIN_PERIOD_MS), 0) == Row(1_000_000, 0, 0)
    assert current(row, rate(10, 1, MIN_PERIOD_MS), 999).used == 1_000_000


def test_a_cost_above_the_limit_never_fits() -> None:
    assert wait_ms(FRESH, FIVE_A_SECOND, 5_001, 0) == NEVER
    assert wait_ms(FRESH, BUDGET, 101, 0) == NEVER
    assert wait_ms(FRESH, slots(0), 1, 0) == NEVER


def test_a_newer_window_begins_at_nothing_used() -> None:
    assert current(Row(77, 10_000, 5_000), BUDGET, 12_000) == Row(0, 20_000, 10_000)


def test_the_same_window_goes_on_and_takes_the_new_end() -> None:
    assert current(Row(77, 15_000, 10_000), BUDGET, 12_000) == Row(77, 20_000, 10_000)


def test_an_old_clock_is_counted_in_the_newer_window() -> None:
    newer = Row(77, 30_000, 20_000)
    assert current(newer, BUDGET, 12_000) == newer
    assert wait_ms(newer, BUDGET, 50, 12_000) == 18_000


def test_a_full_window_waits_for_its_end() -> None:
    row = current(Row(77, 20_000, 10_000), BUDGET, 12_000)
    assert wait_ms(row, BUDGET, 23, 12_000) == 0
    assert wait_ms(row, BUDGET, 24, 12_000) == 8_000
    assert wait_ms(row, BUDGET, 24, 25_000) == 1


def test_slots_are_counted_and_wait_a_nominal_time() -> None:
    pool = slots(2)
    row = charged(charged(FRESH, pool, 1), pool, 1)
    assert level(row, pool) == 0
    assert wait_ms(row, pool, 1, 0) == SLOT_WAIT_MS
    assert wait_ms(charged(row, pool, -1), pool, 1, 0) == 0


def test_charging_in_one_step_is_what_the_two_steps_come_to() -> None:
    chance = random.Random(4)
    for _ in range(5_000):
        start_ms = chance.choice((10_000, 20_000))
        spec = chance.choice((any_rate(chance), window(100, start_ms, start_ms + chance.choice((1, 5_000))), slots(7)))
        row = chance.choice((FRESH, any_row(chance, any_rate(chance)), Row(chance.randrange(200), 20_000, 15_000)))
        row = chance.choice((row, Row(row.used, 20_000, 10_000)))
        now_ms = max(row.mark_ms + chance.choice((-5, 0, edge(chance, 0, MAX_PERIOD_MS))), 0)
        amount = edge(chance, 0, MAX_AMOUNT) * chance.choice((-1, 1))
        assert charged_at(row, spec, now_ms, amount) == charged(current(row, spec, now_ms), spec, amount)
