"""The arithmetic of slices: what is due when, what an exchange comes to, and that nobody takes more than a share."""

import random

import pytest

from gateway.limiter.slicing import (
    AGAIN_MS,
    GAP_MS,
    IDLE_MS,
    KEPT_MS,
    NOTHING,
    SPAN_MS,
    Ask,
    Known,
    abandoned,
    demand,
    due,
    exchange,
    farewell,
    free_now,
    size,
    used_now,
)
from gateway.limiter.spec import MAX_AMOUNT, rate, window

BUDGET = window(100_000, 1, 10**9)
RATE = rate(100_000, 1_000, 1_000)  # one each ms


def test_a_rate_refills_meanwhile_and_a_budget_does_not() -> None:
    known = Known(left=10, had=50, used=400, age_ms=100)
    assert (used_now(known, RATE), used_now(known, BUDGET)) == (300, 400)
    assert (free_now(known, RATE), free_now(known, BUDGET)) == (99_710, 99_610)
    assert used_now(known._replace(age_ms=1_000), RATE) == 0


@pytest.mark.parametrize(
    ("known", "nodes", "take", "wanted"),
    [
        (Known(0, 0, 0, 100, taken=1_000), 1, 10, 4_000),  # ten a ms
        (Known(0, 0, 0, 10, taken=1_000), 1, 10, 8_000),  # a moment is GAP_MS at least
        (Known(0, 0, 0, 100, taken=9), 1, 10, 0),  # less than LEAST_TAKES requests
        (Known(0, 0, 99_000, 100, taken=1_000), 1, 10, 500),  # half of what is left
        (Known(400, 400, 99_400, 100, taken=1_000), 5, 10, 100),  # a fifth of it, the slice included
        (Known(0, 0, 99_950, 100, taken=1_000), 1, 10, 0),
        (Known(0, 0, 120_000, 100, taken=1_000), 1, 10, 0),
    ],
)
def test_how_large(known: Known, nodes: int, take: int, wanted: int) -> None:
    assert size(known, BUDGET, nodes, take) == wanted


BUSY = Known(left=0, had=4_000, used=20_000, age_ms=200, taken=2_000)  # so 4,000 are wanted


@pytest.mark.parametrize(
    ("known", "ask"),
    [
        (BUSY, Ask(4_000, 8_000)),
        (BUSY._replace(left=1_999), Ask(4_000, 6_001)),
        (BUSY._replace(left=2_000), None),  # half of it is there
        (BUSY._replace(age_ms=GAP_MS - 1), None),
        (BUSY._replace(left=8_000, had=9_000), None),
        (BUSY._replace(left=8_001, had=9_000, age_ms=AGAIN_MS, taken=2_500), Ask(9_000, 4_999)),  # refunds came
        (Known(500, 900, 20_000, IDLE_MS), Ask(900, 400)),
        (Known(500, 900, 20_000, IDLE_MS - 1), None),
        (Known(0, 900, 20_000, IDLE_MS), None),
        (Known(0, 900, 20_000, KEPT_MS), Ask(900, 900)),
        (Known(0, 0, 20_000, KEPT_MS), None),
        (Known(-7, 900, 20_000, 0), Ask(900, 907)),  # at once
        (Known(-7, 900, 99_993, 0), Ask(-7, 0)),  # there is nothing to be had: it is charged
        (Known(5, 900, 100_006, KEPT_MS - 1), None),  # others owe more
        (Known(0, 0, 100_000, IDLE_MS, taken=2_500), Ask(0, 0)),  # is there something again?
        (Known(0, 0, 100_000, IDLE_MS - 1, taken=2_500), None),
        (Known(500, 0, 20_000, IDLE_MS), None),  # the store would not take it back
    ],
)
def test_what_is_due(known: Known, ask: Ask | None) -> None:
    assert due(known, BUDGET, 1, 10) == ask


def test_of_a_rate_no_more_goes_back_than_is_in_use() -> None:
    assert exchange(Known(left=100, had=900, used=500, age_ms=200), RATE, 0) == Ask(300, 200)
    assert exchange(Known(left=100, had=900, used=500, age_ms=450), RATE, 0) == Ask(100, 0)
    assert exchange(Known(left=100, had=0, used=500, age_ms=900), RATE, 0) == Ask(100, 0)  # it is nothing any more


def test_what_is_granted_in_full_is_what_was_meant() -> None:
    chance = random.Random(1)
    for _ in range(2_000):
        used = chance.randrange(200_000)
        known = Known(chance.randrange(-500, used + 1), chance.randrange(used + 1), used, chance.randrange(100))
        target = chance.randrange(1_000)
        ask = exchange(known, BUDGET, target)
        assert 0 <= ask.unused <= max(known.had, known.left)
        assert known.left - ask.unused + ask.want == max(target, known.left - ask.unused)
        assert ask.escrow == max(ask.unused - ask.want, 0)
        if known.left <= known.had:
            assert known.left - ask.unused + ask.want == target


def test_no_number_is_above_what_an_engine_counts() -> None:
    huge = Known(left=-3 * MAX_AMOUNT, had=0, used=4 * 10**15, age_ms=0)
    assert farewell(huge, BUDGET) == Ask(-MAX_AMOUNT, 0)
    assert exchange(huge, BUDGET, 5) == Ask(0, MAX_AMOUNT)


@pytest.mark.parametrize(
    ("known", "ask"),
    [
        (Known(0, 900, 5_000, 0), None),
        (Known(50, 900, 5_000, 0), Ask(900, 850)),
        (Known(-50, 900, 5_000, 0), Ask(900, 950)),
        (Known(-50, 900, 100_000, 0), Ask(-50, 0)),
        (Known(50, 900, 100_051, 0), Ask(50, 0)),
        (Known(0, 900, 100_051, 0), None),
    ],
)
def test_a_farewell(known: Known, ask: Ask | None) -> None:
    assert farewell(known, BUDGET) == ask


def test_who_does_not_know_the_limit_waits_until_nobody_uses_the_slice() -> None:
    known = Known(50, 900, 5_000, IDLE_MS)
    assert abandoned(known, BUDGET) == Ask(900, 850)
    assert abandoned(known._replace(age_ms=IDLE_MS - 1), BUDGET) is None
    assert abandoned(known._replace(taken=1), BUDGET) is None
    assert abandoned(known._replace(left=-50, age_ms=0, taken=1), BUDGET) == Ask(900, 950)


def test_demand_is_that_of_a_span() -> None:
    assert demand(Known(0, 0, 0, 2 * SPAN_MS, taken=500)) == 250
    assert not NOTHING.charges
    assert Ask(-1, 0).charges
