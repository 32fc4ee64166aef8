"""What lies in a journal is counted as it lies there; what cannot be told is told in the way that keeps more."""

import os
from pathlib import Path

import pytest

from gateway.control import inventory
from gateway.control.holds import FOREVER_US
from gateway.journal import layout
from gateway.journal.line import MAX_LINE_BYTES
from gateway.record import Kind, Record
from tests.fakes.written_journal import WrittenJournal

HOUR_US = 3_600_000_000


@pytest.fixture
def journal(tmp_path: Path) -> WrittenJournal:
    return WrittenJournal(tmp_path)


def at(*times: int, size: int = 0) -> list[Record]:
    return [Record(Kind.OUTCOME, "x", time, detail="y" * size) for time in times]


def test_everything_is_counted_once(journal: WrittenJournal) -> None:
    for name, count in (("w0", 2), ("w10", 1), ("w2", 1), ("control", 1)):
        for _ in range(count):
            journal.chain(name).segment(1, *at(2, 3))
    directory = journal.path / "w0"
    for name, size in (("torn-1-40", 5), ("torn-1-40.1", 7), ("torn-9-0", 11), ("torn-1-9.new", 90), ("torn.draft", 9)):
        (directory / name).write_bytes(b"x" * size)
    (directory / "lock").touch()
    (journal.path / "manifests").mkdir()
    (journal.path / "manifests" / "0000000001.jsonl").write_bytes(b"m" * 13)

    stock = inventory.take(journal.path)
    assert list(stock.chains) == ["w0", "w2", "w10", "control"]
    first, second = stock.chains["w0"]
    assert (first.name, second.name) == ("w0/1", "w0/2")
    assert first.bytes == first.path.stat().st_size
    assert (first.torn_bytes, second.torn_bytes) == (12, 0)
    assert sorted(path.name for path in first.torn) == ["torn-1-40", "torn-1-40.1"]
    assert first.all_bytes == first.bytes + 12
    lines = sum(path.stat().st_size for path in journal.path.glob("*/*.jsonl"))
    assert stock.bytes == lines + 12
    assert stock.manifest_bytes == 13
    assert inventory.torn_files(journal.path, "w0")[9] == [directory / "torn-9-0"]


def test_a_new_journal_is_empty(journal: WrittenJournal) -> None:
    assert inventory.take(journal.path) == inventory.Stock({}, 0)


def test_what_is_dropped_meanwhile_counts_for_nothing(journal: WrittenJournal) -> None:
    path = journal.chain("w0").segment(1)
    path.unlink()
    path.symlink_to("nowhere")  # listed, and gone when it is looked at
    assert inventory.take(journal.path).bytes == 0


# --- first lines ----------------------------------------------------------------------------------------------------


def test_a_segment_begins_with_its_first_line(journal: WrittenJournal) -> None:
    journal.chain("w0").segment(1, *at(2))
    journal.chain("w0").segment(7, *at(8))
    first = inventory.first_line(journal.path, "w0", 2)
    assert first is not None
    assert (first.seq, first.record.at_us, first.record.segment) == (2, 7, 2)


@pytest.mark.parametrize("content", [b"", b"rubbish\n", b"half a line"])
def test_one_that_begins_otherwise_tells_nothing(journal: WrittenJournal, content: bytes) -> None:
    journal.chain("w0").segment(1).write_bytes(content)
    journal.chain("w0").segment(2)
    assert inventory.first_line(journal.path, "w0", 1) is None
    assert inventory.first_line(journal.path, "w0", 3) is None


def test_any_other_line_in_front_is_no_first_line(journal: WrittenJournal) -> None:
    path = journal.chain("w0").segment(1, *at(2))
    path.write_bytes(journal.chain("w0").lines[1])
    assert inventory.first_line(journal.path, "w0", 1) is None


def test_one_that_is_dropped_at_that_moment_tells_nothing(journal: WrittenJournal) -> None:
    path = journal.chain("w0").segment(1)
    path.unlink()
    path.symlink_to("nowhere")
    assert inventory.first_line(journal.path, "w0", 1) is None


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 300_000, MAX_LINE_BYTES - 500])
def test_the_last_record_tells_when_a_segment_ended(journal: WrittenJournal, size: int) -> None:
    path = journal.chain("w0").segment(1, *at(2, 9), *at(5, size=size))
    assert inventory.last_us(path) == 5


@pytest.mark.parametrize("end", [b"half a line", b"rubbish\n", None])
def test_else_the_file_does(journal: WrittenJournal, end: bytes | None) -> None:
    path = journal.chain("w0").segment(1, *at(2))
    with path.open("r+b") as file:
        file.truncate(0 if end is None else None)
        file.seek(0, os.SEEK_END)
        file.write(end or b"")
    os.utime(path, ns=(0, HOUR_US * 1000))
    assert inventory.last_us(path) == HOUR_US


def test_a_span_is_of_all_records(journal: WrittenJournal) -> None:
    path = journal.chain("w0").segment(50, *at(60, 20, 90, 70))
    assert inventory.span(path) == (20, 90)


DEEP = b'{"seq":1,"x":' + b"[" * 50_000 + b',"hash":"' + b"a" * 64 + b'"}\n'


@pytest.mark.parametrize("end", [b"half a line", b"rubbish\n", DEEP])
def test_a_line_that_cannot_be_read_may_be_of_any_time(journal: WrittenJournal, end: bytes) -> None:
    path = journal.chain("w0").segment(50, *at(60))
    with path.open("ab") as file:
        file.write(end)
    assert inventory.span(path) == (0, FOREVER_US)


def test_the_layout_is_the_journals_own(journal: WrittenJournal) -> None:
    journal.chain("w0").segment(1)
    assert inventory.take(journal.path).chains["w0"][0].path == layout.segment_path(journal.path, "w0", 1)
