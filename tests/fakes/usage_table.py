"""Looks into the usage table without the code that answers questions about it, and sums records without the reader.

`fails_at` makes a database fail at one chosen moment of all it does: before or after any statement or commit.
"""

import sqlite3
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from sqlalchemy import Engine, RowMapping, event, select
from sqlalchemy.pool import PoolProxiedConnection

from gateway.control.database.handle import Database
from gateway.control.database.tables import USAGE
from gateway.control.usage_fields import MEASURES, Group
from gateway.record import Kind, Personal, Record, UsageSource

Table = dict[tuple[int, Group], list[int]]


def rows_in(database: Database) -> Table:
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


def _group(row: RowMapping) -> Group:
    group = Group(**{name: row[name] for name in Group._fields})
    assert row["id"] == group.id()
    return group


# --- what should be there -------------------------------------------------------------------------------------------


def sealed(user: str) -> str:
    """What stands in a record of this user, to be opened by `opener`."""
    return f"sealed:{user}"


def opener(erased: AbstractSet[str] = frozenset()) -> Callable[[Record], Personal | None]:
    """Opens what `sealed` sealed, unless that user is erased; it looks each time."""

    def open_personal(record: Record) -> Personal | None:
        user = record.sealed.removeprefix("sealed:")
        return None if user in erased else Personal(user=user)

    return open_personal


def summed(node: str, records: Iterable[Record], erased: AbstractSet[str] = frozenset()) -> Table:
    """The table that these records should make, in the plainest way there is."""
    table: Table = {}
    for record in records:
        if record.kind is Kind.OUTCOME:
            user = record.sealed.removeprefix("sealed:")
            model = record.model if record.route else ""
            group = Group(
                node, record.org, record.team, record.key_id, "" if user in erased else user, model, record.target
            )
            row = table.setdefault((record.at_us // 3_600_000_000 * 3600, group), [0] * len(MEASURES))
            for name, amount in _amounts(record).items():
                row[MEASURES.index(name)] += amount
    return table


def _amounts(record: Record) -> dict[str, int]:
    amounts = {"requests": record.count, "cost_microusd": record.cost_microusd, "duration_us": record.duration_us}
    if record.ending in MEASURES:
        amounts[record.ending] = record.count
    if record.streamed:
        amounts["streamed"] = record.count
    usage = record.usage
    if usage is not None:
        amounts |= {name: getattr(usage, name) for name in MEASURES if name.endswith("_tokens")}
        if usage.source is not UsageSource.PROVIDER:
            amounts["estimated_requests"] = record.count
    return amounts


# --- failing --------------------------------------------------------------------------------------------------------


class Lost(sqlite3.OperationalError):
    """The connection is gone; whether the last thing was done nobody knows."""


def count_down(engine: Engine, at: Callable[[], None]) -> None:
    """Call `at` at every moment of an engine at which something may go wrong: around each statement and commit."""
    dialect = engine.dialect
    commit = dialect.do_commit

    def do_commit(connection: PoolProxiedConnection) -> None:
        at()
        commit(connection)
        at()

    dialect.do_commit = do_commit  # type: ignore[assignment, method-assign]
    event.listen(engine, "before_cursor_execute", lambda *_: at())
    event.listen(engine, "after_cursor_execute", lambda *_: at())
