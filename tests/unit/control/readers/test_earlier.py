"""What earlier processes left: all of it, in the order of time, up to where a later one begins, and no garbage."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.readers import earlier as module
from gateway.control.readers.base import Cursor
from gateway.control.readers.earlier import beginnings, earlier, reserved, settled
from gateway.journal.line import body_of, content_of, line_of
from gateway.journal.read import START, Entry, Place, entries
from gateway.record import Kind, Record
from tests.fakes.limit_records import BUDGET, NOON_MS, decision, outcome
from tests.fakes.written_journal import WrittenJournal

FOREVER = 2**60
USD = ("budget|org=a", BUDGET)


def plain(number: int) -> Record:
    return Record(Kind.OUTCOME, f"x{number}", number)


@pytest.fixture
def journal(tmp_path: Path) -> WrittenJournal:
    made = WrittenJournal(tmp_path)
    made.chain("w0").segment(10, plain(11), plain(14))
    made.chain("w1").segment(10, plain(12), plain(13))
    return made


def told(journal: WrittenJournal, before_us: int = FOREVER, cursors: dict[str, Cursor] | None = None) -> list[str]:
    wanted = beginnings(journal.path, cursors or {}, 0)
    return [
        entry.error or entry.record.exchange_id
        for entry in earlier(journal.path, wanted, before_us)
        if entry.error or entry.record.exchange_id
    ]


def test_all_chains_come_in_the_order_of_time(journal: WrittenJournal) -> None:
    assert told(journal) == ["x11", "x12", "x13", "x14"]


def test_what_is_behind_the_cursors(journal: WrittenJournal) -> None:
    third = list(entries(journal.path, "w1"))[1]
    assert told(journal, cursors={"w1": Cursor(third.after, third.seq)}) == ["x11", "x13", "x14"]


def test_a_process_that_began_later_and_all_after_it_are_left_out(journal: WrittenJournal) -> None:
    chain = journal.chain("w0")
    chain.segment(20, plain(21))
    chain.segment(30, plain(31))
    assert told(journal, before_us=20) == ["x11", "x12", "x13", "x14"]
    assert told(journal, before_us=30) == ["x11", "x12", "x13", "x14", "x21"]


def test_a_process_that_goes_on_in_the_same_segment_is_left_out(journal: WrittenJournal) -> None:
    journal.chain("w0").add(plain(21), plain(22))
    assert told(journal, before_us=20) == ["x11", "x12", "x13", "x14"]
    assert told(journal, before_us=22) == ["x11", "x12", "x13", "x14", "x21"]


def test_a_tail_that_does_not_link_is_passed_over(journal: WrittenJournal) -> None:
    chain = journal.chain("w0")
    with chain.path.open("ab") as file:
        file.write(line_of(body_of(3, content_of(plain(99))), b"\1" * 32))
        file.write(line_of(body_of(4, content_of(plain(98))), b"\2" * 32))
    assert told(journal) == ["x11", "x12", "x13", "x14"]
    chain.segment(20, plain(21))
    assert "x21" in told(journal)


def test_a_line_that_is_not_complete_is_none(journal: WrittenJournal) -> None:
    with journal.chain("w0").path.open("ab") as file:
        file.write(b'{"seq":3,"kind":"outc')
    assert told(journal) == ["x11", "x12", "x13", "x14"]


def test_one_bad_line_is_told_and_costs_only_itself(journal: WrittenJournal) -> None:
    path = journal.chain("w0").path
    first, second, third = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"\0" * 40 + b"\n" + third)
    assert sorted(told(journal)) == ["it is no line of a chain", "x12", "x13", "x14"]
    path.write_bytes(first + b"\0" * 40 + b"\n" + first + second)
    assert sorted(told(journal)) == ["it is no line of a chain", "x12", "x13"]


def test_a_chain_that_was_never_read_begins_where_it_matters(journal: WrittenJournal) -> None:
    chain = journal.chain("w0")
    chain.segment(1_000, plain(1_001))
    chain.segment(2_000, plain(2_001))
    assert beginnings(journal.path, {}, 0)["w0"] == Cursor(Place(1, 0), -1)
    assert beginnings(journal.path, {}, 1_500)["w0"] == Cursor(Place(2, 0), 2)
    assert beginnings(journal.path, {}, 9_000)["w0"] == Cursor(Place(3, 0), 4)
    kept = Cursor(Place(1, 5), 0)
    assert beginnings(journal.path, {"w0": kept}, 9_000)["w0"] == kept


def test_a_chain_without_a_segment_begins_at_its_beginning(journal: WrittenJournal) -> None:
    (journal.path / "w9").mkdir()
    assert beginnings(journal.path, {}, 5)["w9"] == Cursor(START)
    assert told(journal, cursors={"w9": Cursor(Place(4, 10), 7)}) == ["x11", "x12", "x13", "x14"]


def test_a_file_that_is_made_ahead_is_no_beginning(journal: WrittenJournal) -> None:
    (journal.path / "w0" / "0000000002.jsonl").touch()
    assert beginnings(journal.path, {}, FOREVER)["w0"] == Cursor(Place(1, 0), -1)


def test_what_was_settled_since_and_before(tmp_path: Path) -> None:
    journal = WrittenJournal(tmp_path)
    chain = journal.chain("w0")
    chain.segment(NOON_MS * 1000, decision("a", NOON_MS + 1, {USD: 5}), outcome("a", NOON_MS + 2, {USD: 4}))
    chain.segment(NOON_MS * 1000 + 3_000, outcome("b", NOON_MS + 4, {USD: 4}), outcome("c", NOON_MS + 5, {USD: 4}))
    with chain.path.open("ab") as file:
        file.write(b"garbage\n")
    broken = outcome("d", NOON_MS + 6, {USD: -4})
    chain.add(broken)

    def found(since_ms: int, end: Place) -> list[str]:
        return [fact.hold for fact in settled(journal.path, {"w0": end}, since_ms * 1000)]

    assert found(NOON_MS, chain.end) == ["a", "b", "c"]
    assert found(NOON_MS + 4, chain.end) == ["b", "c"]
    assert found(NOON_MS + 5, chain.end) == ["c"]
    assert found(NOON_MS, list(entries(journal.path, "w0"))[4].after) == ["a", "b"]


def test_what_was_reserved_since_by_every_line_there_is(tmp_path: Path) -> None:
    journal = WrittenJournal(tmp_path)
    for name in ("w0", "w1"):
        lines = (decision(f"{name} {at}", NOON_MS + at, {USD: 5}) for at in (1, 2))
        journal.chain(name).segment(NOON_MS * 1000, *lines, outcome(f"{name} 1", NOON_MS + 3, {USD: 4}))
    with journal.chain("w1").path.open("ab") as file:
        file.write(b"a line that is not whole")
    assert [fact.hold for fact in reserved(journal.path, NOON_MS * 1000)] == ["w0 1", "w1 1", "w0 2", "w1 2"]
    assert [fact.hold for fact in reserved(journal.path, (NOON_MS + 2) * 1000)] == ["w0 2", "w1 2"]


def test_what_workers_settled_side_by_side_comes_in_the_order_of_time(tmp_path: Path) -> None:
    journal = WrittenJournal(tmp_path)
    for name, moments in (("w0", (1, 4)), ("w1", (2, 3))):
        lines = (outcome(f"{at}", NOON_MS + at, {USD: 5}) for at in moments)
        journal.chain(name).segment(NOON_MS * 1000, *lines)
    places = {name: journal.chain(name).end for name in ("w0", "w1")}
    assert [fact.hold for fact in settled(journal.path, places, NOON_MS * 1000)] == ["1", "2", "3", "4"]


@pytest.mark.parametrize("damage", [b"", b"garbage\n" * 5_000])
def test_what_is_long_ago_is_not_read_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    monkeypatch.setattr(module, "NEAR_BYTES", 2_000)
    journal, read = WrittenJournal(tmp_path), list[Place]()
    chain = journal.chain("w0")
    chain.segment(NOON_MS * 1000, *(outcome(f"{at}", NOON_MS + at * 100, {USD: 5}) for at in range(150)))
    with chain.path.open("ab") as file:
        file.write(damage)
    chain.add(*(outcome(f"{at}", NOON_MS + at * 100, {USD: 5}) for at in range(150, 300)))
    size = chain.path.stat().st_size

    def noted(journal: Path, chain: str, start: Place, end: Place | None) -> Iterator[Entry]:
        read.append(start)
        return entries(journal, chain, start, end)

    monkeypatch.setattr(module, "entries", noted)
    for since in range(0, 301, 7):
        found = settled(journal.path, {"w0": Place(chain.end.segment, size)}, (NOON_MS + since * 100) * 1000)
        assert [fact.hold for fact in found] == [str(at) for at in range(since, 300)]
    assert read == sorted(read)
    assert read[0].offset == 0
    assert damage or read[-1].offset > size * 0.9
