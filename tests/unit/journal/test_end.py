"""Where a chain ends, for chains cut and changed at any place."""

from pathlib import Path

import pytest

from gateway.journal.chain import Origin
from gateway.journal.end import End, ForeignChain, Signed, find_end
from gateway.journal.line import genesis, parse
from gateway.journal.read import Place
from gateway.record import Kind, Record
from tests.fakes.written_journal import NODE, WrittenChain, WrittenJournal

ORIGIN = Origin(NODE, "eu", "w0")


@pytest.fixture
def chain(tmp_path: Path) -> WrittenChain:
    """Three segments, of 3 lines each."""
    chain = WrittenJournal(tmp_path).chain("w0")
    for _ in range(3):
        chain.segment(1, Record(Kind.OUTCOME, "a", 1), Record(Kind.OUTCOME, "b", 2))
    return chain


def path(chain: WrittenChain, segment: int) -> Path:
    return chain.path.with_name(f"{segment:010d}.jsonl")


def end(chain: WrittenChain, signed: Signed | None = None) -> End:
    return find_end(chain.path.parent.parent, ORIGIN, signed)[1]


def after(chain: WrittenChain, line: int) -> Signed:
    """Signed up to this line."""
    before = sum(map(len, chain.lines[line // 3 * 3 : line + 1]))
    return Signed(Place(line // 3 + 1, before), line, parse(chain.lines[line]).hash)


def test_a_whole_chain_ends_at_its_end(chain: WrittenChain) -> None:
    whole = End(3, chain.path.stat().st_size, 9, chain.head)
    assert end(chain) == whole
    for line in range(9):
        assert end(chain, after(chain, line)) == whole
    path(chain, 4).touch()  # made ahead of need
    assert end(chain) == whole


def test_it_is_checked_from_the_signed_place_or_the_last_segment_but_one(chain: WrittenChain) -> None:
    journal = chain.path.parent.parent
    assert find_end(journal, ORIGIN, None)[0] == Place(2, 0)
    assert find_end(journal, ORIGIN, after(chain, 7))[0] == after(chain, 7).place
    assert find_end(journal, ORIGIN, after(chain, 1))[0] == after(chain, 1).place


def test_no_chain_ends_before_everything(tmp_path: Path) -> None:
    (tmp_path / "w0").mkdir()
    assert find_end(tmp_path, ORIGIN, None) == (Place(0, 0), End(0, 0, 0, genesis(NODE, "w0")))


@pytest.mark.parametrize("signed", [False, True])
def test_cut_at_any_byte_of_the_last_segment_it_ends_with_the_last_whole_line(
    chain: WrittenChain, signed: bool
) -> None:
    data = path(chain, 3).read_bytes()
    for size in reversed(range(len(data))):
        path(chain, 3).write_bytes(data[:size])
        whole = data[:size].count(b"\n")
        found = end(chain, after(chain, 4) if signed else None)
        assert (found.segment, found.seq) == ((3, 6 + whole) if whole else (2, 6))
        assert found.head == parse(chain.lines[5 + whole]).hash


def test_any_changed_byte_of_the_last_two_segments_ends_the_chain_before_its_line(chain: WrittenChain) -> None:
    for segment in (2, 3):
        data = path(chain, segment).read_bytes()
        for at in range(0, len(data), 7):
            path(chain, segment).write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            line = 3 * (segment - 1) + data[:at].count(b"\n")
            assert end(chain).seq == line
        path(chain, segment).write_bytes(data)


def test_what_is_older_than_the_signed_place_is_not_read_again(chain: WrittenChain) -> None:
    path(chain, 2).write_bytes(b"x" * path(chain, 2).stat().st_size)
    assert end(chain, after(chain, 6)).seq == 9


@pytest.mark.parametrize("signed", [Place(3, 10), Place(3, 1 << 30), Place(7, 100), Place(0, 0)])
def test_a_signed_place_that_is_not_there_is_not_believed(chain: WrittenChain, signed: Place) -> None:
    assert end(chain, Signed(signed, 20, bytes(32))).seq == 9


def test_a_segment_without_its_first_line_is_checked_from_an_earlier_one(chain: WrittenChain) -> None:
    data = path(chain, 2).read_bytes()
    path(chain, 2).write_bytes(bytes(10) + data[10:])
    found = end(chain)
    assert (found.segment, found.seq) == (1, 3)
    path(chain, 1).write_bytes(bytes(10))
    assert end(chain) == End(0, 0, 0, genesis(NODE, "w0"))


def test_a_chain_of_another_node_is_never_touched(chain: WrittenChain) -> None:
    with pytest.raises(ForeignChain, match=f"chain w0 of node {NODE}, this is w0 of node {'b' * 32}: give"):
        find_end(chain.path.parent.parent, Origin("b" * 32, "eu", "w0"), None)
