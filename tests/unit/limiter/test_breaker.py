"""The breaker: three strikes open it, a lost connection at once, and only an answered probe closes it."""

import itertools

import pytest

from gateway.limiter.breaker import MAX_REST_S, REST_S, STRIKES, TRANSITIONS, Breaker, BreakerEvent, BreakerState


def closed() -> Breaker:
    breaker = Breaker()
    breaker.on(BreakerEvent.RESTED)
    breaker.on(BreakerEvent.PROBED)
    assert breaker.closed
    return breaker


def test_it_begins_open_and_a_probe_closes_it() -> None:
    breaker = Breaker()
    assert not breaker.closed
    states = [breaker.state]
    for event in (BreakerEvent.RESTED, BreakerEvent.PROBED):
        breaker.on(event)
        states.append(breaker.state)
    assert states == [BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED]
    assert breaker.trips == 0


def test_strikes_in_a_row_open_it() -> None:
    breaker = closed()
    assert [breaker.strike() for _ in range(STRIKES)] == [False] * (STRIKES - 1) + [True]
    assert breaker.state is BreakerState.OPEN
    assert breaker.trips == 1
    assert not breaker.strike()
    assert breaker.trips == 1


def test_an_answer_between_strikes_keeps_it_closed() -> None:
    breaker = closed()
    for _ in range(10):
        breaker.strike()
        breaker.strike()
        breaker.answered()
    assert breaker.closed


def test_a_lost_connection_opens_it_at_once() -> None:
    breaker = closed()
    breaker.on(BreakerEvent.LOST)
    assert breaker.state is BreakerState.OPEN
    assert breaker.trips == 1
    breaker.on(BreakerEvent.LOST)
    assert breaker.trips == 1


def test_strikes_are_forgotten_when_it_closes() -> None:
    breaker = closed()
    breaker.strike()
    breaker.strike()
    breaker.on(BreakerEvent.LOST)
    breaker.on(BreakerEvent.RESTED)
    breaker.on(BreakerEvent.PROBED)
    assert not breaker.strike()
    assert breaker.closed


def test_rests_grow_and_differ() -> None:
    breaker = Breaker()
    assert breaker.rest_s(0.0) == 0
    assert breaker.rest_s(0.999) < REST_S
    longest = []
    for _ in range(10):
        breaker.on(BreakerEvent.RESTED)
        breaker.on(BreakerEvent.FAILED)
        longest.append(breaker.rest_s(1.0))
        assert breaker.rest_s(0.0) == longest[-1] / 2
    assert longest[:4] == [2 * REST_S, 4 * REST_S, 8 * REST_S, 16 * REST_S]
    assert longest == sorted(longest)
    assert longest[-1] == MAX_REST_S


def test_rests_may_be_bounded_sooner() -> None:
    breaker = Breaker(max_rest_s=0.5)
    for _ in range(10):
        breaker.on(BreakerEvent.RESTED)
        breaker.on(BreakerEvent.FAILED)
    assert breaker.rest_s(1.0) == 0.5


def test_a_success_ends_the_growth() -> None:
    breaker = Breaker()
    for event in (BreakerEvent.FAILED, BreakerEvent.FAILED, BreakerEvent.PROBED):
        breaker.on(BreakerEvent.RESTED)
        breaker.on(event)
    breaker.on(BreakerEvent.LOST)
    assert breaker.rest_s(0.5) < REST_S


def test_every_state_can_be_reached_and_left() -> None:
    assert set(TRANSITIONS.values()) == set(BreakerState)
    assert {before for (before, _), after in TRANSITIONS.items() if after is not before} == set(BreakerState)


def test_what_is_not_in_the_table_is_a_defect() -> None:
    for state, event in set(itertools.product(BreakerState, BreakerEvent)) - set(TRANSITIONS):
        breaker = Breaker()
        breaker.state = state
        with pytest.raises(KeyError):
            breaker.on(event)
