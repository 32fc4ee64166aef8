"""The `metrics` section of the control segment: each process's counts, in memory that describes itself.

Models one *area* per slot, plus one shared area that holds what a former segment had counted (see `transfer.py`).
An area is a head, an append-only directory, and cells. A directory entry declares a family (name, kind, help,
labels, bounds) or a series of a family declared before it (label values, first cell). Whoever maps the segment
needs nothing else to read it: a scraper of another build shows families it never heard of.

Invariants: an area has a single writer, the process of its slot (the shared one: the supervisor). The writer puts
down an entry first and the word that counts directory words last, so a process killed half-way leaves a tail that
nobody reads and the next entry overwrites. An entry, once counted, never changes or moves. A process that takes over
a slot reads its directory and goes on counting in the same cells. Reading never touches the unused part: a page of
shared memory costs something only from its first touch on.

Left out: what the numbers mean (`families.py`), and counting itself (`metrics.py`).

Area, in words: [0] directory words in use · [1..7] reserved · directory · cells.
Entry: [0] payload bytes · [1] first cell of a series, -1 for a family · payload, msgpack, padded to whole words.
"""

from collections.abc import Iterator
from enum import Enum
from typing import Final

import msgspec

from gateway.segment import WORD, Section

HEAD_WORDS: Final = 8
DIRECTORY_WORDS: Final = 32 * 1024  # 256 KiB: 3,600 series of 72 bytes, names of 25 letters included
CELL_WORDS: Final = 16 * 1024  # 128 KiB: 3,600 series, of which 800 histograms
SCRATCH_CELLS: Final = 64  # the last cells of an area take what is written to series that found no room
AREA_WORDS: Final = HEAD_WORDS + DIRECTORY_WORDS + CELL_WORDS
METRICS: Final = Section("metrics", version=1, words_shared=AREA_WORDS, words_per_slot=AREA_WORDS)

_ENTRY_HEAD: Final = 2
_A_FAMILY: Final = -1


class Kind(Enum):
    """How the numbers of a family behave over time and over processes."""

    COUNTER = "counter"  # only grows; summed over every process there ever was
    GAUGE = "gauge"  # says how it is now; summed over the living
    HISTOGRAM = "histogram"  # a counter for each bound, and one for the sum


class Family(msgspec.Struct, frozen=True, array_like=True):
    """Metrics of one name: what they count and by which labels.

    `bounds_us` are a histogram's upper bounds, inclusive, rising, in microseconds; it is shown in seconds.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds_us: tuple[int, ...] = ()

    @property
    def cells(self) -> int:
        """Cells a series takes: one, or for a histogram one a bound, one above all bounds, one for the sum."""
        return len(self.bounds_us) + 2 if self.kind is Kind.HISTOGRAM else 1


class Series(msgspec.Struct, frozen=True):
    """One labelled series of a family and where its cells begin; `values` go with `family.labels`."""

    family: Family
    values: tuple[str, ...]
    cell: int


class _SeriesPayload(msgspec.Struct, frozen=True, array_like=True):
    family: int  # how many families were declared before it
    values: tuple[str, ...]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_family: Final = msgspec.msgpack.Decoder(Family).decode
_decode_series: Final = msgspec.msgpack.Decoder(_SeriesPayload).decode


class Area:
    """One slot's part of the section: `cells` to count in, and the directory that says what they are."""

    def __init__(self, words: memoryview) -> None:
        self._head = words[:HEAD_WORDS]
        self._directory = words[HEAD_WORDS : HEAD_WORDS + DIRECTORY_WORDS]
        self.cells = words[HEAD_WORDS + DIRECTORY_WORDS : AREA_WORDS]
        self._bytes = self._directory.cast("B")

    @property
    def used_words(self) -> int:
        """Directory words whose entries are complete."""
        return min(max(self._head[0], 0), DIRECTORY_WORDS)

    def read(self) -> tuple[list[Family], list[Series], int]:
        """Families and series in the order they were declared, and the directory words they take.

        Stops before the first entry that makes no sense: what stands before it still counts.
        """
        families: list[Family] = []
        series: list[Series] = []
        end = 0
        for payload, cell, entry_end in self._entries():
            try:
                if cell == _A_FAMILY:
                    families.append(_decode_family(payload))
                else:
                    series.append(_placed(families, _decode_series(payload), cell))
            except (msgspec.MsgspecError, IndexError):
                break
            end = entry_end
        return families, series, end

    def append_family(self, family: Family, at: int) -> int:
        """Declare a family at directory word `at`; returns the word after it, or -1 when there is no room."""
        return self._append(_encode(family), _A_FAMILY, at)

    def append_series(self, family: int, values: tuple[str, ...], cell: int, at: int) -> int:
        """Declare a series of the family with that ordinal; as `append_family`."""
        return self._append(_encode(_SeriesPayload(family, values)), cell, at)

    def _append(self, payload: bytes, cell: int, at: int) -> int:
        end = at + _entry_words(len(payload))
        if end > DIRECTORY_WORDS:
            return -1
        start = (at + _ENTRY_HEAD) * WORD
        self._bytes[start : start + len(payload)] = payload
        self._directory[at + 1] = cell
        self._directory[at] = len(payload)
        self._head[0] = end  # last: from here on the entry exists
        return end

    def _entries(self) -> Iterator[tuple[bytes, int, int]]:
        at, used = 0, self.used_words
        while at + _ENTRY_HEAD <= used:
            length = self._directory[at]
            if length <= 0 or at + _entry_words(length) > used:
                return
            start = (at + _ENTRY_HEAD) * WORD
            cell = self._directory[at + 1]
            at += _entry_words(length)
            yield self._bytes[start : start + length].tobytes(), cell, at


def _entry_words(payload_bytes: int) -> int:
    return _ENTRY_HEAD + (payload_bytes + WORD - 1) // WORD


def _placed(families: list[Family], payload: _SeriesPayload, cell: int) -> Series:
    """The series a payload declares; IndexError when its family or its cells cannot be."""
    family = families[payload.family]
    if not 0 <= cell <= CELL_WORDS - SCRATCH_CELLS - family.cells or len(payload.values) != len(family.labels):
        message = f"{family.name}: no such cells"
        raise IndexError(message)
    return Series(family, payload.values, cell)
