"""The first version, there and back."""

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import inspect

from gateway.control.database.engine import sqlite_engine
from gateway.control.database.versions import v0001_usage


def test_it_makes_its_tables_and_takes_them_away(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "gateway.db")
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        v0001_usage.upgrade()
        assert set(inspect(connection).get_table_names()) == {"usage_hourly", "journal_cursors"}
        v0001_usage.downgrade()
        assert inspect(connection).get_table_names() == []
    engine.dispose()
    assert (v0001_usage.revision, v0001_usage.down_revision) == ("0001", None)
