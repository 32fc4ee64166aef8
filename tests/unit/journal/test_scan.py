"""A walk along one chain: what is right is passed quickly, what is wrong is named, and the walk ends there."""

from io import FileIO
from pathlib import Path

import pytest
from msgspec import structs

from gateway.journal import layout, scan
from gateway.journal.findings import Fault, Finding
from gateway.journal.line import (
    MAX_LINE_BYTES,
    body_of,
    content_of,
    genesis,
    leaf_of,
    line_of,
    link,
    parse,
    record_of,
)
from gateway.journal.merkle import Tree, root_of
from gateway.journal.scan import ChainScan, Start, rest_of_line
from gateway.record import Kind, Record
from tests.fakes.a_journal import NODE, AJournal

GENESIS = Start(1, 0, 0, genesis(NODE, "w0"))


class Seen:
    """Remembers what a walk told."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.repairs: list[tuple[str, int, int]] = []
        self.bytes = 0

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def repaired(self, chain: str, segment: int, seq: int, record: Record) -> None:
        assert record.action == "repaired"
        self.repairs.append((chain, segment, seq))

    def progress(self, count: int) -> None:
        self.bytes += count


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Three segments with a header and three lines each."""
    made = AJournal(tmp_path / "state")
    for _ in range(3):
        made.roll("w0")
        made.write("w0", 3)
    return made


def never(_seconds: float) -> None:
    """Wait for no writer: there is none."""


def scan_of(made: AJournal, seen: Seen, start: Start = GENESIS) -> ChainScan:
    sizes = {number: made.path("w0", number).stat().st_size for number in layout.segments(made.journal, "w0")}
    return ChainScan(made.journal, NODE, "w0", start, {n: size for n, size in sizes.items() if size}, seen, never)


def walked(made: AJournal, start: Start = GENESIS) -> Seen:
    """A whole walk; every line before a finding was passed."""
    seen = Seen()
    walk = scan_of(made, seen, start)
    walk.advance(1_000_000)
    assert walk.broken == bool(seen.findings)
    walk.close()
    return seen


def only(made: AJournal) -> tuple[Fault, int, int, int]:
    (finding,) = walked(made).findings
    return finding.fault, finding.segment, finding.seq, finding.offset


def change(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


# --- walking --------------------------------------------------------------------------------------------------------


def test_a_whole_chain(made: AJournal) -> None:
    seen = Seen()
    walk = scan_of(made, seen)
    walk.advance(100)
    assert (seen.findings, walk.seq, walk.segment) == ([], 12, 3)
    assert walk.head == made.chain("w0").head
    assert walk.offset == made.chain("w0").offset
    assert walk.size_bytes == seen.bytes == sum(made.path("w0", n).stat().st_size for n in (1, 2, 3))
    assert walk.last == lines_of(made.path("w0", 3))[-1][:-1]
    walk.advance(200)  # nothing more comes of asking again
    assert (walk.seq, walk.broken) == (12, False)
    walk.close()


@pytest.mark.parametrize("step", [1, 2, 5, 12])
def test_in_steps_it_stands_where_it_was_told(made: AJournal, step: int) -> None:
    lines = [line for n in (1, 2, 3) for line in lines_of(made.path("w0", n))]
    walk, leaves = scan_of(made, Seen()), [leaf_of(parse(line).body) for line in lines]
    for until in range(step, 13, step):
        tree = Tree()
        walk.advance(until, tree)
        assert (walk.seq, walk.head) == (until, parse(lines[until - 1]).hash)
        assert (tree.size, tree.root()) == (step, root_of(leaves[until - step : until]))
        segment = (until + 3) // 4
        assert (walk.segment, walk.offset) == (segment, sum(map(len, lines[4 * segment - 4 : until])))
    walk.close()


def test_from_the_middle_what_is_before_is_not_read(made: AJournal) -> None:
    lines = lines_of(made.path("w0", 2))
    made.path("w0", 1).unlink()
    start = Start(2, len(lines[0]), 5, parse(lines[0]).hash)
    assert walked(made, start).bytes == sum(map(len, lines[1:])) + made.path("w0", 3).stat().st_size


def test_from_behind_everything(made: AJournal) -> None:
    at = made.chain("w0")
    assert walked(made, Start(3, at.offset, at.seq, at.head)).bytes == 0
    assert walked(made, Start(4, 0, at.seq, at.head)).bytes == 0


def test_a_repair_is_told(made: AJournal) -> None:
    made.repair("w0", b"torn")
    made.write("w0")
    assert walked(made).repairs == [("w0", 3, 12)]


def test_many_checkpoints_in_one_chunk(made: AJournal) -> None:
    for _ in range(500):
        made.repair("w0", b"torn")
    assert len(walked(made).repairs) == 500


# --- lines that are wrong -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (b"x-w0-6", b"x-w0-7", Fault.LINK),
        (b'{"seq":6,', b'{"seq":7,', Fault.NUMBER),
        (b'{"seq":6,', b'{"seq":06,', Fault.LINE),
        (b'{"seq":6,"kind"', b'{"seq":6,"Kind"', Fault.LINE),
        (b'{"seq":6,"kind":"outcome"', b'{"seq":6,"kind":"checkpoin"', Fault.LINE),
        (b'{"seq":6,"kind":"outcome"', b'{"seq":6,"kind":"checkpoint"', Fault.LINK),
        (b'{"seq":6,', b'\n{"seq":6,', Fault.LINE),
        (b'{"seq":6,', b' {"seq":6,', Fault.LINE),
    ],
)
def test_a_line_that_was_changed(made: AJournal, old: bytes, new: bytes, fault: Fault) -> None:
    path = made.path("w0", 2)
    before = sum(map(len, lines_of(path)[:2]))
    change(path, old, new)
    assert only(made) == (fault, 2, 6, before)


