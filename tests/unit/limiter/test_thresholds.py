"""Crossings are told once a window, each of several thresholds, and never for another window."""

from gateway.config.limits import Rule
from gateway.limiter.lines import Lines
from gateway.limiter.thresholds import MAX_REMEMBERED, Thresholds
from tests.fakes.limits import START_MS, limits_of

HOUR_MS = 3_600_000
RULE = Rule(name="b", per=("key", "end_user"), tokens=100, every="hour", budget=True, alerts=(70, 90, 100))


class Heard:
    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.thresholds = Thresholds(
            lambda rule, _bucket, percent, window: self.told.append((rule, percent, window[0]))
        )


def lines_of(wall_ms: int = START_MS, end_user: str = "") -> Lines:
    return limits_of(RULE).lines(wall_ms, end_user)


def test_each_threshold_is_told_once() -> None:
    heard, lines = Heard(), lines_of()
    for level in (31, 30, 29, 45, 30, 10, 9, 0, -50):
        heard.thresholds.look(lines, (level,), lambda: START_MS)
    assert heard.told == [("b", 70, START_MS), ("b", 90, START_MS), ("b", 100, START_MS)]


def test_thresholds_passed_at_once_are_all_told() -> None:
    heard = Heard()
    heard.thresholds.look(lines_of(), (-5,), lambda: START_MS)
    assert [percent for _, percent, _ in heard.told] == [70, 90, 100]


def test_the_next_window_is_told_anew() -> None:
    heard = Heard()
    heard.thresholds.look(lines_of(), (30,), lambda: START_MS)
    heard.thresholds.look(lines_of(START_MS + HOUR_MS), (30,), lambda: START_MS + HOUR_MS)
    assert heard.told == [("b", 70, START_MS), ("b", 70, START_MS + HOUR_MS)]


def test_a_late_settlement_says_nothing_of_a_window_that_is_over() -> None:
    heard = Heard()
    heard.thresholds.look(lines_of(), (0,), lambda: START_MS + HOUR_MS)
    assert heard.told == []


def test_buckets_are_told_apart_and_remembered_within_bounds() -> None:
    heard = Heard()
    for number in range(MAX_REMEMBERED + 5):
        heard.thresholds.look(lines_of(end_user=str(number)) if number < 3 else _many(number), (30,), lambda: START_MS)
    assert len(heard.told) == MAX_REMEMBERED + 5
    assert len(heard.thresholds._told) == 5


_LINES = lines_of()


def _many(number: int) -> Lines:
    return Lines([_LINES.lines[0]._replace(bucket=str(number))], 1)
