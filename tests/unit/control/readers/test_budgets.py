"""The reader of budgets: rows and cursors move together, in memory, in the file, and over a crash between them."""

import errno
import logging
import time
from pathlib import Path

import pytest

from gateway.control.readers import budgets as module
from gateway.control.readers.base import Batch, Cursor, Moved, Poison, Reader, Trouble
from gateway.control.readers.budgets import BudgetReader
from gateway.control.readers.runner import Runner, Source
from gateway.journal.read import START, Place, entries
from gateway.limiter.changes import CheckpointFiles
from gateway.limiter.checkpoint import Told
from gateway.limiter.replay import FORGOTTEN
from gateway.record import Kind, Record
from tests.fakes.limit_records import BUDGET, DAY_MS, MINUTE, NOON_MS, decision, outcome
from tests.fakes.written_journal import WrittenJournal

USD = ("budget|org=a", BUDGET)
TPM = ("tpm|key=k", MINUTE)
NOON_US = NOON_MS * 1000


class Clock:
    def __init__(self) -> None:
        self.now_us = NOON_US

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path) -> WrittenJournal:
    made = WrittenJournal(tmp_path)
    made.chain("w0").segment(NOON_US, decision("h", NOON_MS, {USD: 500}), outcome("h", NOON_MS, {USD: 120}))
    made.chain("w1").segment(NOON_US, decision("g", NOON_MS, {USD: 30, TPM: 4}))
    return made


def reader_of(journal: WrittenJournal, clock: Clock) -> BudgetReader:
    return BudgetReader(journal.state_dir, journal.path, journal.node, clock)


def runner_of(journal: WrittenJournal, reader: Reader) -> Runner:
    return Runner(reader, Source(journal.path, journal.node, journal.signed, journal.heads), journal.state_dir)


def used(reader: BudgetReader) -> dict[str, tuple[int, int, int]]:
    return {found.bucket: (found.used, found.live, found.estimated) for found in reader.standing().used}


