"""Alembic is sent to our connection, our transaction and our table, and nowhere else."""

from pathlib import Path

from sqlalchemy import inspect

from gateway.control.database import migrate
from gateway.control.database.engine import sqlite_engine


def test_what_the_versions_do_is_part_of_the_callers_transaction(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "gateway.db")
    with engine.connect() as connection:
        transaction = connection.begin()
        migrate._apply(connection)
        made = inspect(connection).get_table_names()
        transaction.rollback()
        left = inspect(connection).get_table_names()
    engine.dispose()
    assert set(made) == {"usage_hourly", "journal_cursors", migrate.TABLE}
    assert left == []
