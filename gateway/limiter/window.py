"""Budget windows: from the calendar to milliseconds since the epoch.

A window is an hour, a day, a week (from Monday) or a month of the calendar in one time zone: a half-open interval of
wall-clock time. Days are as long as they are there: 23 or 25 hours when the clocks change. An hour is always 3,600 s
long and begins on the hour of that zone.

Invariants: every instant lies in exactly one day, week and month; `start_ms` never decreases as time goes on, which is
what a row that moves to newer windows rests on (hours too, where a zone shifts by half an hour, though two such hours
then overlap). Left out: which window a charge belongs to (`bucket.in_window`), and the clock.
"""

import datetime as dt
from enum import Enum
from typing import Final

_HOUR_MS: Final = 3_600_000
_DAY: Final = dt.timedelta(days=1)


class Span(Enum):
    """How long a budget lasts."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def bounds(span: Span, zone: dt.tzinfo, now_ms: int) -> tuple[int, int]:
    """The window that holds `now_ms`: its start and its end, in ms since the epoch."""
    local = dt.datetime.fromtimestamp(now_ms // 1000, zone)
    if span is Span.HOUR:
        since_ms = (now_ms + _offset_ms(local)) % _HOUR_MS
        return now_ms - since_ms, now_ms - since_ms + _HOUR_MS
    first = _first_day(span, local.date())
    return _midnight_ms(first, zone), _midnight_ms(_next_first_day(span, first), zone)


def _first_day(span: Span, day: dt.date) -> dt.date:
    if span is Span.WEEK:
        return day - day.weekday() * _DAY
    return day.replace(day=1) if span is Span.MONTH else day


def _next_first_day(span: Span, first: dt.date) -> dt.date:
    if span is Span.WEEK:
        return first + 7 * _DAY
    return (first + 31 * _DAY).replace(day=1) if span is Span.MONTH else first + _DAY


def _midnight_ms(day: dt.date, zone: dt.tzinfo) -> int:
    """When a day begins: the first of two midnights, and the moment of the change where midnight is skipped."""
    return int(dt.datetime.combine(day, dt.time(), zone).timestamp()) * 1000


def _offset_ms(local: dt.datetime) -> int:
    offset = local.utcoffset() or dt.timedelta()
    return offset // dt.timedelta(milliseconds=1)
