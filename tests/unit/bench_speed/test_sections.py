"""Targets take turns, and CPU time is that of the window alone."""

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from bench.speed import native, sections
from bench.speed.disturbance import Disturbance
from bench.speed.native import LoadResult
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.sections import Bench, Meter, Sample, Settings, plain_requests
from bench.speed.targets import Running
from tests.unit.bench_speed.samples import Played, again, sample


def test_every_repeat_visits_all_targets_starting_with_another(tmp_path: Path) -> None:
    running = tuple(Running(name, 1, 1) for name in "abc")
    bench = Bench(Settings(repeats=4), running, tmp_path, Progress(1), again())
    visited: list[Sample] = bench.interleaved(lambda target, n: sample("json", target.name, repeat=n))
    assert [one.target for one in visited] == list("abcbcacababc")
    assert [one.repeat for one in visited] == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_cpu_per_unit_counts_all_processes_and_shows_the_busiest() -> None:
    one = Sample("json", "gateway", 0, sample("json", "gateway").load, units=100, cpu_us={1: 900, 2: 100})
    assert (one.cpu_us_per_unit, one.busiest_us_per_unit, one.units_per_s) == (10, 9, 100)


def test_a_sample_without_answers_costs_nothing() -> None:
    assert Sample("json", "gateway", 0, sample("json", "gateway").load, units=0, cpu_us={1: 5}).cpu_us_per_unit == 0


def test_the_window_is_between_the_two_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = iter([1_000_000, 1_400_000])
    monkeypatch.setattr(Running, "reading", lambda _self: Reading({7: Process(7, next(cpu), 0, 0)}))
    meter = Meter(Running("gateway", 1, 1, pid=7), Played(0.1))
    meter.on_moment("measuring")
    meter.on_moment("measured")
    assert meter.cpu_us() == {7: 400_000}
    assert meter.disturbance().target_core == pytest.approx(0.1)
    assert meter.disturbance().total == pytest.approx(0.1)


def test_a_disturbed_measurement_is_made_again_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([9000.0, 10.0, 11.0])

    def load(*_: object, on_moment: Callable[[str], None], **__: object) -> LoadResult:
        on_moment("measuring")
        on_moment("measured")
        return sample("json", "nginx", rps=next(rates)).load

    monkeypatch.setattr(native, "load", load)
    settings = Settings(repeats=1)
    twice = again([0.3, 0.0, 0.02])  # the first measurement, the look whether it is quiet, the second measurement
    bench = Bench(settings, (Running("nginx", 1, 1), Running("limited", 1, 1)), tmp_path, Progress(1), twice)
    found = plain_requests(bench)
    assert [(one.target, one.load.rps) for one in found] == [("nginx", 10), ("limited", 11)]  # though 9,000 was better
    assert [(one.section, one.found["load"]["rps"]) for one in twice.thrown] == [("json", 9000)]
    assert twice.spare_s < 100 - settings.measurement_s()


def test_the_next_one_waits_until_a_target_has_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    spent = iter([0, 100_000, 150_000, 160_000])  # a tick in the last look
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(Running, "reading", lambda _: Reading({7: Process(7, next(spent), 0, 0)}))
    sections.come_to_rest(Running("litellm", 1, 1, pid=7))
    assert waits == [sections.CALM_LOOK_S] * 3


def test_a_restless_target_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    spent = count(0, 100_000)
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(Running, "reading", lambda _: Reading({7: Process(7, next(spent), 0, 0)}))
    sections.come_to_rest(Running("litellm", 1, 1, pid=7))
    assert sum(waits) == pytest.approx(sections.CALM_PATIENCE_S)


def test_whose_the_core_was_adds_up() -> None:
    one = Sample("json", "gateway", 0, sample("json", "gateway").load, 100, {1: 300_000, 2: 100_000})
    assert replace(one, disturbance=Disturbance(0.05, 0.2, 0.01)).shares() == pytest.approx((0.3, 0.1, 0.06, 0.54))
    assert replace(one, disturbance=Disturbance(-0.05)).others == 0


@pytest.mark.parametrize(
    ("planned_s", "spare_s"),
    [
        (400, 100),  # a quarter
        (800, 70),  # what is left to the end of the standard set
        (3_600, 900),  # somebody's own wish
    ],
)
def test_what_is_made_again_keeps_the_standard_set_below_a_quarter_of_an_hour(planned_s: float, spare_s: float) -> None:
    assert sections.again(Settings(), planned_s, Progress(1)).spare_s == spare_s
