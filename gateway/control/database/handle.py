"""The database as the rest of control holds it: opened when it is first needed, and anew whenever it has failed.

Making a `Database` costs nothing and cannot fail. The first transaction loads SQLAlchemy, connects and brings the
schema up to date; so do the first ones after a failure, whatever it was, because a file may have been moved away or
a server replaced meanwhile. Every method blocks: call them in a thread. Each transaction is a context: whatever leaves
it by an exception is rolled back.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from gateway.config.schema import Config
from gateway.control.database.trouble import DatabaseTrouble, TooMuchAsked

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

FILE_NAME: Final = "gateway.db"
READING: Final = "gateway_reading"
"""The execution option of a transaction that only reads."""


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
        with self._told(), self._open().begin() as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator["Connection"]:
        """One look at one state of it. Raises DatabaseTrouble; TooMuchAsked when that takes too long."""
        with self._told(), self._open().connect() as made:
            connection = made.execution_options(**{READING: True})
            with connection.begin():
                yield connection

    def clean(self) -> None:
        """Take what was deleted out of SQLite's log beside the file as well. Raises DatabaseTrouble."""
        from gateway.control.database import engine  # noqa: PLC0415 - see the head of the package

        if self.path is not None:
            with self._told():
                engine.empty_log(self._open())

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
    def _told(self) -> Iterator[None]:
        """Turn the driver's errors into ours, and begin anew after the database's own."""
        from gateway.control.database import engine  # noqa: PLC0415 - see the head of the package

        try:
            yield
        except Exception as error:
            told = engine.explained(error, engine.shown(self._url) if self.path is None else str(self.path))
            if isinstance(told or error, DatabaseTrouble) and not isinstance(told or error, TooMuchAsked):
                self.close()
            if told is None:
                raise
            raise told from error
