"""Who is stuck: silence of a heartbeat, counted only in time that certainly passed for everybody.

Models each process's heartbeat as seen from the supervisor's tick. When the supervisor's own tick comes late, the
machine slept, the tree was stopped or starved, and that time proves nothing against anybody: it is not counted.
Pure: times are arguments. What is done about a silent process is decided in `victim`, carried out elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

_LATE: Final = 3  # ticks between two observations from which on the time in between is not evidence


class Suspect(NamedTuple):
    """A process that was silent for too long; `serving` says that callers depend on it."""

    pid: int
    silent_ns: int
    serving: bool


class StuckWatch:
    """Silence per pid."""

    def __init__(self, tick_ns: int) -> None:
        self._late_ns = _LATE * tick_ns
        self._last_ns = 0
        self._seen: dict[int, int] = {}
        self._silent: dict[int, int] = {}

    def observe(self, now_ns: int, beats: Mapping[int, int]) -> None:
        """Take note of every living process's latest heartbeat; those not listed are forgotten."""
        passed_ns = now_ns - self._last_ns
        counted_ns = passed_ns if passed_ns <= self._late_ns else 0
        self._last_ns = now_ns
        self._silent = {
            pid: self._silent.get(pid, 0) + counted_ns if self._seen.get(pid) == beat else 0
            for pid, beat in beats.items()
        }
        self._seen = dict(beats)

    def silent_ns(self, pid: int) -> int:
        """For how long a process has been silent."""
        return self._silent.get(pid, 0)


def victim(suspects: Sequence[Suspect], healthy: int) -> Suspect | None:
    """Whom to kill now, if anybody: the longest silent; never one that serves while no `healthy` other does."""
    allowed = [suspect for suspect in suspects if healthy or not suspect.serving]
    return max(allowed, key=lambda suspect: suspect.silent_ns, default=None)
