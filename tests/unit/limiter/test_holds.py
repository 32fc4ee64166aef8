"""Holds are kept with all they say, marks live as long as they can, and any part of a change is undone."""

from collections.abc import Iterator, Sequence

import pytest

from gateway.limiter import holds as module
from gateway.limiter.check import problems
from gateway.limiter.hold import State
from gateway.limiter.holds import IN_FLIGHT, LOOK_AGAIN_MS, MAX_ATTEMPT, SETTLE, WAS_EXPIRED, Held, Holds, Taken
from gateway.limiter.layout import (
    AT_HOLD_TOP,
    AT_NEWEST,
    AT_NEXT_LAPSE,
    AT_OLDEST,
    HOLD_META,
    HOLD_NEXT,
    HOLD_WORDS,
    Counter,
    Layout,
    hold_key,
)
from gateway.limiter.table import Table
from gateway.limiter.undo import write
from gateway.segment import WORD
from tests.fakes.limit_table import Moment, memory, table

HOLDS = 16
NOW_MS = 50


@pytest.fixture
def made() -> Table:
    return table(memory(Layout(rows=16, holds=HOLDS)), Moment(0), kind=Table)


def hold(name: str, *, state: State = State.OPEN, until_ms: int = 100) -> Held:
    held = Held(hold_key(name), owner=7)
    held.state, held.attempt, held.lease_ms = state, 0, until_ms
    return held


def save(holds: Holds, held: Held) -> bool:
    changes = holds.saved(held) if held.number >= 0 else holds.opened(held, NOW_MS)
    if changes is None:
        return False
    holds.leased(held.lease_ms)
    write(holds.words, holds.layout.undo_at, changes)
    return True


def open_and_settle(holds: Holds, name: str) -> None:
    held = hold(name)
    assert save(holds, held)
    held.state = State.SETTLED
    save(holds, held)


def states(holds: Holds, names: Sequence[str]) -> list[str]:
    found = [holds.find(hold_key(name)) for name in names]
    return [held.state.name if held is not None else "UNKNOWN" for held in found]


def test_a_hold_says_again_what_it_was_told(made: Table) -> None:
    held = hold("a", until_ms=12_345)
    held.attempt = MAX_ATTEMPT
    held.charges = {2**63 - 1: Taken(10**12, 0), 5: Taken(7, 10**13, shared=True), 6: Taken(6, IN_FLIGHT, shared=True)}
    held.charges |= {100 + number: Taken(number, 0, shared=bool(number % 2)) for number in range(13)}
    save(made.holds, held)
    found = made.holds.find(hold_key("a"))
    assert found is not None
    for name in Held.__slots__:
        assert getattr(found, name) == getattr(held, name)
    assert list(found.charges) == list(held.charges)


