"""Carrying counts over to a new segment, when an upgrade changed the layout of the old one.

Models a copy that can be repeated: the sums of everything the old segment holds, in all its areas, replace what
stands in the new segment's shared area. While old workers drain they go on counting in the old segment; the
supervisor repeats the copy each tick until they have gone, and once after, and then the sums are exact. The new
workers count in their own slots from 0, and a scrape adds both.

Invariant: the shared area has one writer, the new supervisor. Gauges are left behind: they described processes of
the old segment. Left out: finding the old segment (`process/`).
"""

from gateway.segment import Segment
from gateway.telemetry.directory import METRICS, Area, Family, Kind
from gateway.telemetry.metrics import Metrics


def import_counters(old: Segment, new: Segment) -> None:
    """Make `new`'s shared area show what `old` has counted so far.

    Raises SegmentMismatch when `old` keeps its metrics in a version of the section this build does not read.
    """
    totals: dict[tuple[Family, tuple[str, ...]], list[int]] = {}
    for area in areas(old):
        _add_area(totals, area)
    carried = Metrics(new.shared(METRICS))
    for (family, values), cells in totals.items():
        first = carried.place(family, values)
        for offset, value in enumerate(cells):
            carried.cells[first + offset] = value


def areas(segment: Segment) -> list[Area]:
    """Every area of a segment: the shared one, then the slots in order."""
    slots = (segment.slot(METRICS, slot) for slot in range(segment.slots))
    return [Area(segment.shared(METRICS)), *(Area(words) for words in slots)]


def _add_area(totals: dict[tuple[Family, tuple[str, ...]], list[int]], area: Area) -> None:
    _, series, _ = area.read()
    for one in series:
        if one.family.kind is Kind.GAUGE:
            continue
        counted = area.cells[one.cell : one.cell + one.family.cells].tolist()
        before = totals.get((one.family, one.values))
        totals[one.family, one.values] = (
            counted if before is None else [a + b for a, b in zip(before, counted, strict=True)]
        )
