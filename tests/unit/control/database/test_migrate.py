"""A database is brought to the newest version wholly or not at all, and one that is newer is left alone."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, column, event, inspect, table

from gateway.control.database import migrate
from gateway.control.database.engine import sqlite_engine
from gateway.control.database.migrate import TABLE, VERSIONS, check, upgrade, version_of
from gateway.control.database.trouble import DatabaseTrouble

OPEN = """
import logging, sys, pathlib
logging.basicConfig(level=logging.INFO, format="%(message)s")
from gateway.control.database.handle import Database
database = Database("", pathlib.Path(sys.argv[1]))
with database.reading():
    pass
database.close()
print("alembic" in sys.modules)
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = sqlite_engine(tmp_path / "gateway.db")
    yield made
    made.dispose()


def version(engine: Engine) -> str:
    with engine.connect() as connection:
        return version_of(connection)


def set_version(engine: Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.execute(table(TABLE, column("version_num")).update().values(version_num=name))


def test_the_versions_known_are_the_steps_there_are() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent))
    config.set_main_option("path_separator", "newline")
    steps = list(ScriptDirectory.from_config(config).walk_revisions())
    assert tuple(step.revision for step in reversed(steps)) == VERSIONS


def test_an_empty_database_gets_everything_and_the_rest_nothing(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    assert version(engine) == ""
    with caplog.at_level(logging.INFO):
        upgrade(engine)
        upgrade(engine)
    assert version(engine) == VERSIONS[-1]
    assert [record.getMessage() for record in caplog.records] == [
        f"the database is now of version {VERSIONS[-1]} (it was empty)"
    ]
    check(engine)


def test_a_newer_database_is_left_alone(engine: Engine) -> None:
    upgrade(engine)
    set_version(engine, "9999")
    for use in (upgrade, check):
        with pytest.raises(
            DatabaseTrouble, match=r"version 9999, newer than this gateway's .*: start the gateway that"
        ):
            use(engine)
    assert version(engine) == "9999"


def test_an_older_one_is_not_read_before_it_is_brought_up_to_date(engine: Engine) -> None:
    with pytest.raises(DatabaseTrouble, match="start the gateway, which"):
        check(engine)
    assert version(engine) == ""


@pytest.mark.parametrize("step", range(1, 8))
def test_a_step_that_fails_leaves_nothing_behind(engine: Engine, step: int) -> None:
    """Whichever statement it is; and the next start does it all."""
    statements = 0

    def fail(*_: object) -> None:
        nonlocal statements
        statements += 1
        if statements == step:
            raise ZeroDivisionError

    event.listen(engine, "after_cursor_execute", fail)
    failed = False
    try:
        upgrade(engine)
    except ZeroDivisionError:
        failed = True
    event.remove(engine, "after_cursor_execute", fail)
    assert failed == (version(engine) == "")
    assert failed or statements < step
    with engine.connect() as connection:
        assert bool(inspect(connection).get_table_names()) != failed
    upgrade(engine)
    assert version(engine) == VERSIONS[-1]


def test_two_processes_at_once_do_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", OPEN, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60) for process in both]
    said = [out.strip() for out, _ in told]
    assert set(said) <= {"True", "False"}, told
    assert "True" in said


def test_a_database_that_is_ready_does_not_load_alembic(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", OPEN, str(tmp_path)]
    done = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [ready.stdout.strip() for ready in done] == ["True", "False"]
    assert [ready.stderr.strip() for ready in done] == ["the database is now of version 0001 (it was empty)", ""]
