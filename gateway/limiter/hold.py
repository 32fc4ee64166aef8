"""A hold: what one request has reserved, from its first take to its one settlement, as a table of states.

A hold has an id, a lease, the number of its latest attempt, and for every bucket it charged a Charge: how much, and in
which window. OPEN: its lease runs. EXPIRED: the lease ended unrenewed; its slots are free again, its other charges stay
and count as estimated. SETTLED: what was really used has been applied, once; only a mark remains, which outlives any
replay. UNKNOWN is an id without a row: never seen, or forgotten when the store lost its data.

Absent pairs are defects and raise. What a pair does to the charges is told by `owed`: it is the only place where an
actual amount meets a reserved one.

Invariants: charges change only on RESERVED, EXTENDED and SETTLED; a hold reaches SETTLED once and never leaves it.
Left out: where holds are kept, and who notices that a lease has ended: it has ended when the clock says so.
"""

from enum import IntEnum
from typing import Final, NamedTuple


class State(IntEnum):
    """Where a hold stands."""

    UNKNOWN = 0
    OPEN = 1
    SETTLED = 2
    EXPIRED = 3


class Event(IntEnum):
    """What is asked of it, or happens to it."""

    RESERVED = 0  # the takes of an attempt that the hold has already: a call repeated because its answer was lost
    EXTENDED = 1  # the takes of a new attempt, the first one included
    RENEWED = 2
    LAPSED = 3  # the lease ended
    SETTLED = 4


_S, _E = State, Event

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (_S.UNKNOWN, _E.EXTENDED): _S.OPEN,
    (_S.UNKNOWN, _E.SETTLED): _S.SETTLED,  # the full actual, once
    (_S.UNKNOWN, _E.RENEWED): _S.UNKNOWN,  # there is nothing to renew; the answer says so
    (_S.OPEN, _E.RESERVED): _S.OPEN,  # admitted again, nothing taken twice
    (_S.OPEN, _E.EXTENDED): _S.OPEN,
    (_S.OPEN, _E.RENEWED): _S.OPEN,
    (_S.OPEN, _E.LAPSED): _S.EXPIRED,  # slots free, charges kept
    (_S.OPEN, _E.SETTLED): _S.SETTLED,
    (_S.EXPIRED, _E.RESERVED): _S.EXPIRED,  # told so: renew first, then ask again
    (_S.EXPIRED, _E.EXTENDED): _S.EXPIRED,  # as above, nothing taken
    (_S.EXPIRED, _E.RENEWED): _S.OPEN,  # it is in flight after all: its slots count again, if need be above the limit
    (_S.EXPIRED, _E.SETTLED): _S.SETTLED,  # actual - kept
    (_S.SETTLED, _E.RESERVED): _S.SETTLED,  # an echo of a call that is over: nothing is taken
    (_S.SETTLED, _E.EXTENDED): _S.SETTLED,
    (_S.SETTLED, _E.RENEWED): _S.SETTLED,  # a renewal that crossed with the settlement
    (_S.SETTLED, _E.SETTLED): _S.SETTLED,  # a replay: nothing is applied twice
}


class Charge(NamedTuple):
    """What a hold has taken from one bucket; `window_ms` is the start of the window it went into, 0 for other kinds."""

    reserved: int
    window_ms: int


def step(state: State, event: Event) -> State:
    """The state that follows; a pair that is not in the table is a defect and raises KeyError."""
    return TRANSITIONS[state, event]


def state_at(state: State, lease_until_ms: int, now_ms: int) -> State:
    """The state of a hold whose lease may have ended unnoticed; it runs up to `lease_until_ms`, exclusive."""
    return step(state, Event.LAPSED) if state is State.OPEN and now_ms >= lease_until_ms else state


def owed(state: State, charge: Charge | None, actual: int) -> int:
    """What a settlement adds to a bucket (or, below zero, gives back), by the state it finds.

    A bucket that the hold has not charged, or a hold nobody knows, owes the actual in full.
    """
    if state is State.SETTLED:
        return 0
    return actual - (charge.reserved if charge is not None else 0)


def belongs(charge: Charge | None, row_window_ms: int, window_ms: int) -> bool:
    """Whether a WINDOW bucket's row still counts the window a settlement belongs to.

    That is the one the hold was charged in, or, where it has no charge, the one the caller names (`window_ms`). A
    window that is over gets nothing more, and its successor is not charged for it.
    """
    return row_window_ms == (charge.window_ms if charge is not None else window_ms)


def merged(charge: Charge | None, cost: int, window_ms: int) -> Charge:
    """The charge of a bucket after one more take, which may fall into a newer window than the first."""
    if charge is None or charge.window_ms != window_ms:
        return Charge(cost, window_ms)
    return Charge(charge.reserved + cost, window_ms)
