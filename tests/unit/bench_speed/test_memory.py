"""What a stream costs, from the moments of a run."""

import time
from pathlib import Path

import pytest

from bench.speed import native
from bench.speed.memory import MemoryResult, MemoryRun, Moment, streams_possible
from bench.speed.native import LoadResult
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.sections import Settings
from bench.speed.targets import Running
from tests.unit.bench_speed.samples import sample


@pytest.mark.parametrize(("limit", "streams"), [(1_048_576, 10_000), (20_000, 9_800), (1_024, 312)])
def test_two_descriptors_a_stream(limit: int, streams: int) -> None:
    assert streams_possible(10_000, limit) == streams


def test_a_stream_costs_what_holding_them_added() -> None:
    moments = [Moment("before streams", 50_000, 20), Moment("streams open", 70_000, 2020)]
    assert MemoryResult("gateway", 1000, streams=1000, moments=moments).kb_per_stream == 20
    assert MemoryResult("gateway", 1000, streams=0, moments=moments).kb_per_stream is None
    assert MemoryResult("gateway", 1000).kb_per_stream is None


def test_large_answers_are_looked_at_when_they_have_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def load(_port: int, arguments: list[str], **_: object) -> LoadResult:
        done.append(arguments[arguments.index("--expect-bytes") + 1])
        return sample("memory", "gateway", errors=len(done)).load

    monkeypatch.setattr(native, "load", load)
    monkeypatch.setattr(time, "sleep", lambda _: done.append("rest"))
    monkeypatch.setattr(Running, "reading", lambda _: Reading({7: Process(7, 0, 5000 * len(done), 9)}))
    result = MemoryResult("gateway", 10)
    MemoryRun(Running("gateway", 1, 1), Settings(), result, 10, tmp_path, Progress(1)).large_answers()
    assert done == ["1000", "rest", "256000", "rest"]
    assert [(moment.when, moment.rss_kb) for moment in result.moments] == [
        ("small answers carried", 10_000),
        ("large answers carried", 20_000),
    ]
    assert result.errors == {"short_body": 1 + 3}


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
