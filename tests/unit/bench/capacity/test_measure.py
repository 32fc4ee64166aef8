"""Costs come from the window's CPU over what was asked in it, and the check from the window that both loads share."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from bench.capacity import measure
from bench.capacity.measure import Bench, Checked
from bench.capacity.plan import Mix, cpu_us_per_s
from bench.speed import native
from bench.speed.histogram import Histogram
from bench.speed.launch import CannotRun
from bench.speed.memory import MemoryResult, Moment
from bench.speed.native import LoadResult
from bench.speed.procfs import Process, Reading
from bench.speed.progress import Progress
from bench.speed.targets import Running
from tests.unit.bench.capacity.test_plan import COSTS, MIX

COST_US = 250.0
SECONDS = 2.0


class Played:
    """A gateway whose requests cost COST_US each; a closed loop asks for a thousand a second, an open one its rate."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, errors: dict[str, int] | None = None) -> None:
        self.cpu_us = 0.0
        self.errors = errors or {}
        self.asked: list[list[str]] = []
        monkeypatch.setattr(native, "load", self.load)
        monkeypatch.setattr(Running, "reading", lambda _: Reading({1: Process(1, int(self.cpu_us), 50_000, 9)}))

    def load(
        self, _: int, arguments: list[str], *, on_moment: Callable[[str], None] = native.ignore, **__: object
    ) -> LoadResult:
        self.asked.append(arguments)
        rate = float(arguments[arguments.index("--rate") + 1]) if "--rate" in arguments else 1000.0
        on_moment("measuring")
        self.cpu_us += rate * SECONDS * COST_US
        on_moment("measured")
        latency = Histogram()
        latency.add(1_000_000)
        empty = Histogram()
        count = int(rate * SECONDS)
        return LoadResult(SECONDS, count, rate, 0, 0, 0, self.errors, latency, empty, empty, empty)


def bench(folder: Path) -> Bench:
    return Bench(Running("gateway", 1, 1), 2, SECONDS, folder, Progress(1))


def test_a_cost_is_taken_at_half_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = Played(monkeypatch)
    cost_us, rate = bench(tmp_path).cost_us(measure.plain(1000))
    assert cost_us == pytest.approx(COST_US)
    assert rate == pytest.approx(0.5e6 / COST_US)
    assert len(played.asked) == 2
    bench(tmp_path).cost_us(measure.streamed(1000, 20, 20), lasting_s=0.4)
    assert len(played.asked) == 5, "streams are asked once more, nearer to the half"


def test_wrong_answers_plan_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Played(monkeypatch, errors={"status": 3})
    with pytest.raises(CannotRun, match="wrong answers"):
        bench(tmp_path).cost_us(measure.plain(1000))


def test_an_open_loop_has_room_for_all_that_is_under_way() -> None:
    words = measure.at_rate(50, 8)
    assert int(words[words.index("--connections") + 1]) > 50 * 8
    assert float(words[words.index("--drain") + 1]) > 8


def test_the_bodies_say_what_the_upstream_is_to_do() -> None:
    body = measure.streamed(8000, 400, 20.0, 500.0).body()
    assert len(body) == 8000
    assert b"chunks=400 chunk_bytes=200 interval_ms=20 ttft_ms=500" in body
    assert json.loads(measure.plain(64_000, 300).body())["model"]
    assert b"delay_ms=300" in measure.plain(64_000, 300).body()


def test_a_scaled_mix_is_the_same_but_for_its_rate() -> None:
    small = measure.scaled(MIX, COSTS, 0.4)
    assert cpu_us_per_s(small, COSTS) == pytest.approx(0.4e6)
    assert (small.stream_share, small.prompt_kb) == (MIX.stream_share, MIX.prompt_kb)


@pytest.mark.parametrize(("predicted", "measured", "error"), [(110, 100, 0.1), (80, 100, -0.2), (1, 0, float("inf"))])
def test_the_error_is_a_share_of_what_was_measured(predicted: float, measured: float, error: float) -> None:
    assert Checked(MIX, predicted, measured).error == pytest.approx(error)


def test_the_check_opens_its_window_last_and_closes_it_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 14.0])
    monkeypatch.setattr("bench.capacity.measure.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(Running, "reading", lambda _: Reading({}))
    both, window = measure._Both(2), measure.Window(Running("gateway", 1, 1))
    both.reached(window, "measuring")
    assert not window.at
    both.reached(window, "measuring")
    both.reached(window, "measured")
    both.reached(window, "measured")
    assert both.seconds == 4.0


def test_loads_that_do_not_overlap_check_nothing() -> None:
    with pytest.raises(CannotRun, match="did not overlap"):
        _ = measure._Both(2).seconds


def test_the_check_compares_one_second_and_is_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Played(monkeypatch)
    found = measure.check(bench(tmp_path), Mix(100, stream_share=0.0), COSTS)
    assert found.predicted_us == pytest.approx(0.4e6)
    assert found.measured_us > 0
    told = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in told] == [f"a part of the mix, {found.mix.rps:,.1f} requests/s"]


def test_a_connection_is_what_it_adds_to_an_idle_worker() -> None:
    moments = [Moment("idle", 50_000, 9), Moment("1,000 connections", 70_000, 1009)]
    assert measure.connection_kb(MemoryResult("gateway", 1, 1, moments)) == 20
    assert measure.connection_kb(MemoryResult("gateway", 1)) == 0


def test_the_journal_is_the_sum_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "journal" / "0").mkdir(parents=True)
    (tmp_path / "journal" / "0" / "a").write_bytes(b"x" * 30)
    (tmp_path / "journal" / "b").write_bytes(b"x" * 12)
    (tmp_path / "other").write_bytes(b"x" * 99)
    assert measure.written_bytes(tmp_path) == 42


class Planned(Progress):
    """How long all steps together were to take."""

    def __init__(self) -> None:
        super().__init__(1)
        self.seconds = 0.0

    def step(self, what: str, planned_s: float) -> None:
        assert what
        self.seconds += planned_s


def test_a_calibration_takes_as_long_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Played(monkeypatch)
    monkeypatch.setattr(measure, "JOURNAL_SETTLE_S", 0.0)
    (tmp_path / "journal").mkdir()
    planned = Planned()
    own = replace(bench(tmp_path), progress=planned)
    found = measure.calibrate(own, tmp_path, MemoryResult("gateway", 1), (100.0, 50.0))
    assert found.request_us == pytest.approx(COST_US)
    assert planned.seconds + measure.MEMORY_S == pytest.approx(measure.calibration_s(SECONDS), abs=1.0)


def test_memory_is_told_by_the_line_of_the_whole_calibration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []

    def measured(*arguments: object) -> MemoryResult:
        given.extend(arguments)
        return MemoryResult("gateway", 1)

    monkeypatch.setattr("bench.speed.memory.measure", measured)
    own = bench(tmp_path)
    measure.memory_of(lambda: nullcontext(own.gateway), own)
    assert given[-1] is own.progress
