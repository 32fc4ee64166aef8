"""Rows of usage: adding to them, and moving what one user did to nobody's.

Both are sums of whole numbers into the row of a group, so the order in which batches come does not matter, and what is
left after a user was forgotten is what a fresh replay gives from then on: the same sums under the user "".

A node's names of a user are in its journal, sealed; destroying their keys comes first, forgetting here second, on
each node that shares the database. What was deleted stays in a Postgres server's files until it vacuums.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, RowMapping, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from gateway.control.database import cursors
from gateway.control.database.handle import Database
from gateway.control.database.tables import USAGE
from gateway.control.usage_fields import MEASURES, Group, clean

READER: Final = "usage"
_CHUNK: Final = 500


Rows = Mapping[tuple[int, Group], Sequence[int]]
"""(hour, group) -> amounts, in the order of MEASURES."""


def add(connection: Connection, rows: Rows) -> None:
    """Add amounts to their rows, which are made where there are none."""
    if not rows:
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    adding = insert(USAGE)
    sums = {name: USAGE.c[name] + adding.excluded[name] for name in MEASURES}
    connection.execute(
        adding.on_conflict_do_update(index_elements=[USAGE.c.hour, USAGE.c.id], set_=sums),
        [
            {"hour": hour, "id": group.id(), **group._asdict(), **dict(zip(MEASURES, amounts, strict=True))}
            for (hour, group), amounts in sorted(rows.items())
        ],
    )


def forget_user(database: Database, org: str, user: str) -> int:
    """Make what a user did nobody's, of all nodes: the rows that named them. Raises DatabaseTrouble, changing nothing.

    After the user's sealing keys were destroyed; a batch in which a name was still read is begun anew.
    """
    return _forget(database, org, user) if user else 0


def forget_org_users(database: Database, org: str) -> int:
    """As `forget_user`, for all users of an organisation."""
    return _forget(database, org, "")


def _forget(database: Database, org: str, user: str) -> int:
    named = [USAGE.c.org == clean(org), USAGE.c.user == clean(user) if user else USAGE.c.user != ""]
    count = 0
    with database.writing() as connection:
        cursors.count_erasure(connection, READER)
        while found := connection.execute(select(USAGE).where(*named).limit(_CHUNK)).mappings().all():
            keys = [(row["hour"], row["id"]) for row in found]
            connection.execute(delete(USAGE).where(tuple_(USAGE.c.hour, USAGE.c.id).in_(keys)))
            add(connection, _nobodys(found))
            count += len(found)
    database.clean()
    return count


def _nobodys(rows: Iterable[RowMapping]) -> Rows:
    sums: dict[tuple[int, Group], list[int]] = {}
    for values in rows:
        group = Group(**{name: values[name] for name in Group._fields})._replace(user="")
        total = sums.setdefault((values["hour"], group), [0] * len(MEASURES))
        for at, name in enumerate(MEASURES):
            total[at] += values[name]
    return sums
