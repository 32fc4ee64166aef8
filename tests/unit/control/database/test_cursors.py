"""A cursor moves from where its reader believes it is, or not at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.database import cursors
from gateway.control.database.cursors import Held
from gateway.control.database.handle import Database
from gateway.control.readers.base import Cursor, Moved
from gateway.journal.read import Place

SOME = Cursor(Place(1, 100), 9, 2)
MORE = Cursor(Place(2, 50), 15, 2)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database("", tmp_path)
    yield made
    made.close()


def held(database: Database, *chains: str, reader: str = "usage", node: str = "n") -> dict[str, Held]:
    with database.writing() as connection:
        return cursors.held(connection, reader, node, chains)


def advance(database: Database, was: Held, to: Cursor, chain: str = "w0") -> None:
    with database.writing() as connection:
        cursors.advance(connection, "usage", "n", chain, was, to)


def test_a_new_chain_begins_at_its_beginning(database: Database) -> None:
    assert held(database) == {}
    assert held(database, "w0", "w1") == {"w0": Held(Cursor(), 0), "w1": Held(Cursor(), 0)}


def test_a_cursor_is_a_readers_on_a_node_in_a_chain(database: Database) -> None:
    advance(database, held(database, "w0", "w1")["w0"], SOME)
    assert held(database, "w0", "w1") == {"w0": Held(SOME, 0), "w1": Held(Cursor(), 0)}
    assert held(database, "w0", node="m")["w0"] == Held(Cursor(), 0)
    assert held(database, "w0", reader="other")["w0"] == Held(Cursor(), 0)


@pytest.mark.parametrize(
    "believed", [Held(Cursor(), 0), Held(SOME, 1), Held(SOME._replace(place=Place(1, 99)), 0), Held(MORE, 0)]
)
def test_from_anywhere_else_it_does_not_move(database: Database, believed: Held) -> None:
    advance(database, held(database, "w0")["w0"], SOME)
    with pytest.raises(Moved, match="no longer at"):
        advance(database, believed, MORE)
    assert held(database, "w0")["w0"] == Held(SOME, 0)
    advance(database, Held(SOME, 0), MORE)
    assert held(database, "w0")["w0"] == Held(MORE, 0)


def test_a_cursor_that_is_gone_has_moved(database: Database) -> None:
    with pytest.raises(Moved):
        advance(database, Held(Cursor(), 0), SOME)


def test_forgetting_moves_every_cursor_of_that_reader(database: Database) -> None:
    before = held(database, "w0")["w0"]
    held(database, "w0", node="m")
    held(database, "w0", reader="other")
    with database.writing() as connection:
        cursors.count_erasure(connection, "usage")
    assert held(database, "w0")["w0"] == Held(Cursor(), 1)
    assert held(database, "w0", node="m")["w0"] == Held(Cursor(), 1)
    assert held(database, "w0", reader="other")["w0"] == Held(Cursor(), 0)
    with pytest.raises(Moved):
        advance(database, before, SOME)


def test_what_is_missing_is_summed_over_all_nodes(database: Database) -> None:
    with database.reading() as connection:
        assert cursors.missing(connection, "usage") == 0
    advance(database, held(database, "w0", "w1")["w0"], SOME)
    advance(database, Held(Cursor(), 0), SOME._replace(missing=5), "w1")
    with database.reading() as connection:
        assert cursors.missing(connection, "usage") == 7
        assert cursors.missing(connection, "other") == 0
