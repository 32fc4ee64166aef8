"""A runner gives its reader every signed line once, in order, whatever fails in between; only poison is passed over."""

import asyncio
import itertools
import json
import logging
import math
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.control.pace import PAUSE_S, Pace
from gateway.control.readers import runner as module
from gateway.control.readers.base import Batch, Cursor, Moved, Poison, Trouble
from gateway.control.readers.runner import PIECE_BY_PIECE, Limits, Readers, Runner
from gateway.journal import layout, read
from gateway.journal.line import MAX_LINE_BYTES
from gateway.journal.read import Entry, Place
from tests.fakes.signed_journal import SignedJournal, outcome

QUICK = Limits(records=10, poll_s=0.01, first_wait_s=0.01, longest_wait_s=0.04)


class Memory:
    """A reader that remembers what it took, effect and cursor in one, and does as `first` says before."""

    name = "memory"

    def __init__(self) -> None:
        self.at: dict[str, Cursor] = {}
        self.taken: list[tuple[str, str]] = []
        self.asked = 0
        self.batches: list[Batch] = []
        self.first: Callable[[Batch], None] = lambda _batch: None
        self.down = False

    def cursors(self, chains: Sequence[str]) -> dict[str, Cursor]:
        if self.down:
            raise Trouble("down")
        self.asked += 1
        return {chain: self.at.get(chain, Cursor()) for chain in chains}

    def apply(self, batch: Batch) -> None:
        if self.down:
            raise Trouble("down")
        self.batches.append(batch)
        assert batch.before == self.at.get(batch.chain, Cursor())
        self.first(batch)
        self.taken += [(batch.chain, entry.record.exchange_id) for entry in batch.entries]
        self.at[batch.chain] = batch.after

    def ids(self, chain: str = "w0") -> list[str]:
        return [exchange for at, exchange in self.taken if at == chain]


@pytest.fixture
def signed(tmp_path: Path) -> SignedJournal:
    return SignedJournal(tmp_path)


def runner_of(signed: SignedJournal, reader: Memory, limits: Limits = QUICK) -> Runner:
    return Runner(reader, signed.source(), signed.state_dir, limits)


def now_us() -> int:
    return time.time_ns() // 1000


def names(count: int, start: int = 0) -> list[str]:
    return [f"x{number}" for number in range(start, start + count)]


def poison_of(signed: SignedJournal) -> list[Any]:
    path = signed.state_dir / "poison" / "memory.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


async def until(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - what is looked at changes in a thread
            await asyncio.sleep(0.001)


def finish(runner: Runner, steps: int = 100) -> None:
    """Steps until there is nothing to do at once."""
    for _ in range(steps):
        if runner.step():
            return
    raise AssertionError("it never rests")


# --- in order, and no further than what is signed -------------------------------------------------------------------


def test_every_line_once_in_batches(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(25)))
    runner = runner_of(signed, reader)
    assert [runner.step() for _ in range(3)] == [0.0, 0.0, QUICK.poll_s]
    assert reader.ids() == names(25)
    assert [len(batch.entries) for batch in reader.batches] == [10, 10, 5]
    assert (runner.records, runner.batches, runner.lag_records, runner.lag_s) == (25, 3, 0, 0.0)
    runner.step()
    assert len(reader.batches) == 3, "nothing new: nothing asked"


