"""Flat, growing, or too short to tell: by the line after the warm-up, never by what the warm-up took."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.memory import judge
from bench.memory.judge import Reading, Word

READING = Reading(0, 0.0, 60_000, 40_000, 30, (1, 0, 0), 90_000, 5_000_000)


def run(millions: float, rss_mb: Callable[[float], float], steps: int = 100) -> list[Reading]:
    """Readings at even steps; the worker's memory by how many millions were answered."""
    reached = [millions * (step + 1) / steps for step in range(steps)]
    return [replace(READING, requests=round(at * 1e6), rss_kb=round(rss_mb(at) * 1024)) for at in reached]


def rss(reading: Reading) -> float:
    return reading.rss_kb


@pytest.mark.parametrize(
    ("millions", "rss_mb", "word"),
    [
        (10, lambda _: 60.0, Word.FLAT),
        (10, lambda at: 60 + 0.4 * at, Word.FLAT),
        (10, lambda at: 60 + 0.6 * at, Word.GROWS),
        (10, lambda at: 60 + 30 * min(at, 0.9), Word.FLAT),  # all of it in the first tenth
        (10, lambda at: 60 + 30 * min(at, 2), Word.GROWS),  # later is no warm-up
        (10, lambda at: 90 - at, Word.FLAT),
        (1, lambda _: 60.0, Word.TOO_SHORT),
        (1, lambda at: 60 + at, Word.TOO_SHORT),  # above the bound, but within a heap's own movement
        (1, lambda at: 60 + 5 * at, Word.GROWS),
        (0.1, lambda at: 60 + 500 * at, Word.TOO_SHORT),  # nothing but warm-up
    ],
)
def test_flat_or_not(millions: float, rss_mb: Callable[[float], float], word: Word) -> None:
    assert judge.word(run(millions, rss_mb), rss, 0.5) is word


def test_the_slope_is_in_mb_a_million() -> None:
    assert judge.slope_mb(run(10, lambda at: 60 + 3 * at), rss) == pytest.approx(3, abs=0.01)
    assert judge.slope_mb(run(10, lambda _: 60, steps=4), rss) is None
    assert judge.slope_mb([], rss) is None


def test_the_bound_decides_how_short_is_too_short() -> None:
    assert judge.word(run(1, lambda _: 60), rss, 3.0) is Word.FLAT


@pytest.mark.parametrize(("asked", "left_out"), [(10_000_000, 1_000_000), (500_000, 100_000), (50_000, 50_000)])
def test_the_warm_up_is_a_tenth_and_never_short(asked: int, left_out: int) -> None:
    assert judge.warm_up(asked) == left_out


def test_everything_that_is_judged_is_told() -> None:
    found = judge.findings(run(10, lambda _: 60), 0, 0.5)
    assert [finding.holds for finding in found] == [True] * 4
    assert found[1].seen == "+0.00 MB: flat"


def test_wrong_answers_and_a_growing_control_process_do_not_hold() -> None:
    leaking = [replace(one, control_rss_kb=90_000 + one.requests // 500) for one in run(10, lambda _: 60)]
    assert [finding.holds for finding in judge.findings(leaking, 3, 0.5)] == [False, True, False, True]


def test_descriptors_of_callers_who_have_just_gone_are_not_gained() -> None:
    flat = run(10, lambda _: 60)
    busy = [replace(one, descriptors=94 if number % 2 else 30) for number, one in enumerate(flat)]
    assert judge.findings(busy, 0, 0.5)[-1].holds
    leaking = [replace(one, descriptors=30 + number) for number, one in enumerate(flat)]
    assert judge.findings(leaking, 0, 0.5)[-1].seen == "+81"
    assert not judge.findings(leaking, 0, 0.5)[-1].holds


def test_no_reading_tells_nothing() -> None:
    assert set(judge.words([], 0.5).values()) == {Word.TOO_SHORT}
    assert judge.findings([], 0, 0.5)[-1].seen == "+0"
