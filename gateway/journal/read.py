"""Reading a chain in order: lines from a place onward, as entries with an id that never changes.

Reads files only and holds none open between calls, so a reader can stop for a week and go on. Nothing is checked
against the chain here (`verify.py` does that); a line that cannot be understood comes as an entry with an `error`,
because one bad line must not end everything that is read after it.

Lines come in pieces: what was read of a file at once is decoded at once, a fifth of what it costs line by line. Where
any line of a piece is not as it must be, its lines are taken one by one, and each says what is wrong with it.
"""

import re
from collections.abc import Iterator
from itertools import chain as chained
from pathlib import Path
from typing import Final

import msgspec

from gateway.journal import layout
from gateway.journal.line import (
    HASH_BYTES,
    MAX_LINE_BYTES,
    MAX_SEQ_DIGITS,
    TAIL_BYTES,
    Malformed,
    parse,
    record_of,
    seq_of,
)
from gateway.record import Kind, Record

_CHUNK_BYTES: Final = 64 * 1024  # some 80 lines: with their records they stay in a core's own cache
_NOTHING: Final = Record(Kind.CHECKPOINT, "", 0)
_HEAD: Final = re.compile(rb'\{"seq":(0|[1-9][0-9]{0,%d}),' % (MAX_SEQ_DIGITS - 1))
_TAIL: Final = re.compile(rb',"hash":"[0-9a-f]{%d}"\}' % (2 * HASH_BYTES))
_records_of: Final = msgspec.json.Decoder(Record).decode_lines


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where the next line of a chain begins; Place(0, 0) is before everything."""

    segment: int
    offset: int


START: Final = Place(0, 0)


class Entry(msgspec.Struct, frozen=True, gc=False):
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
    return chained.from_iterable(pieces(journal, chain, start, end))


def pieces(journal: Path, chain: str, start: Place = START, end: Place | None = None) -> Iterator[list[Entry]]:
    """The same, as many lines at once as are read at once: at least one."""
    for segment in layout.segments(journal, chain):
        if segment < start.segment or (end is not None and segment > end.segment):
            continue
        offset = start.offset if segment == start.segment else 0
        stop = end.offset if end is not None and segment == end.segment else -1
        for data, at in _whole_lines(layout.segment_path(journal, chain, segment), offset, stop):
            yield _entries(chain, segment, data, at)


def _entries(chain: str, segment: int, data: bytes, offset: int) -> list[Entry]:
    """The lines of these bytes, which begin at `offset`."""
    *lines, rest = data.split(b"\n")
    if rest:  # part of a line that is longer than there can be
        return [_entry(chain, segment, data, Place(segment, offset + len(data)))]
    return _all_at_once(chain, segment, data, lines, offset) or _one_by_one(chain, segment, lines, offset)


def _all_at_once(chain: str, segment: int, data: bytes, lines: list[bytes], offset: int) -> list[Entry]:
    """As `_one_by_one`, where every line is as it must be; else nothing."""
    try:
        records = _records_of(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    if len(records) != len(lines):  # JSON may go on over the end of a line, or begin anew within one
        return []
    found = []
    for line, record in zip(lines, records, strict=True):
        head = _HEAD.match(line)
        if head is None or _TAIL.fullmatch(line, len(line) + 1 - TAIL_BYTES) is None:
            return []
        offset += len(line) + 1
        found.append(Entry(chain, segment, int(head[1]), line + b"\n", record, Place(segment, offset)))
    return found


def _one_by_one(chain: str, segment: int, lines: list[bytes], offset: int) -> list[Entry]:
    found = []
    for line in lines:
        offset += len(line) + 1
        found.append(_entry(chain, segment, line + b"\n", Place(segment, offset)))
    return found


def _entry(chain: str, segment: int, raw: bytes, after: Place) -> Entry:
    seq = -1
    try:
        body = parse(raw).body
        seq = seq_of(body)
        return Entry(chain, segment, seq, raw, record_of(body), after)
    except Malformed as error:
        return Entry(chain, segment, seq, raw, _NOTHING, after, str(error))


def _whole_lines(path: Path, offset: int, stop: int) -> Iterator[tuple[bytes, int]]:
    """Whole lines, some at once, with the offset of the first.

    A longer one than there can be is given out in pieces, as bad lines.
    """
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while stop < 0 or offset + len(rest) < stop:
            wanted = _CHUNK_BYTES if stop < 0 else min(_CHUNK_BYTES, stop - offset - len(rest))
            chunk = file.read(wanted)
            if not chunk:
                return
            data = rest + chunk
            length = data.rfind(b"\n") + 1
            whole, rest = data[:length], data[length:]
            if whole:
                yield whole, offset
                offset += len(whole)
            if len(rest) > MAX_LINE_BYTES:
                yield rest, offset
                offset += len(rest)
                rest = b""
