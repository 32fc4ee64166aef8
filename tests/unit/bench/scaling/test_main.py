"""Words become parts; a run is written, what cannot run is told."""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import program
from bench.load.judge import Finding
from bench.scaling import __main__ as scaling
from bench.scaling.points import Point
from bench.scaling.stand import Stand
from bench.speed.disturbance import Disturbance, Thrown
from bench.speed.launch import CannotRun


def test_parts_come_in_their_order() -> None:
    assert scaling.parser().parse_args(["--only", "nodes,prompts"]).only == ("prompts", "nodes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "cpu"], "unknown: cpu; known: prompts,"),
        (["--repeats", "0"], "at least 1"),
        (["--seconds", "0"], "at least 0.1"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        scaling.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


class Played:
    """A run in which one part is played, and the upstream."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, holds: bool = True, found: bool = True) -> None:
        def part(stand: Stand) -> Iterator[Point]:
            stand.remark("a remark")
            stand.findings.append(Finding("admitted at most", "5", "≤ 4", holds))
            yield from [Point("keys", "10", {"µs to authenticate, first time": 1.5})] if found else []

        @contextmanager
        def upstream(*_: object) -> Generator[int, None, None]:
            yield 9000

        monkeypatch.setattr("bench.speed.native.build", lambda: None)
        monkeypatch.setattr("bench.speed.native.upstream", upstream)
        monkeypatch.setattr(scaling, "PARTS", {"keys": part})


def test_what_was_found_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Played(monkeypatch)
    assert scaling.main(["--only", "keys", "--out", str(tmp_path / "out")]) == scaling.MEASURED
    raw = json.loads((tmp_path / "out" / "raw.json").read_text())
    (point,) = raw["points"]
    assert (point["part"], point["at"], point["figures"]) == ("keys", "10", {"µs to authenticate, first time": 1.5})
    assert raw["thrown"] == []
    assert raw["findings"][0]["what"] == "admitted at most"
    assert raw["conditions"]["load after"]
    assert "- a remark" in (tmp_path / "out" / "report.md").read_text()
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()
    assert "| 10 | 1.5 |" in capsys.readouterr().out


def test_a_result_has_a_folder_of_its_own_among_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Played(monkeypatch)
    monkeypatch.setattr(scaling, "RESULTS", tmp_path)
    for _ in range(2):
        scaling.main(["--only", "keys"])
    first, second = sorted(folder.name for folder in tmp_path.iterdir())
    assert first.endswith("-scaling")
    assert second == f"{first}-2"


def test_a_limit_that_nodes_exceeded_together_is_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Played(monkeypatch, holds=False)
    assert scaling.main(["--only", "keys", "--out", str(tmp_path)]) == scaling.BROKEN


def test_a_run_that_found_nothing_says_why_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Played(monkeypatch, found=False)
    assert scaling.main(["--only", "keys", "--out", str(tmp_path / "out")]) == program.CANNOT_RUN
    assert "cannot run: a remark" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_part_that_breaks_off_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Played(monkeypatch)

    def breaking(_: Stand) -> Iterator[Point]:
        yield Point("limits", "0", {"µs": 1.0})
        raise CannotRun("wrong answers: 7")

    monkeypatch.setattr(scaling, "PARTS", {"limits": breaking, "keys": vars(scaling)["PARTS"]["keys"]})
    assert scaling.main(["--only", "limits,keys", "--out", str(tmp_path)]) == program.CANNOT_RUN
    raw = json.loads((tmp_path / "raw.json").read_text())
    assert ([point["part"] for point in raw["points"]], raw["broken"]) == (["limits", "keys"], ["limits"])
    assert "limits could not be measured, or not to the end: wrong answers: 7" in capsys.readouterr().out


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise CannotRun("cc is missing")

    monkeypatch.setattr("bench.speed.native.build", missing)
    assert scaling.main(["--only", "keys"]) == program.CANNOT_RUN
    assert "cc is missing" in capsys.readouterr().err


def test_wrong_answers_are_not_thrown_away_with_a_disturbed_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def disturbed(stand: Stand) -> Iterator[Point]:
        found = {"target": "limited", "load": {"errors": {"short_body": 3}}}
        stand.again.thrown.append(Thrown("limits-4", Disturbance(0.3), found))
        yield Point("limits", "4", {"µs": 1.0})

    Played(monkeypatch)
    monkeypatch.setattr(scaling, "PARTS", {"limits": disturbed})
    assert scaling.main(["--only", "limits", "--out", str(tmp_path)]) == program.CANNOT_RUN
    assert "limits-4 could not be measured, or not to the end: wrong answers" in capsys.readouterr().out
