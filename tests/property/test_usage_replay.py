"""Whatever the journal holds, however it is cut into batches and whatever happens meanwhile: the table is a plain sum.

A run is a list of moves: lines of all sorts into several chains, signing, following, losing an answer or the process at
any moment of the database, a second control that reads the same, a user who is erased and forgotten, segments that are
dropped once they are read. In the end everything is signed and followed, and compared with a sum in plain Python.
"""

import logging
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine

from gateway.control.database import engine as engines
from gateway.control.database.handle import FILE_NAME, Database
from gateway.control.database.usage_rows import forget_user
from gateway.control.readers.runner import Limits, Runner
from gateway.control.readers.usage import MAX_AMOUNT, UsageReader
from gateway.journal import layout
from gateway.record import Ending, Kind, Record, Usage, UsageSource
from tests.fakes.signed_journal import SignedJournal
from tests.fakes.usage_table import Lost, count_down, opener, rows_in, sealed, summed

CHAINS: Final = ("w0", "w1", "control")
USERS: Final = ("ann", "bob")
POLL_S: Final = 1.0

amounts = st.integers(0, 1000) | st.just(MAX_AMOUNT)
names = st.sampled_from(["", "a", "b", "a b"])
usages = st.builds(
    Usage,
    input_tokens=amounts,
    output_tokens=amounts,
    cache_read_tokens=amounts,
    audio_output_tokens=amounts,
    source=st.sampled_from(UsageSource),
)
records = st.builds(
    Record,
    kind=st.sampled_from([Kind.OUTCOME, Kind.OUTCOME, Kind.OUTCOME, Kind.DECISION, Kind.CHECKPOINT]),
    exchange_id=st.just("x"),
    at_us=st.integers(0, 4 * 3_600_000_000),
    org=st.sampled_from(["", "acme"]),
    team=names,
    key_id=names,
    model=names,
    target=names,
    route=names,
    sealed=st.sampled_from(["", *map(sealed, USERS)]),
    ending=st.sampled_from([ending.value for ending in Ending]),
    streamed=st.booleans(),
    usage=st.none() | usages,
    cost_microusd=amounts,
    duration_us=amounts,
    count=st.integers(1, 9),
)
impossible = st.sampled_from(
    [
        Record(Kind.OUTCOME, "x", 0, cost_microusd=MAX_AMOUNT + 1),
        Record(Kind.OUTCOME, "x", 0, usage=Usage(input_tokens=10**40)),
        Record(Kind.OUTCOME, "x", -1),
    ]
)
rubbish = st.sampled_from([b"", b"rubbish", b"\xff\x00", b'{"seq":1}'])
chains = st.sampled_from(CHAINS)

Move = tuple[str, Any]
moves = st.one_of(
    st.tuples(st.just("write"), st.tuples(chains, st.lists(records, min_size=1, max_size=6))),
    st.tuples(st.just("spoil"), st.tuples(chains, impossible | rubbish)),
    st.tuples(st.just("roll"), chains),
    st.tuples(st.just("sign"), st.none()),
    st.tuples(st.just("follow"), st.integers(1, 3)),
    st.tuples(st.just("lose"), st.integers(1, 40)),
    st.tuples(st.just("die"), st.integers(1, 40)),
    st.tuples(st.just("second"), st.none()),
    st.tuples(st.just("erase"), st.sampled_from(USERS)),
    st.tuples(st.just("drop"), st.none()),
)


class Died(BaseException):
    """The process is gone: nothing catches this, and what it would do while it unwinds is done to files left behind."""


