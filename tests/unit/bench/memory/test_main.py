"""The command line, and which status says what."""

from pathlib import Path

import pytest

from bench import program
from bench.memory import __main__ as memory
from bench.memory.drive import Driven
from bench.memory.report import Result
from bench.speed.launch import CannotRun
from tests.unit.bench.memory.test_judge import run


@pytest.mark.parametrize(
    ("millions", "slope_mb", "wrong", "status"),
    [
        (10, 0.0, 0, memory.FLAT),
        (10, 2.0, 0, memory.GROWS),
        (10, 0.0, 1, memory.GROWS),
        (1, 0.0, 0, memory.TOO_SHORT),
        (1, 5.0, 0, memory.GROWS),
        (1, 0.0, 1, memory.GROWS),
    ],
)
def test_the_exit_status(millions: float, slope_mb: float, wrong: int, status: int) -> None:
    driven = Driven(run(millions, lambda at: 60 + slope_mb * at), {"short_body": wrong}, 1.0)
    assert memory.exit_status(Result(driven, 0.5, {})) == status


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.speed.native.build", lambda: None)
    monkeypatch.setattr(memory, "measure", lambda requests, _: Driven(run(requests / 1e6, lambda _: 60.0), {}, 1.0))


@pytest.mark.usefixtures("played")
def test_a_run_is_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert memory.main(["--out", str(tmp_path / "out")]) == memory.FLAT
    assert capsys.readouterr().out.startswith("# Memory over 10,000,000 requests")
    assert (tmp_path / "out" / "report.md").exists()
    assert memory.main(["--requests", "200000", "--out", str(tmp_path / "short")]) == memory.TOO_SHORT


@pytest.mark.usefixtures("played")
def test_a_result_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "RESULTS", tmp_path)
    memory.main([])
    assert [folder.name.endswith("-memory") for folder in tmp_path.iterdir()] == [True]


@pytest.mark.parametrize("words", [["--requests", "0"], ["--max-slope", "0"]])
def test_wrong_words_are_told(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        memory.main(words)
    assert "at least" in capsys.readouterr().err


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise CannotRun("cc is missing")

    monkeypatch.setattr("bench.speed.native.build", missing)
    assert memory.main([]) == program.CANNOT_RUN
    assert "cc is missing" in capsys.readouterr().err
