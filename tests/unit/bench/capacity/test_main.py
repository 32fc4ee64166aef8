"""Words become a mix, a plan or a check; each ending has its status."""

from pathlib import Path

import pytest

from bench import program
from bench.capacity import __main__ as capacity
from bench.capacity.measure import Checked
from bench.speed.disturbance import Disturbance
from tests.unit.bench.capacity.test_plan import COSTS, MIX


@pytest.fixture
def stored(tmp_path: Path) -> str:
    COSTS.stored(tmp_path / "c.json")
    return str(tmp_path / "c.json")


def test_a_plan_is_printed(stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["--rps", "10000", "--prompt-kb", "8", "--coefficients", stored]) == capacity.DONE
    said = capsys.readouterr().out
    assert "10,000 requests/s, 60% streamed, prompts of 8 KB, 400 tokens of 20 ms after 500 ms" in said


@pytest.mark.parametrize(("measured_us", "status"), [(100, 0), (84, 0), (82, 1), (126, 1)])
def test_a_prediction_is_right_within_a_fifth(
    measured_us: float, status: int, stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capacity, "checked", lambda *_: Checked(MIX, 100, measured_us))
    assert capacity.main(["--rps", "10", "--check", "--coefficients", stored]) == status
    assert ("NOT within 20%" in capsys.readouterr().out) is bool(status)


@pytest.mark.parametrize(("taken", "said"), [(0.09, ""), (0.5, " Meanwhile others took 50% of a core.")])
def test_a_check_beside_others_says_so(taken: float, said: str) -> None:
    told = capacity.told(Checked(MIX, 100, 50, Disturbance(taken)))
    assert told.endswith(f"NOT within 20%.{said}")


def test_a_calibration_alone_plans_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(capacity, "calibrated", lambda _: COSTS)
    assert capacity.main(["--calibrate"]) == capacity.DONE
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--check"],
        ["--rps", "0"],
        ["--rps", "1", "--stream-share", "1.5"],
        ["--rps", "1", "--output-tokens", "0"],
        ["--rps", "1", "--target-load", "0"],
        ["--rps", "many"],
        ["--rps", "inf"],
    ],
)
def test_wrong_words_are_told(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        capacity.main(words)
    assert ended.value.code == 2


def test_without_coefficients_there_is_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["--rps", "1", "--coefficients", str(tmp_path / "no")]) == program.CANNOT_RUN
    assert "--calibrate" in capsys.readouterr().err
