"""Looks into the usage table without the code that answers questions about it."""

from sqlalchemy import select

from gateway.control.database.handle import Database
from gateway.control.database.tables import USAGE
from gateway.control.usage_fields import MEASURES, Group


def rows_in(database: Database) -> dict[tuple[int, Group], list[int]]:
    """(hour, group) -> amounts, as they are stored."""
    with database.reading() as connection:
        rows = connection.execute(select(USAGE)).mappings().all()
    found = {(row["hour"], _group(row)): [row[name] for name in MEASURES] for row in rows}
    assert len(found) == len(rows), "a group has one row an hour"
    return found


def amounts_in(database: Database) -> dict[str, int]:
    """The sums over all rows."""
    rows = rows_in(database).values()
    return {name: sum(amounts[at] for amounts in rows) for at, name in enumerate(MEASURES)}


def _group(row: object) -> Group:
    group = Group(**{name: row[name] for name in Group._fields})  # type: ignore[index]
    assert row["id"] == group.id()  # type: ignore[index]
    return group