@cache
def empty() -> bytes:
    """A database of the newest version, with nothing in it: made once, since that takes longer than a whole run."""
    with tempfile.TemporaryDirectory() as directory:
        database = Database("", Path(directory))
        rows_in(database)
        database.clean()
        database.close()
        with closing(sqlite3.connect(Path(directory) / FILE_NAME)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
        return (Path(directory) / FILE_NAME).read_bytes()


class Play:
    """A journal, its database, and a process that reads the one into the other."""

    def __init__(self, directory: Path, batch: int) -> None:
        self.directory = directory
        self.limits = Limits(records=batch, poll_s=POLL_S, first_wait_s=0.001)
        self.signed = SignedJournal(directory)
        self.files = directory / "database"
        self.files.mkdir()
        (self.files / FILE_NAME).write_bytes(empty())
        self.written: list[Record] = []
        self.spoiled = 0
        self.erased: set[str] = set()
        self.left = 0
        self.fail = self.lost
        self.runner = self.start()

    def start(self) -> Runner:
        """A process that begins: nothing is remembered but what is in files."""
        self.database = Database("", self.files)
        reader = UsageReader(self.database, self.signed.node, opener(self.erased))
        return Runner(reader, self.signed.source(), self.directory, self.limits)

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.fail()

    def lost(self) -> None:
        raise Lost("connection lost")

    def died(self) -> None:
        """What is in the files at this moment is what the next process finds."""
        self.files, left = self.files.with_name(f"{self.files.name}-"), self.files
        shutil.copytree(left, self.files, ignore=shutil.ignore_patterns("*-shm"))
        raise Died

    # --- moves ------------------------------------------------------------------------------------------------------

    def write(self, what: tuple[str, list[Record]]) -> None:
        chain, lines = what
        self.signed.chain(chain).write(*lines)
        self.written += lines

    def spoil(self, what: tuple[str, Record | bytes]) -> None:
        chain, line = what
        self.signed.chain(chain).write(line)
        self.spoiled += 1

    def roll(self, chain: str) -> None:
        self.signed.chain(chain).roll()

    def sign(self, _what: None) -> None:
        self.signed.sign()

    def follow(self, steps: int) -> None:
        for _ in range(steps):
            self.runner.step()

    def lose(self, moment: int) -> None:
        self.left, self.fail = moment, self.lost
        self.follow(2)
        self.left = 0

    def die(self, moment: int) -> None:
        self.left, self.fail = moment, self.died
        try:
            self.follow(2)
        except Died:
            self.database.close()
            self.runner = self.start()
        self.left = 0

    def second(self, _what: None) -> None:
        """Another control takes a step in between, and this one does not know."""
        first, database = self.runner, self.database
        self.runner = self.start()
        self.runner.step()
        self.database.close()
        self.runner, self.database = first, database

    def erase(self, user: str) -> None:
        self.erased.add(user)
        forget_user(self.database, "acme", user)
        forget_user(self.database, "", user)

    def drop(self, _what: None) -> None:
        journal = self.signed.journal
        for chain, place in self.runner.places().items():
            for segment in layout.segments(journal, chain):
                if segment < place.segment:
                    layout.segment_path(journal, chain, segment).unlink()

    # --- the end ----------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        self.signed.sign()
        for _ in range(10_000):
            if self.runner.step() == POLL_S:
                return
        raise AssertionError(self.runner.failing)


@given(st.lists(moves, max_size=25), st.integers(1, 7))
def test_the_table_is_the_sum_of_the_journal(run: list[Move], batch: int) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        with pytest.MonkeyPatch.context() as patched:
            real = engines.sqlite_engine
            play: Play | None = None

            def made(path: Path, *, read_only: bool = False) -> Engine:
                engine = real(path, read_only=read_only)
                count_down(engine, lambda: play.tick() if play is not None else None)
                return engine

            patched.setattr(engines, "sqlite_engine", made)
            patched.setattr(logging.getLogger("gateway.readers"), "disabled", True)  # they would all be kept
            play = Play(directory, batch)
            for name, what in run:
                getattr(play, name)(what)
            play.finish()
            check(play)
    finally:
        shutil.rmtree(directory)


def check(play: Play) -> None:
    assert rows_in(play.database) == summed(play.signed.node, play.written, play.erased)
    assert (play.runner.lag_records, play.runner.missing, play.runner.failing) == (0, 0, "")
    poison = play.directory / "poison" / "usage.jsonl"
    kept = {line.split(b'"id"')[1] for line in poison.read_bytes().splitlines()} if poison.exists() else set()
    assert len(kept) == play.spoiled
    play.database.close()