def test_what_is_not_signed_is_not_read(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(outcome("x0"))
    signed.chain().write(outcome("x1"))
    runner = runner_of(signed, reader)
    finish(runner)
    assert reader.ids() == ["x0"]
    signed.sign()
    finish(runner)
    assert reader.ids() == ["x0", "x1"]


def test_chains_take_turns(signed: SignedJournal) -> None:
    reader = Memory()
    for chain in ("w0", "w1", "control"):
        signed.write(*(outcome(name) for name in names(15)), chain=chain)
    runner = runner_of(signed, reader)
    finish(runner)
    assert [batch.chain for batch in reader.batches] == ["w0", "w1", "control"] * 2
    assert all(reader.ids(chain) == names(15) for chain in signed.chains)
    assert runner.places() == signed.signed


def test_a_chain_that_begins_later_and_segments_that_roll(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(outcome("x0"))
    runner = runner_of(signed, reader)
    finish(runner)
    signed.chain().roll()
    signed.write(outcome("x1"))
    signed.write(outcome("y0"), chain="w1")
    finish(runner)
    assert (reader.ids(), reader.ids("w1")) == (["x0", "x1"], ["y0"])


@pytest.mark.parametrize("limits", [QUICK._replace(raw_bytes=1), QUICK._replace(records=1)])
def test_a_batch_is_bounded(signed: SignedJournal, limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_CHUNK_BYTES", 1)  # a line is a piece
    reader = Memory()
    signed.write(*(outcome(name) for name in names(5)))
    finish(runner_of(signed, reader, limits))
    assert [len(batch.entries) for batch in reader.batches] == [1] * 5


def test_a_batch_is_bounded_in_time(signed: SignedJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_CHUNK_BYTES", 1)
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    finish(runner_of(signed, reader, QUICK._replace(read_s=0)))
    assert [len(batch.entries) for batch in reader.batches] == [1, 1, 1]


def test_who_is_far_behind_makes_no_pauses(signed: SignedJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FAR_BEHIND", 5)
    monkeypatch.setattr(module, "LATE_S", math.inf)
    reader, pace = Memory(), Pace()
    hurried: list[tuple[int, bool]] = []
    reader.first = lambda _batch: hurried.append((len(reader.taken), pace.hurried))
    signed.write(*(outcome(name) for name in names(12)))
    finish(Runner(reader, signed.source(), signed.state_dir, QUICK._replace(records=4), pace))
    assert hurried == [(0, True), (4, True), (8, False)]


def test_nor_does_who_is_late(signed: SignedJournal) -> None:
    reader, pace = Memory(), Pace()
    hurried: list[bool] = []
    reader.first = lambda _batch: hurried.append(pace.hurried)
    runner = Runner(reader, signed.source(), signed.state_dir, QUICK._replace(records=2), pace)
    for age_us in (0, 60_000_000):
        signed.write(*(msgspec.structs.replace(outcome(name), at_us=now_us() - age_us) for name in names(4)))
        hurried.clear()
        finish(runner)
        assert hurried == [False, age_us > 0], "how old lines are is known from the first of them on"


def test_there_is_a_pause_between_what_is_read_at_once_and_what_is_done_with_it(
    signed: SignedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "_CHUNK_BYTES", 1)
    monkeypatch.setattr(module, "LATE_S", math.inf)
    signed.write(*(outcome(name) for name in names(5)))
    ticks, pauses = itertools.count(), list[float]()
    pace = Pace(now_s=lambda: float(next(ticks)), sleep=pauses.append)
    reader = Memory()
    reader.first = lambda batch: pauses.append(len(batch.entries))
    finish(Runner(reader, signed.source(), signed.state_dir, QUICK._replace(records=3), pace))
    assert pauses == [PAUSE_S, PAUSE_S, PAUSE_S, 3, PAUSE_S, PAUSE_S, 2]


def test_all_readers_look_for_news_at_the_same_moments() -> None:
    to_next = vars(module)["_to_next"]
    assert [to_next(0.25, now_s) for now_s in (7.0, 7.125, 7.25)] == [0.25, 0.125, 0.25]


def test_a_reader_may_take_lines_piece_by_piece(signed: SignedJournal, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(6)))
    (first, *_), *_ = read.pieces(signed.journal, "w0")
    monkeypatch.setattr(read, "_CHUNK_BYTES", first.after.offset + 2 * len(first.raw))
    finish(runner_of(signed, reader, PIECE_BY_PIECE))
    assert reader.ids() == names(6)
    assert len(reader.batches) > 1
    assert all(len(batch.entries) <= 3 for batch in reader.batches)


def test_a_new_run_goes_on_where_the_last_one_was(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    finish(runner_of(signed, reader))
    signed.write(*(outcome(name) for name in names(3, 3)))
    finish(runner_of(signed, reader))
    assert reader.ids() == names(6)


# --- lag ------------------------------------------------------------------------------------------------------------


def test_lag_is_told_in_records_and_in_time(signed: SignedJournal) -> None:
    reader = Memory()
    long_ago_us = time.time_ns() // 1000 - 60_000_000
    signed.write(*(outcome(name, long_ago_us) for name in names(4)))
    signed.write(outcome("y", long_ago_us + 30_000_000), chain="w1")
    runner = runner_of(signed, reader)
    assert (runner.lag_records, runner.lag_s) == (5, 0.0)

    def fail(_batch: Batch) -> None:
        raise Trouble("down")

    reader.first = fail
    runner.step()
    assert runner.lag_records == 5
    assert 59 < runner.lag_s < 600
    reader.first = lambda _batch: None
    finish(runner)
    assert (runner.lag_records, runner.lag_s) == (0, 0.0)


def test_lag_in_time_is_told_even_when_the_reader_cannot_say_where_it_is(signed: SignedJournal) -> None:
    reader = Memory()
    now_us = time.time_ns() // 1000
    signed.write(outcome("x0", now_us - 3_600_000_000))
    signed.write(outcome("y0", now_us - 3_600_000_000), chain="w1")
    runner = runner_of(signed, reader)
    finish(runner)
    reader.down = True
    signed.write(b"rubbish", outcome("x1", now_us - 30_000_000))
    signed.write(outcome("y1", now_us - 60_000_000), chain="w1")
    signed.write(outcome("z"), chain="w2")
    assert [runner.lag_s, runner.step(), runner.step()] == [0.0, QUICK.first_wait_s, 2 * QUICK.first_wait_s]
    assert runner.lag_records == 4
    assert 59 < runner.lag_s < 600
    reader.down = False
    finish(runner)
    assert (reader.ids(), reader.ids("w1"), runner.lag_s) == (["x0", "x1"], ["y0", "y1"], 0.0)


# --- trouble --------------------------------------------------------------------------------------------------------


def test_trouble_pauses_ever_longer_and_is_said_once(signed: SignedJournal, caplog: pytest.LogCaptureFixture) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(12)))
    runner = runner_of(signed, reader)
    runner.step()

    def fail(_batch: Batch) -> None:
        raise Trouble("the disk is full: make room")

    reader.first = fail
    with caplog.at_level(logging.INFO, "gateway.readers"):
        assert [runner.step() for _ in range(4)] == [0.01, 0.02, 0.04, 0.04]
        assert (runner.failing, runner.failures) == ("the disk is full: make room", 4)
        reader.first = lambda _batch: None
        assert runner.step() == QUICK.poll_s
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "reader memory waits, and tries again: the disk is full: make room",
        "reader memory goes on: 0 records behind",
    ]
    assert reader.ids() == names(12)
    assert runner.failing == ""
    reader.first = fail
    signed.write(outcome())
    assert runner.step() == 0.01, "the pause begins anew"


def test_after_trouble_the_reader_is_asked_where_it_is(signed: SignedJournal) -> None:
    """The answer to a commit may be lost on the way: then it was done, and must not be done again."""
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    runner = runner_of(signed, reader)
    lost: list[Batch] = []

    def commit_and_lose(batch: Batch) -> None:
        if not lost:
            lost.append(batch)
            reader.taken += [(batch.chain, entry.record.exchange_id) for entry in batch.entries]
            reader.at[batch.chain] = batch.after
            raise Trouble("connection lost")

    reader.first = commit_and_lose
    runner.step()
    finish(runner)
    assert reader.ids() == names(3)


def test_a_moved_cursor_is_asked_for_again(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    runner = runner_of(signed, reader)
    once: list[int] = []

    def move(batch: Batch) -> None:
        if not once:
            once.append(1)
            raise Moved(batch.chain)

    reader.first = move
    assert runner.step() == QUICK.first_wait_s
    finish(runner)
    assert (reader.ids(), runner.moved, runner.failures, reader.asked) == (names(3), 1, 0, 2)


def test_a_defect_is_trouble_and_skips_nothing(signed: SignedJournal, caplog: pytest.LogCaptureFixture) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    runner = runner_of(signed, reader)

    def fail(_batch: Batch) -> None:
        raise ZeroDivisionError("insides")

    reader.first = fail
    assert [runner.step(), runner.step()] == [0.01, 0.02]
    assert runner.failing == "a defect of the gateway: ZeroDivisionError: insides"
    assert [record.exc_info is not None for record in caplog.records] == [True]
    reader.first = lambda _batch: None
    finish(runner)
    assert reader.ids() == names(3)


def test_one_unreadable_chain_does_not_hold_up_the_others(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(outcome("x"))
    signed.write(*(outcome(name) for name in names(25)), chain="w1")
    path = layout.segment_path(signed.journal, "w0", 1)
    away = path.with_suffix(".away")
    path.rename(away)
    path.mkdir()
    runner = runner_of(signed, reader)
    assert [runner.step() for _ in range(3)] == [0.0, 0.0, 0.04]
    assert reader.ids("w1") == names(25)
    assert "Is a directory" in runner.failing
    path.rmdir()
    away.rename(path)
    finish(runner)
    assert (reader.ids(), runner.failing) == (["x"], "")


# --- poison ---------------------------------------------------------------------------------------------------------


def test_lines_that_say_nothing_are_set_aside(signed: SignedJournal, caplog: pytest.LogCaptureFixture) -> None:
    reader = Memory()
    signed.write(outcome("x0"), b"rubbish", outcome("x1"), b"\xff", outcome("x2"))
    runner = runner_of(signed, reader)
    finish(runner)
    assert reader.ids() == names(3)
    assert [found["end"] for found in poison_of(signed)] == sorted(found["end"] for found in poison_of(signed))
    assert [found.get("raw") for found in poison_of(signed)] == ["rubbish", None]
    assert (runner.poisoned, runner.missing, runner.lag_records) == (2, 0, 0)
    assert len([record for record in caplog.records if "set aside" in record.getMessage()]) == 1


def test_a_batch_of_nothing_but_rubbish_is_passed(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*[b"rubbish"] * 12, outcome("x0"))
    runner = runner_of(signed, reader)
    finish(runner)
    assert (reader.ids(), runner.poisoned) == (["x0"], 12)


def test_a_line_without_end_is_passed(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(outcome("x0"), b"x" * (2 * MAX_LINE_BYTES), outcome("x1"))
    runner = runner_of(signed, reader)
    finish(runner)
    assert reader.ids() == names(2)
    assert runner.poisoned >= 1
    assert (runner.missing, runner.lag_records) == (0, 0)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("bad", [{0}, {9}, {3, 4}, {0, 5, 9}, set(range(10)), set(range(0, 10, 2))])
def test_poison_is_found_and_only_it_is_left_out(signed: SignedJournal, bad: set[int], known: bool) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(12)))

    def refuse(batch: Batch) -> None:
        for entry in batch.entries:
            if entry.seq in bad:
                raise Poison("too large a number", entry if known else None)

    reader.first = refuse
    runner = runner_of(signed, reader)
    finish(runner)
    assert reader.ids() == [f"x{number}" for number in range(12) if number not in bad]
    assert [found["id"] for found in poison_of(signed)] == [f"{signed.node}/w0/1/{number}" for number in sorted(bad)]
    assert {found["reason"] for found in poison_of(signed)} == {"too large a number"}
    assert runner.poisoned == len(bad)
    assert runner.places() == signed.signed


def test_trouble_in_between_sets_nothing_aside_twice(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(4)), b"rubbish", *(outcome(name) for name in names(4, 4)))
    signed.write(b"rubbish", chain="w1")
    failures = iter([*[Trouble("down")] * 6])
    calls = 0

    def refuse(batch: Batch) -> None:
        nonlocal calls
        calls += 1
        if calls % 2 == 0 and (failure := next(failures, None)) is not None:
            raise failure
        if any(entry.seq in (2, 6) for entry in batch.entries):
            raise Poison("no")

    reader.first = refuse
    runner = runner_of(signed, reader)
    for _ in range(20):
        runner.step()
    assert reader.ids() == [f"x{number}" for number in range(8) if number not in (2, 5)]
    assert sorted(found["id"].rpartition("/")[2] for found in poison_of(signed)) == ["-1", "-1", "2", "6"]
    assert (runner.failures, runner.places()) == (6, signed.signed)


def test_poison_in_nothing_is_trouble(signed: SignedJournal) -> None:
    reader = Memory()

    def refuse(_batch: Batch) -> None:
        raise Poison("always")

    reader.first = refuse
    signed.write(outcome("x0"))
    runner = runner_of(signed, reader)
    assert runner.step() == QUICK.first_wait_s
    assert "nothing was given" in runner.failing


def test_a_poison_that_is_not_of_the_batch_is_looked_for(signed: SignedJournal) -> None:
    reader = Memory()
    stranger = Entry("w9", 9, 9, b"", outcome(), Place(9, 9))

    def refuse(batch: Batch) -> None:
        if any(entry.seq == 1 for entry in batch.entries):
            raise Poison("no", stranger)

    reader.first = refuse
    signed.write(*(outcome(name) for name in names(3)))
    finish(runner_of(signed, reader))
    assert reader.ids() == ["x0", "x2"]


def test_what_cannot_be_set_aside_is_not_passed(signed: SignedJournal) -> None:
    reader = Memory()
    (signed.state_dir / "poison").write_text("no directory")
    signed.write(outcome("x0"), b"rubbish", outcome("x1"))
    runner = runner_of(signed, reader)
    runner.step()
    assert runner.failing
    assert reader.ids() == []
    (signed.state_dir / "poison").unlink()
    finish(runner)
    assert reader.ids() == names(2)


# --- what is missing ------------------------------------------------------------------------------------------------


def test_what_was_dropped_before_it_was_read_is_counted(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    signed.chain().roll()
    signed.write(*(outcome(name) for name in names(2, 3)))
    layout.segment_path(signed.journal, "w0", 1).unlink()
    runner = runner_of(signed, reader)
    finish(runner)
    assert (reader.ids(), runner.missing, runner.lag_records) == (["x3", "x4"], 3, 0)
    finish(runner_of(signed, reader))
    assert reader.at["w0"].missing == 3


def test_a_chain_that_was_dropped_wholly_is_passed(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    layout.segment_path(signed.journal, "w0", 1).unlink()
    runner = runner_of(signed, reader)
    finish(runner)
    assert (runner.places(), runner.missing, runner.lag_records) == (signed.signed, 3, 0)


def test_a_chain_that_is_not_there_is_waited_for(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(3)))
    away = signed.journal.rename(signed.state_dir / "unmounted")
    runner = runner_of(signed, reader)
    finish(runner)
    assert (runner.missing, runner.lag_records) == (0, 3)
    away.rename(signed.journal)
    finish(runner)
    assert reader.ids() == names(3)


# --- many readers, and the end --------------------------------------------------------------------------------------


def test_the_slowest_reader_decides_what_may_go(signed: SignedJournal) -> None:
    quick, slow = Memory(), Memory()
    signed.write(*(outcome(name) for name in names(15)))
    signed.write(outcome("y"), chain="w1")
    runners = [runner_of(signed, quick), runner_of(signed, slow)]
    readers = Readers(signed.source(), runners)
    assert readers.places() == {"w0": Place(0, 0), "w1": Place(0, 0)}
    finish(runners[0])
    assert readers.places() == {"w0": Place(0, 0), "w1": Place(0, 0)}, "nobody knows yet where the other is"
    runners[1].step()
    assert readers.places() == {"w0": slow.at["w0"].place, "w1": signed.signed["w1"]}
    assert Readers(signed.source(), []).places() == signed.signed


def test_running_follows_and_stops(signed: SignedJournal) -> None:
    first, second = Memory(), Memory()

    async def main() -> None:
        readers = Readers(signed.source(), [runner_of(signed, first), runner_of(signed, second)])
        running = asyncio.create_task(readers.run())
        for number in range(5):
            signed.write(outcome(f"x{number}"))
            await until(lambda: len(first.taken) == len(second.taken) == number + 1)  # noqa: B023 - awaited here
        readers.stop()
        async with asyncio.timeout(10):
            await running

    asyncio.run(main())
    assert first.ids() == second.ids() == names(5)


def test_a_stop_is_not_kept_waiting_by_a_pause_or_a_backlog(signed: SignedJournal) -> None:
    reader = Memory()
    signed.write(*(outcome(name) for name in names(100)))

    async def main() -> None:
        runner = runner_of(signed, reader, Limits(records=1, poll_s=3600))
        reader.first = lambda _batch: runner.stop() if len(reader.taken) == 5 else None
        async with asyncio.timeout(10):
            await runner.run()
        idle = runner_of(signed, reader, Limits(poll_s=3600))
        reader.first = lambda _batch: None
        running = asyncio.create_task(idle.run())
        await until(lambda: len(reader.taken) == 100)
        async with asyncio.timeout(10):
            idle.stop()
            await running

    asyncio.run(main())
    assert reader.ids() == names(100)


def test_following_the_journal_loads_no_database() -> None:
    code = "import sys, gateway.control.readers.runner; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sqlalchemy" not in done.stdout
    assert "alembic" not in done.stdout
