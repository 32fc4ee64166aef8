"""The tables as the code writes them are the tables as the versions make them."""

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from gateway.control.database import migrate
from gateway.control.database.engine import sqlite_engine
from gateway.control.database.tables import CURSORS, METADATA, USAGE
from gateway.control.usage_fields import MEASURES, Group


def test_the_versions_lead_to_these_tables(tmp_path: Path) -> None:
    engine = sqlite_engine(tmp_path / "gateway.db")
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.TABLE, "compare_type": True})
        assert compare_metadata(context, METADATA) == []
        assert inspect(connection).get_pk_constraint("usage_hourly")["constrained_columns"] == ["hour", "id"]
        assert "WITHOUT ROWID" in str(
            connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'usage_hourly'").scalar()
        )
    engine.dispose()


def test_a_row_is_an_hour_a_group_and_its_amounts() -> None:
    assert [column.name for column in USAGE.columns] == ["hour", "id", *Group._fields, *MEASURES]


@pytest.mark.parametrize("column", [column for table in (USAGE, CURSORS) for column in table.columns], ids=str)
def test_nothing_in_it_is_unknown(column: object) -> None:
    assert getattr(column, "nullable", True) is False
