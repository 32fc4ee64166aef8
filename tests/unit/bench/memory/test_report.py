"""The report says first whether memory is flat; raw data has every reading."""

import json
from pathlib import Path

from bench.memory import report
from bench.memory.drive import Driven
from bench.memory.judge import Word
from bench.memory.report import Result
from tests.unit.bench.memory.test_judge import run


def result(slope_mb: float = 0.0) -> Result:
    driven = Driven(run(10, lambda at: 60 + slope_mb * at), {}, 700.0)
    return Result(driven, 0.5, {"date": "2026-01-02 03:04 UTC", "machine": "this one"})


def test_what_was_found_comes_before_the_readings() -> None:
    text = report.markdown(result())
    assert text.startswith("# Memory over 10,000,000 requests, 2026-01-02\n\n| what | seen |")
    places = [text.index(words) for words in ("+0.00 MB: flat", f"## {report.CHART}", "| 500,000 | 0 | 60.0 |")]
    assert places == sorted(places)
    assert "after the first 1,000,000 requests" in text
    assert "| machine | this one |" in text
    assert "+2.00 MB: grows" in report.markdown(result(2))


def test_the_table_is_short_and_ends_with_the_last_reading() -> None:
    readings = result().driven.readings
    assert [one.requests for one in report._thinned(readings)] == list(range(500_000, 10_500_000, 500_000))
    assert report._thinned(readings[:7]) == readings[:7]
    assert report._thinned([]) == []


def test_a_result_is_a_folder(tmp_path: Path) -> None:
    report.write(result(), tmp_path / "out")
    raw = json.loads((tmp_path / "out" / "raw.json").read_text())
    assert (len(raw["readings"]), raw["warm_up"], raw["bound_mb"]) == (100, 1_000_000, 0.5)
    assert raw["readings"][-1]["collections"] == [1, 0, 0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<polyline") == 3
    assert "flat" in page


def test_words_are_by_process() -> None:
    assert result(2).words == {"worker": Word.GROWS, "control process": Word.FLAT}
