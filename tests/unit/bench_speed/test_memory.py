"""What a stream costs and whether memory grows, from the moments of a run."""

import pytest

from bench.speed.memory import MemoryResult, Moment, streams_possible


@pytest.mark.parametrize(("limit", "streams"), [(1_048_576, 10_000), (20_000, 9_800), (1_024, 312)])
def test_two_descriptors_a_stream(limit: int, streams: int) -> None:
    assert streams_possible(10_000, limit) == streams


def test_a_stream_costs_what_holding_them_added() -> None:
    moments = [Moment("before streams", 50_000, 20), Moment("streams open", 70_000, 2020)]
    assert MemoryResult("gateway", 1000, streams=1000, moments=moments).kb_per_stream == 20
    assert MemoryResult("gateway", 1000, streams=0, moments=moments).kb_per_stream is None
    assert MemoryResult("gateway", 1000).kb_per_stream is None


def test_growth_counts_from_the_first_tenth() -> None:
    moments = [
        Moment("before many requests", 50_000, 20),
        Moment("after 10 % of many requests", 60_000, 20),
        Moment("after many requests", 60_500, 20),
    ]
    assert MemoryResult("gateway", 0, moments=moments).growth_kb == 500
    assert MemoryResult("gateway", 0).growth_kb is None
