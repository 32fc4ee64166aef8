"""A change is made whole or taken back whole, however far it got."""

import pytest

from gateway.limiter.layout import AT_ARMED, CELL_WORDS, LEAST, MAX_HOLDS, UNDO_CELLS, Layout
from gateway.limiter.undo import END_MASK, HOLD_SHIFT, SETTLING, put_back, write
from gateway.segment import WORD

UNDO_AT = 100
DATA_AT = UNDO_AT + CELL_WORDS * UNDO_CELLS


@pytest.fixture
def words() -> memoryview:
    words = memoryview(bytearray((DATA_AT + 64) * WORD)).cast("q")
    for index in range(64):
        words[DATA_AT + index] = 1_000 + index
    return words


def armed(cells: int) -> int:
    return (UNDO_AT + CELL_WORDS * cells) * WORD


def at(index: int) -> int:
    return (DATA_AT + index) * WORD


def test_all_cells_are_written_and_nothing_stays_armed(words: memoryview) -> None:
    write(words, UNDO_AT, [(at(0), 1), (at(5), 2, 3), (at(9), 4, 5, 6)])
    assert words[DATA_AT : DATA_AT + 13].tolist() == [1, 1001, 1002, 1003, 1004, 2, 3, 1007, 1008, 4, 5, 6, 1012]
    assert words[AT_ARMED] == 0


def test_a_change_cut_short_is_taken_back(words: memoryview) -> None:
    before = words[DATA_AT:].tolist()
    write(words, UNDO_AT, [(at(0), 1, 2, 3), (at(8), 4)])
    words[AT_ARMED] = armed(2)  # as if the process had died before the last store
    assert put_back(words, UNDO_AT) == 2
    assert words[DATA_AT:].tolist() == before
    assert put_back(words, UNDO_AT) == 2, "it stays armed until whoever puts back says so: dying on the way is harmless"
    assert words[DATA_AT:].tolist() == before


def test_a_word_that_changed_twice_gets_its_oldest_value(words: memoryview) -> None:
    before = words[DATA_AT:].tolist()
    write(words, UNDO_AT, [(at(0), 1, 2, 3)])
    later = words[UNDO_AT : UNDO_AT + CELL_WORDS].tolist()
    write(words, UNDO_AT, [(at(1), 7, 8, 9)])
    second = words[UNDO_AT : UNDO_AT + CELL_WORDS].tolist()
    for offset, word in enumerate([*later, *second]):
        words[UNDO_AT + offset] = word
    words[AT_ARMED] = armed(2)
    put_back(words, UNDO_AT)
    assert words[DATA_AT:].tolist() == before


def test_cells_may_overlap_in_one_change(words: memoryview) -> None:
    before = words[DATA_AT:].tolist()
    write(words, UNDO_AT, [(at(0), 1), (at(1), 2), (at(2), 3)])
    assert words[DATA_AT : DATA_AT + 4].tolist() == [1, 2, 3, 1003]
    words[AT_ARMED] = armed(3)
    put_back(words, UNDO_AT)
    assert words[DATA_AT:].tolist() == before


def test_a_change_beyond_the_record_is_refused_before_it_begins(words: memoryview) -> None:
    before = words.tolist()
    with pytest.raises(OverflowError):
        write(words, UNDO_AT, [(at(0), 1)] * (UNDO_CELLS + 1))
    assert words.tolist() == before


@pytest.mark.parametrize("end", [armed(UNDO_CELLS + 1), armed(1) + 8, armed(0) - CELL_WORDS * WORD])
def test_a_record_that_cannot_be_is_refused(words: memoryview, end: int) -> None:
    words[AT_ARMED] = end
    with pytest.raises(OverflowError):
        put_back(words, UNDO_AT)


def test_a_hold_above_the_cells_is_left_to_the_holds(words: memoryview) -> None:
    for cells in (0, armed(0)):
        words[AT_ARMED] = cells | (5 | SETTLING) << HOLD_SHIFT
        assert put_back(words, UNDO_AT) == 0


def test_what_is_armed_fits_its_word() -> None:
    smallest = Layout(LEAST, LEAST)
    assert (smallest.undo_at + CELL_WORDS * UNDO_CELLS) * WORD <= END_MASK
    assert MAX_HOLDS < SETTLING
    assert (SETTLING | MAX_HOLDS) << HOLD_SHIFT | END_MASK < 2**63
