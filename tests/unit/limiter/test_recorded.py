"""Names of buckets in records: whatever a bucket is called, its name and how it counts come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.limiter.engine import Amount
from gateway.limiter.recorded import SLICE, amounts_of, key_of, name_of, parsed, slice_mark
from gateway.limiter.spec import MAX_AMOUNT, Spec, rate, slots, window

MINUTE = rate(5_000, 1_000_000, 60_000)
MONTH = window(1_000, 1_793_491_200_000, 1_796_083_200_000)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (MINUTE, "tpm|team=a/b|rate=1000000/60000"),
        (MONTH, "tpm|team=a/b|window=1793491200000-1796083200000"),
    ],
)
def test_a_name_says_how_its_bucket_counts(spec: Spec, name: str) -> None:
    assert name_of("tpm|team=a/b", spec) == name
    bucket = parsed(name)
    assert bucket.name == "tpm|team=a/b"
    assert (bucket.spec.kind, bucket.spec.amount, bucket.spec.period_ms) == (spec.kind, spec.amount, spec.period_ms)
    assert (bucket.spec.start_ms, bucket.spec.end_ms) == (spec.start_ms, spec.end_ms)
    assert bucket.spec.limit == MAX_AMOUNT


@given(st.text(), st.sampled_from([MINUTE, MONTH]))
def test_every_name_comes_back(bucket: str, spec: Spec) -> None:
    assert parsed(name_of(bucket, spec)).name == bucket


def test_a_name_that_ends_like_ours_is_still_told_apart() -> None:
    bucket = parsed(name_of("x|rate=1/1000", MONTH))
    assert (bucket.name, bucket.spec) == ("x|rate=1/1000", parsed(name_of("y", MONTH)).spec)


def test_rates_are_counted_by_their_name_and_budgets_apart_for_each_window() -> None:
    other = window(1_000, MONTH.end_ms, MONTH.end_ms + 1)
    keys = [parsed(name_of("b", spec)).key for spec in (MINUTE, rate(1, 7, 1_000), MONTH, other)]
    assert keys == [key_of("b", spec) for spec in (MINUTE, MINUTE, MONTH, other)]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        "tpm",
        "tpm|rate=1",
        "tpm|window=5",
        "tpm|rate=1/1",
        "tpm|window=9-5",
        "tpm|rate=0/60000",
        "tpm|rate=\u0661/60000",
    ],
)
def test_what_does_not_say_how_it_counts_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be|does not end"):
        parsed(name)


def test_slots_are_not_recorded() -> None:
    with pytest.raises(ValueError, match="counts slots"):
        name_of("in-flight", slots(3))
    assert amounts_of([Amount("in-flight", slots(3), 1), Amount("b", MONTH, 7)]) == {name_of("b", MONTH): 7}


def test_a_hold_counted_in_slices_says_of_which_memory() -> None:
    assert slice_mark("a") == slice_mark("a") != slice_mark("b")
    assert slice_mark("a").startswith(SLICE)
