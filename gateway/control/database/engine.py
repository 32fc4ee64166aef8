"""One engine for SQLite, one for Postgres: same transactions, same errors, every wait bounded.

SQLite runs in WAL mode with `synchronous=NORMAL`: a power cut may undo the last commits, and undoes a reader's effect
and its cursor together, because they are one commit of one file; the journal up to a cursor was on the disk before it
was read, so the reader does them again. A writing transaction begins IMMEDIATE, so it waits for another's at its
beginning and never fails in its middle. `secure_delete` overwrites what is deleted: a forgotten user leaves the file.

On Postgres each transaction says its own time limits, which also works behind a pooler that refuses start options,
as does the lack of prepared statements. Errors are told by their first line: it holds no value and no password.
"""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url

from gateway.config.files import FILE_MODE, private_directory
from gateway.control.database.handle import READING
from gateway.control.database.trouble import BadValue, DatabaseTrouble, TooMuchAsked

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
    from sqlalchemy.pool import ConnectionPoolEntry

BUSY_S: Final = 5
_LOOK_S: Final = 0.01
CONNECT_S: Final = 5
STATEMENT_S: Final = 30
LOCK_S: Final = 10
IDLE_S: Final = 60  # between two statements of one transaction
READ_S: Final = 20.0
_SCHEMES: Final = {"postgresql", "postgres", "postgresql+psycopg"}
_LINE_CHARS: Final = 300
_STEPS: Final = 50_000  # of SQLite's machine between two looks at the clock: under a millisecond
_PSYCOPG: Final = {
    "connect_timeout": CONNECT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "sluice-gateway",
}


