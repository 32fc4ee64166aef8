"""Soft thresholds of budgets: who hears that so much of one is used, once a window in each process.

A threshold is reached when what is left is no more than its level, reservations of requests in flight included. Only
settlements and refusals are looked at, so that one reservation, given back a moment later, alarms nobody by itself.

Left out: once for a whole fleet, which whoever listens sees to: the report names rule, bucket, percent and window.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from gateway.limiter.lines import Lines

MAX_REMEMBERED: Final = 65_536
OnCrossing = Callable[[str, str, int, tuple[int, int]], None]
"""Rule, bucket, percent, and the window's start and end, wall clock ms."""


class _Told(NamedTuple):
    start_ms: int
    percent: int


_NOTHING: Final = _Told(0, 0)


class Thresholds:
    """What this process has reported."""

    def __init__(self, on_crossing: OnCrossing) -> None:
        self._on_crossing = on_crossing
        self._told: dict[str, _Told] = {}

    def look(self, lines: Lines, levels: tuple[int, ...], wall_ms: Callable[[], int]) -> None:
        """Report the thresholds that these levels have reached."""
        for index, alerts in lines.alerts:
            left = levels[index]
            if left > alerts[0].level:
                continue
            spec = lines.lines[index].spec
            if wall_ms() >= spec.end_ms:  # the level may be that of the next window
                continue
            line = lines.lines[index]
            told = self._told.get(line.bucket, _NOTHING)
            last = told.percent if told.start_ms == spec.start_ms else 0
            for alert in alerts:
                if left <= alert.level and alert.percent > last:
                    self._remember(line.bucket, _Told(spec.start_ms, alert.percent))
                    self._on_crossing(line.rule, line.bucket, alert.percent, (spec.start_ms, spec.end_ms))

    def _remember(self, bucket: str, told: _Told) -> None:
        if len(self._told) >= MAX_REMEMBERED and bucket not in self._told:
            self._told.clear()
        self._told[bucket] = told
