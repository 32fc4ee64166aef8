"""What a reader is told and tells."""

from gateway.control.readers.base import Cursor, Poison
from gateway.journal.read import START, Entry, Place
from gateway.record import Kind, Record


def test_a_cursor_begins_before_everything() -> None:
    assert Cursor() == Cursor(START, -1, 0)


def test_poison_names_the_record_where_that_is_known() -> None:
    entry = Entry("w0", 1, 0, b"", Record(Kind.OUTCOME, "x", 0), Place(1, 9))
    assert Poison("no number", entry).entry is entry
    assert (str(Poison("no number")), Poison("no number").entry) == ("no number", None)
