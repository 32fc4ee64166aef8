"""Cursors of readers in the database, moved in the transaction that holds their effect.

A cursor is moved from where its reader believes it to be, or not at all: of two processes that read the same chain
(an old control and a new one during an upgrade) one finds it moved. Forgetting a user counts up `erasures` of all
cursors, so a batch whose names were opened before that and is written after it finds its cursor moved as well, and is
opened anew. A row exists before a chain's first batch, so even that one cannot slip by.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.control.database.tables import CURSORS
from gateway.control.readers.base import Cursor, Moved
from gateway.journal.read import Place


class Held(NamedTuple):
    """A cursor, and how often users were forgotten under it."""

    cursor: Cursor
    erasures: int


def held(connection: Connection, reader: str, node: str, chains: Sequence[str]) -> dict[str, Held]:
    """The cursors of a reader in these chains; a chain that is new to it gets one at its beginning."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    start = {"segment": 0, "offset": 0, "seq": -1, "missing": 0}
    new = [{"reader": reader, "node": node, "chain": chain, "erasures": 0, **start} for chain in chains]
    if new:
        connection.execute(insert(CURSORS).on_conflict_do_nothing(), new)
    rows = connection.execute(
        select(CURSORS).where(CURSORS.c.reader == reader, CURSORS.c.node == node, CURSORS.c.chain.in_(chains))
    )
    return {row.chain: Held(Cursor(Place(row.segment, row.offset), row.seq, row.missing), row.erasures) for row in rows}


def advance(connection: Connection, reader: str, node: str, chain: str, was: Held, to: Cursor) -> None:
    """Move a cursor from where it was. Raises Moved when it is not there."""
    place = was.cursor.place
    moved = connection.execute(
        update(CURSORS)
        .where(
            CURSORS.c.reader == reader,
            CURSORS.c.node == node,
            CURSORS.c.chain == chain,
            CURSORS.c.segment == place.segment,
            CURSORS.c.offset == place.offset,
            CURSORS.c.erasures == was.erasures,
        )
        .values(segment=to.place.segment, offset=to.place.offset, seq=to.seq, missing=to.missing)
    )
    if moved.rowcount != 1:
        raise Moved(f"the cursor of reader {reader} in {chain} is no longer at {place.segment}:{place.offset}")


def count_erasure(connection: Connection, reader: str) -> None:
    """Make every batch of a reader that is under way begin anew, on all nodes; until the commit none can end."""
    rows = CURSORS.c.reader == reader
    if connection.dialect.name == "postgresql":  # in one order, so that two of these never wait for each other
        connection.execute(
            select(CURSORS.c.chain).where(rows).order_by(CURSORS.c.node, CURSORS.c.chain).with_for_update()
        )
    connection.execute(update(CURSORS).where(rows).values(erasures=CURSORS.c.erasures + 1))


def missing(connection: Connection, reader: str) -> int:
    """Lines of all nodes that were dropped before this reader came to them."""
    found = connection.execute(select(func.sum(CURSORS.c.missing)).where(CURSORS.c.reader == reader)).scalar()
    return int(found or 0)
