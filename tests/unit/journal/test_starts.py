"""A check begins where something signed, or the genesis, says; anything else is said to be missing."""

from pathlib import Path

import pytest

from gateway.journal import layout
from gateway.journal.findings import Fault
from gateway.journal.line import genesis
from gateway.journal.manifest import parse
from gateway.journal.manifestscan import ManifestScan, Signed
from gateway.journal.scan import Start
from gateway.journal.starts import Beginning, Waypoint, find_beginning, header_of
from tests.fakes.a_journal import NODE, AJournal


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Three segments of three lines each, signed one by one."""
    made = AJournal(tmp_path / "state")
    for _ in range(3):
        made.roll("w0")
        made.write("w0", 2)
        made.sign()
    return made


def beginning(made: AJournal, anchor: int = -1) -> Beginning:
    sizes = {number: made.path("w0", number).stat().st_size for number in layout.segments(made.journal, "w0")}
    line = made.manifests[anchor]
    at = Signed(parse(line), line) if anchor >= 0 else None
    return find_beginning(made.journal, NODE, "w0", sizes, ManifestScan(made.journal).newest, at)


def start_of(made: AJournal, segment: int) -> Start:
    seq, head = made.chain("w0").ends[segment]
    return Start(segment, 0, seq, head)


GENESIS = Start(1, 0, 0, genesis(NODE, "w0"))


def test_at_the_genesis(made: AJournal) -> None:
    assert beginning(made) == Beginning(GENESIS)


def test_a_chain_without_segments_begins_there_too(made: AJournal) -> None:
    assert find_beginning(made.journal, NODE, "w9", {}, None, None).start == Start(1, 0, 0, genesis(NODE, "w9"))


def test_an_oldest_segment_that_is_not_the_first(made: AJournal) -> None:
    made.path("w0", 1).unlink()
    begin = beginning(made)
    assert begin.start == start_of(made, 2)
    assert [(finding.fault, finding.segment, finding.seq) for finding in begin.findings] == [(Fault.FLOOR, 2, 0)]


@pytest.mark.parametrize("content", [b"", b"rubbish\n", b'{"seq":3}\n'])
def test_an_oldest_segment_that_says_nothing_must_fit_the_genesis(made: AJournal, content: bytes) -> None:
    made.path("w0", 1).unlink()
    made.path("w0", 2).write_bytes(content)
    assert beginning(made).start == GENESIS._replace(segment=2)


@pytest.mark.parametrize("prev", [b"zz" * 32, b"00" * 8])
def test_a_head_that_is_none_is_not_believed(made: AJournal, prev: bytes) -> None:
    made.path("w0", 1).unlink()
    path = made.path("w0", 2)
    content = path.read_bytes()
    at = content.index(b'"prev":"') + 8
    path.write_bytes(content[:at] + prev + content[at + 64 :])
    assert beginning(made).start == GENESIS._replace(segment=2)


def test_at_a_floor(made: AJournal) -> None:
    made.drop("w0", 2)
    assert beginning(made) == Beginning(start_of(made, 2))


def test_below_a_floor_by_way_of_it(made: AJournal) -> None:
    made.raise_floor("w0", 3)
    made.path("w0", 1).unlink()
    begin = beginning(made)
    assert begin.start == start_of(made, 2)
    assert begin.waypoint == Waypoint(start_of(made, 3).seq, start_of(made, 3).head)
    assert "before 3" in begin.note


def test_above_a_floor_something_is_missing(made: AJournal) -> None:
    made.drop("w0", 2)
    made.path("w0", 2).unlink()
    begin = beginning(made)
    assert begin.start == start_of(made, 3)
    assert [(finding.fault, finding.seq) for finding in begin.findings] == [(Fault.FLOOR, 3)]


def test_a_floor_segment_without_lines_is_no_gap(made: AJournal) -> None:
    made.roll("w0")
    made.drop("w0", 4)
    made.path("w0", 4).rename(made.path("w0", 5))
    assert beginning(made) == Beginning(start_of(made, 4)._replace(segment=5))


def test_a_floor_with_nothing_above_it(made: AJournal) -> None:
    made.roll("w0")
    made.drop("w0", 4)
    made.path("w0", 4).unlink()
    assert beginning(made) == Beginning(start_of(made, 4))


def test_behind_what_an_anchor_covers(made: AJournal) -> None:
    end = parse(made.manifests[1]).chains[0]
    assert beginning(made, 1) == Beginning(Start(2, end.offset, end.seq + 1, bytes.fromhex(end.head)))


def test_a_chain_that_the_anchor_does_not_know(made: AJournal) -> None:
    made.write("w1")
    made.sign()
    line = made.manifests[0]
    newest = ManifestScan(made.journal).newest
    begin = find_beginning(made.journal, NODE, "w1", {1: 700}, newest, Signed(parse(line), line))
    assert begin.start.seq == 0


def test_an_anchor_below_the_floor(made: AJournal) -> None:
    made.drop("w0", 3)
    assert beginning(made, 0) == Beginning(start_of(made, 3))


@pytest.mark.parametrize(("keep", "fault"), [(slice(0, -1), Fault.CUT), (slice(1, None), Fault.CUT)])
def test_an_anchor_whose_line_is_not_there(made: AJournal, keep: slice, fault: Fault) -> None:
    path = made.path("w0", 3)
    path.write_bytes(path.read_bytes()[keep])
    begin = beginning(made, 2)
    assert begin.hopeless
    assert [(finding.fault, finding.seq) for finding in begin.findings] == [(fault, 8)]


def test_an_anchor_whose_line_is_another(made: AJournal) -> None:
    path = made.path("w0", 3)
    path.write_bytes(b"x" * path.stat().st_size)
    assert [finding.fault for finding in beginning(made, 2).findings] == [Fault.REWRITTEN]


def test_a_header(made: AJournal) -> None:
    header = header_of(made.journal, "w0", 2)
    assert header is not None
    assert (header[0], header[1].segment, header[1].action) == (3, 2, "segment")