def sqlite_engine(path: Path, *, read_only: bool = False) -> Engine:
    """An engine on this file, which is made, for its owner alone, unless it is only to be read.

    Raises DatabaseTrouble.
    """
    if not read_only:
        _make(path)
    query = {"mode": "ro" if read_only else "rw", "uri": "true"}
    url = URL.create("sqlite", database=f"file:{_quoted(path)}", query=query)
    engine = create_engine(url, connect_args={"timeout": BUSY_S}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite_reading if read_only else _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _make(path: Path) -> None:
    try:
        private_directory(path.parent)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    except OSError as error:
        raise DatabaseTrouble(f"database {path} cannot be opened or made: {error.strerror}") from error


def postgres_engine(url: str) -> Engine:
    """An engine on this server; it is not asked yet. Raises DatabaseTrouble for what is no URL, or without psycopg."""
    given = _postgres_url(url)
    ours = {name: value for name, value in _PSYCOPG.items() if name not in given.query}
    try:
        engine = create_engine(
            given.set(drivername="postgresql+psycopg"),
            connect_args=ours | {"prepare_threshold": None},
            hide_parameters=True,
            pool_size=2,
            max_overflow=3,
            pool_timeout=CONNECT_S,
            pool_recycle=1_800,
        )
    except ModuleNotFoundError as error:
        help_ = "install it with: pip install 'sluice-gateway[postgres]'"
        raise DatabaseTrouble(f"the database is on a Postgres server, and {error.name} is missing: {help_}") from None
    event.listen(engine, "begin", _begin_postgres)
    return engine


def shown(url: str) -> str:
    """A URL without its password. Raises DatabaseTrouble for what is no URL."""
    return _postgres_url(url).render_as_string(hide_password=True)


def _postgres_url(url: str) -> URL:
    try:
        given = make_url(url)
    except (exc.ArgumentError, ValueError):
        given = None
    if given is None or given.drivername not in _SCHEMES:
        raise DatabaseTrouble("database.url is no address of a Postgres server: postgresql://user:password@host/name")
    return given


def _quoted(path: Path) -> str:
    """A path as part of SQLite's file: URI."""
    return "".join(f"%{ord(char):02x}" if char in "%?#" else char for char in str(path.absolute()))


def empty_log(engine: Engine) -> bool:
    """Bring all that is in SQLite's log into the file, and empty the log; False while somebody reads from it."""
    with closing(engine.raw_connection()) as connection:
        raw: Any = connection.driver_connection
        raw.set_progress_handler(None, 0)
        ((busy, _, _),) = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return not busy


# --- what each connection and each transaction begins with ----------------------------------------------------------


def _prepare_sqlite_reading(connection: "DBAPIConnection", _entry: "ConnectionPoolEntry") -> None:
    raw: Any = connection
    raw.isolation_level = None  # transactions begin where the engine begins them, and nowhere else


def _prepare_sqlite(connection: "DBAPIConnection", entry: "ConnectionPoolEntry") -> None:
    _prepare_sqlite_reading(connection, entry)
    cursor = connection.cursor()
    _use_log(cursor)
    for pragma in ("synchronous=NORMAL", "secure_delete=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _use_log(cursor: "DBAPICursor") -> None:
    """WAL; SQLite refuses the change at once, and does not wait, while another process makes it in a new file."""
    until = time.monotonic() + BUSY_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
        else:
            return
        time.sleep(_LOOK_S)


def _begin_sqlite(connection: Connection) -> None:
    raw: Any = connection.connection.dbapi_connection
    if not connection.get_execution_options().get(READING):
        raw.set_progress_handler(None, 0)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    until = time.monotonic() + READ_S
    raw.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    connection.exec_driver_sql("BEGIN")


def _begin_postgres(connection: Connection) -> None:
    reading = connection.get_execution_options().get(READING)
    if reading:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
    limit_s = READ_S if reading else STATEMENT_S
    limits = {"statement_timeout": limit_s, "lock_timeout": LOCK_S, "idle_in_transaction_session_timeout": IDLE_S}
    told = ", ".join(f"set_config('{name}', '{int(value_s * 1000)}', true)" for name, value_s in limits.items())
    connection.exec_driver_sql(f"SELECT {told}")


# --- what its errors mean -------------------------------------------------------------------------------------------

_SQLITE: Final = {
    "SQLITE_BUSY": "another program holds it: let that one finish, or end it",
    "SQLITE_LOCKED": "another program holds it: let that one finish, or end it",
    "SQLITE_FULL": "the disk is full: make room",
    "SQLITE_IOERR": "the disk fails, or is full: look at the system's log, and make room",
    "SQLITE_READONLY": "it may not be written: give it to the user the gateway runs as",
    "SQLITE_PERM": "it may not be opened: give it to the user the gateway runs as",
    "SQLITE_CANTOPEN": "it cannot be opened: it must be a file of the user the gateway runs as, and open files be left",
    "SQLITE_CORRUPT": "it is damaged: move it away with its -wal and -shm, and it is made anew from the journal",
    "SQLITE_NOTADB": "it is damaged: move it away with its -wal and -shm, and it is made anew from the journal",
}
_POSTGRES: Final = {
    "28": "check user and password in database.url, and pg_hba.conf",
    "3D": "create the database, or name another in database.url",
    "42501": "grant the user CREATE on the schema, and on tables made before SELECT, INSERT, UPDATE, DELETE",
    "53100": "the server's disk is full: make room",
    "53": "the server has no room for us: see its max_connections and its memory",
    "25006": "this server only reads: name the primary in database.url",
    "57014": "the server took too long: see what else it is doing",
    "55P03": "another program holds a table: let that one finish",
    "57P": "the server is starting or stopping",
    "08": "see that the server runs and can be reached, and that database.url names its user, password and database",
}


def explained(error: Exception, where: str, *, reading: bool = False) -> Exception | None:
    """An error as DatabaseTrouble or BadValue; None for one that is neither, and so a defect.

    A connection that could not be made comes without a code, and its text is in the server's language: its help is
    for every case.
    """
    if isinstance(error, exc.TimeoutError):
        return DatabaseTrouble(f"database {where}: all connections are in use")
    if not isinstance(error, exc.DBAPIError) or error.orig is None:
        return None
    said = " ".join((str(error.orig).strip().splitlines() or [""])[0].split())[:_LINE_CHARS]
    if isinstance(error.orig, sqlite3.Error):
        return _explained_sqlite(error, error.orig, said, where)
    return _explained_postgres(error, said, where, reading=reading)


def _explained_sqlite(error: exc.DBAPIError, orig: sqlite3.Error, said: str, where: str) -> Exception:
    name = getattr(orig, "sqlite_errorname", "")
    if name == "SQLITE_INTERRUPT":
        return TooMuchAsked(_too_much())
    if isinstance(error, exc.DataError | exc.IntegrityError):
        return BadValue(said)
    fix = next((fix for begin, fix in _SQLITE.items() if name.startswith(begin)), "")
    return DatabaseTrouble(f"database {where}: {said}" + (f"; {fix}" if fix else ""))


def _explained_postgres(error: exc.DBAPIError, said: str, where: str, *, reading: bool) -> Exception:
    state = getattr(error.orig, "sqlstate", None) or "08"
    if reading and state == "57014":
        return TooMuchAsked(_too_much())
    if isinstance(error, exc.DataError | exc.IntegrityError):
        return BadValue(said)
    fix = next((fix for begin, fix in _POSTGRES.items() if state.startswith(begin)), "")
    return DatabaseTrouble(f"database {where}: {said}" + (f"; {fix}" if fix else ""))


def _too_much() -> str:
    return f"this takes longer than {READ_S:.0f} s: ask for less time, or by fewer things"