def test_an_id_is_found_among_those_that_hash_alike(made: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limiter.holds.crc32", lambda _: 3)
    for name in "abc":
        save(made.holds, hold(name))
    assert states(made.holds, "abcd") == ["OPEN", "OPEN", "OPEN", "UNKNOWN"]
    assert problems(made.rows, made.holds) == []


def test_a_mark_outlives_as_many_settlements_as_there_is_memory(made: Table) -> None:
    open_and_settle(made.holds, "a")
    for number in range(HOLDS - 1):
        open_and_settle(made.holds, f"{number}")
        assert states(made.holds, "a") == ["SETTLED"]
    open_and_settle(made.holds, "last")
    assert states(made.holds, "a") == ["UNKNOWN"]
    assert problems(made.rows, made.holds) == []


def test_an_open_hold_keeps_its_memory_however_many_come_and_go(made: Table) -> None:
    save(made.holds, hold("a"))
    for number in range(5 * HOLDS):
        open_and_settle(made.holds, f"{number}")
    assert states(made.holds, "a") == ["OPEN"]
    assert problems(made.rows, made.holds) == []


def test_when_all_are_open_there_is_no_memory(made: Table) -> None:
    for number in range(HOLDS):
        assert save(made.holds, hold(f"{number}"))
    assert not save(made.holds, hold("one more"))
    assert problems(made.rows, made.holds) == []


def test_the_expired_hold_whose_lease_ended_first_gives_way(made: Table) -> None:
    for number, name in enumerate("abcdefghijklmnop"):
        state = State.EXPIRED if name in "cde" else State.OPEN
        save(made.holds, hold(name, state=state, until_ms=100 - number))
    assert save(made.holds, hold("q"))
    assert states(made.holds, "cdeq") == ["EXPIRED", "EXPIRED", "UNKNOWN", "OPEN"]
    assert made.count(Counter.FORGOTTEN) == 1
    assert problems(made.rows, made.holds) == []


def test_a_flood_that_finds_no_memory_does_not_look_for_it_every_time(
    made: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(HOLDS):
        save(made.holds, hold(f"{number}"))
    looks: list[tuple[State, ...]] = []

    def in_states(*states: State) -> list[tuple[int, int, int]]:
        looks.append(states)
        return []

    monkeypatch.setattr(made.holds, "in_states", in_states)
    for later_ms in (0, 1, LOOK_AGAIN_MS - 1, LOOK_AGAIN_MS, LOOK_AGAIN_MS + 1):
        assert made.holds.opened(hold("one more"), NOW_MS + later_ms) is None
    assert len(looks) == 2


def test_one_look_finds_many_that_give_way_in_their_order(made: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a worker with thousands of holds has died, each new request must not search the whole table."""
    names = "abcdefghijklmnop"
    for number, name in enumerate(names):
        save(made.holds, hold(name, state=State.EXPIRED, until_ms=100 - number))
    looks: list[tuple[State, ...]] = []
    look = made.holds.in_states

    def in_states(*wanted: State) -> Iterator[tuple[int, int, int]]:
        looks.append(wanted)
        return look(*wanted)

    monkeypatch.setattr(made.holds, "in_states", in_states)
    assert save(made.holds, hold("q"))
    settled = made.holds.find(hold_key("o"))  # by its own process, meanwhile
    assert settled is not None
    settled.state = State.SETTLED
    save(made.holds, settled)
    assert all(save(made.holds, hold(name)) for name in "rst")
    assert states(made.holds, "lmnop") == ["EXPIRED", "UNKNOWN", "UNKNOWN", "UNKNOWN", "UNKNOWN"]
    assert len(looks) == 1
    assert made.count(Counter.FORGOTTEN) == 3
    assert problems(made.rows, made.holds) == []


def test_a_settlement_of_nobody_leaves_a_mark(made: Table) -> None:
    assert save(made.holds, hold("a", state=State.SETTLED))
    assert save(made.holds, hold("b", state=State.SETTLED))
    assert states(made.holds, "ab") == ["SETTLED", "SETTLED"]
    assert (made.words[AT_OLDEST], made.words[AT_NEWEST]) == (1, 2)
    assert problems(made.rows, made.holds) == []


def test_the_next_end_of_a_lease_only_moves_forward_to_earlier(made: Table) -> None:
    for until_ms, least in ((500, 500), (700, 500), (300, 300)):
        made.holds.leased(until_ms)
        assert made.words[AT_NEXT_LAPSE] == least


def test_holds_are_listed_by_state(made: Table) -> None:
    save(made.holds, hold("a", until_ms=5))
    save(made.holds, hold("b", state=State.EXPIRED, until_ms=6))
    open_and_settle(made.holds, "c")
    assert list(made.holds.in_states(State.OPEN)) == [(0, 7, 5)]
    assert list(made.holds.in_states(State.EXPIRED, State.OPEN)) == [(0, 7, 5), (1, 7, 6)]


def test_a_state_is_told_whatever_else_the_word_says(made: Table) -> None:
    for number, state in enumerate((State.OPEN, State.SETTLED, State.EXPIRED) * 4):
        save(made.holds, hold(f"{number}", state=state, until_ms=100 - number))
    metas = range(made.layout.holds_at + HOLD_META, made.layout.holds_at + 12 * HOLD_WORDS, HOLD_WORDS)
    for at, meta in enumerate(metas):
        made.words[meta] |= 0x5A5A_5A5A_5A5A_5A58 if at % 2 else -4  # all bits but those of the state, or some
    expected = {state: [at for at, meta in enumerate(metas) if made.words[meta] & 3 == state] for state in State}
    for state in State:
        assert [number for number, *_ in made.holds.in_states(state)] == expected[state]
    assert [number for number, *_ in made.holds.in_states(*State)] == list(range(12))
    assert made.holds.next_lapse_ms() == 100 - max(expected[State.OPEN])


def test_what_says_a_state_is_worked_out_once(made: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    save(made.holds, hold("a", until_ms=5))
    before = list(made.holds.in_states(State.OPEN)), made.holds.next_lapse_ms()
    monkeypatch.setattr(module, "STATE_MASK", 0)  # whoever worked it out again would find nothing
    assert (list(made.holds.in_states(State.OPEN)), made.holds.next_lapse_ms()) == before == ([(0, 7, 5)], 5)


def test_who_is_in_the_way_of_others_in_the_index_is_forgotten_too(
    made: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.limiter.holds.crc32", lambda _: 3)
    for name in "abcdefghijklmnop":
        open_and_settle(made.holds, name)
    for name in "qrs":
        open_and_settle(made.holds, name)
        assert problems(made.rows, made.holds) == []
    assert states(made.holds, "abcdqrs") == ["UNKNOWN"] * 3 + ["SETTLED"] * 4


# --- taking back -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("was", [State.OPEN, State.EXPIRED])
@pytest.mark.parametrize("queued", [0, 1, 3])
@pytest.mark.parametrize("done", range(5))
def test_any_part_of_a_settlement_is_taken_back(made: Table, was: State, queued: int, done: int) -> None:
    save(made.holds, hold("a", state=was))
    for number in range(queued):
        open_and_settle(made.holds, f"{number}")
    before = made.words.tolist()
    at = made.holds.at(0) // WORD
    stores = [  # as `quick.py` makes them
        (made.holds.at(made.words[AT_NEWEST] - 1) // WORD + HOLD_NEXT if queued else AT_OLDEST, 1),
        (AT_NEWEST, 1),
        (at + HOLD_META, made.words[at + HOLD_META] ^ SETTLE[was]),
    ]
    for word, value in stores[:done]:
        made.words[word] = value
    for _ in range(2):  # and again, should it be cut short
        made.holds.take_back(0, settling=True)
        assert states(made.holds, "a") == [was.name]
        assert problems(made.rows, made.holds) == []
    if queued:
        assert made.words.tolist() == before


def test_a_mark_remembers_what_it_was(made: Table) -> None:
    save(made.holds, hold("a", state=State.EXPIRED))
    at = made.holds.at(0) // WORD + HOLD_META
    before = made.words[at]
    made.words[at] ^= SETTLE[State.EXPIRED]
    assert made.words[at] & WAS_EXPIRED
    assert states(made.holds, "a") == ["SETTLED"]
    made.words[at] ^= SETTLE[State.EXPIRED]
    assert made.words[at] == before


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("done", range(4))
def test_any_part_of_an_opening_in_new_memory_is_taken_back(made: Table, others: int, done: int) -> None:
    for number in range(others):
        save(made.holds, hold(f"{number}"))
    opening(made, others, done, (AT_HOLD_TOP, others + 1))
    assert made.words[AT_HOLD_TOP] == others


@pytest.mark.parametrize("queued", [1, 2, 5])
@pytest.mark.parametrize("done", range(4))
def test_any_part_of_an_opening_in_a_marks_memory_is_taken_back(made: Table, queued: int, done: int) -> None:
    for number in range(HOLDS - queued):
        save(made.holds, hold(f"{number}"))
    for number in range(queued):
        open_and_settle(made.holds, f"mark {number}")
    first = made.words[AT_OLDEST] - 1
    assert made.holds.forget(first)
    opening(made, first, done, (AT_OLDEST, made.words[made.holds.at(first) // WORD + HOLD_NEXT]))
    assert first + 1 == made.words[AT_OLDEST] or first == made.words[AT_HOLD_TOP], "at the front, or as if never used"


def opening(made: Table, number: int, done: int, header: tuple[int, int]) -> None:
    """As `quick.py` opens a hold, up to a point; then it is taken back, twice."""
    new = hold("new")
    new.number = number
    entry_at, entry = made.holds.index.insertion(77, number)
    stores: list[list[tuple[int, ...]]] = [[(header[0] * WORD, header[1])], made.holds.body(new), [(entry_at, entry)]]
    for changes in stores[:done]:
        for byte, *values in changes:
            for index, value in enumerate(values):
                made.words[byte // WORD + index] = value
    for _ in range(2):
        made.holds.take_back(number, settling=False)
        assert states(made.holds, ["new"]) == ["UNKNOWN"]
        assert problems(made.rows, made.holds) == []
