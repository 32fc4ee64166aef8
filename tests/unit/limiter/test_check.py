"""Every invariant that is broken is named; a table that lives ordinarily breaks none."""

import pytest

from gateway.limiter import layout
from gateway.limiter.check import problems
from gateway.limiter.engine import Amount
from gateway.limiter.hold import State
from gateway.limiter.index import NUMBER_BITS
from gateway.limiter.layout import Layout
from gateway.limiter.spec import MAX_RATE_USED, Kind, rate, slots
from gateway.limiter.table import Table
from gateway.segment import WORD
from tests.fakes.limit_lives import lives
from tests.fakes.limit_sequences import play
from tests.fakes.limit_table import Moment, TimedTable, memory, table

TPM = rate(1_000, 1_000, 60_000)


@pytest.fixture
def made() -> Table:
    """A table with a little of everything."""
    moment = Moment(1_000_000)
    made = table(memory(Layout(rows=64, holds=16)), moment, kind=Table)
    for hold in ("open", "expired", "settled", "settled too"):
        made.reserve(hold, [Amount("tpm", TPM, 5), Amount("flights", slots(5), 1)], owner=7, lease_ms=1_000)
        made.reserve(hold, [Amount(f"r|end_user={hold}", TPM, 5)], owner=7, lease_ms=1_000, attempt=1)
    made.settle("settled", [])
    made.settle("settled too", [])
    moment.now_ms += 900
    made.renew([], lease_ms=1)
    made.reserve("open too", [Amount("flights", slots(5), 1)], owner=7, lease_ms=1_000)
    moment.now_ms += 100
    made.peek([])
    made.rows.give_up(made.rows.find("r|end_user=settled", Kind.RATE)[0])
    assert [len(list(made.holds.in_states(state))) for state in (State.OPEN, State.EXPIRED)] == [1, 2]
    return made


def said(made: Table) -> str:
    return "; ".join(problems(made.rows, made.holds))


def row_word(made: Table, name: str, word: int, kind: int = Kind.RATE) -> int:
    return made.rows.at(made.rows.number(made.rows.find(name, kind)[0])) // WORD + word


def place(made: Table, index_at: int, size: int) -> int:
    return next(index_at + n for n in range(size) if made.words[index_at + n])


def test_nothing_is_wrong_with_an_ordinary_life(made: Table) -> None:
    assert said(made) == ""
    play(lives(3, 300), [TimedTable(checked=True)])


@pytest.mark.parametrize(
    ("word", "change", "message"),
    [
        (layout.AT_ARMED, 1, "an undo record is armed"),
        (layout.AT_ROW_COUNT, 1, "rows are in use, counted are"),
        (layout.AT_ROW_TOP, 1, "the free list is not the rows that are free"),
        (layout.AT_ROW_FREE, -5, "the free list is not the rows that are free"),
        (layout.AT_USER_COUNT, 1, "rows have a parent, counted are"),
        (layout.AT_HOLD_TOP, 1, "the queue is not the holds"),
        (layout.AT_OLDEST, 1, "the queue is not the holds"),
        (layout.AT_NEWEST, -1, "the queue of settled holds does not end at its newest"),
        (layout.AT_NEXT_LAPSE, 10**9, "lapses at"),
    ],
)
def test_a_wrong_word_of_the_header_is_named(made: Table, word: int, change: int, message: str) -> None:
    made.words[word] += change
    assert message in said(made)


def test_a_row_out_of_bounds_is_named(made: Table) -> None:
    at = row_word(made, "tpm", layout.ROW_USED)
    for used in (-1, MAX_RATE_USED + 1):
        made.words[at] = used
        assert f"has used {used}" in said(made)


def test_slots_that_nobody_holds_are_named(made: Table) -> None:
    made.words[row_word(made, "flights", layout.ROW_USED, Kind.SLOTS)] += 1
    assert "flights counts 2 slots" in said(made)


def test_lost_children_are_named(made: Table) -> None:
    made.words[row_word(made, "r|end_user=*", layout.ROW_CHILDREN)] += 1
    assert "has 3 children, counted are 4" in said(made)


def test_a_row_missing_from_the_index_is_named(made: Table) -> None:
    found = place(made, made.layout.row_index_at, made.layout.row_index_words)
    made.words[found] = 0
    assert "is not in the index" in said(made)


def test_a_hold_missing_from_the_index_is_named(made: Table) -> None:
    for n in range(made.layout.hold_index_words):
        made.words[made.layout.hold_index_at + n] = 0
    assert "hold 4 is not in the index" in said(made)


def test_an_entry_of_nobody_is_named(made: Table) -> None:
    at, entry = made.rows.index.insertion(5, 40)
    made.words[at // WORD] = entry
    assert "rows [40] are in the index and not in use" in said(made)


def test_an_entry_twice_is_named(made: Table) -> None:
    found = place(made, made.layout.row_index_at, made.layout.row_index_words)
    entry = made.words[found]
    at, again = made.rows.index.insertion(entry >> NUMBER_BITS, (entry & (1 << NUMBER_BITS) - 1) - 1)
    made.words[at // WORD] = again
    assert "is in the index 2 times" in said(made)


def test_an_entry_that_no_search_reaches_is_named(made: Table) -> None:
    index = made.rows.index
    free = next(n for n in range(index.mask) if not index.words[index.at + n] and not index.words[index.at + n + 1])
    made.words[index.at + free + 1] = free << NUMBER_BITS | 40
    assert "is in the index behind an empty place" in said(made)


def test_a_list_without_an_end_is_named(made: Table) -> None:
    free = made.words[layout.AT_ROW_FREE] - 1
    made.words[made.rows.at(free) // WORD + layout.ROW_NEXT] = free + 1
    oldest = made.words[layout.AT_OLDEST] - 1
    made.words[made.holds.at(oldest) // WORD + layout.HOLD_NEXT] = oldest + 1
    assert "the free list is not the rows that are free" in said(made)
    assert "the queue is not the holds" in said(made)
