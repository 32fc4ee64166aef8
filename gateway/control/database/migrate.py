"""The schema's versions: a database is brought to the newest one before it is used, and a newer one is left alone.

A version of the gateway knows VERSIONS, in their order. A database of the last of them is ready, and Alembic is not
even loaded; one of an earlier version, or an empty one, takes the steps that are missing (`versions/`), all in one
transaction that only one of several nodes makes. A version unknown here was made by a newer gateway: its tables may
mean something else, so nothing is read or written, and the journal waits.
"""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, inspect, text

from gateway.control.database.handle import READING
from gateway.control.database.trouble import DatabaseTrouble

VERSIONS: Final = ("0001",)
TABLE: Final = "gateway_version"
_LOCK: Final = 0x51_0CE_DB  # any number, the same for all of us
_log: Final = logging.getLogger("gateway.database")


def upgrade(engine: Engine) -> None:
    """Make the schema that of the newest version. Raises DatabaseTrouble when it is newer than that."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            _alone(connection)
        found = version_of(connection)
        _refuse_newer(found)
        if found != VERSIONS[-1]:
            _apply(connection)
            _log.info("the database is now of version %s (it was %s)", VERSIONS[-1], found or "empty")


def _alone(connection: Connection) -> None:
    """Make other nodes wait, and see that this database can hold any text at all."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar()
    if encoding != "UTF8":
        raise DatabaseTrouble(f"the database is encoded in {encoding}: create one WITH ENCODING 'UTF8'")
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    connection.execute(text("SET LOCAL statement_timeout = 0"))


def check(engine: Engine) -> None:
    """That the schema is the newest version's. Raises DatabaseTrouble."""
    with engine.connect() as connection, connection.execution_options(**{READING: True}).begin():
        found = version_of(connection)
    _refuse_newer(found)
    if found != VERSIONS[-1]:
        raise DatabaseTrouble(
            f"the database is of version {found or 'none'}, this gateway's is {VERSIONS[-1]}: start the gateway, which "
            "brings it up to date"
        )


def version_of(connection: Connection) -> str:
    """The version of a database; "" for an empty one."""
    if not inspect(connection).has_table(TABLE):
        return ""
    return connection.execute(text(f"SELECT version_num FROM {TABLE}")).scalar() or ""  # noqa: S608 - a constant


def _refuse_newer(found: str) -> None:
    if found and found not in VERSIONS:
        raise DatabaseTrouble(
            f"the database is of version {found}, newer than this gateway's {VERSIONS[-1]}: start the gateway that "
            "made it, or give this one a database of its own"
        )


def _apply(connection: Connection) -> None:
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every part it loads
    from alembic import command  # noqa: PLC0415 - as slow to load as all else together, and hardly ever needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config(attributes={"connection": connection, "version_table": TABLE})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    command.upgrade(config, "head")
