"""Reading back: the lines that processes of an earlier life left behind, and what was used since some time.

When the memory that limits are counted in began anew, what came before is in the journal alone. A line is *earlier* if
it was written before that memory began: a process goes on in the segment of the one before it, so the lines of the
living stand behind those of the dead, and their times tell them apart. Every earlier line is read, signed or not,
because nobody is left to write more; what a power cut left behind the good part of a chain (`journal/end.py` cuts it
when the chain is opened) does not link, and is passed over. All chains come together, in the order of time.

Invariants: lines of one chain come in order. Left out: checking a chain against what was signed (`journal/verify.py`).
"""

import heapq
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from gateway.control.readers.base import Cursor
from gateway.journal import layout
from gateway.journal.line import MAX_LINE_BYTES, Malformed, leaf_of, link, parse, record_of
from gateway.journal.read import START, Entry, Place, entries
from gateway.journal.starts import header_of
from gateway.limiter.replay import Fact, What, fact_of
from gateway.units import US_PER_S

NEAR_BYTES: Final = 65_536
UNORDERED_US: Final = US_PER_S  # by which a line may be older than the one before it


def earlier(journal: Path, cursors: Mapping[str, Cursor], before_us: int) -> Iterator[Entry]:
    """The lines behind these cursors that were written before `before_us`, by processes of which none lives.

    Raises OSError. A line that cannot be understood has an `error`.
    """
    chains = [_earlier(journal, chain, cursors[chain].place, before_us) for chain in cursors]
    return heapq.merge(*chains, key=_time)


def settled(journal: Path, places: Mapping[str, Place], since_us: int) -> Iterator[Fact]:
    """What was settled since then, by the lines before these places. Raises OSError."""
    chains = [_told(journal, chain, What.SETTLED, since_us, end) for chain, end in places.items()]
    return heapq.merge(*chains, key=_at_ms)


def reserved(journal: Path, since_us: int) -> Iterator[Fact]:
    """What was reserved since then, by all lines there are, signed or not. Raises OSError."""
    chains = [_told(journal, chain, What.RESERVED, since_us) for chain in layout.chains(journal)]
    return heapq.merge(*chains, key=_at_ms)


def _told(journal: Path, chain: str, what: What, since_us: int, end: Place | None = None) -> Iterator[Fact]:
    for entry in entries(journal, chain, _shortly_before(journal, chain, since_us), end):
        with suppress(ValueError):  # a reader has set it aside
            fact = None if entry.error else fact_of(entry.record)
            if fact is not None and fact.what is what and entry.record.at_us >= since_us:
                yield fact


def beginnings(journal: Path, cursors: Mapping[str, Cursor], since_us: int) -> dict[str, Cursor]:
    """The cursors of all chains there are; one that was never read begins with the segment that holds `since_us`.

    Raises OSError.
    """
    found = dict(cursors)
    for chain in layout.chains(journal):
        if found.get(chain, Cursor()).place == START:
            found[chain] = _first(journal, chain, since_us)
    return found


def _first(journal: Path, chain: str, since_us: int) -> Cursor:
    cursor = Cursor()
    for segment in reversed(layout.segments(journal, chain)):
        header = header_of(journal, chain, segment)
        if header is not None:
            cursor = Cursor(Place(segment, 0), header[0] - 1)
            if header[1].at_us <= since_us:
                break
    return cursor


def _shortly_before(journal: Path, chain: str, since_us: int) -> Place:
    """A place with every line of since then behind it; found by halves, since a segment may hold a day.

    A clock that was set back by more than UNORDERED_US since hides lines from it.
    """
    segment = _first(journal, chain, since_us).place.segment
    path = layout.segment_path(journal, chain, segment)
    low, high = 0, 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        high = file.seek(0, os.SEEK_END)
        while high - low > NEAR_BYTES:
            middle = (low + high) // 2
            file.seek(middle)
            begin = middle + len(file.readline(MAX_LINE_BYTES))
            if _written_us(file.readline(MAX_LINE_BYTES)) < since_us - UNORDERED_US:
                low = begin
            else:
                high = middle
    return Place(segment, low)


def _written_us(raw: bytes) -> int:
    """When a line was written; later than all others for what is none."""
    try:
        return record_of(parse(raw).body).at_us
    except Malformed:
        return sys.maxsize


def _at_ms(fact: Fact) -> int:
    return fact.at_ms


def _time(entry: Entry) -> int:
    return entry.record.at_us


def _earlier(journal: Path, chain: str, start: Place, before_us: int) -> Iterator[Entry]:
    segment, seq, head, broken = -1, -1, b"", False
    for entry in entries(journal, chain, start):
        if entry.segment != segment:
            segment, seq, head, broken = entry.segment, -1, b"", False
        if entry.error:
            head = b""  # one bad line is left out, and those behind it are known by their numbers
            yield entry
            continue
        line = parse(entry.raw)
        broken |= line.hash != link(head, leaf_of(line.body)) if head else entry.seq <= seq
        seq, head = entry.seq, line.hash
        if not broken:
            if entry.record.at_us >= before_us:
                return
            yield entry
