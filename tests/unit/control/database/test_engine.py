"""Engines: their transactions, what they never say, and what an error means to who reads it."""

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, Engine, exc, text

from gateway.control.database import engine as engines
from gateway.control.database.engine import empty_log, explained, postgres_engine, shown, sqlite_engine
from gateway.control.database.handle import READING
from gateway.control.database.trouble import BadValue, DatabaseTrouble, TooMuchAsked

SECRET = "pass-word-9"
URL = f"postgresql://ann:{SECRET}@db.example.org:5433/usage"


def told(engine: Engine, work: Callable[[Connection], object], *, reading: bool = False) -> Exception:
    """What an error in a transaction is explained as."""

    def transact() -> None:
        with engine.connect() as made:
            connection = made.execution_options(**{READING: True}) if reading else made
            with connection.begin():
                work(connection)

    with pytest.raises(exc.DBAPIError) as caught:
        transact()
    found = explained(caught.value, "here")
    assert found is not None
    return found


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = sqlite_engine(tmp_path / "gateway.db")
    with made.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER PRIMARY KEY)"))
    yield made
    made.dispose()


# --- sqlite ---------------------------------------------------------------------------------------------------------


def test_the_file_and_its_logs_are_its_owners(engine: Engine, tmp_path: Path) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "gateway.db": 0o600,
        "gateway.db-wal": 0o600,
        "gateway.db-shm": 0o600,
    }


@pytest.mark.parametrize("name", ["plain", "50% of #1?", "ümläut"])
def test_any_path_is_a_path(tmp_path: Path, name: str) -> None:
    path = tmp_path / name / "gateway.db"
    engine = sqlite_engine(path)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    engine.dispose()
    assert path.stat().st_size > 0
    assert [found.name for found in tmp_path.iterdir()] == [name]


def test_how_it_is_set(engine: Engine) -> None:
    with engine.begin() as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "secure_delete", "busy_timeout")
        ]
    assert settings == ["wal", 1, 1, 5000]


def test_a_transaction_is_all_or_nothing_tables_too(engine: Engine) -> None:
    def fail(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        connection.execute(text("CREATE TABLE other (n INTEGER)"))
        connection.execute(text("SELECT * FROM nowhere"))

    assert "nowhere" in str(told(engine, fail))
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 0
        assert connection.execute(text("SELECT count(*) FROM sqlite_master WHERE name = 'other'")).scalar() == 0


def test_who_writes_waits_for_who_writes_and_not_who_reads(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_S", 0)
    other = sqlite_engine(tmp_path / "gateway.db")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        with engine.connect() as made:
            reader = made.execution_options(**{READING: True})
            with reader.begin():
                assert reader.execute(text("SELECT count(*) FROM t")).scalar() == 0
        found = told(other, lambda _connection: None)
    other.dispose()
    assert isinstance(found, DatabaseTrouble)
    assert "another program holds it" in str(found)


def test_a_question_ends_in_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "READ_S", 0.01)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    found = told(engine, lambda connection: connection.execute(text(endless)).all(), reading=True)
    assert isinstance(found, TooMuchAsked)
    with engine.begin() as connection:  # the limit was that question's alone
        rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300000) SELECT count(*) FROM n"
        assert connection.execute(text(rows)).scalar() == 300_000
    empty_log(engine)


def test_the_log_is_emptied_unless_somebody_reads_from_it(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_S", 0)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
    impatient = sqlite_engine(tmp_path / "gateway.db")
    with engine.connect() as made:
        reader = made.execution_options(**{READING: True})
        with reader.begin():
            reader.execute(text("SELECT count(*) FROM t")).all()
            assert not empty_log(impatient)
    assert (tmp_path / "gateway.db-wal").stat().st_size > 0
    assert empty_log(impatient)
    assert (tmp_path / "gateway.db-wal").stat().st_size == 0
    impatient.dispose()


@pytest.mark.usefixtures("engine")
def test_reading_only_makes_and_changes_nothing(tmp_path: Path) -> None:
    reader = sqlite_engine(tmp_path / "gateway.db", read_only=True)
    found = told(reader, lambda connection: connection.execute(text("INSERT INTO t VALUES (2)")))
    reader.dispose()
    assert isinstance(found, DatabaseTrouble)
    missing = sqlite_engine(tmp_path / "none.db", read_only=True)
    assert isinstance(told(missing, lambda _connection: None), DatabaseTrouble)
    assert not (tmp_path / "none.db").exists()


def test_a_value_that_cannot_be_is_not_the_databases_fault(engine: Engine) -> None:
    def twice(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))

    assert isinstance(told(engine, twice), BadValue)


@pytest.mark.parametrize("damage", [b"no database at all, and long enough to be looked at", b"SQLite format 3\0" * 300])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "gateway.db").write_bytes(damage)
    engine = sqlite_engine(tmp_path / "gateway.db")
    found = told(engine, lambda connection: connection.execute(text("SELECT * FROM t")).all())
    engine.dispose()
    assert isinstance(found, DatabaseTrouble)
    assert "move it away" in str(found)
    assert "made anew from the journal" in str(found)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("SQLITE_FULL", "make room"),
        ("SQLITE_IOERR_WRITE", "make room"),
        ("SQLITE_READONLY_DBMOVED", "the user the gateway runs as"),
        ("SQLITE_CANTOPEN", "the user the gateway runs as"),
        ("SQLITE_CORRUPT_VTAB", "made anew"),
        ("SQLITE_BUSY_SNAPSHOT", "another program"),
    ],
)
def test_what_sqlite_says_and_what_helps(name: str, fix: str) -> None:
    orig = sqlite3.OperationalError("it said so\nand more")
    orig.sqlite_errorname = name
    found = explained(exc.OperationalError("SELECT secret", {}, orig), "/state/gateway.db")
    assert isinstance(found, DatabaseTrouble)
    assert str(found).startswith("database /state/gateway.db: it said so; ")
    assert fix in str(found)


