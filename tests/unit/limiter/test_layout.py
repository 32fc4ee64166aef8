"""The table's parts do not overlap, and names and ids survive being kept."""

import pytest

from gateway.limiter import layout
from gateway.limiter.layout import (
    HOLD_CHARGES,
    HOLD_WORDS,
    ID_BYTES,
    NAME_BYTES,
    ROW_NAME,
    ROW_WORDS,
    UNDO_CELLS,
    Counter,
    Layout,
    hold_key,
    hold_name,
    ints,
    kept_name,
    row_digest,
)
from gateway.limiter.mutex import MUTEX_WORDS
from gateway.segment import WORD

KEY = bytes(range(16))


@pytest.mark.parametrize(("rows", "holds"), [(16, 16), (1_000, 333), (65_536, 16_384)])
def test_the_parts_follow_each_other(rows: int, holds: int) -> None:
    made = Layout(rows, holds)
    assert layout.AT_COUNTERS + len(Counter) <= made.undo_at
    assert made.row_index_at == made.undo_at + layout.CELL_WORDS * UNDO_CELLS
    assert made.hold_index_at == made.row_index_at + made.row_index_words
    assert made.rows_at == made.hold_index_at + made.hold_index_words
    assert made.holds_at == made.rows_at + rows * ROW_WORDS
    assert made.words == made.holds_at + holds * HOLD_WORDS
    assert made.section.words(slots=9) == made.words


@pytest.mark.parametrize(("rows", "holds"), [(16, 16), (1_000, 333)])
def test_the_indexes_are_powers_of_two_with_room_to_spare(rows: int, holds: int) -> None:
    made = Layout(rows, holds)
    for words, entries in ((made.row_index_words, 2 * rows), (made.hold_index_words, 4 * holds)):
        assert words & (words - 1) == 0
        assert words >= entries


@pytest.mark.parametrize(("rows", "holds"), [(15, 16), (16, 15), (layout.MAX_ROWS + 1, 16), (16, layout.MAX_HOLDS + 1)])
def test_sizes_out_of_bounds_are_refused(rows: int, holds: int) -> None:
    with pytest.raises(ValueError, match="a limit table of"):
        Layout(rows, holds)


def test_words_that_change_together_stand_together() -> None:
    assert layout.AT_ROW_FREE == layout.AT_ROW_TOP + 1
    assert layout.AT_ROW_COUNT == layout.AT_ROW_TOP + 2
    assert layout.AT_OLDEST == layout.AT_HOLD_TOP + 1
    assert layout.AT_NEWEST == layout.AT_HOLD_TOP + 2
    assert tuple(layout.HOLD_META + n for n in (1, 2, 3)) == (layout.HOLD_LEASE, layout.HOLD_NEXT, layout.HOLD_CODE)
    assert layout.AT_ROWS >= MUTEX_WORDS
    assert ROW_NAME * WORD + NAME_BYTES == ROW_WORDS * WORD
    assert layout.HOLD_NEXT < layout.HOLD_CODE < HOLD_CHARGES


def test_what_is_put_is_what_is_got() -> None:
    words = memoryview(bytearray(80)).cast("q")
    layout.PUT[3](words, 16, -1, 2**62, 7)
    assert words.tolist() == [0, 0, -1, 2**62, 7, 0, 0, 0, 0, 0]
    assert layout.GET[3](words, 16) == (-1, 2**62, 7)
    layout.PUT_HOLD[5](words, 0, b"i" * ID_BYTES, 1, 2, 3, 4, 5)
    assert layout.GET_HEAD(words, 0) == (b"i" * ID_BYTES, 1, 2, 3, 4, 5)


def test_a_digest_tells_names_kinds_and_tables_apart() -> None:
    digests = {
        row_digest(name, kind, key) for name in (b"a", b"b") for kind in (0, 1, 2, 3) for key in (KEY, KEY[::-1])
    }
    assert len(digests) == 16
    assert all(0 < tag < 2**63 and 0 <= twin < 2**63 for tag, twin in digests)


def test_a_name_that_fits_is_kept_whole() -> None:
    name = "team-tpm|team=" + "x" * (NAME_BYTES - 14)
    assert kept_name(name) == name.encode()


def test_long_names_that_begin_alike_stay_apart() -> None:
    kept = {kept_name("x" * NAME_BYTES + end) for end in "abc"}
    assert len(kept) == 3
    assert {len(name) for name in kept} == {NAME_BYTES}


@pytest.mark.parametrize("hold", ["a", "0" * ID_BYTES, "\u00e9t\u00e9"])
def test_an_id_comes_back_as_it_was(hold: str) -> None:
    assert len(hold_key(hold)) == ID_BYTES
    assert hold_name(hold_key(hold)) == hold


def test_ids_that_padding_would_confuse_stay_apart() -> None:
    holds = ["", "a", "a\0", "a\0\0", "x" * (ID_BYTES + 1), "x" * ID_BYTES, "x" * (ID_BYTES + 2)]
    keys = [hold_key(hold) for hold in holds]
    assert len(set(keys)) == len(holds)
    assert {len(key) for key in keys} == {ID_BYTES}
    assert hold_name(hold_key("x" * 99)).startswith("~")


def test_bytes_are_read_as_native_words() -> None:
    assert ints((5).to_bytes(8, "little") + (-1).to_bytes(8, "little", signed=True)) == (5, -1)
