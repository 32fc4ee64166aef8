"""The database fails at every moment, in every way, and the table is what a fresh replay makes, to the micro-USD.

A moment is before or after any statement and any commit. At each, one of three things happens: an error, after which
the same process goes on; the end of the process, by SIGKILL; or the loss of whatever was not yet on the disk.
"""

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.control.database import engine as engines
from gateway.control.database.handle import Database
from gateway.control.database.usage_rows import forget_user
from gateway.control.readers.runner import Limits, Runner
from gateway.control.readers.usage import UsageReader
from gateway.record import Record, Usage
from tests.fakes.signed_journal import SignedJournal, outcome
from tests.fakes.usage_table import Lost, Table, count_down, opener, rows_in, sealed, summed

LIMITS = Limits(records=3, first_wait_s=0.001, poll_s=1)
MOST_MOMENTS = 400


def record(at: int, **fields: object) -> Record:
    """One of a variety."""
    values: dict[str, object] = {
        "org": f"org{at % 2}",
        "key_id": f"k{at % 3}",
        "model": "large",
        "route": "r" if at % 4 else "",
        "ending": ["complete", "refused", "truncated"][at % 3],
        "sealed": sealed(f"user{at % 2}"),
        "cost_microusd": 10**at,
        "usage": Usage(input_tokens=at, output_tokens=2 * at),
    }
    return outcome(f"x{at}", 3_600_000_000 * (at % 3), **values | fields)


RECORDS = [record(at) for at in range(7)]
OTHERS = [record(at) for at in range(7, 11)]


@pytest.fixture
def signed(tmp_path: Path) -> SignedJournal:
    made = SignedJournal(tmp_path / "state")
    made.write(*RECORDS[:3], b"rubbish", record(0, cost_microusd=10**15), *RECORDS[3:])
    made.chain().roll()
    made.write(*OTHERS[:1])
    made.write(*OTHERS[1:], chain="w1")
    return made


def expected(signed: SignedJournal) -> Table:
    return summed(signed.node, RECORDS + OTHERS)


def runner_of(signed: SignedJournal, database: Database) -> Runner:
    return Runner(UsageReader(database, signed.node, opener()), signed.source(), signed.state_dir, LIMITS)


def finish(runner: Runner) -> None:
    """Follow the journal until there is nothing left; not one error more than was made."""
    for _ in range(100):
        if runner.step() == LIMITS.poll_s:
            return
    raise AssertionError(runner.failing)


def replayed(signed: SignedJournal, directory: Path) -> Table:
    """What a new database gets from the same journal."""
    database = Database("", directory)
    finish(runner_of(signed, database))
    rows = rows_in(database)
    database.close()
    return rows


def poison(signed: SignedJournal) -> int:
    return len((signed.state_dir / "poison" / "usage.jsonl").read_bytes().splitlines())