# --- postgres -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_a_url_is_shown_without_its_password(scheme: str) -> None:
    url = URL.replace("postgresql", scheme, 1)
    assert shown(url) == f"{scheme}://ann:***@db.example.org:5433/usage"
    engine = postgres_engine(url)
    assert engine.dialect.driver == "psycopg"
    assert SECRET not in repr(engine)
    engine.dispose()


@pytest.mark.parametrize(
    "url", ["mysql://u:p@h/d", "sqlite:///x.db", "nonsense", "", f"postgresql://u:{SECRET}@h:port/d"]
)
def test_what_is_no_address_of_postgres_is_said_without_repeating_it(url: str) -> None:
    for make in (postgres_engine, shown):
        with pytest.raises(DatabaseTrouble, match="postgresql://user:password@host/name") as caught:
            make(url)
        assert SECRET not in str(caught.value)


def test_what_a_url_says_comes_before_what_we_say(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = postgres_engine(URL + "?connect_timeout=9&sslmode=require")
    seen = dict[str, object]()

    def connect(*_: object, **given: object) -> None:
        seen.update(given)
        raise psycopg.OperationalError("no")

    monkeypatch.setattr(engine.dialect.dbapi, "connect", connect)
    with pytest.raises(exc.OperationalError):
        engine.connect()
    assert (seen["connect_timeout"], seen["sslmode"]) == ("9", "require")
    assert (seen["keepalives_idle"], seen["prepare_threshold"], seen["password"]) == (10, None, SECRET)


def test_a_missing_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(DatabaseTrouble, match=r"pip install 'sluice-gateway\[postgres\]'"):
        postgres_engine(URL)


@pytest.mark.parametrize(
    ("kind", "state", "fix"),
    [
        (psycopg.errors.InvalidPassword, "28P01", "user and password"),
        (psycopg.errors.InvalidCatalogName, "3D000", "create the database"),
        (psycopg.errors.DiskFull, "53100", "make room"),
        (psycopg.errors.TooManyConnections, "53300", "max_connections"),
        (psycopg.errors.ReadOnlySqlTransaction, "25006", "primary"),
        (psycopg.errors.QueryCanceled, "57014", "too long"),
        (psycopg.errors.AdminShutdown, "57P01", "starting or stopping"),
        (psycopg.errors.LockNotAvailable, "55P03", "another program"),
        (psycopg.errors.InsufficientPrivilege, "42501", "grant"),
        (psycopg.OperationalError, None, "can be reached"),
    ],
)
def test_what_postgres_says_and_what_helps(kind: type[psycopg.Error], state: str | None, fix: str) -> None:
    orig = kind(f"it said so\nDETAIL: {SECRET}")
    assert orig.sqlstate == state
    found = explained(exc.OperationalError("SELECT secret", {}, orig), "there")
    assert isinstance(found, DatabaseTrouble)
    assert str(found).startswith("database there: it said so; ")
    assert fix in str(found)
    assert SECRET not in str(found)


def test_a_number_too_large_for_postgres_is_a_bad_value() -> None:
    orig = psycopg.errors.NumericValueOutOfRange("bigint out of range")
    found = explained(exc.DataError("INSERT", {}, orig), "there")
    assert isinstance(found, BadValue)
    assert str(found) == "bigint out of range"


def test_too_many_at_once_is_trouble_and_what_is_not_the_databases_is_nothing() -> None:
    assert isinstance(explained(exc.TimeoutError(), "there"), DatabaseTrouble)
    assert explained(ZeroDivisionError(), "there") is None
    assert explained(exc.InvalidRequestError(), "there") is None


def test_threads_share_an_engine(engine: Engine) -> None:
    def work(number: int) -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": number})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar() == 8


class RefusedAtFirst:
    """A cursor whose first statements find the file in use."""

    def __init__(self, refusals: int, name: str = "SQLITE_BUSY") -> None:
        self.refusals = refusals
        self.name = name
        self.asked = 0

    def execute(self, _statement: str) -> None:
        self.asked += 1
        if self.asked <= self.refusals:
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorname = self.name
            raise error


def test_a_new_file_that_another_process_is_changing_is_waited_for() -> None:
    cursor = RefusedAtFirst(3)
    engines._use_log(cursor)  # type: ignore[arg-type]
    assert cursor.asked == 4
    with pytest.raises(sqlite3.OperationalError):
        engines._use_log(RefusedAtFirst(1, "SQLITE_IOERR"))  # type: ignore[arg-type]


def test_it_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "BUSY_S", 0.02)
    with pytest.raises(sqlite3.OperationalError):
        engines._use_log(RefusedAtFirst(10**6))  # type: ignore[arg-type]
