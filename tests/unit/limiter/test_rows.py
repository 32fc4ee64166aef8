"""Rows are found, made and given up; end users cannot take more than their share of them."""

import pytest

from gateway.limiter.bucket import FRESH, Row
from gateway.limiter.check import problems
from gateway.limiter.layout import (
    AT_COUNTERS,
    AT_ROW_COUNT,
    AT_USER_COUNT,
    ROW_TAG,
    ROW_USED,
    Counter,
    Layout,
    kept_name,
)
from gateway.limiter.rows import RECLAIM_STEP, SLICE, SLICE_KEPT_MS, Mode, OnFull, Rows, shared_name
from gateway.limiter.spec import Kind, rate, slots, window
from gateway.limiter.table import Table
from gateway.segment import WORD
from tests.fakes.limit_table import Moment, memory, table

NOW_MS = 1_000_000
WALL_MS = 1_700_000_000_000
TPM = rate(1_000, 1_000, 1_000)
BUDGET = window(100, WALL_MS - 1_000, WALL_MS + 1_000)
SMALLEST = Layout(rows=16, holds=16)  # of which end users get 12 rows at most


def made(layout: Layout = SMALLEST, *, max_end_users: int = 100, on_full: OnFull = OnFull.OTHER) -> Table:
    return table(memory(layout), Moment(NOW_MS), kind=Table, max_end_users=max_end_users, on_full=on_full)


def is_right(table: Table) -> bool:
    return problems(table.rows, table.holds) == []