def test_the_hash_of_a_line_was_changed(made: AJournal) -> None:
    path = made.path("w0", 2)
    lines = lines_of(path)
    path.write_bytes(b"".join([*lines[:3], lines[3][:-68] + b"\xff" + lines[3][-67:]]))
    assert only(made)[:3] == (Fault.LINE, 2, 7)


def test_a_line_longer_than_there_can_be(made: AJournal) -> None:
    path = made.path("w0", 3)
    path.write_bytes(path.read_bytes() + b"x" * (MAX_LINE_BYTES + scan.CHUNK_BYTES))
    assert only(made)[:3] == (Fault.LINE, 3, 12)


def test_a_segment_that_ends_within_a_line(made: AJournal) -> None:
    path = made.path("w0", 2)
    path.write_bytes(path.read_bytes()[:-1])
    fault, segment, seq, _ = only(made)
    assert (fault, segment, seq) == (Fault.LINE, 2, 7)


def test_a_chain_that_ends_within_a_line(made: AJournal) -> None:
    path = made.path("w0", 3)
    path.write_bytes(path.read_bytes() + b'{"seq":12')
    assert only(made)[:3] == (Fault.INCOMPLETE, 3, 12)


# --- headers --------------------------------------------------------------------------------------------------------


def put(made: AJournal, segment: int, record: Record) -> None:
    """A first line of a segment, rightly linked; the others go."""
    seq, head = made.chain("w0").ends[segment]
    body = body_of(seq, content_of(record))
    made.path("w0", segment).write_bytes(line_of(body, link(head, leaf_of(body))))


def header(made: AJournal, **fields: object) -> Record:
    record = record_of(parse(lines_of(made.path("w0", 3))[0]).body)
    return structs.replace(record, **fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"node": "0" * 32}, {"chain": "w1"}, {"segment": 4}, {"action": "repaired"}, {"kind": Kind.ADMIN},
        {"detail": "{}"}, {"detail": "x"}, {"detail": "[]"}, {"detail": '{"format":2}'}, {"prev": "0" * 64},
    ],
)  # fmt: skip
def test_a_header_that_is_none(made: AJournal, fields: dict[str, object]) -> None:
    put(made, 3, header(made, **fields))
    assert only(made) == (Fault.HEADER, 3, 8, 0)


def test_a_segment_without_a_header(made: AJournal) -> None:
    path = made.path("w0", 3)
    path.write_bytes(b"".join(lines_of(path)[1:]))
    assert only(made) == (Fault.HEADER, 3, 8, 0)


def test_a_header_in_the_middle(made: AJournal) -> None:
    made.add("w0", header(made, prev=made.chain("w0").head.hex()))
    assert only(made)[:3] == (Fault.HEADER, 3, 12)


def test_a_repair_of_another_place(made: AJournal) -> None:
    made.add("w0", Record(Kind.CHECKPOINT, "", 0, action="repaired", prev="0" * 64))
    assert only(made)[:3] == (Fault.REPAIR, 3, 12)


# --- segments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gone", "words"), [([2], "segment 2 before it is"), ([2, 3], "segments 2–3 before it are")])
def test_segments_that_are_missing(made: AJournal, gone: list[int], words: str) -> None:
    made.roll("w0")
    for segment in gone:
        made.path("w0", segment).unlink()
    (finding,) = walked(made).findings
    assert (finding.fault, finding.segment, finding.seq) == (Fault.SEGMENT, gone[-1] + 1, 4)
    assert words in finding.message


def test_numbers_may_jump_where_no_line_is_missing(made: AJournal) -> None:
    """A recovery goes on behind all segments that had been signed."""
    made.chain("w0").segment = 7
    made.roll("w0")
    assert walked(made).findings == []


# --- a line that is being written -----------------------------------------------------------------------------------


def test_the_rest_of_a_line_comes_while_one_waits(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"abc")
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)
        with path.open("ab") as file:
            file.write(b"de" if len(waited) < 3 else b"f\ng")

    with FileIO(path) as file:
        file.seek(3)
        assert rest_of_line(file, pause) == b"dedef\n"
    assert len(waited) == 3


def test_the_rest_of_a_line_that_does_not_come(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"abc")
    waited: list[float] = []
    with FileIO(path) as file:
        assert rest_of_line(file, waited.append) == b"abc"
    assert 0.3 < sum(waited) < 2
