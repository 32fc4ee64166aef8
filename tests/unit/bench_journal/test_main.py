"""The journal's bench measures what it says, on a small journal that verifies."""

import json

import pytest

from bench.journal.__main__ import TURNS, main, measure


def test_every_figure_is_there_and_the_journal_it_made_verifies() -> None:
    told: list[str] = []
    found = measure(200, told.append)
    assert set(found["append_us_per_exchange"]) == set(TURNS)
    assert 1000 < found["bytes_per_exchange"] < 3000
    assert found["verify_mb_per_s"] > 0
    assert found["usage_records_per_s"] > 0
    assert told[-1] == "usage reader"


def test_it_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--count", "64", "--json"]) == 0
    assert "bytes_per_exchange" in json.loads(capsys.readouterr().out)
    assert main(["--count", "64"]) == 0
    rows = [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()]
    assert [row for row in rows if "append" in row] == [
        f"| append: µs of CPU an exchange, {turn} a turn" for turn in TURNS
    ]
    assert rows[-1] == "| Python"


def test_fewer_exchanges_than_a_turn_holds_measure_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--count", str(max(TURNS) - 1)])
    assert ended.value.code == 2
    assert "at least 64" in capsys.readouterr().err
