"""Words become parts; a run is written, what cannot run is told."""

import json
from pathlib import Path

import pytest

from bench.scaling import __main__ as scaling
from bench.scaling.points import Point
from bench.speed.launch import CannotRun


def test_parts_come_in_their_order() -> None:
    assert scaling.parser().parse_args(["--only", "nodes,prompts"]).only == ("prompts", "nodes")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "cpu"], "unknown: cpu; there are prompts,"),
        (["--repeats", "0"], "above zero"),
        (["--seconds", "0"], "above"),
    ],
)
def test_wrong_words_are_told(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        scaling.main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_what_was_found_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bench.speed.native.build", lambda: None)
    monkeypatch.setattr(scaling, "measure", lambda *_: ([Point("keys", "10", {"µs": 1.5})], ["a remark"]))
    assert scaling.main(["--only", "keys", "--out", str(tmp_path / "out")]) == scaling.MEASURED
    raw = json.loads((tmp_path / "out" / "scaling.json").read_text())
    assert raw["points"] == [{"part": "keys", "at": "10", "figures": {"µs": 1.5}}]
    assert "- a remark" in (tmp_path / "out" / "scaling.md").read_text()
    assert "| 10 | 1.5 |" in capsys.readouterr().out


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise CannotRun("cc is missing")

    monkeypatch.setattr("bench.speed.native.build", missing)
    assert scaling.main(["--only", "keys"]) == scaling.CANNOT_RUN
    assert "cc is missing" in capsys.readouterr().err
