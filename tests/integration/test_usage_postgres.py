"""The usage table on a real PostgreSQL server, which is killed, cut off and stopped in the middle of the work.

Whatever happens to the server, the table is the plain sum of the journal in the end, and SQLite gives the same answers.
"""

import asyncio
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from gateway.control.database import engine as engines
from gateway.control.database import handle, migrate
from gateway.control.database.handle import Database
from gateway.control.database.tables import METADATA
from gateway.control.database.trouble import DatabaseTrouble, TooMuchAsked
from gateway.control.database.usage_query import answer
from gateway.control.database.usage_rows import forget_user
from gateway.control.readers.runner import Limits, Runner
from gateway.control.readers.usage import MAX_AMOUNT, UsageReader
from gateway.control.usage_page import content
from gateway.control.usage_question import BY, Question
from gateway.record import Record, Usage
from tests.fakes.postgres import PASSWORD, Postgres
from tests.fakes.signed_journal import SignedJournal, outcome
from tests.fakes.usage_table import Table, count_down, opener, rows_in, sealed, summed

pytestmark = pytest.mark.slow

LIMITS = Limits(records=20, first_wait_s=0.01, longest_wait_s=0.2, poll_s=0.02)
PATIENCE_S = 60.0
MOST_MOMENTS = 400


def record(at: int, **fields: object) -> Record:
    """One of a variety, with what one database might take and the other not."""
    values: dict[str, object] = {
        "org": f"org{at % 2}",
        "team": ["", "ä", "Z", "a b", "nul\0"][at % 5],
        "key_id": f"k{at % 7}",
        "model": "m" * (at % 400),
        "route": "r",
        "ending": ["complete", "refused", "truncated"][at % 3],
        "sealed": sealed(f"user{at % 3}"),
        "cost_microusd": at**3,
        "usage": Usage(input_tokens=at, output_tokens=MAX_AMOUNT),
    }
    return outcome(f"x{at}", 3_600_000_000 * (at % 50), **values | fields)


def table(signed: SignedJournal, records: list[Record], erased: frozenset[str] = frozenset()) -> Table:
    """The sum, with texts as they stand in the table."""
    fit = [
        Record(**{name: getattr(one, name) for name in Record.__struct_fields__} | {"model": one.model[:256]})
        for one in records
    ]
    return {
        (hour, group._replace(team=group.team.replace("\0", "\ufffd"))): amounts
        for (hour, group), amounts in summed(signed.node, fit, erased).items()
    }


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with Postgres() as made:
        yield made


@pytest.fixture
def database(server: Postgres, tmp_path: Path) -> Iterator[Database]:
    """A database with nothing in it."""
    server.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    made = Database(server.url, tmp_path)
    yield made
    made.close()


@pytest.fixture
def signed(tmp_path: Path) -> SignedJournal:
    return SignedJournal(tmp_path / "state")


def runner_of(signed: SignedJournal, database: Database, limits: Limits = LIMITS) -> Runner:
    return Runner(UsageReader(database, signed.node, opener()), signed.source(), signed.state_dir, limits)


def finish(runner: Runner) -> None:
    end = time.monotonic() + PATIENCE_S
    while (wait_s := runner.step()) != LIMITS.poll_s:
        assert time.monotonic() < end, runner.failing
        time.sleep(wait_s)


