"""Calendar windows: they tile the year in every zone, whatever the clocks do there."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest

from gateway.limiter.window import Span, bounds

HOUR_MS = 3_600_000
UTC = dt.UTC


def at(text: str, zone: dt.tzinfo = UTC) -> int:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1000


@pytest.mark.parametrize(
    ("span", "start", "end"),
    [
        (Span.HOUR, "2024-02-29T13:00:00", "2024-02-29T14:00:00"),
        (Span.DAY, "2024-02-29T00:00:00", "2024-03-01T00:00:00"),
        (Span.WEEK, "2024-02-26T00:00:00", "2024-03-04T00:00:00"),
        (Span.MONTH, "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
    ],
)
def test_windows_of_the_calendar_in_utc(span: Span, start: str, end: str) -> None:
    assert bounds(span, UTC, at("2024-02-29T13:14:15") + 678) == (at(start), at(end))


def test_a_window_holds_its_start_and_not_its_end() -> None:
    midnight = at("2024-12-31T00:00:00")
    assert bounds(Span.DAY, UTC, midnight)[0] == midnight
    assert bounds(Span.DAY, UTC, midnight - 1)[1] == midnight


@pytest.mark.parametrize(
    ("day", "hours"), [("2024-03-31T12:00:00", 23), ("2024-10-27T12:00:00", 25), ("2024-06-01T12:00:00", 24)]
)
def test_a_day_is_as_long_as_it_is_there(day: str, hours: int) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    start, end = bounds(Span.DAY, berlin, at(day, berlin))
    assert end - start == hours * HOUR_MS
    assert start == at(day[:11] + "00:00:00", berlin)


def test_a_month_follows_the_zone() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    start, end = bounds(Span.MONTH, tokyo, at("2024-01-31T20:00:00"))  # already February there
    assert start == at("2024-01-31T15:00:00")
    assert end == at("2024-02-29T15:00:00")


def test_hours_begin_on_the_hour_of_the_zone() -> None:
    start, end = bounds(Span.HOUR, ZoneInfo("Asia/Kolkata"), at("2024-05-05T10:45:00"))
    assert start == at("2024-05-05T10:30:00")
    assert end - start == HOUR_MS


def test_a_midnight_that_is_skipped_is_the_moment_of_the_change() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # 2022-03-27: 00:00 became 01:00
    start, end = bounds(Span.DAY, beirut, at("2022-03-27T12:00:00", beirut))
    assert start == at("2022-03-26T22:00:00")
    assert end - start == 23 * HOUR_MS


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Beirut", "America/Havana"])
@pytest.mark.parametrize("span", [Span.DAY, Span.WEEK, Span.MONTH])
def test_windows_tile_the_year(span: Span, zone: str) -> None:
    where = ZoneInfo(zone)
    now_ms = bounds(span, where, at("2023-01-01T00:00:00"))[0]
    until_ms = at("2025-01-01T00:00:00")
    while now_ms < until_ms:
        start, end = bounds(span, where, now_ms)
        assert start == now_ms
        for inside in (start + 1, (start + end) // 2, end - 1):
            assert bounds(span, where, inside) == (start, end)
        now_ms = end


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "Australia/Lord_Howe", "America/Havana"])
def test_hours_never_step_back(zone: str) -> None:
    where = ZoneInfo(zone)
    last = 0
    for now_ms in range(at("2024-03-01T00:00:00"), at("2024-11-10T00:00:00"), 600_000):
        start, end = bounds(Span.HOUR, where, now_ms)
        assert last <= start <= now_ms < end
        last = start
