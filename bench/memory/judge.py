"""What the readings say: a line through them, and whether what they show is flat.

The first tenth of the requests, and never less than 100,000, is warm-up: caches and pools fill, shared memory is
touched for the first time, the heap takes the size that it needs. Through the rest goes the line of least squares. A
process grows when its slope is above the bound and more was gained along the line than a heap moves by itself
(RESOLUTION_MB). A run in which even a slope at the bound would gain less than that cannot tell flat from growing, and
says so. Descriptors are compared by the least of a tenth of the readings at either end, since connections of callers
who have just gone may still be there.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any, Final

from bench.load.judge import Finding

WARM_UP: Final = 0.1
LEAST_WARM_UP: Final = 100_000
MAX_SLOPE_MB: Final = 0.5
RESOLUTION_MB: Final = 2.0
MAX_DESCRIPTORS_GAINED: Final = 10
LEAST_READINGS: Final = 5
MILLION: Final = 1_000_000


@dataclass(frozen=True)
class Reading:
    """The gateway after so many requests; memory in KB, the state's size in bytes."""

    requests: int
    at_s: float
    rss_kb: int
    pss_kb: int
    descriptors: int
    collections: tuple[int, int, int]
    control_rss_kb: int
    state_bytes: int

    def summary(self) -> dict[str, Any]:
        """For raw.json."""
        return asdict(self)


class Word(Enum):
    """What can be said in the end."""

    FLAT = "flat"
    GROWS = "grows"
    TOO_SHORT = "too short to tell"


def warm_up(requests: int) -> float:
    """How many of so many requests are left out."""
    return min(requests, max(LEAST_WARM_UP, WARM_UP * requests))


def settled(readings: Sequence[Reading]) -> list[Reading]:
    """Those after the warm-up."""
    total = readings[-1].requests if readings else 0
    return [reading for reading in readings if reading.requests >= warm_up(total)]


def slope_mb(readings: Sequence[Reading], kb: Callable[[Reading], float]) -> float | None:
    """MB gained in a million requests, after the warm-up; None when there are too few readings for a line."""
    found = settled(readings)
    if len(found) < LEAST_READINGS:
        return None
    line = statistics.linear_regression([reading.requests for reading in found], [kb(reading) for reading in found])
    return line.slope * MILLION / 1024


def word(readings: Sequence[Reading], kb: Callable[[Reading], float], bound_mb: float) -> Word:
    """Of one process."""
    slope = slope_mb(readings, kb)
    if slope is None:
        return Word.TOO_SHORT
    asked = readings[-1].requests
    millions = (asked - warm_up(asked)) / MILLION
    if slope > bound_mb and slope * millions > RESOLUTION_MB:
        return Word.GROWS
    return Word.FLAT if bound_mb * millions >= RESOLUTION_MB else Word.TOO_SHORT


MEMORIES: Final[dict[str, Callable[[Reading], float]]] = {
    "worker": lambda reading: reading.rss_kb,
    "control process": lambda reading: reading.control_rss_kb,
}
"""Whose resident memory is judged."""


def words(readings: Sequence[Reading], bound_mb: float) -> dict[str, Word]:
    """By process."""
    return {name: word(readings, kb, bound_mb) for name, kb in MEMORIES.items()}


def findings(readings: Sequence[Reading], wrong: int, bound_mb: float) -> list[Finding]:
    """Everything that is judged; what is too short to tell does not hold."""
    found = [Finding("wrong or missing answers", f"{wrong:,}", "none", wrong == 0)]
    for name, said in words(readings, bound_mb).items():
        slope = slope_mb(readings, MEMORIES[name])
        seen = said.value if slope is None else f"{slope:+.2f} MB: {said.value}"
        what = f"{name}'s memory gained in a million requests"
        found.append(Finding(what, seen, f"≤ {bound_mb:g} MB", said is Word.FLAT))
    gained = _descriptors_gained(settled(readings))
    limit = f"≤ {MAX_DESCRIPTORS_GAINED}"
    found.append(Finding("worker's descriptors gained", f"{gained:+}", limit, gained <= MAX_DESCRIPTORS_GAINED))
    return found


def _descriptors_gained(readings: Sequence[Reading]) -> int:
    part = -(-len(readings) // 10)
    first, last = ([reading.descriptors for reading in end] for end in (readings[:part], readings[-part:]))
    return min(last) - min(first) if readings else 0