def until(look: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


@contextmanager
def running(runner: Runner) -> Iterator[None]:
    """The runner at work in another thread, as control has it on its loop; it rests when the block ends."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        await runner.run()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        yield
    finally:
        until(lambda: bool(loops), "the loop")
        loops[0].call_soon_threadsafe(runner.stop)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# --- the same as sqlite ---------------------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_versions(database: Database) -> None:
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.TABLE, "compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_both_databases_answer_alike(database: Database, signed: SignedJournal, tmp_path: Path) -> None:
    records = [record(at) for at in range(300)]
    signed.write(*records[:200], b"rubbish", outcome(cost_microusd=10**30))
    signed.write(*records[200:], chain="w1")
    other = Database("", tmp_path)
    for each in (database, other):
        finish(runner_of(signed, each))
        assert rows_in(each) == table(signed, records)

    def ask(of: Database, question: Question) -> tuple[dict[str, object], Question]:
        with of.reading() as connection:
            found = answer(connection, question)
        return content(question, found), question._replace(after=found.last)

    questions = [Question(0, 10**9, tuple(by)) for by in [(), *itertools.permutations(BY, 2), BY]]
    for question in questions:
        assert ask(database, question) == ask(other, question)
    for order, by in itertools.product(("name", "cost"), (("team",), ("day", "key"), ("user", "model"))):
        question = Question(3600, 100_000, by, (("org", ("org1", "x")),), order, 7)
        pages = 0
        while pages == 0 or question.after is not None:
            told, following = ask(database, question)
            assert (told, following) == ask(other, question)
            question = following
            pages += 1
        assert pages > 1 or by == ("team",)
    other.close()


def test_a_user_is_forgotten_on_either(database: Database, signed: SignedJournal) -> None:
    records = [record(at) for at in range(100)]
    signed.write(*records)
    finish(runner_of(signed, database))
    gone = [one for one in records if one.org == "org1" and one.sealed == sealed("user1")]
    rows = table(signed, gone)
    assert forget_user(database, "org1", "user1") == len(rows)
    kept = table(signed, [one for one in records if one not in gone])
    for key, amounts in table(signed, gone, frozenset({"user1"})).items():
        kept[key] = [old + new for old, new in zip(kept.get(key, [0] * len(amounts)), amounts, strict=True)]
    assert rows_in(database) == kept


def test_forgetting_while_it_is_being_read(database: Database, signed: SignedJournal) -> None:
    """Names opened before they were erased, and written after: never."""
    erased = set[str]()
    records = [record(at % 50) for at in range(3000)]
    signed.write(*records)
    reader = UsageReader(database, signed.node, opener(erased))
    runner = Runner(reader, signed.source(), signed.state_dir, LIMITS)
    with running(runner):
        until(lambda: runner.records > 300, "some records")
        erased.add("user1")
        for org in ("org0", "org1"):
            forget_user(database, org, "user1")
        until(lambda: runner.lag_records == 0, "the rest")
    assert runner.failing == ""
    assert rows_in(database) == table(signed, records, frozenset(erased))


def test_two_nodes_share_a_database(database: Database, server: Postgres, tmp_path: Path) -> None:
    nodes = [SignedJournal(tmp_path / name) for name in ("one", "two")]
    records = [record(at) for at in range(400)]
    databases = [database, Database(server.url, tmp_path)]
    runners = [runner_of(node, each) for node, each in zip(nodes, databases, strict=True)]
    for node in nodes:
        node.write(*records)
    with running(runners[0]), running(runners[1]):
        until(lambda: runners[0].records > 40 < runners[1].records, "both to be at it")
        assert forget_user(database, "org0", "user2") > 0
        until(lambda: runners[0].lag_records == runners[1].lag_records == 0, "the rest")
    databases[1].close()
    for org in ("org0", "org1"):
        for user in ("user0", "user1", "user2"):
            forget_user(database, org, user)
    everybody = frozenset({"user0", "user1", "user2"})
    assert rows_in(database) == table(nodes[0], records, everybody) | table(nodes[1], records, everybody)


# --- versions -------------------------------------------------------------------------------------------------------


def test_two_nodes_start_at_once_on_an_empty_database(database: Database, server: Postgres) -> None:
    engine = engines.postgres_engine(server.url)
    with engine.connect() as holding:
        holding.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": migrate._LOCK})
        waiting = threading.Thread(target=lambda: rows_in(database))
        waiting.start()
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        until(lambda: server.sql(locks) == "1", "the other to wait")
        assert server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == "0"
    waiting.join(PATIENCE_S)
    engine.dispose()
    assert server.sql("SELECT version_num FROM gateway_version") == migrate.VERSIONS[-1]


def test_a_newer_database_is_left_alone(database: Database, server: Postgres) -> None:
    rows_in(database)
    server.sql("UPDATE gateway_version SET version_num = '9999'")
    database.close()
    with pytest.raises(DatabaseTrouble, match="newer than this gateway's"):
        rows_in(database)
    server.sql("UPDATE gateway_version SET version_num = '0001'")
    assert rows_in(database) == {}


def test_a_database_that_cannot_hold_every_text_is_not_begun(server: Postgres, tmp_path: Path) -> None:
    server.sql("CREATE DATABASE narrow TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    database = Database(server.url.replace("/usage", "/narrow"), tmp_path)
    with pytest.raises(DatabaseTrouble, match="encoded in LATIN1: create one WITH ENCODING 'UTF8'"):
        rows_in(database)
    assert server.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database="narrow") == "0"


# --- what goes wrong with a server ----------------------------------------------------------------------------------


def test_killed_and_started_again_in_the_middle(
    database: Database, server: Postgres, signed: SignedJournal, caplog: pytest.LogCaptureFixture
) -> None:
    written = [record(0)]
    signed.write(*written)
    runner = runner_of(signed, database)
    with running(runner), caplog.at_level(logging.INFO):
        for turn in range(4):
            more = [record(at) for at in range(turn, turn + 1500)]
            signed.write(*more, chain=f"w{turn % 2}")
            written += more
            before = runner.records
            until(lambda before=before: runner.records > before + 100, "some records")  # type: ignore[misc]
            server.kill()
            failures = runner.failures
            until(lambda failures=failures: runner.failures > failures, "the reader to notice")  # type: ignore[misc]
            assert "see that the server runs" in runner.failing or "starting or stopping" in runner.failing
            server.start()
        until(lambda: runner.lag_records == 0 and not runner.failing, "the rest")
    assert rows_in(database) == table(signed, written)
    said = [line.getMessage() for line in caplog.records]
    assert sum("goes on" in line for line in said) == 4
    assert PASSWORD not in str(said)


def test_cut_off_at_every_moment(database: Database, server: Postgres, signed: SignedJournal) -> None:
    """The connection really ends, before or after any statement or commit."""
    written = [record(at) for at in range(6)]
    signed.write(*written)
    signed.write(*written, chain="w1")
    whole = table(signed, [*written, *written])
    rows_in(database)
    killer = engines.postgres_engine(server.url)
    for number in itertools.count(1):
        assert number < MOST_MOMENTS
        with killer.begin() as connection:
            connection.execute(text("TRUNCATE usage_hourly, journal_cursors"))
        database.close()
        reached = cut_off(killer, runner_of(signed, database, LIMITS._replace(records=3)), number)
        assert rows_in(database) == whole, number
        if not reached:
            break
    killer.dispose()
    assert number > 20


def cut_off(killer: Engine, runner: Runner, number: int) -> bool:
    """Follow the journal, and cut the connection at the Nth moment; whether it came to that."""
    left = number

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            with killer.connect() as connection:
                connection.execute(
                    text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND pid <> pg_backend_pid()"
                    )
                )

    real = engines.postgres_engine

    def made(url: str) -> Engine:
        engine = real(url)
        count_down(engine, tick)
        return engine

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engines, "postgres_engine", made)
        finish(runner)
    assert runner.failures <= 1
    return left <= 0


def test_a_server_that_was_restarted_between_two_questions_is_not_noticed(database: Database, server: Postgres) -> None:
    assert rows_in(database) == {}
    server.stop()
    server.start()
    assert rows_in(database) == {}


def test_a_server_that_stands_still_is_left(
    database: Database, server: Postgres, signed: SignedJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed.write(record(1))
    runner = runner_of(signed, database)
    finish(runner)
    signed.write(record(2))
    monkeypatch.setattr(handle, "WRITE_S", 0.2)
    server.pause()
    try:
        assert runner.step() == LIMITS.first_wait_s
        assert "no answer within 0 s" in runner.failing
    finally:
        server.go_on()
    monkeypatch.undo()
    finish(runner)
    assert rows_in(database) == table(signed, [record(1), record(2)])


def test_a_question_ends_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "READ_S", 0.05)

    def sleep() -> None:
        with database.reading() as connection:
            connection.execute(text("SELECT pg_sleep(60)"))

    with pytest.raises(TooMuchAsked, match="ask for less"):
        sleep()


def test_who_only_reads_cannot_write(database: Database, server: Postgres, tmp_path: Path) -> None:
    rows_in(database)
    reader = Database(server.url, tmp_path, read_only=True)
    assert rows_in(reader) == {}

    def write() -> None:
        with database.reading() as connection:
            connection.execute(text("DELETE FROM usage_hourly"))

    with pytest.raises(DatabaseTrouble, match="read-only"):
        write()
    reader.close()


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        (PASSWORD, "another-pass-word", "password authentication failed .* names its user, password and database"),
        ("/usage", "/nowhere", '"nowhere" does not exist.* names its user, password and database'),
        ("127.0.0.1", "127.0.0.2", "see that the server runs"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(
    server: Postgres, tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    database = Database(server.url.replace(was, becomes), tmp_path)
    with pytest.raises(DatabaseTrouble, match=said) as caught:
        rows_in(database)
    assert PASSWORD not in str(caught.value)
    assert "another-pass-word" not in str(caught.value)
