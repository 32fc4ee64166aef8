"""The journal of a gateway that does not run: changed under the lock of its state_dir, recorded and signed like always.

The lock decides who may act: while any process of a gateway is left, it is the admin API's business alone. What is done
here leaves the same record in control's chain as it would there, and a manifest over it, so that the journal verifies
before the gateway is started again.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.config.schema import Config
from gateway.control.database.handle import Database
from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.erasure import Erasure
from gateway.control.expiry import RetentionSettings
from gateway.control.holds import Holds, read
from gateway.control.journal_status import document, lag
from gateway.control.notary import Notary
from gateway.control.readers.export import saved_seqs
from gateway.control.readers.usage import NAME as USAGE
from gateway.journal import layout
from gateway.journal.line import content_of
from gateway.journal.opening import open_journal
from gateway.process.lock import StateLock
from gateway.record import Record
from gateway.units import NS_PER_US


class Offline(NamedTuple):
    """What may be done to a journal at rest."""

    holds: Holds
    erasure: Erasure


@contextmanager
def at_rest(config: Config) -> Iterator[Offline]:
    """The journal, while no gateway writes it. Raises StartError when one does, NoJournal, OSError."""
    state_dir = Path(config.state_dir)
    journal = layout.journal_of(state_dir)
    layout.node_id(journal)
    lock = StateLock.acquire(state_dir, 0.0)
    try:
        with closing(Database.of(config)) as database:
            holds = Holds(journal, lambda record: append(config, record), now_us)
            erasure = Erasure(
                state_dir,
                holds,
                lambda org, user: forget(database, org, user),
                lambda record: append(config, record),
                now_us,
            )
            yield Offline(holds, erasure)
    finally:
        lock.release()


def append(config: Config, record: Record) -> None:
    """Put a record into control's chain and sign it, in the holder of the lock. Raises OSError."""
    if not asyncio.run(_written(config, content_of(record))):
        raise OSError(f"the journal in {config.state_dir} cannot be written: see the log above")
    state_dir = Path(config.state_dir)
    notary = Notary(layout.journal_of(state_dir), layout.signing_of(state_dir))
    notary.close()  # signs; where that fails, it says so, and the next start does it


async def _written(config: Config, content: bytes) -> bool:
    journal = open_journal(config, [layout.CONTROL])
    journal.start(asyncio.get_running_loop())
    try:
        return await journal.commit(content, synced=True)
    finally:
        await journal.close()


def forget(database: Database, org: str, user: str) -> int:
    """Make the usage tables forget a user, "" all of an organisation; rows changed. Raises DatabaseTrouble."""
    from gateway.control.database.usage_rows import forget_org_users, forget_user

    return forget_user(database, org, user) if user else forget_org_users(database, org)


def status(config: Config) -> dict[str, Any]:
    """How the journal is, from what lies on the disk. Raises NoJournal, OSError."""
    state_dir = Path(config.state_dir)
    told = document(state_dir, RetentionSettings(config.journal.max_bytes, config.journal.keep_days))
    try:
        told["readers"].append(_reader(USAGE, lag(told, _usage_seqs(config, told["node"]))))
    except DatabaseTrouble as error:
        told["problems"].append(f"how far usage is counted cannot be told: {error}")
    for export in config.exports:
        seqs = saved_seqs(state_dir, export.name, told["node"])
        told["readers"].append(_reader(f"export-{export.name}", lag(told, seqs)))
    return told


def held(config: Config) -> list[dict[str, Any]]:
    """The holds in force, from their file. Raises NoJournal, HoldsUnreadable."""
    journal = layout.journal_of(Path(config.state_dir))
    layout.node_id(journal)
    return [msgspec.to_builtins(hold) for hold in read(journal)]


def _reader(name: str, lag_records: int) -> dict[str, Any]:
    return {"name": name, "lag_records": lag_records, "failing": ""}


def _usage_seqs(config: Config, node: str) -> dict[str, int]:
    from sqlalchemy import select

    from gateway.control.database.tables import CURSORS

    asked = select(CURSORS.c.chain, CURSORS.c.seq).where(CURSORS.c.reader == USAGE, CURSORS.c.node == node)
    with closing(Database.of(config, read_only=True)) as database, database.reading() as connection:
        return {row.chain: row.seq for row in connection.execute(asked)}


def now_us() -> int:
    """The wall clock."""
    return time.time_ns() // NS_PER_US