def test_it_follows_what_is_signed(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    runner.step()
    assert runner.failing == ""
    assert used(reader) == {USD[0]: (150, 30, 0), TPM[0]: (4, 4, 0)}
    assert reader.standing().places == runner.places() == journal.signed()


def test_what_was_saved_goes_on_where_it_was(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    runner_of(journal, reader).step()
    reader.adopt("e1", 77)
    reader.tell(USD[0], Told(BUDGET.start_ms, 70))
    reader.save()
    assert reader.saved_places == journal.signed()
    journal.chain("w1").add(outcome("g", NOON_MS, {USD: 1}))
    again = reader_of(journal, clock)
    runner_of(journal, again).step()
    assert used(again)[USD[0]] == (121, 0, 0)
    assert (again.epoch, again.seen_us, again.told) == ("e1", 77, {USD[0]: Told(BUDGET.start_ms, 70)})
    assert again.saved_us == NOON_US
    assert again.saved_places != journal.signed()


def test_what_is_forgotten_is_neither_standing_nor_settled_again_nor_told(
    journal: WrittenJournal, clock: Clock
) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    runner.step()
    reader.tell(USD[0], Told(BUDGET.start_ms, 70))
    reader.await_due(NOON_US + 9_000)
    reader.forget(["budget"], NOON_US + 5_000)
    journal.chain("w1").add(outcome("late", NOON_MS + 5, {USD: 7, TPM: 1}))
    runner.step()
    assert ([key.bucket for key in reader.take_stirred()], reader.take_stirred()) == ([USD[0]], set())
    assert {key.bucket for key in reader.buckets()} == {TPM[0]}
    assert (list(used(reader)), reader.told) == ([TPM[0]], {})
    settled = [fact.amounts for fact in reader.settled(reader.standing().places, NOON_US)]
    assert [[amount.bucket for amount in amounts] for amounts in settled] == [[], [TPM[0]]]
    assert [[amount.bucket for amount in fact.amounts] for fact in reader.take_due()] == [[TPM[0]]]
    reader.save()
    again = reader_of(journal, clock)
    again.load()
    assert used(again) == used(reader)


def test_a_threshold_is_told_no_longer_than_its_limit_is_there_however_late_it_is_forgotten(
    journal: WrittenJournal, clock: Clock
) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    runner.step()
    reader.tell(USD[0], Told(BUDGET.start_ms, 70))
    reader.tell(TPM[0], Told(BUDGET.start_ms, 50))
    at_us = NOON_US + 5_000
    journal.chain("w1").add(Record(Kind.ADMIN, "", at_us, action=FORGOTTEN, subject="budget"))
    runner.step()
    reader.save()  # what the line says is kept before the reader is told itself
    reader.forget(["budget"], at_us)
    reader.save()
    again = reader_of(journal, clock)
    again.load()
    assert again.told == reader.told == {TPM[0]: Told(BUDGET.start_ms, 50)}
    first = reader.path.stat().st_ino
    reader.forget(["budget"], at_us)
    reader.save()
    assert reader.path.stat().st_ino == first  # nothing of it was told: a line more will do


def test_a_crash_between_two_checkpoints_counts_nothing_twice(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    runner.step()
    reader.save()
    journal.chain("w0").add(outcome("o", NOON_MS, {USD: 1_000}))
    runner.step()
    assert used(reader)[USD[0]][0] == 1_150
    again = reader_of(journal, clock)
    assert again.cursors(["w0"]) != reader.cursors(["w0"])
    runner_of(journal, again).step()
    assert used(again) == used(reader)


def test_a_file_is_written_only_for_something_new(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    reader.save()
    assert not reader.path.exists()
    runner_of(journal, reader).step()
    reader.save()
    first = reader.path.stat().st_ino
    reader.save()
    reader.adopt("", 5)
    reader.save()
    assert reader.path.stat().st_ino == first


def test_the_last_time_all_of_it_is_in_one_file(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    runner_of(journal, reader).step()
    reader.save()
    reader.tell(USD[0], Told(BUDGET.start_ms, 70))
    reader.save()
    changes = reader.path.with_name("changes")
    assert b'"told":{"budget|org=a":' in changes.read_bytes()
    first = reader.path.stat().st_ino
    reader.save(last=True)
    changes.unlink()
    assert reader.path.stat().st_ino != first
    again = reader_of(journal, clock)
    again.load()
    assert (used(again), again.told) == (used(reader), reader.told)
    first = reader.path.stat().st_ino
    reader.save(last=True)
    assert reader.path.stat().st_ino == first


def test_changes_that_are_damaged_are_said_and_counted_from_the_journal(
    journal: WrittenJournal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    for number in range(4):
        journal.chain("w0").add(outcome(f"o{number}", NOON_MS, {USD: 1}))
        runner.step()
        reader.save()
    changes = reader.path.with_name("changes")
    first, second, third = changes.read_bytes().splitlines(keepends=True)
    changes.write_bytes(first + second.upper() + third)
    again = reader_of(journal, clock)
    with caplog.at_level(logging.ERROR, "gateway.readers"):
        runner_of(journal, again).step()
    assert "2 lines of" in caplog.text
    assert used(again) == used(reader)


def test_a_disk_that_is_full_costs_a_second_try(
    journal: WrittenJournal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_of(journal, clock)
    runner_of(journal, reader).step()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "write", refuse)
        with pytest.raises(Trouble, match=r"checkpoint\.json cannot be written: No space left"):
            reader.save()
    assert (reader.saved_us, reader.saved_places) == (0, {})
    reader.save()
    assert reader.saved_places == journal.signed()


def test_a_file_that_cannot_be_read_is_waited_for(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    reader.path.mkdir(parents=True)
    with pytest.raises(Trouble, match="cannot be read: Is a directory"):
        reader.load()
    runner = runner_of(journal, reader)
    runner.step()
    assert "cannot be read" in runner.failing
    reader.path.rmdir()
    runner.step()
    assert used(reader)[USD[0]][0] == 150


def test_a_damaged_file_is_said_and_counted_anew(
    journal: WrittenJournal, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    reader = reader_of(journal, clock)
    runner_of(journal, reader).step()
    reader.save()
    reader.path.write_bytes(reader.path.read_bytes().replace(b"120", b"121").replace(b"150", b"151"))
    again = reader_of(journal, clock)
    with caplog.at_level(logging.ERROR, "gateway.readers"):
        again.rebuild(NOON_US + 1)
    assert "counts for nothing" in caplog.text
    assert used(again)[USD[0]] == (150, 0, 30)


# --- one batch ------------------------------------------------------------------------------------------------------


def batch_of(journal: WrittenJournal, start: Place = START) -> Batch:
    found = list(entries(journal.path, "w0", start))
    return Batch("w0", found, Cursor(start), Cursor(found[-1].after, found[-1].seq))


def test_a_batch_that_was_taken_is_not_taken_again(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    reader.cursors(["w0"])
    reader.apply(batch_of(journal))
    with pytest.raises(Moved):
        reader.apply(batch_of(journal))
    assert used(reader)[USD[0]] == (120, 0, 0)


def test_a_batch_is_taken_in_parts_of_which_each_moves_the_cursor(
    journal: WrittenJournal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 2)
    journal.chain("w0").add(*(outcome(f"o{number}", NOON_MS, {USD: 1}) for number in range(4)))
    reader, seen = reader_of(journal, clock), list[tuple[int, int]]()
    batch = batch_of(journal)._replace(after=Cursor(journal.chain("w0").end, 6, 1))
    reader.cursors(["w0"])

    def breathe(_s: float) -> None:
        cursor = reader.cursors(["w0"])["w0"]
        assert cursor == Cursor(batch.entries[cursor.seq].after, cursor.seq)
        seen.append((cursor.seq, used(reader)[USD[0]][0]))

    monkeypatch.setattr(time, "sleep", breathe)
    reader.apply(batch)
    assert seen == [(1, 500), (3, 121), (5, 123)]
    assert (reader.cursors(["w0"])["w0"], used(reader)[USD[0]][0]) == (batch.after, 124)


def test_a_cursor_that_moves_between_two_parts_stands_where_it_was_moved_to(
    journal: WrittenJournal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    reader = reader_of(journal, clock)
    reader.cursors(["w0"])
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda _s: reader.rebuild(NOON_US + 1))
        with pytest.raises(Moved):
            reader.apply(batch_of(journal))
    assert reader.cursors(["w0"])["w0"].place == journal.chain("w0").end
    assert used(reader)[USD[0]] == (150, 0, 30)


def test_a_line_that_cannot_be_right_changes_nothing_and_is_named(journal: WrittenJournal, clock: Clock) -> None:
    journal.chain("w0").add(Record(Kind.OUTCOME, "x", NOON_US, hold_id="h", settled_amounts={"odd": 1}))
    reader = reader_of(journal, clock)
    with pytest.raises(Poison) as poison:
        reader.apply(batch_of(journal))
    assert poison.value.entry is not None
    assert poison.value.entry.seq == 3
    assert used(reader) == {}
    runner = runner_of(journal, reader)
    runner.step()
    assert (runner.poisoned, used(reader)[USD[0]][0]) == (1, 150)


# --- giving back ----------------------------------------------------------------------------------------------------


def test_a_rebuild_reads_beyond_what_is_signed_and_nobody_of_before_lives(
    journal: WrittenJournal, clock: Clock
) -> None:
    reader = reader_of(journal, clock)
    reader.rebuild(NOON_US + 1)
    assert used(reader) == {USD[0]: (150, 0, 30), TPM[0]: (4, 0, 4)}
    assert reader.rebuilt == 5
    assert reader.cursors(["w0"])["w0"] == Cursor(journal.chain("w0").end, 2)


def test_a_rebuild_leaves_what_processes_of_now_write(journal: WrittenJournal, clock: Clock) -> None:
    journal.chain("w0").segment(NOON_US + 5, outcome("n", NOON_MS + 1, {USD: 7}))
    reader = reader_of(journal, clock)
    reader.rebuild(NOON_US + 5)
    assert used(reader)[USD[0]] == (150, 0, 30)
    runner_of(journal, reader).step()
    assert used(reader)[USD[0]] == (157, 0, 30)


def test_a_rebuild_that_fails_begins_again(
    journal: WrittenJournal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = reader_of(journal, clock)

    def until_it_breaks(*_: object) -> object:
        yield from list(entries(journal.path, "w0"))
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(module, "earlier", until_it_breaks)
        with pytest.raises(OSError, match="Input/output"):
            reader.rebuild(NOON_US + 1)
    reader.rebuild(NOON_US + 1)
    assert used(reader)[USD[0]] == (150, 0, 30)


def test_a_rebuild_sets_aside_what_it_cannot_take(journal: WrittenJournal, clock: Clock) -> None:
    chain = journal.chain("w0")
    chain.add(Record(Kind.OUTCOME, "x", NOON_US, hold_id="h", settled_amounts={"odd": 1}))
    with chain.path.open("ab") as file:
        file.write(b"garbage\n")
    reader = reader_of(journal, clock)
    reader.rebuild(NOON_US + 1)
    assert used(reader)[USD[0]] == (150, 0, 30)
    assert len((journal.state_dir / "poison" / "budgets.jsonl").read_text().splitlines()) == 2


def test_lines_that_nobody_asks_for_are_not_counted(tmp_path: Path, clock: Clock) -> None:
    journal = WrittenJournal(tmp_path)
    long_ago = NOON_US - 90 * DAY_MS * 1000
    journal.chain("w0").segment(long_ago, *[Record(Kind.OUTCOME, "x", long_ago) for _ in range(50)])
    journal.chain("w0").segment(NOON_US - 40 * DAY_MS * 1000, outcome("h", NOON_MS, {USD: 5}))
    reader = reader_of(journal, clock)
    reader.rebuild(NOON_US + 1)
    assert (reader.rebuilt, used(reader)) == (2, {USD[0]: (5, 0, 0)})


def test_what_is_settled_late_is_handed_out(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    runner.step()
    assert reader.take_due() == []
    reader.await_due(NOON_US + 5_000)
    journal.chain("w1").add(outcome("g", NOON_MS + 5, {USD: 1}), outcome("i", NOON_MS + 6, {USD: 1}))
    runner.step()
    (due,) = reader.take_due()
    assert (due.hold, reader.take_due()) == ("g", [])
    reader.give_back_due([due])
    assert reader.take_due() == [due]
    found = reader.settled(reader.standing().places, NOON_US + 1)
    assert [fact.hold for fact in found] == ["g", "i"]


def test_what_is_over_is_forgotten(journal: WrittenJournal, clock: Clock) -> None:
    reader = reader_of(journal, clock)
    runner = runner_of(journal, reader)
    runner.step()
    reader.tell(USD[0], Told(BUDGET.start_ms, 70))
    clock.now_us += 40 * DAY_MS * 1000
    reader.save()
    assert (reader.told, used(reader)) == ({}, {})
    assert b"budget|org=a" not in reader.path.read_bytes().split(b'"holds"')[0]
