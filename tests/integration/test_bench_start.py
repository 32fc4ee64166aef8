"""The bench's sections of a start and of workers in small, with the real programs."""

from pathlib import Path

import pytest

from bench.speed import __main__ as speed
from bench.speed import native, report, start
from bench.speed.report import Result
from bench.speed.sections import Settings
from bench.speed.start import STATES
from bench.speed.verdict import Status

pytestmark = pytest.mark.slow

SMALL = Settings(
    repeats=1,
    seconds=0.4,
    warmup=0.2,
    sections=("start", "workers"),
    targets=("limited",),
    connections=4,
    again=0.0,
)


def test_the_sections_run_and_tell_their_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native.build()
    monkeypatch.setattr(start, "USED_REQUESTS", 50)
    run = speed.Run(SMALL, tmp_path, {})
    run.measure()
    result = Result({"date": "2026-01-02"}, SMALL, run.samples, [], starts=run.starts)
    assert [(one.state, one.errors) for one in run.starts] == [(state, {}) for state in STATES]
    assert all(0 < one.forked_s < one.ready_s < one.answered_s for one in run.starts)
    assert all(cpu_us > 0 for one in run.starts for cpu_us in one.cpu_us.values())
    assert [(one.section, one.load.errors) for one in run.samples] == [("workers-1", {}), ("workers-2", {})]
    assert [goal.status for goal in result.goals()[-3:] if goal.status is Status.NOT_MEASURED] == []
    text = report.markdown(result)
    assert "## Start" in text
    assert "## Workers" in text
