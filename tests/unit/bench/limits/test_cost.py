"""What limits cost: the figures are of the limits they say, misses are told, and a small measurement has them all."""

import asyncio

import pytest

from bench.limits import cost
from bench.limits.cost import ALONE, LIMITS, ONE_KEY, STORE, TABLE, Figure, InMemory


def figures(table_us: float, store_us: float) -> list[Figure]:
    found = [Figure(engine, n, [table_us] * 3) for engine in (TABLE, ONE_KEY, ALONE) for n in LIMITS]
    return found + [Figure(STORE, n, [store_us], [30.0]) for n in LIMITS if n]


@pytest.mark.parametrize("number", LIMITS)
def test_a_request_meets_as_many_limits_as_are_said(number: int) -> None:
    subjects = cost.limits_of(number)
    assert len(subjects) == cost.KEYS
    met = {0 if limits is None else len(limits.lines(1_800_000_000_000).lines) for limits in subjects}
    assert met == {number}


def test_every_key_has_buckets_of_its_own() -> None:
    one, other = cost.limits_of(4)[:2]
    assert one is not None
    assert other is not None
    buckets = [{line.bucket for line in limits.lines(1_800_000_000_000).lines} for limits in (one, other)]
    assert not buckets[0] & buckets[1]


@pytest.mark.parametrize(
    ("table_us", "store_us", "missed"),
    [(8.0, 8.0, []), (8.1, 8.0, ["in shared memory"]), (8.0, 9.0, ["by a store"]), (9.0, 9.0, ["in", "by"])],
)
def test_what_is_missed_is_said(table_us: float, store_us: float, missed: list[str]) -> None:
    words = cost.misses(figures(table_us, store_us))
    assert len(words) == len(missed)
    assert all(part in word for part, word in zip(missed, words, strict=True))


def test_the_report_has_a_row_for_each_number_and_its_conditions() -> None:
    text = cost.markdown(figures(5.0, 7.0), {"machine": "this one"})
    assert "**met**" in text
    assert "| 0 | 5.00 (5.00 – 5.00) | 5.00 (5.00 – 5.00) | – | – | – |" in text
    assert text.count("| 7.00 (7.00 – 7.00) | 30.0 |") == len(LIMITS) - 1
    assert "| machine | this one |" in text
    assert "**missed**: 4 limits by a store at 64 in flight: 9.0 µs" in cost.markdown(figures(5.0, 9.0), {})


def test_a_small_measurement_has_every_figure_and_more_limits_cost_more() -> None:
    told: list[str] = []
    found = asyncio.run(InMemory().figures(3_000, 2, told.append))
    assert [len(figure.worker_us) for figure in found] == [2] * (3 * len(LIMITS) - 1)
    assert cost.of(found, TABLE, 8).worker.low > cost.of(found, TABLE, 0).worker.high
    assert told == ["shared memory, repeat 1 of 2", "shared memory, repeat 2 of 2"]


def test_ctrl_c_does_not_wait_for_all_the_repeats() -> None:
    """It cancels the task, which works only where the loop has a turn."""
    told: list[str] = []

    async def stopped() -> None:
        task = asyncio.ensure_future(InMemory().figures(10, 1_000, told.append))
        await asyncio.sleep(0)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(stopped())
    assert len(told) == 1
