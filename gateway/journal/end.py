"""Where a chain ends: the last line up to which everything chains.

Models what a kill or a power cut can leave behind. A kill tears at most the last line. A power cut loses any bytes
that were not synced, and those are in the last two segments with lines at most (`syncer.py` sees to that). So lines are
checked from the newest place that control has signed, where that is known and still there, and else from the beginning
of the last segment but one.

Invariants: nothing is changed here; nothing that was synced is ever taken for bad. Left out: what to do about the rest
(`recover.py`), and older segments, which `verify.py` judges.
"""

from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal import layout
from gateway.journal.chain import Origin
from gateway.journal.line import (
    MAX_LINE_BYTES,
    TAIL_BYTES,
    Malformed,
    genesis,
    leaf_of,
    link,
    parse,
    record_of,
    seq_of,
)
from gateway.journal.read import Place
from gateway.record import Record

_READ_BYTES: Final = 1024 * 1024


class ForeignChain(Exception):
    """These segments were written by another node or for another chain; the message says which."""


class Signed(NamedTuple):
    """The newest place of a chain that control has signed as synced."""

    place: Place  # where the line after it begins
    seq: int  # of the last line covered
    head: bytes  # of the chain after that line


class End(NamedTuple):
    """How far a chain is good: the place after a line (segment 0: before everything), the next number, the head."""

    segment: int
    offset: int
    seq: int
    head: bytes


class Header(NamedTuple):
    """The first line of a segment; `prev` is the head that it continues from."""

    seq: int
    prev: bytes
    record: Record
    length: int  # bytes, newline included


def size_of(journal: Path, chain: str, segment: int) -> int:
    """Bytes of a segment; 0 for one that is not there."""
    try:
        return layout.segment_path(journal, chain, segment).stat().st_size
    except FileNotFoundError:
        return 0


def with_lines(journal: Path, chain: str) -> list[int]:
    """The segments that hold anything, in order."""
    return [segment for segment in layout.segments(journal, chain) if size_of(journal, chain, segment)]


def find_end(journal: Path, origin: Origin, signed: Signed | None) -> tuple[Place, End]:
    """From where on the chain was checked, and how far it is good. Raises OSError, ForeignChain."""
    start = end = _signed_start(journal, origin, signed) or _start_before_the_last(journal, origin)
    for segment in with_lines(journal, origin.chain):
        if segment < end.segment:
            continue
        offset = end.offset if segment == end.segment else 0
        reached = _walk(layout.segment_path(journal, origin.chain, segment), End(segment, offset, end.seq, end.head))
        if not reached.offset:
            break
        end = reached
        if end.offset < size_of(journal, origin.chain, segment):
            break
    return Place(start.segment, start.offset), end


def header_of(journal: Path, origin: Origin, segment: int) -> Header | None:
    """The first line of a segment, if it is whole; what is before it is not looked at. Raises OSError, ForeignChain."""
    with layout.segment_path(journal, origin.chain, segment).open("rb") as file:
        raw = file.readline(MAX_LINE_BYTES)
    try:
        body, said = parse(raw)
        record = record_of(body)
        header = Header(seq_of(body), bytes.fromhex(record.prev), record, len(raw))
    except ValueError:
        return None
    if link(header.prev, leaf_of(body)) != said or record.action != "segment" or record.segment != segment:
        return None
    if (header.record.node, header.record.chain) != (origin.node, origin.chain):
        raise ForeignChain(
            f"{journal / origin.chain} holds chain {header.record.chain} of node {header.record.node}, this is "
            f"{origin.chain} of node {origin.node}: give this node a state_dir of its own, or move that journal away"
        )
    return header


def _signed_start(journal: Path, origin: Origin, signed: Signed | None) -> End | None:
    """The signed place, if the line that it covers last is there."""
    if signed is None:
        return None
    segment, offset = signed.place.segment, signed.place.offset
    if not TAIL_BYTES < offset <= size_of(journal, origin.chain, segment):
        return None
    with layout.segment_path(journal, origin.chain, segment).open("rb") as file:
        file.seek(offset - TAIL_BYTES)
        tail = file.read(TAIL_BYTES)
    if tail != b',"hash":"%b"}\n' % signed.head.hex().encode():
        return None
    return End(segment, offset, signed.seq + 1, signed.head)


def _start_before_the_last(journal: Path, origin: Origin) -> End:
    """The beginning of the last segment but one, or of an earlier one when that has lost its first line."""
    segments = with_lines(journal, origin.chain)
    for segment in reversed(segments[:-1] or segments):
        header = header_of(journal, origin, segment)
        if header is not None:
            return End(segment, 0, header.seq, header.prev)
    return End(0, 0, 0, genesis(origin.node, origin.chain))


def _walk(path: Path, at: End) -> End:
    """Follow the chain through one segment, as far as it holds."""
    segment, offset, seq, head = at
    with path.open("rb", buffering=_READ_BYTES) as file:
        file.seek(offset)
        while True:
            raw = file.readline(MAX_LINE_BYTES)
            try:
                body, said = parse(raw)
                number = seq_of(body)
            except Malformed:
                break
            after = link(head, leaf_of(body))
            if after != said or number != seq:
                break
            offset, seq, head = offset + len(raw), seq + 1, after
    return End(segment, offset, seq, head)
