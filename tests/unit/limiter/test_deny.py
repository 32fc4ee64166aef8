"""The cache of refusals: what it answers, for how long, and what it must never say."""

import random

import pytest

from gateway.limiter.deny import CAP_MS, DENIALS, REQUESTS_CAP_MS, ROW_WORDS, Denials
from gateway.limiter.engine import Amount
from gateway.limiter.spec import Spec, rate, slots, window
from gateway.limiter.use import Resource

SPEC = rate(1_000, 100, 1_000)  # a unit every 10 ms
NOW = 5_000
TOKENS, REQUESTS = Resource.TOKENS, Resource.REQUESTS


def words() -> memoryview:
    return memoryview(bytearray(8 * DENIALS.words(0))).cast("q")


def take(cost: int, bucket: str = "b", spec: Spec = SPEC) -> Amount:
    return Amount(bucket, spec, cost)


def test_a_refusal_is_repeated_with_what_is_left_of_its_wait() -> None:
    denials = Denials(words())
    denials.add(take(50), TOKENS, 400, 10, NOW)
    assert denials.find([take(1, "a"), take(50)], NOW + 30) == (1, 370, 10)


def test_a_cheaper_request_is_asked_about_and_a_dearer_one_waits_longer() -> None:
    denials = Denials(words())
    denials.add(take(50), TOKENS, 400, 10, NOW)
    assert denials.find([take(49)], NOW) is None
    assert denials.find([take(55)], NOW) == (0, 450, 10)


@pytest.mark.parametrize(("resource", "cap_ms"), [(TOKENS, CAP_MS), (REQUESTS, REQUESTS_CAP_MS)])
def test_it_is_remembered_no_longer_than_its_cap(resource: Resource, cap_ms: int) -> None:
    denials = Denials(words())
    denials.add(take(50), resource, 60_000, 10, NOW)
    assert denials.find([take(50)], NOW + cap_ms - 1) is not None
    assert denials.find([take(50)], NOW + cap_ms) is None


def test_it_never_outlives_its_wait() -> None:
    denials = Denials(words())
    denials.add(take(50), TOKENS, 7, 10, NOW)
    assert denials.find([take(50)], NOW + 6) == (0, 1, 10)
    assert denials.find([take(50)], NOW + 7) is None


def test_a_settlement_clears_its_bucket_alone() -> None:
    denials = Denials(words())
    for name in ("a", "b"):
        denials.add(take(50, name), TOKENS, 400, 10, NOW)
    denials.clear([take(0, "a"), take(0, "never refused")], NOW)
    assert denials.find([take(50, "a")], NOW) is None
    assert denials.find([take(50, "b")], NOW) is not None


def test_nothing_is_looked_for_once_all_is_over() -> None:
    shared = words()
    denials = Denials(shared)
    denials.add(take(50), TOKENS, 7, 10, NOW)
    before = shared.tolist()
    denials.clear([take(50)], NOW + 7)
    assert shared.tolist() == before
    assert denials.find([take(50)], NOW + 7) is None


def test_the_cheapest_refusal_counts() -> None:
    denials = Denials(words())
    denials.add(take(50), TOKENS, 400, 10, NOW)
    denials.add(take(80), TOKENS, 700, 10, NOW)
    assert denials.find([take(60)], NOW) == (0, 500, 10)
    denials.add(take(20), TOKENS, 100, 10, NOW)
    assert denials.find([take(30)], NOW) == (0, 200, 10)


def test_the_longest_wait_of_several_is_told() -> None:
    denials = Denials(words())
    denials.add(take(50, "a"), TOKENS, 40, 1, NOW)
    denials.add(take(50, "b"), TOKENS, 90, 2, NOW)
    assert denials.find([take(50, "a"), take(50, "b")], NOW) == (1, 90, 2)


@pytest.mark.parametrize(
    ("spec", "wait_ms"), [(slots(3), 1_000), (rate(9, 9, 1_000, shadow=True), 50), (SPEC, -1), (SPEC, 0)]
)
def test_what_has_no_time_is_not_remembered(spec: Spec, wait_ms: int) -> None:
    denials = Denials(words())
    denials.add(take(5, spec=spec), TOKENS, wait_ms, 0, NOW)
    assert denials.find([take(5, spec=spec)], NOW) is None


def test_another_limit_on_the_same_bucket_was_not_refused() -> None:
    denials = Denials(words())
    denials.add(take(50), TOKENS, 400, 10, NOW)
    assert denials.find([take(50, spec=rate(2_000, 100, 1_000))], NOW) is None
    budget = window(10, 1, 100)
    denials.add(take(50, spec=budget), TOKENS, 50, -3, NOW)
    assert denials.find([take(60, spec=budget)], NOW) == (0, 50, -3)
    assert denials.find([take(60, spec=window(10, 100, 200))], NOW) is None


def test_workers_share_it() -> None:
    shared = words()
    Denials(shared).add(take(50), TOKENS, 400, 10, NOW)
    assert Denials(shared).find([take(50)], NOW) is not None


def test_a_row_that_is_half_of_another_is_no_row() -> None:
    """Any one word of a row changed, as two writers without a lock can leave it: nothing is denied."""
    chance = random.Random(5)
    for word in range(1, 6):
        shared = words()
        denials = Denials(shared)
        denials.add(take(50), TOKENS, 400, 10, NOW)
        (at,) = [at for at in range(ROW_WORDS, len(shared), ROW_WORDS) if shared[at]]
        shared[at + word] ^= 1 << chance.randrange(20)
        assert denials.find([take(50)], NOW) is None


def test_many_buckets_share_the_rows_and_none_is_told_anothers_refusal() -> None:
    denials = Denials(words())
    for number in range(5_000):
        denials.add(take(50, f"b{number}"), TOKENS, 400, number, NOW)
    levels = [denials.find([take(50, f"b{number}")], NOW) for number in range(5_000)]
    found = [(number, denied.level) for number, denied in enumerate(levels) if denied is not None]
    assert 100 < len(found) <= 1024
    assert all(number == level for number, level in found)
    assert denials.find([take(50, "never")], NOW) is None
