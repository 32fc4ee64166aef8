"""What a stream costs, from the moments of a run."""

import time
from pathlib import Path

import pytest

from bench.speed.memory import MemoryResult, MemoryRun, Moment, streams_possible
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.sections import Settings
from bench.speed.targets import Running


@pytest.mark.parametrize(("limit", "streams"), [(1_048_576, 10_000), (20_000, 9_800), (1_024, 312)])
def test_two_descriptors_a_stream(limit: int, streams: int) -> None:
    assert streams_possible(10_000, limit) == streams


def test_a_stream_costs_what_holding_them_added() -> None:
    moments = [Moment("before streams", 50_000, 20), Moment("streams open", 70_000, 2020)]
    assert MemoryResult("gateway", 1000, streams=1000, moments=moments).kb_per_stream == 20
    assert MemoryResult("gateway", 1000, streams=0, moments=moments).kb_per_stream is None
    assert MemoryResult("gateway", 1000).kb_per_stream is None


def test_a_worker_that_was_started_anew_is_seen_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Running, "reading", lambda _: Reading({7: Process(7, 0, 5000, 9)}))
    result = MemoryResult("gateway", 10)
    for _ in range(2):
        run = MemoryRun(Running("gateway", 1, 1), Settings(), result, 10, tmp_path, Progress(1))
        time.sleep(0.01)
        run.look("now")
    first_s, second_s = (moment.at_s for moment in result.moments)
    assert first_s is not None
    assert second_s is not None
    assert second_s >= first_s + 0.01
