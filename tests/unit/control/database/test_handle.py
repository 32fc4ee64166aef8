"""A database that is opened when it is needed, and anew after whatever went wrong with it."""

import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text

from gateway.config.schema import Config
from gateway.config.schema import Database as DatabaseConfig
from gateway.config.secrets import Secret
from gateway.control.database import engine as engines
from gateway.control.database.handle import Database
from gateway.control.database.tables import CURSORS
from gateway.control.database.trouble import BadValue, DatabaseTrouble, TooMuchAsked

ROW = {"reader": "r", "node": "n", "chain": "w0", "segment": 1, "offset": 2, "seq": 3, "missing": 0, "erasures": 0}


def rows(database: Database) -> int:
    with database.reading() as connection:
        return len(connection.execute(select(CURSORS)).all())


def write(database: Database, **values: object) -> None:
    with database.writing() as connection:
        connection.execute(insert(CURSORS).values(**ROW | values))


def test_making_one_loads_and_touches_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from gateway.control.database.handle import Database; import gateway.control.usage_api, "
        "gateway.control.readers.usage; Database('', pathlib.Path(sys.argv[1])); Database('x', pathlib.Path('/')); "
        "print(*sorted(name.partition('.')[0] for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert not {"sqlalchemy", "alembic", "psycopg"} & set(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_a_config_names_it(tmp_path: Path) -> None:
    config = Config(state_dir=str(tmp_path))
    assert Database.of(config).path == tmp_path / "gateway.db"
    server = Config(state_dir=str(tmp_path), database=DatabaseConfig(url=Secret("postgresql://u:p@h/d")))
    assert Database.of(server).path is None


def test_what_is_written_is_there_for_the_next(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    write(database)
    database.close()
    database.close()
    assert rows(database) == 1
    database.close()


def test_what_leaves_by_an_exception_was_not_written(tmp_path: Path) -> None:
    database = Database("", tmp_path)

    def fail() -> None:
        with database.writing() as connection:
            connection.execute(insert(CURSORS).values(**ROW))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert rows(database) == 0
    database.close()


def test_a_bad_value_is_told_from_trouble(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    write(database)
    with pytest.raises(BadValue):
        write(database)
    with pytest.raises(BadValue):
        write(database, chain=None)
    database.close()


def test_a_damaged_file_is_told_and_once_it_is_moved_away_all_is_well(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    path = tmp_path / "gateway.db"
    path.write_bytes(b"no database" * 1000)
    for _ in range(2):
        with pytest.raises(DatabaseTrouble, match="move it away"):
            rows(database)
    path.unlink()
    assert rows(database) == 0
    database.close()


def test_a_state_dir_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseTrouble, match=r"gateway\.db cannot be opened or made: File exists"):
        rows(Database("", tmp_path / "file"))


def test_no_address_is_told_when_it_is_used(tmp_path: Path) -> None:
    with pytest.raises(DatabaseTrouble, match=r"^database\.url is no address"):
        rows(Database("nonsense", tmp_path))


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    database = Database(f"postgresql://ann:pass-word-9@/usage?host={tmp_path}", tmp_path)
    with pytest.raises(DatabaseTrouble, match="can be reached") as caught:
        rows(database)
    assert "pass-word-9" not in str(caught.value)


def test_reading_only_makes_no_database_and_changes_none(tmp_path: Path) -> None:
    reader = Database("", tmp_path, read_only=True)
    with pytest.raises(DatabaseTrouble, match="there is no database at"):
        rows(reader)
    writer = Database("", tmp_path)
    write(writer)
    assert rows(reader) == 1
    with pytest.raises(DatabaseTrouble):
        write(reader, chain="w1")
    writer.close()
    reader.close()
    assert rows(reader) == 1, "also when nobody else has it open"
    reader.close()


def test_a_question_that_takes_too_long_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "READ_S", 0.01)
    database = Database("", tmp_path)
    write(database)
    opened = database._engine

    def ask() -> None:
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        with database.reading() as connection:
            connection.execute(text(endless)).all()

    with pytest.raises(TooMuchAsked, match="ask for less"):
        ask()
    assert database._engine is opened
    database.close()


def test_cleaning_empties_the_log(tmp_path: Path) -> None:
    database = Database("", tmp_path)
    write(database)
    database.clean()
    assert (tmp_path / "gateway.db-wal").stat().st_size == 0
    database.close()


def test_a_log_that_cannot_be_emptied_now_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "BUSY_S", 0)
    database, reader = Database("", tmp_path), Database("", tmp_path, read_only=True)
    write(database)
    with reader.reading() as connection:
        connection.execute(select(CURSORS)).all()
        write(database, chain="w1")
        database.clean()
    assert "until the gateway stops" in caplog.text
    reader.close()
    database.close()


def test_cleaning_a_server_is_the_servers_business(tmp_path: Path) -> None:
    Database(f"postgresql://u@/d?host={tmp_path}", tmp_path).clean()
