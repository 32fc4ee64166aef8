"""What is asked for is found, and nothing else, wherever blocks and segments end."""

import re
from pathlib import Path

import msgspec
import pytest

from gateway.journal import layout, search
from gateway.journal.line import MAX_LINE_BYTES
from gateway.journal.read import START, Entry, Place, entries
from gateway.journal.search import Query, end_of, start_for
from gateway.record import Record
from gateway.units import US_PER_S
from tests.fakes.a_journal import START_US, AJournal

EVERYTHING = Query()


@pytest.fixture
def made(tmp_path: Path) -> AJournal:
    """Three segments, an hour apart."""
    made = AJournal(tmp_path / "state")
    made.write("w0", 2, model="gpt-a", target="one/gpt-1", decision="allow", key_id="demo", team="search")
    made.wait(3600)
    made.roll("w0")
    made.write("w0", 2, decision="refuse", error="rate_limited", key_id="other", org='a "quoted" ä')
    made.wait(3600)
    made.roll("w0")
    made.write("w0", 1, model="gpt-b", decision="allow", key_id="demo", exchange_id="wanted")
    return made


def found(made: AJournal, query: Query = EVERYTHING, start: Place = START, end: Place | None = None) -> list[int]:
    return [entry.seq for entry in search.search(made.journal, "w0", query, start, end)]


def test_nothing_asked_for_is_everything(made: AJournal) -> None:
    every = list(search.search(made.journal, "w0", Query()))
    assert every == list(entries(made.journal, "w0"))
    assert [entry.seq for entry in every] == list(range(8))


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        (Query(exchange="wanted"), [7]),
        (Query(exchange="want"), []),
        (Query(key="demo"), [1, 2, 7]),
        (Query(team="search"), [1, 2]),
        (Query(org='a "quoted" ä'), [4, 5]),
        (Query(org="acme", key="demo"), [1, 2, 7]),
        (Query(model="gpt-a"), [1, 2]),
        (Query(model="one/gpt-1"), [1, 2]),
        (Query(model="gpt-1"), [1, 2]),
        (Query(model="one"), []),
        (Query(decision="refuse"), [4, 5]),
        (Query(error="rate_limited"), [4, 5]),
        (Query(kind="checkpoint"), [0, 3, 6]),
        (Query(kind="outcome", decision="allow"), [1, 2, 7]),
        (Query(since_us=START_US + 3600 * US_PER_S), [3, 4, 5, 6, 7]),
        (Query(until_us=START_US + 3600 * US_PER_S), [0, 1, 2]),
        (Query(since_us=START_US + 2000, until_us=START_US + 3000), [1]),
        (Query(pattern=re.compile(rb"x-w0-[14]")), [1, 4]),
        (Query(pattern=re.compile(rb"x-w0-[14]"), decision="refuse"), [4]),
        (Query(also=lambda record: record.model == "gpt-b"), [7]),
    ],
)
def test_what_is_asked_for(made: AJournal, query: Query, seqs: list[int]) -> None:
    assert found(made, query) == seqs


@pytest.mark.parametrize("size", [1, 7, 64, 200, 300])
def test_any_block_size_finds_the_same(made: AJournal, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BLOCK_BYTES", size)
    assert found(made) == list(range(8))
    assert found(made, Query(exchange="wanted")) == [7]
    assert found(made, Query(key="demo")) == [1, 2, 7]


def test_from_every_place_to_every_other(made: AJournal) -> None:
    places = [START, *(entry.after for entry in entries(made.journal, "w0"))]
    demo = Query(key="demo")
    for first in range(len(places)):
        for last in range(first, len(places)):
            assert found(made, EVERYTHING, places[first], places[last]) == list(range(first, last))
            assert found(made, demo, places[first], places[last]) == [n for n in (1, 2, 7) if first <= n < last]


def test_the_rarest_is_looked_for_first() -> None:
    assert Query(org="o", key="k", exchange="x").needle == b'"exchange_id":"x"'
    assert Query(org='a "b"', decision="allow").needle == b'"org":"a \\"b\\""'
    assert Query(model="m", since_us=1).needle == b""


@pytest.mark.parametrize(
    ("query", "is_told"),
    [
        (EVERYTHING, True),
        (Query(since_us=START_US), True),
        (Query(until_us=START_US * 2), True),
        (Query(pattern=re.compile(b"rubbish")), True),
        (Query(pattern=re.compile(b"rubble")), False),
        (Query(error="rate_limited"), False),
        (Query(model="gpt-a"), False),
        (Query(also=lambda _: True), False),
    ],
)
def test_a_damaged_line_answers_where_nothing_is_asked_that_it_would_have_to_say(
    made: AJournal, query: Query, *, is_told: bool
) -> None:
    path = made.path("w0", 2)
    path.write_bytes(path.read_bytes() + b'rubbish with "error":"rate_limited"\n')
    damaged = [entry for entry in search.search(made.journal, "w0", query) if entry.error]
    assert [entry.raw for entry in damaged] == [b'rubbish with "error":"rate_limited"\n'] * is_told


def test_a_line_that_is_not_whole_waits(made: AJournal) -> None:
    path = made.path("w0", 3)
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert found(made) == list(range(7))
    assert end_of(made.journal, "w0") == list(entries(made.journal, "w0"))[-1].after


def test_a_line_without_end_is_told_in_pieces_and_hides_none_behind_it(made: AJournal) -> None:
    path, following = made.path("w0", 3), made.path("w0", 2).read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(path.read_bytes() + b"x" * (4 * MAX_LINE_BYTES) + b"\n" + following)
    said = found(made)
    assert (said[:8], set(said[8:-1]), said[-1]) == (list(range(8)), {-1}, 4)
    assert found(made, Query(key="other")) == [4, 5, 4]


def test_where_a_time_begins(made: AJournal) -> None:
    hour_us = 3600 * US_PER_S
    assert start_for(made.journal, "w0", 0) == START
    assert start_for(made.journal, "w0", START_US - 1) == START
    assert start_for(made.journal, "w0", START_US + hour_us // 2) == Place(1, 0)
    assert start_for(made.journal, "w0", START_US + hour_us + US_PER_S) == Place(2, 0)
    assert start_for(made.journal, "w0", START_US + 9 * hour_us) == Place(3, 0)


def test_a_segment_that_says_no_time_is_passed_over(made: AJournal) -> None:
    made.path("w0", 3).write_bytes(b"rubbish\n")
    made.path("w0", 4).touch()
    assert start_for(made.journal, "w0", START_US * 2) == Place(2, 0)


def test_where_a_chain_ends(made: AJournal) -> None:
    at = made.chain("w0")
    assert end_of(made.journal, "w0") == Place(3, at.offset)
    made.path("w0", 4).touch()
    assert end_of(made.journal, "w0") == Place(3, at.offset)
    assert end_of(made.journal, "w9") == START
    for segment in layout.segments(made.journal, "w0"):
        made.path("w0", segment).write_bytes(b"no line")
    assert end_of(made.journal, "w0") == START


def test_an_entry_is_what_a_reader_gets(made: AJournal) -> None:
    (entry,) = search.search(made.journal, "w0", Query(exchange="wanted"))
    assert isinstance(entry, Entry)
    assert entry.id(made.node) == f"{made.node}/w0/3/7"
    assert msgspec.json.decode(entry.raw, type=Record) == entry.record
