"""The database as the rest of control holds it: opened when it is first needed, and anew whenever it has failed.

Making a `Database` costs nothing and cannot fail. The first transaction loads SQLAlchemy, connects and brings the
schema up to date; so do the first ones after a failure, whatever it was, because a file may have been moved away or
a server replaced meanwhile. Every method blocks: call them in a thread. Each transaction is a context: whatever leaves
it by an exception is rolled back.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from gateway.config.schema import Config
from gateway.control.database.deadline import Deadline
from gateway.control.database.trouble import DatabaseTrouble, TooMuchAsked

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Transaction

FILE_NAME: Final = "gateway.db"
READ_S: Final = 30.0  # longer than the engine's own limits, which tell more when they can
WRITE_S: Final = 120.0
READING: Final = "gateway_reading"
"""The execution option of a transaction that only reads."""

_log: Final = logging.getLogger("gateway.database")


class Database:
    """A database, open or not. `url` "" is SQLite in `state_dir`; `read_only` neither makes nor changes anything."""

    def __init__(self, url: str, state_dir: Path, *, read_only: bool = False) -> None:
        self.path: Final = None if url else state_dir / FILE_NAME
        self._url = url
        self._read_only = read_only
        self._lock = threading.Lock()
        self._engine: Engine | None = None

    @classmethod
    def of(cls, config: Config, *, read_only: bool = False) -> Self:
        """The database that a config names."""
        url = config.database.url
        return cls("" if url is None else url.reveal(), Path(config.state_dir), read_only=read_only)

    @contextmanager
    def writing(self) -> Iterator["Connection"]:
        """One transaction. Raises DatabaseTrouble; BadValue when it cannot hold what it was given."""
        with self._told(), self._limited(WRITE_S) as limit, self._begun(limit, reading=False) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator["Connection"]:
        """One look at one state of it. Raises DatabaseTrouble; TooMuchAsked when that takes too long."""
        with self._told(reading=True), self._limited(READ_S) as limit, self._begun(limit, reading=True) as connection:
            yield connection

    def clean(self) -> None:
        """Take what was deleted out of SQLite's log beside the file as well. Raises DatabaseTrouble."""
        from gateway.control.database import engine  # noqa: PLC0415 - see the head of the package

        if self.path is not None:
            with self._told():
                if not engine.empty_log(self._open()):
                    _log.warning("what was deleted from %s is in %s-wal until the gateway stops", self.path, self.path)

    def close(self) -> None:
        """Let go of its connections; the next transaction opens it again."""
        with self._lock:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _open(self) -> "Engine":
        with self._lock:
            if self._engine is None:
                self._engine = self._opened()
            return self._engine

    def _opened(self) -> "Engine":
        from gateway.control.database import engine, migrate  # noqa: PLC0415 - see the head of the package

        if self.path is None:
            opened = engine.postgres_engine(self._url)
        elif self._read_only and not self.path.exists():
            raise DatabaseTrouble(f"there is no database at {self.path}: the gateway makes it when it first runs")
        else:
            opened = engine.sqlite_engine(self.path, read_only=self._read_only)
        try:
            if self._read_only:
                migrate.check(opened)
            else:
                migrate.upgrade(opened)
        except BaseException:
            opened.dispose()
            raise
        return opened

    @contextmanager
    def _limited(self, limit_s: float) -> Iterator[Deadline]:
        """A limit to all that a server does; what is said when it is over."""
        with Deadline(limit_s) as limit:
            try:
                yield limit
            except Exception as error:
                if not limit.expired:
                    raise
                raise DatabaseTrouble(
                    f"database {self._shown()}: no answer within {limit_s:.0f} s; see what the server is doing"
                ) from error

    @contextmanager
    def _begun(self, limit: Deadline, *, reading: bool) -> Iterator["Connection"]:
        """A transaction that has begun; a connection that was cut since its last one is replaced without a word."""
        try:
            connection, transaction = self._begin(limit, reading=reading)
        except Exception as error:
            if limit.expired or not getattr(error, "connection_invalidated", False):
                raise
            self.close()
            connection, transaction = self._begin(limit, reading=reading)
        with closing(connection), transaction:
            yield connection

    def _begin(self, limit: Deadline, *, reading: bool) -> "tuple[Connection, Transaction]":
        made = self._open().connect()
        try:
            if self.path is None:
                raw: Any = made.connection.driver_connection
                limit.watch(raw.fileno())
            connection = made.execution_options(**{READING: True}) if reading else made
            return connection, connection.begin()
        except BaseException:
            made.close()
            raise

    @contextmanager
    def _told(self, *, reading: bool = False) -> Iterator[None]:
        """Turn the driver's errors into ours, and begin anew after the database's own."""
        from gateway.control.database import engine  # noqa: PLC0415 - see the head of the package

        try:
            yield
        except Exception as error:
            told = engine.explained(error, self._shown(), reading=reading)
            if isinstance(told or error, DatabaseTrouble) and not isinstance(told or error, TooMuchAsked):
                self.close()
            if told is None:
                raise
            raise told from error

    def _shown(self) -> str:
        """Which one it is, without its password."""
        from gateway.control.database import engine  # noqa: PLC0415 - see the head of the package

        return engine.shown(self._url) if self.path is None else str(self.path)
