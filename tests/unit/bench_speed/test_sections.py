"""Targets take turns, and CPU time is that of the window alone."""

from pathlib import Path

import pytest

from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.sections import Bench, Meter, Sample, Settings
from bench.speed.targets import Running
from tests.unit.bench_speed.samples import sample


def test_every_repeat_visits_all_targets_starting_with_another(tmp_path: Path) -> None:
    running = tuple(Running(name, 1, 1) for name in "abc")
    bench = Bench(Settings(repeats=4), running, tmp_path, Progress(1))
    visited: list[Sample] = bench.interleaved(lambda target, n: sample("json", target.name, repeat=n))
    assert [one.target for one in visited] == list("abcbcacababc")
    assert [one.repeat for one in visited] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_cpu_per_unit_counts_all_processes_and_shows_the_busiest() -> None:
    one = Sample("json", "gateway", 0, sample("json", "gateway").load, units=100, cpu_us={1: 900, 2: 100})
    assert (one.cpu_us_per_unit, one.busiest_us_per_unit, one.units_per_s) == (10, 9, 100)


def test_a_sample_without_answers_costs_nothing() -> None:
    assert Sample("json", "gateway", 0, sample("json", "gateway").load, units=0, cpu_us={1: 5}).cpu_us_per_unit == 0


def test_the_window_is_between_the_two_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, busy = iter([1_000_000, 1_400_000]), iter([5_000_000, 5_600_000])
    monkeypatch.setattr("bench.speed.procfs.core_busy_us", lambda _core: next(busy))
    monkeypatch.setattr(Running, "reading", lambda _self: Reading({7: Process(7, next(cpu), 0, 0)}))
    meter = Meter(Running("gateway", 1, 1, pid=7))
    meter.on_moment("measuring")
    meter.on_moment("measured")
    assert meter.cpu_us() == {7: 400_000}
    assert meter.others(seconds=2.0) == pytest.approx(0.1)  # 0.2 of 2 s were neither the target's nor idle
