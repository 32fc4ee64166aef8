"""Counts are exact: over a process that dies, over threads, and when there is no room left."""

import sys
import threading
from collections.abc import Iterator

import pytest

from gateway.telemetry import metrics as module
from gateway.telemetry.directory import AREA_WORDS, CELL_WORDS, SCRATCH_CELLS, Area, Family, Kind
from gateway.telemetry.metrics import DROPPED, MAX_BOUNDS, Metrics

SEEN = Family("seen_total", Kind.COUNTER, "Seen.", ("who",))
OPEN = Family("open", Kind.GAUGE, "Open.")
TOOK = Family("took_seconds", Kind.HISTOGRAM, "Took.", (), (10, 100))


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(AREA_WORDS * 8)).cast("q")


def value(memory: memoryview, family: Family, *values: str) -> list[int]:
    area = Area(memory)
    for one in area.read()[1]:
        if one.family == family and one.values == values:
            return area.cells[one.cell : one.cell + family.cells].tolist()
    return []


def test_a_counter_counts(memory: memoryview) -> None:
    counter = Metrics(memory).counter(SEEN, who="ann")
    counter.add()
    counter.add(41)
    assert value(memory, SEEN, "ann") == [42]


def test_the_hot_path_may_count_in_the_cell_itself(memory: memoryview) -> None:
    metrics = Metrics(memory)
    cell = metrics.counter(SEEN, who="ann").cell
    metrics.cells[cell] += 3
    assert value(memory, SEEN, "ann") == [3]


def test_the_same_labels_find_the_same_cell_and_others_another(memory: memoryview) -> None:
    metrics = Metrics(memory)
    assert metrics.counter(SEEN, who="ann").cell == metrics.counter(SEEN, who="ann").cell
    assert metrics.counter(SEEN, who="ann").cell != metrics.counter(SEEN, who="bob").cell


@pytest.mark.parametrize(
    ("us", "cells"), [(0, [1, 0, 0, 0]), (10, [1, 0, 0, 10]), (11, [0, 1, 0, 11]), (101, [0, 0, 1, 101])]
)
def test_a_histogram_counts_at_the_first_bound_not_below(memory: memoryview, us: int, cells: list[int]) -> None:
    Metrics(memory).histogram(TOOK).observe_us(us)
    assert value(memory, TOOK) == cells


def test_the_next_process_of_a_slot_counts_on_and_resets_gauges(memory: memoryview) -> None:
    first = Metrics(memory)
    first.counter(SEEN, who="ann").add(5)
    first.gauge(OPEN).set(7)
    first.histogram(TOOK).observe_us(50)
    second = Metrics(memory)
    assert value(memory, OPEN) == [0]
    second.counter(SEEN, who="ann").add(2)
    second.counter(SEEN, who="bob").add(1)
    second.histogram(TOOK).observe_us(50)
    assert value(memory, SEEN, "ann") == [7]
    assert value(memory, SEEN, "bob") == [1]
    assert value(memory, TOOK) == [0, 2, 0, 100]


def test_a_directory_damaged_in_the_middle_keeps_what_stands_before(memory: memoryview) -> None:
    metrics = Metrics(memory)
    metrics.counter(SEEN, who="ann").add(5)
    before = Area(memory).used_words
    metrics.counter(SEEN, who="bob").add(9)
    memory[8 + before] = 0
    again = Metrics(memory)
    again.counter(SEEN, who="cem").add(1)
    assert value(memory, SEEN, "ann") == [5]
    assert value(memory, SEEN, "cem") == [1]  # in bob's cell, which starts at 0 again


def test_threads_share_a_counter_without_losing_one(memory: memoryview) -> None:
    metrics = Metrics(memory)
    counter, histogram, rounds = metrics.counter(SEEN, who="all"), metrics.histogram(TOOK), 20_000

    def count() -> None:
        for _ in range(rounds):
            counter.add()
            histogram.observe_us(5)
            metrics.cells[counter.cell] += 1

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert value(memory, SEEN, "all") == [8 * rounds]
    assert value(memory, TOOK) == [4 * rounds, 0, 0, 20 * rounds]


def series_until_full(metrics: Metrics) -> Iterator[int]:
    number = 0
    while metrics.place(SEEN, (f"{number:0200}",)) < CELL_WORDS - SCRATCH_CELLS:
        yield number
        number += 1


def test_a_full_directory_drops_series_and_says_how_many(memory: memoryview) -> None:
    metrics = Metrics(memory)
    assert sum(1 for _ in series_until_full(metrics)) > 500
    metrics.counter(SEEN, who="x" * 300).add(10)
    metrics.counter(SEEN, who="x" * 300).add(10)  # the same series again is not a second one dropped
    assert value(memory, DROPPED) == [2]
    assert Area(memory).read()[2] == Area(memory).used_words


def test_full_cells_drop_series_too(memory: memoryview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELL_WORDS", SCRATCH_CELLS + 4)
    metrics = Metrics(memory)
    metrics.histogram(TOOK).observe_us(5)  # needs four cells, three are left
    metrics.gauge(OPEN).set(3)
    assert value(memory, DROPPED) == [1]
    assert value(memory, TOOK) == []
    assert value(memory, OPEN) == [3]


def test_about_three_thousand_series_fit(memory: memoryview) -> None:
    metrics = Metrics(memory)
    requests = Family("requests_total", Kind.COUNTER, "Requests.", ("route", "model", "surface", "code"))
    for number in range(3_000):
        metrics.counter(requests, route="default", model=f"provider/model-{number:06}", surface="chat", code="200")
    assert value(memory, DROPPED) == [0]


@pytest.mark.parametrize("labels", [{}, {"who": "ann", "what": "x"}, {"what": "x"}])
def test_labels_must_be_the_family_s(memory: memoryview, labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="seen_total"):
        Metrics(memory).counter(SEEN, **labels)


def test_a_family_is_of_one_kind_and_of_few_bounds(memory: memoryview) -> None:
    metrics = Metrics(memory)
    with pytest.raises(ValueError, match="counter"):
        metrics.gauge(SEEN, who="ann")
    with pytest.raises(ValueError, match="fine"):
        metrics.histogram(Family("fine", Kind.HISTOGRAM, "", (), tuple(range(MAX_BOUNDS + 1))))
