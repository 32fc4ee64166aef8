"""The line says how far the run is, and learns from how long the first steps took."""

import pytest

from bench.speed.progress import Progress


def test_time_left_follows_the_pace_so_far(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 0.0, 20.0])
    monkeypatch.setattr("bench.speed.progress.time.monotonic", lambda: next(clock))
    line = Progress(expected_s=100)
    line.step("json 1/5 direct", 10)
    line.step("json 1/5 nginx", 10)  # the first took twice as long as planned, and is a tenth of the plan
    line.note("first status: status 500")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "[  0%, 100 s left] json 1/5 direct",
        "[ 10%, 120 s left] json 1/5 nginx",
        "first status: status 500",
    ]


def test_a_long_wait_at_the_beginning_is_no_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 600.0])
    monkeypatch.setattr("bench.speed.progress.time.monotonic", lambda: next(clock))
    line = Progress(expected_s=100)
    line.step("json 1/5 direct", 10)
    line.step("json 1/5 nginx", 10)
    assert "[ 10%, 180 s left]" in capsys.readouterr().err


def test_the_start_of_the_targets_does_not_double_what_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five seconds pass before the first measurement of a quick run; it takes two minutes all the same."""
    clock = iter([0.0, 5.0, 7.0, 64.0])
    monkeypatch.setattr("bench.speed.progress.time.monotonic", lambda: next(clock))
    line = Progress(expected_s=120)
    for planned_s in (2, 58, 60):
        line.step("json", planned_s)
    left = [text.split()[-4] for text in capsys.readouterr().err.splitlines()]
    assert left == ["120", "141", "63"]


def test_on_a_terminal_it_is_one_line_that_is_never_wrapped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    line = Progress(expected_s=100)
    line.step("100,000 of 10,000,000 requests, worker 81.8 MB", 10)
    line.note("a note stays, however long it is, and has a line of its own")
    line.close()
    step, note, end = capsys.readouterr().err.split("\r\x1b[K")[1:]
    assert (len(step), note, end) == (39, "a note stays, however long it is, and has a line of its own\n", "")
