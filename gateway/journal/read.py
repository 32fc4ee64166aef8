"""Reading a chain in order: lines from a place onward, as entries with an id that never changes.

Reads files only and holds none open between calls, so a reader can stop for a week and go on. Nothing is checked
against the chain here (`verify.py` does that); a line that cannot be understood comes as an entry with an `error`,
because one bad line must not end everything that is read after it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal import layout
from gateway.journal.line import MAX_LINE_BYTES, Malformed, parse, record_of, seq_of
from gateway.record import Kind, Record

_CHUNK_BYTES: Final = 1024 * 1024
_NOTHING: Final = Record(Kind.CHECKPOINT, "", 0)


class Place(NamedTuple):
    """Where the next line of a chain begins; Place(0, 0) is before everything."""

    segment: int
    offset: int


START: Final = Place(0, 0)


class Entry(NamedTuple):
    """One line, and where it stands. `after` is the place of the next one."""

    chain: str
    segment: int
    seq: int  # -1 when it cannot be told
    raw: bytes
    record: Record
    after: Place
    error: str = ""

    def id(self, node: str) -> str:
        """The record's id in the whole fleet: node/chain/segment/seq."""
        return f"{node}/{self.chain}/{self.segment}/{self.seq}"


def entries(journal: Path, chain: str, start: Place = START, end: Place | None = None) -> Iterator[Entry]:
    """The whole lines from `start` on, and before `end` where one is given. Raises OSError.

    A last line that is not complete is left for later. A segment that was dropped is passed over.
    """
    for segment in layout.segments(journal, chain):
        if segment < start.segment or (end is not None and segment > end.segment):
            continue
        offset = start.offset if segment == start.segment else 0
        stop = end.offset if end is not None and segment == end.segment else -1
        for raw, after in _lines(layout.segment_path(journal, chain, segment), offset, stop):
            yield _entry(chain, segment, raw, Place(segment, after))


def _entry(chain: str, segment: int, raw: bytes, after: Place) -> Entry:
    seq = -1
    try:
        body = parse(raw).body
        seq = seq_of(body)
        return Entry(chain, segment, seq, raw, record_of(body), after)
    except Malformed as error:
        return Entry(chain, segment, seq, raw, _NOTHING, after, str(error))


def _lines(path: Path, offset: int, stop: int) -> Iterator[tuple[bytes, int]]:
    """Lines with the offset after each. A longer one than there can be is given out in pieces, as bad lines."""
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while stop < 0 or offset + len(rest) < stop:
            wanted = _CHUNK_BYTES if stop < 0 else min(_CHUNK_BYTES, stop - offset - len(rest))
            chunk = file.read(wanted)
            if not chunk:
                return
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                offset += len(line) + 1
                yield line + b"\n", offset
            if len(rest) > MAX_LINE_BYTES:
                offset += len(rest)
                yield rest, offset
                rest = b""
