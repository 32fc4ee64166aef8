"""One worker and two: in turn, in a little time, and each where it belongs."""

from pathlib import Path

import pytest

from bench.speed import workers
from bench.speed.progress import Progress
from bench.speed.sections import Bench, Sample, Settings
from bench.speed.targets import Running
from tests.unit.bench_speed.samples import again, sample


def test_the_section_is_short() -> None:
    assert workers.expected_s(Settings()) <= 40
    assert workers.settings_of(Settings(seconds=0.3)).seconds == 0.3


def test_a_second_worker_has_the_second_core() -> None:
    assert [workers.core(number) for number in workers.WORKERS] == [0, None]


def test_both_are_asked_in_turn_starting_with_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, int]] = []

    def measured(_: Bench, section: str, target: Running, repeat: int, *__: object) -> Sample:
        asked.append((section, target.port, repeat))
        return sample(section, target.name, repeat=repeat)

    monkeypatch.setattr(Bench, "sample", measured)
    running = {number: Running("limited", number, number) for number in workers.WORKERS}
    bench = Bench(Settings(repeats=2), (), tmp_path, Progress(1), again())
    found = workers.measure(bench, running)
    assert asked == [("workers-1", 1, 0), ("workers-2", 2, 0), ("workers-2", 2, 1), ("workers-1", 1, 1)]
    assert [one.repeat for one in found] == [0, 0, 1, 1]
