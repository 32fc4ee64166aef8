"""Counting: one process's counters, gauges and histograms, in the cells of its slot.

Models a handle per series, made once and kept by whoever counts. Counting is one or two additions to shared words
(0.06 us, a histogram 0.15 us); nothing is locked, because an area has one writer, and no reader is waited for.

Invariants: a counter never goes back, whatever dies: the next process of the slot counts on in the same cells.
Threads of the process may share a handle: CPython (3.10 on) switches threads at calls and backward jumps only, so
`cells[i] += n` with no call inside is one step. A gauge describes the process that set it, so taking over a slot
starts all gauges at 0. When the directory or the cells are full a handle is still given: it writes where nobody
reads, and `gateway_metric_series_dropped_total` says so.

Left out: what there is to count (`families.py`) and how it is shown (`scrape.py`).
"""

import threading
from bisect import bisect_left
from typing import Final

from gateway.telemetry.directory import CELL_WORDS, SCRATCH_CELLS, Area, Family, Kind

MAX_BOUNDS: Final = SCRATCH_CELLS - 2
DROPPED: Final = Family(
    "gateway_metric_series_dropped_total", Kind.COUNTER, "Series that found no room in shared memory and are not shown."
)


class Counter:
    """A number that only grows. The hot path may write `metrics.cells[counter.cell] += n` itself."""

    __slots__ = ("_cells", "cell")

    def __init__(self, cells: memoryview, cell: int) -> None:
        self._cells = cells
        self.cell = cell

    def add(self, n: int = 1) -> None:
        """Count `n` more; never negative."""
        self._cells[self.cell] += n


class Gauge:
    """A number that says how it is now."""

    __slots__ = ("_cells", "cell")

    def __init__(self, cells: memoryview, cell: int) -> None:
        self._cells = cells
        self.cell = cell

    def set(self, value: int) -> None:
        """Replace the value."""
        self._cells[self.cell] = value


class Histogram:
    """Durations by size: a cell for each bound, one for those above all, then their sum in microseconds."""

    __slots__ = ("_cells", "bounds_us", "cell", "sum_cell")

    def __init__(self, cells: memoryview, cell: int, bounds_us: tuple[int, ...]) -> None:
        self._cells = cells
        self.cell = cell
        self.bounds_us = bounds_us
        self.sum_cell = cell + len(bounds_us) + 1

    def observe_us(self, value_us: int) -> None:
        """Count one duration; it falls under the first bound that is not below it."""
        cells = self._cells
        cells[self.cell + bisect_left(self.bounds_us, value_us)] += 1
        cells[self.sum_cell] += value_us


class Metrics:
    """The counts of one process, in its slot of the `metrics` section; the only writer there.

    `words` is `segment.slot(METRICS, slot)`. Families are declared by their first series.
    """

    def __init__(self, words: memoryview) -> None:
        self._area = Area(words)
        self.cells = self._area.cells
        self._lock = threading.Lock()  # registering; counting needs none
        families, series, self._end = self._area.read()
        self._families = {family: ordinal for ordinal, family in enumerate(families)}
        self._series = {(one.family, one.values): one.cell for one in series}
        self._next_cell = max((one.cell + one.family.cells for one in series), default=0)
        for one in series:
            if one.family.kind is Kind.GAUGE:
                self.cells[one.cell] = 0
        self._dropped = self.counter(DROPPED)

    def counter(self, family: Family, **labels: str) -> Counter:
        """The counter with these label values, declared now or found; keep it, finding costs microseconds.

        Raises ValueError when the family is of another kind or the labels are not its own: a bug, met at start.
        """
        return Counter(self.cells, self._cell(family, Kind.COUNTER, labels))

    def gauge(self, family: Family, **labels: str) -> Gauge:
        """The gauge with these label values; as `counter`."""
        return Gauge(self.cells, self._cell(family, Kind.GAUGE, labels))

    def histogram(self, family: Family, **labels: str) -> Histogram:
        """The histogram with these label values; as `counter`."""
        return Histogram(self.cells, self._cell(family, Kind.HISTOGRAM, labels), family.bounds_us)

    def _cell(self, family: Family, kind: Kind, labels: dict[str, str]) -> int:
        if family.kind is not kind or labels.keys() != set(family.labels) or len(family.bounds_us) > MAX_BOUNDS:
            message = (
                f"{family.name} is a {family.kind.value} of {family.labels}, not a {kind.value} of {tuple(labels)}"
            )
            raise ValueError(message)
        return self.place(family, tuple(labels[name] for name in family.labels))

    def place(self, family: Family, values: tuple[str, ...]) -> int:
        """First cell of a series, declared when it is new; scratch cells when there is no room."""
        with self._lock:
            cell = self._series.get((family, values))
            if cell is None:
                cell = self._declare(family, values)
                self._series[family, values] = cell
            return cell

    def _declare(self, family: Family, values: tuple[str, ...]) -> int:
        cell = self._next_cell
        if cell + family.cells > CELL_WORDS - SCRATCH_CELLS:
            return self._drop()
        if family not in self._families:
            end = self._area.append_family(family, self._end)
            if end < 0:
                return self._drop()
            self._families[family] = len(self._families)
            self._end = end
        for index in range(cell, cell + family.cells):
            self.cells[index] = 0  # an entry that was lost to damage may have counted here
        end = self._area.append_series(self._families[family], values, cell, self._end)
        if end < 0:
            return self._drop()
        self._end = end
        self._next_cell = cell + family.cells
        return cell

    def _drop(self) -> int:
        self._dropped.add()
        return CELL_WORDS - SCRATCH_CELLS
