"""Adding is a sum, forgetting is a merge, and both are exact."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from gateway.control.database import cursors, usage_rows
from gateway.control.database.handle import Database
from gateway.control.database.tables import USAGE
from gateway.control.database.trouble import DatabaseTrouble
from gateway.control.database.usage_rows import Rows, add, forget_org_users, forget_user
from gateway.control.usage_fields import MEASURES, Group

ANN = Group("n", "acme", "search", "k1", "ann", "large", "big/large")
BOB = ANN._replace(user="bob")
NOBODY = ANN._replace(user="")


def amounts(first: int = 1) -> list[int]:
    return [first * 10**at for at in range(len(MEASURES))]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("", tmp_path)
    yield made
    made.close()


def put(database: Database, rows: Rows) -> None:
    with database.writing() as connection:
        add(connection, rows)


def found(database: Database) -> dict[tuple[int, Group], list[int]]:
    with database.reading() as connection:
        rows = connection.execute(select(USAGE)).mappings().all()
    for row in rows:
        assert row["id"] == Group(**{name: row[name] for name in Group._fields}).id()
    return {
        (row["hour"], Group(**{name: row[name] for name in Group._fields})): [row[name] for name in MEASURES]
        for row in rows
    }


def test_nothing_adds_nothing(database: Database) -> None:
    put(database, {})
    assert found(database) == {}


def test_amounts_are_added_to_their_row(database: Database) -> None:
    put(database, {(0, ANN): amounts(1), (3600, ANN): amounts(2)})
    put(database, {(0, ANN): amounts(3), (0, BOB): amounts(4)})
    assert found(database) == {(0, ANN): amounts(4), (3600, ANN): amounts(2), (0, BOB): amounts(4)}


def test_amounts_are_whole_however_large(database: Database) -> None:
    large = [2**61 + 1] * len(MEASURES)
    put(database, {(0, ANN): large})
    put(database, {(0, ANN): large})
    assert found(database) == {(0, ANN): [2**62 + 2] * len(MEASURES)}


def test_a_user_is_forgotten_exactly(database: Database) -> None:
    other = ANN._replace(org="other")
    second_key = ANN._replace(key_id="k2")
    put(database, {(0, ANN): amounts(1), (3600, ANN): amounts(2), (0, BOB): amounts(3)})
    put(database, {(0, NOBODY): amounts(4), (0, other): amounts(5), (0, second_key): amounts(1)})
    assert forget_user(database, "acme", "ann") == 3
    assert found(database) == {
        (0, NOBODY): amounts(5),
        (3600, NOBODY): amounts(2),
        (0, BOB): amounts(3),
        (0, other): amounts(5),
        (0, second_key._replace(user="")): amounts(1),
    }
    assert forget_user(database, "acme", "ann") == 0


def test_all_users_of_an_organisation(database: Database) -> None:
    other = ANN._replace(org="other")
    put(database, {(0, ANN): amounts(1), (0, BOB): amounts(2), (0, other): amounts(3), (0, NOBODY): amounts(4)})
    assert forget_org_users(database, "acme") == 2
    assert found(database) == {(0, NOBODY): amounts(7), (0, other): amounts(3)}


def test_nobody_cannot_be_forgotten(database: Database) -> None:
    put(database, {(0, NOBODY): amounts(1), (0, ANN): amounts(2)})
    assert forget_user(database, "acme", "") == 0
    assert found(database) == {(0, NOBODY): amounts(1), (0, ANN): amounts(2)}


def test_names_are_looked_for_as_they_stand(database: Database) -> None:
    long = "x" * 300
    put(database, {(0, ANN._replace(user=long[:256])): amounts(1)})
    assert forget_user(database, "acme", long) == 1


def test_many_rows_are_forgotten_in_parts(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_rows, "_CHUNK", 3)
    put(database, {(3600 * at, ANN._replace(model=f"m{at % 4}")): amounts(1) for at in range(10)})
    assert forget_user(database, "acme", "ann") == 10
    assert set(found(database)) == {(3600 * at, NOBODY._replace(model=f"m{at % 4}")) for at in range(10)}


def test_forgetting_is_seen_by_readers_under_way(database: Database) -> None:
    with database.writing() as connection:
        cursors.held(connection, "usage", "n", ["w0"])
    forget_user(database, "acme", "ann")
    with database.writing() as connection:
        assert cursors.held(connection, "usage", "n", ["w0"])["w0"].erasures == 1


def test_a_forgotten_name_is_in_no_file(database: Database, tmp_path: Path) -> None:
    name = "ann-with-a-name-like-no-other"
    put(database, {(3600 * at, ANN._replace(user=name)): amounts(1) for at in range(300)})
    assert any(name.encode() in path.read_bytes() for path in tmp_path.iterdir())
    forget_user(database, "acme", name)
    assert not any(name.encode() in path.read_bytes() for path in tmp_path.iterdir())


def test_forgetting_that_fails_changes_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    put(database, {(0, ANN): amounts(1)})

    def fail(*_: object) -> None:
        raise DatabaseTrouble("down")

    with monkeypatch.context() as patched:
        patched.setattr(usage_rows, "add", fail)
        with pytest.raises(DatabaseTrouble):
            forget_user(database, "acme", "ann")
    assert found(database) == {(0, ANN): amounts(1)}
