"""Where the check of a chain begins: at its genesis, at a floor that was signed, or at an anchor.

Invariants: a beginning is believed only if hashes lead from it to something signed, or it is the genesis, which nobody
chooses. So older segments than the floor (retention was cut short) may begin where their own first line says, because
they must then arrive at the floor's head; and a chain without its beginning is read from where it begins, under a
finding that says what is missing.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from gateway.journal import layout
from gateway.journal.findings import Fault, Finding
from gateway.journal.line import HASH_BYTES, MAX_LINE_BYTES, TAIL_BYTES, Malformed, genesis, parse, record_of, seq_of
from gateway.journal.manifest import ChainEnd, Floor
from gateway.journal.manifestscan import Signed
from gateway.journal.scan import Start
from gateway.record import Record

_NO_SEGMENT: Final = 0


class Waypoint(NamedTuple):
    """Where a chain must come by: the signed head before line `seq`."""

    seq: int
    head: bytes


class Beginning(NamedTuple):
    """Where to begin, and what was seen on the way to it. `hopeless`: there is nothing to read from there."""

    start: Start
    findings: tuple[Finding, ...] = ()
    note: str = ""
    waypoint: Waypoint | None = None
    hopeless: bool = False


def find_beginning(
    journal: Path, node: str, chain: str, sizes: Mapping[int, int], newest: Signed | None, anchor: Signed | None
) -> Beginning:
    """Where to begin with a chain whose segments have these sizes. Raises OSError."""
    floors = newest.manifest.floors if newest is not None else ()
    floor = next((floor for floor in floors if floor.chain == chain), None)
    end = anchor.manifest.end_of(chain) if anchor is not None else None
    if end is not None and (floor is None or floor.seq <= end.seq or end.segment in sizes):
        return _at_anchor(journal, end, sizes)
    oldest = min(sizes, default=_NO_SEGMENT)
    first = _first_of(journal, node, chain, oldest)
    if floor is None:
        return _at_genesis(chain, first)
    return _at_floor(floor, first, sizes)


def header_of(journal: Path, chain: str, segment: int) -> tuple[int, Record] | None:
    """Number and record of a segment's first line; None when it is not to be understood. Raises OSError."""
    with layout.segment_path(journal, chain, segment).open("rb") as file:
        line = file.readline(MAX_LINE_BYTES)
    try:
        body = parse(line).body
        return seq_of(body), record_of(body)
    except Malformed:
        return None


def _first_of(journal: Path, node: str, chain: str, oldest: int) -> Start:
    """The oldest line there is, by its own words; where it has none that help, the genesis, which it must then fit."""
    begin = Start(max(1, oldest), 0, 0, genesis(node, chain))
    header = header_of(journal, chain, oldest) if oldest else None
    if header is None or not header[0]:
        return begin
    try:
        head = bytes.fromhex(header[1].prev)
    except ValueError:
        return begin
    return Start(oldest, 0, header[0], head) if len(head) == HASH_BYTES else begin


def _at_genesis(chain: str, first: Start) -> Beginning:
    if not first.seq:
        return Beginning(first)
    return Beginning(first, (_missing(chain, first, 0),))


def _at_floor(floor: Floor, first: Start, sizes: Mapping[int, int]) -> Beginning:
    here = Start(floor.segment, 0, floor.seq, bytes.fromhex(floor.head))
    if not sizes or first.segment == floor.segment:
        return Beginning(here)
    if first.segment < floor.segment:
        note = (
            f"{floor.chain}: segments before {floor.segment}, the oldest kept, are still there; they were checked too"
        )
        return Beginning(first, note=note, waypoint=Waypoint(floor.seq, here.head))
    if first.seq == floor.seq:
        return Beginning(here._replace(segment=first.segment))
    return Beginning(first, (_missing(floor.chain, first, floor.seq),))


def _missing(chain: str, first: Start, expected: int) -> Finding:
    message = f"the chain begins with line {first.seq:,}; it should begin with line {expected:,}"
    return Finding(fault=Fault.FLOOR, message=message, chain=chain, segment=first.segment, seq=expected)


def _at_anchor(journal: Path, end: ChainEnd, sizes: Mapping[int, int]) -> Beginning:
    """Behind the last line that the anchor covers, if that line is there."""
    start = Start(end.segment, end.offset, end.seq + 1, bytes.fromhex(end.head))
    if sizes.get(end.segment, 0) < end.offset:
        fault, message = Fault.CUT, "the anchored manifest signed this line, and the chain ends before it"
    else:
        with layout.segment_path(journal, end.chain, end.segment).open("rb") as file:
            file.seek(max(0, end.offset - TAIL_BYTES))
            tail = file.read(TAIL_BYTES)
        if tail == b',"hash":"%b"}\n' % end.head.encode():
            return Beginning(start)
        fault, message = Fault.REWRITTEN, "the anchored manifest signed another line than the one that is here"
    finding = Finding(fault=fault, message=message, chain=end.chain, segment=end.segment, seq=end.seq)
    return Beginning(start, (finding,), hopeless=True)