def use(rows: Rows, at: int, used: int, rest: int = 0, mark_ms: int = NOW_MS) -> None:
    """Charge a row, so that it says something."""
    for index, word in enumerate((used, rest, mark_ms)):
        rows.words[at // WORD + ROW_USED + index] = word


def fill(rows: Rows, count: int, name: str = "key=") -> list[int]:
    """Make rows that say something."""
    ats = [rows.make(f"{name}{number}", Kind.RATE, TPM) for number in range(count)]
    for at in ats:
        use(rows, at, 500)
    rows.pinned.clear()
    return ats


# --- finding and making ----------------------------------------------------------------------------------------------


def test_an_empty_row_keeps_its_name_and_is_as_good_as_none() -> None:
    table = made()
    for name, kind, spec in (("r", Kind.RATE, TPM), ("w", Kind.WINDOW, BUDGET)):
        at = table.rows.make(name, kind, spec)
        use(table.rows, at, 50, BUDGET.end_ms if kind is Kind.WINDOW else 3, BUDGET.start_ms)
        table.rows.pinned.clear()
        assert not table.rows.says_nothing(at, NOW_MS, WALL_MS)
        table.rows.empty(at)
        assert (table.rows.read(at), table.rows.find(name, kind)[0]) == (FRESH, at)
        assert table.rows.says_nothing(at, NOW_MS, WALL_MS)
        assert is_right(table)


def test_a_row_is_found_by_name_and_kind() -> None:
    table = made()
    at = table.rows.make("a", Kind.RATE, TPM)
    assert table.rows.find("a", Kind.RATE)[0] == at
    assert table.rows.find("a", Kind.SLOTS)[0] == -1
    assert table.rows.find("b", Kind.RATE)[0] == -1
    assert table.rows.by_tag(table.rows.find("a", Kind.RATE)[1]) == at
    assert table.rows.by_tag(12345) == -1
    assert (table.rows.name(at), table.rows.kind(at), table.rows.number(at)) == ("a", Kind.RATE, 0)
    assert is_right(table)


def test_a_new_row_and_no_row_are_full_buckets() -> None:
    rows = made().rows
    assert rows.read(rows.make("a", Kind.RATE, TPM)) == FRESH
    assert rows.read(-1) == FRESH


def test_a_long_name_is_found_again_and_shown_by_its_beginning() -> None:
    rows = made().rows
    at = rows.make("n" * 1_000, Kind.RATE, TPM)
    assert rows.find("n" * 1_000, Kind.RATE)[0] == at
    assert rows.find("n" * 1_001, Kind.RATE)[0] == -1
    assert rows.name(at) == kept_name("n" * 1_000).decode()


def test_every_row_of_the_table_can_be_used_and_used_again() -> None:
    table = made()
    for _ in range(3):
        ats = fill(table.rows, 16)
        assert len(set(ats)) == 16
        assert is_right(table)
        for at in ats:
            assert table.rows.give_up(at)
        assert table.words[AT_ROW_COUNT] == 0
        assert is_right(table)
    assert table.count(Counter.RECLAIMED) == 48


def test_a_row_made_again_remembers_nothing() -> None:
    table = made()
    at = fill(table.rows, 1)[0]
    table.rows.give_up(at)
    assert table.words[at // WORD + ROW_TAG] == 0, "a process that remembers the row sees that it is another"
    again = table.rows.make("other", Kind.WINDOW, BUDGET)
    assert again == at
    assert table.rows.read(again) == FRESH


# --- what says nothing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "row", "later_ms", "nothing"),
    [
        (Kind.RATE, Row(0, 0, NOW_MS), 0, True),
        (Kind.RATE, Row(500, 0, NOW_MS), 499, False),
        (Kind.RATE, Row(500, 0, NOW_MS), 500, True),
        (Kind.RATE, Row(500, 999, NOW_MS), 499, False),
        (Kind.RATE, Row(500, 0, NOW_MS), -500, False),  # a clock that stepped back refills nothing
        (Kind.WINDOW, Row(0, WALL_MS + 1_000, WALL_MS - 1_000), 999, False),
        (Kind.WINDOW, Row(70, WALL_MS + 1_000, WALL_MS - 1_000), 1_000, True),
        (Kind.SLOTS, Row(0, 0, 0), 0, True),
        (Kind.SLOTS, Row(1, 0, 0), 10**9, False),
        (SLICE, Row(5, 1, NOW_MS), SLICE_KEPT_MS - 1, False),
        (SLICE, Row(5, 1, NOW_MS), SLICE_KEPT_MS, True),
    ],
)
def test_a_row_says_nothing_when_it_is_as_good_as_none(kind: int, row: Row, later_ms: int, *, nothing: bool) -> None:
    rows = made().rows
    at = rows.make("a", kind, TPM)
    rows.pinned.clear()
    use(rows, at, *row)
    assert rows.says_nothing(at, NOW_MS + later_ms, WALL_MS + later_ms) is nothing


def test_how_fast_a_row_refills_is_what_was_last_said() -> None:
    rows = made().rows
    at = fill(rows, 1)[0]
    rows.note(at, rate(1_000, 1, 1_000))
    assert not rows.says_nothing(at, NOW_MS + 499_999, WALL_MS)
    assert rows.says_nothing(at, NOW_MS + 500_000, WALL_MS)
    rows.note(at, slots(5))  # says nothing of rates
    assert rows.says_nothing(at, NOW_MS + 500_000, WALL_MS)


def test_a_row_that_the_step_under_way_has_read_stays() -> None:
    rows = made().rows
    at = rows.make("a", Kind.RATE, TPM)
    assert at in rows.pinned
    assert not rows.says_nothing(at, NOW_MS, WALL_MS)


def test_reclaiming_goes_round_the_table_piece_by_piece() -> None:
    table = made()
    fill(table.rows, 16)
    assert table.rows.reclaim(NOW_MS, WALL_MS, 16) == 0
    assert [table.rows.reclaim(NOW_MS + 500, WALL_MS, 5) for _ in range(4)] == [5, 5, 5, 1]
    assert is_right(table)


# --- where a bucket is counted ---------------------------------------------------------------------------------------


def test_a_bucket_gets_its_own_row_when_it_is_charged_and_not_before() -> None:
    table = made()
    place = table.rows.place("a", TPM, NOW_MS, WALL_MS)
    assert (place.mode, place.at) == (Mode.NEW, -1)
    assert table.words[AT_ROW_COUNT] == 0
    at = table.rows.make("a", Kind.RATE, TPM)
    assert table.rows.place("a", TPM, NOW_MS, WALL_MS) == (Mode.OWN, at, place.tag)


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("r|key=k|end_user=u", "r|key=k|end_user=*"),
        ("r|key=k|end_user=u|model=m", "r|key=k|end_user=*|model=m"),
        ("r|key=k|end_user=", "r|key=k|end_user=*"),
        ("r|key=k", ""),
        ("r|key=end_user=x", ""),
        ("r|key=k|end_user=*", ""),
    ],
)
def test_end_users_of_one_set_share_a_name(name: str, shared: str) -> None:
    assert shared_name(name) == shared


def end_user(number: int | str, key: str = "k") -> str:
    return f"r|key={key}|end_user={number}"


def settle_in(table: Table, name: str) -> Mode:
    """Charge a bucket wherever it is to be counted."""
    place = table.rows.place(name, TPM, NOW_MS, WALL_MS)
    at = table.rows.make(name, Kind.RATE, TPM) if place.mode is Mode.NEW else place.at
    if at >= 0:
        use(table.rows, at, 500)
    table.rows.pinned.clear()
    return place.mode


def test_end_users_have_rows_of_their_own_up_to_the_cap() -> None:
    table = made(max_end_users=3)
    modes = [settle_in(table, end_user(number)) for number in range(5)]
    assert modes == [Mode.NEW] * 3 + [Mode.SHARED] * 2
    shared = table.rows.find(end_user("*"), Kind.RATE)[0]
    assert table.rows.place(end_user(4), TPM, NOW_MS, WALL_MS).at == shared
    assert table.rows.place(end_user(0), TPM, NOW_MS, WALL_MS).mode is Mode.OWN
    assert settle_in(table, end_user(0, key="other")) is Mode.NEW, "the cap is each key's"
    assert is_right(table)