class Moment:
    """Does something at the Nth moment of a database, once."""

    def __init__(self, number: int, what: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = number
        self.what = what
        real = engines.sqlite_engine

        def made(path: Path, *, read_only: bool = False) -> Engine:
            engine = real(path, read_only=read_only)
            count_down(engine, self.tick)
            return engine

        monkeypatch.setattr(engines, "sqlite_engine", made)

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.what()


def lose() -> None:
    raise Lost("connection lost")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# --- an error -------------------------------------------------------------------------------------------------------


def test_an_error_at_every_moment(signed: SignedJournal, tmp_path: Path) -> None:
    whole = expected(signed)
    assert replayed(signed, tmp_path / "fresh") == whole
    for number in itertools.count(1):
        assert number < MOST_MOMENTS
        shutil.rmtree(signed.state_dir / "poison")
        database = Database("", tmp_path / f"db{number}")
        with pytest.MonkeyPatch.context() as patched:
            moment = Moment(number, lose, patched)
            runner = runner_of(signed, database)
            finish(runner)
            reached = moment.left <= 0
            database.close()
        assert rows_in(database) == whole, number
        assert (runner.poisoned, poison(signed), runner.lag_records) == (2, 2, 0), number
        assert runner.failures == (1 if reached else 0), number
        database.close()
        if not reached:
            break
    assert number > 40


def test_errors_again_and_again(signed: SignedJournal, tmp_path: Path) -> None:
    """Every so many moments, so that recovery fails as well."""
    more = [record(at % 5) for at in range(60)]
    signed.write(*more)
    whole = summed(signed.node, [*RECORDS, *OTHERS, *more])
    for every in (41, 53, 67):
        database = Database("", tmp_path / f"db{every}")
        assert rows_in(database) == {}
        database.close()
        with pytest.MonkeyPatch.context() as patched:
            moment = Moment(every, lose, patched)

            def again(moment: Moment = moment, every: int = every) -> None:
                moment.left = every
                lose()

            moment.what = again
            runner = runner_of(signed, database)
            finish(runner)
            database.close()
        assert runner.failures > 2
        assert rows_in(database) == whole
        database.close()


# --- the end of the process -----------------------------------------------------------------------------------------


def in_a_child(work: Callable[[], None]) -> int:
    """Run in a process of its own; how it ended, as waitpid tells."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def test_a_kill_at_every_moment(signed: SignedJournal, tmp_path: Path) -> None:
    whole = expected(signed)
    for number in itertools.count(1):
        assert number < MOST_MOMENTS
        directory = tmp_path / f"db{number}"

        def work(number: int = number, directory: Path = directory) -> None:
            with pytest.MonkeyPatch.context() as patched:
                Moment(number, die, patched)
                finish(runner_of(signed, Database("", directory)))

        ended = in_a_child(work)
        killed = os.WIFSIGNALED(ended)
        database = Database("", directory)
        finish(runner_of(signed, database))
        assert rows_in(database) == whole, number
        database.close()
        if not killed:
            break
    assert number > 40


def test_a_kill_while_a_user_is_forgotten(signed: SignedJournal, tmp_path: Path) -> None:
    """Wholly forgotten or not at all; and once it is done it is what a replay makes from then on."""
    erased = {"user1"}
    before = expected(signed)
    after = summed(signed.node, RECORDS + OTHERS, erased)
    origin = tmp_path / "origin"
    database = Database("", origin)
    finish(runner_of(signed, database))
    database.close()
    seen = set[bool]()
    for number in itertools.count(1):
        assert number < MOST_MOMENTS
        directory = tmp_path / f"db{number}"
        shutil.copytree(origin, directory)

        def work(number: int = number, directory: Path = directory) -> None:
            with pytest.MonkeyPatch.context() as patched:
                Moment(number, die, patched)
                forget_user(Database("", directory), "org1", "user1")

        killed = os.WIFSIGNALED(in_a_child(work))
        database = Database("", directory)
        seen.add(rows_in(database) == after)
        assert rows_in(database) in (before, after), number
        forget_user(database, "org1", "user1")
        assert rows_in(database) == after, number
        database.close()
        if not killed:
            break
    assert seen == {False, True}


# --- a power cut ----------------------------------------------------------------------------------------------------


def test_a_power_cut_takes_effect_and_cursor_together(signed: SignedJournal, tmp_path: Path) -> None:
    """The log beside the file is not synced at each commit: any part of its end may be missing."""
    origin = tmp_path / "origin"
    database = Database("", origin)
    finish(runner_of(signed, database))
    log = origin / "gateway.db-wal"
    size = log.stat().st_size
    assert size > 10 * 4096
    cuts = sorted({*range(0, size, 2048), size - 1, size - 24, 31, 33})
    tables: list[Table] = []
    for cut in cuts:
        directory = tmp_path / f"db{cut}"
        directory.mkdir()
        for name in ("gateway.db", "gateway.db-wal"):
            shutil.copy(origin / name, directory / name)
        os.truncate(directory / "gateway.db-wal", cut)
        left = Database("", directory)
        tables.append(rows_in(left))
        finish(runner_of(signed, left))
        assert rows_in(left) == expected(signed), cut
        left.close()
    database.close()
    assert len({str(table) for table in tables}) > 3, "different parts were lost"


# --- a full disk ----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_waited_for(
    signed: SignedJournal, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database("", tmp_path / "db")
    with database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    prepare = engines._prepare_sqlite

    def prepare_small(connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        prepare(connection, entry)
        connection.cursor().execute(f"PRAGMA max_page_count = {pages}")

    runner = runner_of(signed, database)
    many = [record(1, key_id=f"k{at}" * 60) for at in range(200)]
    signed.write(*many)
    with monkeypatch.context() as patched:
        patched.setattr(engines, "_prepare_sqlite", prepare_small)
        database.close()
        for _ in range(100):
            runner.step()
    assert "make room" in runner.failing
    assert sum("make room" in line.getMessage() for line in caplog.records) == 1
    database.close()
    finish(runner)
    assert runner.failing == ""
    assert rows_in(database) == summed(signed.node, [*RECORDS, *OTHERS, *many])
    database.close()
