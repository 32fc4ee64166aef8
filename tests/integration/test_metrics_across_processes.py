"""Counts are exact over processes: four write, one is killed in the middle, another takes its slot over."""

import mmap
import os
import signal
import time
from collections.abc import Callable

import pytest

from gateway.segment import Segment
from gateway.telemetry.directory import METRICS, Family, Kind
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.scrape import scrape
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

SEEN = Family("seen_total", Kind.COUNTER, "Seen.", ("who",))
TOOK = Family("took_seconds", Kind.HISTOGRAM, "Took.", (), (10, 100))
ROUNDS = 20_000


def child(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def count(segment: Segment, slot: int, rounds: int) -> None:
    metrics = Metrics(segment.slot(METRICS, slot))
    mine, histogram = metrics.counter(SEEN, who="everyone"), metrics.histogram(TOOK)
    for number in range(rounds):
        mine.add()
        histogram.observe_us(number % 200)
        metrics.counter(SEEN, who=f"series {number % 50}").add()


def count_for_ever(segment: Segment, slot: int, witness: mmap.mmap) -> None:
    metrics = Metrics(segment.slot(METRICS, slot))
    mine, told = metrics.counter(SEEN, who="everyone"), memoryview(witness).cast("q")
    while True:
        mine.add()
        told[0] += 1


def total(segment: Segment, start: str) -> int:
    (line,) = [line for line in scrape(segment, live=()).splitlines() if line.startswith(start)]
    return int(line.rpartition(" ")[2])


def test_four_writers_one_killed_and_its_slot_taken_over() -> None:
    segment = Segment.create([METRICS], slots=4)
    witness = mmap.mmap(-1, 8)
    told = memoryview(witness).cast("q")
    writers = [child(lambda slot=slot: count(segment, slot, ROUNDS)) for slot in range(3)]  # type: ignore[misc]
    victim = child(lambda: count_for_ever(segment, 3, witness))
    deadline = time.monotonic() + PATIENCE_S
    while told[0] < 1_000 and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
    counted = Metrics(segment.slot(METRICS, 3)).cells[
        Metrics(segment.slot(METRICS, 3)).counter(SEEN, who="everyone").cell
    ]
    assert counted >= 1_000
    assert counted - told[0] in (0, 1)  # killed between the count and its witness, at most
    writers.append(child(lambda: count(segment, 3, ROUNDS)))
    for writer in writers:
        assert os.waitpid(writer, 0)[1] == 0
    assert total(segment, 'seen_total{who="everyone"}') == 4 * ROUNDS + counted
    assert total(segment, "took_seconds_count") == 4 * ROUNDS
    assert sum(total(segment, f'seen_total{{who="series {number}"}}') for number in range(50)) == 4 * ROUNDS


def test_a_scrape_while_others_write_never_goes_back_and_adds_up() -> None:
    segment = Segment.create([METRICS], slots=2)
    writers = [child(lambda slot=slot: count(segment, slot, ROUNDS)) for slot in range(2)]  # type: ignore[misc]
    seen = 0
    for _ in range(20):
        page = scrape(segment, live=())
        counts = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in page.splitlines()}
        now = int(counts.get("took_seconds_count", "0"))
        assert now >= seen
        assert counts.get('took_seconds_bucket{le="+Inf"}', "0") == str(now)
        seen = now
    for writer in writers:
        assert os.waitpid(writer, 0)[1] == 0
    assert total(segment, "took_seconds_count") == 2 * ROUNDS