def test_the_cap_counts_those_that_live() -> None:
    table = made(max_end_users=2)
    for number in range(2):
        settle_in(table, end_user(number))
    later_ms = NOW_MS + 500  # both are full again
    assert table.rows.place(end_user(2), TPM, later_ms, WALL_MS).mode is Mode.NEW
    assert table.words[AT_USER_COUNT] == 0
    assert is_right(table)


def test_any_number_of_end_users_leaves_room_for_names_of_the_config() -> None:
    table = made()
    for key in "abc":
        for number in range(20):
            settle_in(table, end_user(number, key))
    assert table.words[AT_USER_COUNT] <= 12
    assert settle_in(table, "r|key=another") is Mode.NEW
    assert is_right(table)


def test_the_greediest_set_leaves_as_many_rows_as_it_has() -> None:
    table = made()
    assert [settle_in(table, end_user(number, "greedy")) for number in range(50)].count(Mode.NEW) == 6
    assert [settle_in(table, end_user(number, "late")) for number in range(50)].count(Mode.NEW) == 3
    assert [settle_in(table, end_user(number, "later")) for number in range(50)].count(Mode.NEW) == 2
    assert settle_in(table, end_user(50, "late")) is Mode.SHARED, "in its own tenant's row"
    shared = table.rows.place(end_user(50, "late"), TPM, NOW_MS, WALL_MS).at
    assert table.rows.name(shared) == end_user("*", "late")
    assert is_right(table)


def test_a_shared_row_stays_while_its_set_has_rows() -> None:
    table = made()
    settle_in(table, end_user(0))
    shared = table.rows.find(end_user("*"), Kind.RATE)[0]
    assert not table.rows.says_nothing(shared, NOW_MS + 500, WALL_MS)
    table.rows.give_up(table.rows.find(end_user(0), Kind.RATE)[0])
    assert table.rows.says_nothing(shared, NOW_MS + 500, WALL_MS)


def test_a_full_table_looks_for_rows_to_give_up_first() -> None:
    table = made()
    fill(table.rows, 16)
    assert table.rows.place("new", TPM, NOW_MS, WALL_MS).mode is Mode.UNCOUNTED
    assert table.rows.place("new", TPM, NOW_MS + 500, WALL_MS).mode is Mode.NEW


def test_a_full_table_is_searched_once_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made().rows
    fill(rows, 16)
    looks: list[tuple[int, int]] = []

    def reclaim(now_ms: int, _wall_ms: int, count: int) -> None:
        looks.append((now_ms, count))

    monkeypatch.setattr(rows, "reclaim", reclaim)
    for _ in range(3):
        rows.place("new", TPM, NOW_MS, WALL_MS)
    rows.place("new", TPM, NOW_MS + 1, WALL_MS)
    assert looks == [(NOW_MS, RECLAIM_STEP), (NOW_MS + 1, RECLAIM_STEP)]


@pytest.mark.parametrize(("on_full", "mode"), [(OnFull.OTHER, Mode.UNCOUNTED), (OnFull.REFUSE, Mode.NO_ROOM)])
def test_a_full_table_does_as_the_config_says(on_full: OnFull, mode: Mode) -> None:
    table = made(on_full=on_full)
    fill(table.rows, 16)
    assert table.rows.place("new", TPM, NOW_MS, WALL_MS).mode is mode
    assert table.rows.place(end_user(0), TPM, NOW_MS, WALL_MS).mode is mode
    assert table.rows.shared_place(end_user(0), TPM, NOW_MS, WALL_MS).mode is mode
    assert is_right(table)


def test_refusing_end_users_when_the_table_is_full_does_not_touch_the_cap() -> None:
    table = made(max_end_users=1, on_full=OnFull.REFUSE)
    assert [settle_in(table, end_user(number)) for number in range(2)] == [Mode.NEW, Mode.SHARED]
    fill(table.rows, 14)
    assert settle_in(table, end_user(2)) is Mode.SHARED, "capped: it shares a row that is there"
    assert settle_in(table, end_user(0, key="other")) is Mode.NO_ROOM


def test_who_only_looks_makes_nothing() -> None:
    table = made(max_end_users=1)
    assert table.rows.seen(end_user(0), Kind.RATE) == -1
    assert table.words[AT_ROW_COUNT] == 0
    settle_in(table, end_user(0))
    settle_in(table, end_user(1))
    shared = table.rows.find(end_user("*"), Kind.RATE)[0]
    assert table.rows.seen(end_user(7), Kind.RATE) == shared, "that is where it would be counted"
    assert table.rows.seen(end_user(0), Kind.RATE) == table.rows.find(end_user(0), Kind.RATE)[0]
    assert table.words[AT_COUNTERS + Counter.RECLAIMED] == 0
