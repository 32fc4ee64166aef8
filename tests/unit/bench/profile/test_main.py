"""The report shares out what was measured; what cannot run is told."""

import pytest

from bench import program
from bench.profile import __main__ as profile
from bench.profile import journey, stacks
from bench.speed.launch import CannotRun
from tests.unit.bench.profile.test_stacks import RAW


def test_microseconds_are_shares_of_what_was_measured() -> None:
    text = profile.markdown("json", 200.0, stacks.serving(stacks.parse(RAW)), {"date": "2026-01-02"})
    assert "200.0 µs of CPU a request in the worker's serving thread, shared out by 100 samples" in text
    assert "| the pipeline itself | 60.0 | 30.0% |" in text
    assert "| relay/upstream.py | 40.0 | 20.0% |" in text
    assert "| compose (journal/line.py) | 20.0 | 10.0% |" in text
    assert "- date: 2026-01-02" in text
    assert profile.markdown("sse", 2.0, [], {}).startswith("# Where a chunk's time goes")


def test_what_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing() -> None:
        raise CannotRun("cc is missing")

    monkeypatch.setattr("bench.speed.native.build", missing)
    assert profile.main([]) == program.CANNOT_RUN
    assert "cc is missing" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--seconds", "0"], ["--kind", "xml"]])
def test_wrong_words_are_told(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        profile.main(words)
    assert ended.value.code == 2


def test_stages_stand_in_the_order_of_the_journey() -> None:
    text = profile.markdown("json", 200.0, stacks.serving(stacks.parse(RAW)), {})
    rows = text.split("\n\n")[2].splitlines()[2:]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == [*journey.JOURNEY]
    assert f"| {journey.SETTLE} | 0.0 | 0.0% |" in rows, "a stage without a sample has its row"
