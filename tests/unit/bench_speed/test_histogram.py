"""The bucket rule keeps every value to 1.6 %, and merging is as if one histogram had recorded everything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.speed.histogram import BUCKETS, MAX_BITS, SUB, Histogram, bucket_of, bucket_upper

LARGEST = (1 << MAX_BITS) - 1
NANOSECONDS = st.integers(0, LARGEST)


def recorded(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@pytest.mark.parametrize(
    ("ns", "bucket"),
    [
        (0, 0),
        (SUB - 1, SUB - 1),
        (SUB, SUB),  # from here on one bucket per value, then per two, per four …
        (2 * SUB - 1, 2 * SUB - 1),
        (2 * SUB, 2 * SUB),
        (2 * SUB + 1, 2 * SUB),
        (LARGEST, BUCKETS - 1),
        (LARGEST + 1, BUCKETS - 1),
        (1 << 60, BUCKETS - 1),
    ],
)
def test_values_at_the_edges(ns: int, bucket: int) -> None:
    assert bucket_of(ns) == bucket


@given(NANOSECONDS)
def test_a_buckets_upper_edge_is_above_its_values_by_at_most_one_part_in_64(ns: int) -> None:
    upper = bucket_upper(bucket_of(ns))
    assert ns <= upper <= ns * (1 + 1 / SUB)


@given(NANOSECONDS, NANOSECONDS)
def test_buckets_keep_the_order_of_values(one: int, other: int) -> None:
    assert (bucket_of(one) <= bucket_of(other)) or one > other


@given(st.lists(NANOSECONDS, min_size=1, max_size=200), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_a_quantile_is_its_value_or_up_to_one_part_in_64_more(values: list[int], q: float) -> None:
    rank = max(1, -int(-q * len(values) // 1))  # ceil
    exact_us = sorted(values)[rank - 1] / 1e3
    found_us = recorded(values).quantile_us(q)
    assert exact_us <= found_us <= exact_us * (1 + 1 / SUB) + 1e-9


@given(st.lists(st.lists(NANOSECONDS, max_size=30), max_size=6))
def test_merging_is_recording_everything_in_one(parts: list[list[int]]) -> None:
    merged = Histogram.merged(recorded(part) for part in parts)
    assert merged == recorded([value for part in parts for value in part])


def test_quantiles_of_repeats_may_not_be_averaged() -> None:
    # The reason for merging: nine quiet repeats and a bad one. Averaged p99: 1.09 ms; true p99: 10 ms.
    quiet, bad = recorded([100_000] * 100), recorded([10_000_000] * 100)
    merged = Histogram.merged([*[quiet] * 9, bad])
    assert merged.quantile_us(0.99) == 10_000
    assert merged.quantile_us(0.5) < 102


def test_an_empty_histogram_has_quantiles_of_zero() -> None:
    assert Histogram().quantile_us(0.99) == 0


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match="do not add up"):
        Histogram.parse({"buckets": [[1, 2], [3, 4]], "count": 7, "sum_ns": 14, "max_ns": 3})
