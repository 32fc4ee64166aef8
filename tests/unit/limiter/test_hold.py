"""The states of a hold: settled once, expired holds come back or are settled, defects raise."""

import itertools

import pytest

from gateway.limiter.hold import TRANSITIONS, Charge, Event, State, belongs, merged, owed, state_at, step


def test_every_state_is_reached_and_unknown_is_where_it_begins() -> None:
    assert set(TRANSITIONS.values()) | {State.UNKNOWN} == set(State)
    assert {after for (before, _), after in TRANSITIONS.items() if before is not State.UNKNOWN} == {
        State.OPEN,
        State.EXPIRED,
        State.SETTLED,
    }


def test_settled_is_never_left() -> None:
    assert {after for (before, _), after in TRANSITIONS.items() if before is State.SETTLED} == {State.SETTLED}


def test_a_settlement_settles_from_wherever() -> None:
    assert all(step(state, Event.SETTLED) is State.SETTLED for state in State)


def test_nothing_but_a_renewal_or_a_settlement_moves_an_expired_hold() -> None:
    moved = {event for (before, event), after in TRANSITIONS.items() if before is State.EXPIRED and after is not before}
    assert moved == {Event.RENEWED, Event.SETTLED}


def test_what_is_not_in_the_table_is_a_defect() -> None:
    absent = set(itertools.product(State, Event)) - set(TRANSITIONS)
    assert absent == {
        (State.UNKNOWN, Event.RESERVED),
        (State.UNKNOWN, Event.LAPSED),
        (State.SETTLED, Event.LAPSED),
        (State.EXPIRED, Event.LAPSED),
    }
    for pair in absent:
        with pytest.raises(KeyError):
            step(*pair)


def test_a_lease_runs_up_to_its_end() -> None:
    assert state_at(State.OPEN, 1_000, 999) is State.OPEN
    assert state_at(State.OPEN, 1_000, 1_000) is State.EXPIRED
    for state in (State.UNKNOWN, State.SETTLED, State.EXPIRED):
        assert state_at(state, 1_000, 5_000) is state


@pytest.mark.parametrize(
    ("state", "charge", "actual", "delta"),
    [
        (State.OPEN, Charge(100, 0), 40, -60),
        (State.OPEN, Charge(100, 0), 140, 40),
        (State.OPEN, None, 40, 40),  # charged nothing, owes all
        (State.EXPIRED, Charge(100, 0), 40, -60),  # actual - kept
        (State.UNKNOWN, None, 40, 40),
        (State.SETTLED, None, 40, 0),
    ],
)
def test_what_a_settlement_adds(state: State, charge: Charge | None, actual: int, delta: int) -> None:
    assert owed(state, charge, actual) == delta


def test_a_settlement_goes_into_the_window_it_belongs_to_or_into_none() -> None:
    assert belongs(Charge(5, 1_000), 1_000, 0)
    assert not belongs(Charge(5, 1_000), 2_000, 2_000)
    assert belongs(None, 2_000, 2_000)
    assert not belongs(None, 2_000, 1_000)


def test_a_second_take_adds_up_within_a_window_and_begins_anew_in_the_next() -> None:
    assert merged(None, 5, 1_000) == Charge(5, 1_000)
    assert merged(Charge(5, 1_000), 3, 1_000) == Charge(8, 1_000)
    assert merged(Charge(5, 1_000), 3, 2_000) == Charge(3, 2_000)
