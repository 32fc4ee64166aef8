"""Giving up what nobody needs: the holds of processes that died, settlements that never came, rows that say nothing.

A visit of the supervisor, once a second and after every death, or of any worker. It must not stop anybody: it looks
without the mutex, takes it for a few holds or rows at a time, and never waits for it: what is not done now is done by
the next visit. Leases need no visit, since every operation ends those that are due; on an idle node it ends them.

An owner is a slot and its birth (`nodestate.py`), so a process that took a dead one's slot is not mistaken for it. The
holds of a dead owner lapse at once instead of with their leases: its slots are free, its other charges stay, as
estimated, until the journal's replay settles them. `lapsed` lists what waits for that. A hold that nobody settles for
KEPT_MS is given up: it becomes a mark, and its charges stay as they are.

Invariants: a living owner's hold is never touched: what was found is looked at again under the mutex. Left out: finding
out that a process died, and the records of what lapsed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec

from gateway.limiter.hold import State
from gateway.limiter.layout import AT_COUNTERS, AT_NEXT_LAPSE, AT_ROW_COUNT, Counter, hold_name
from gateway.limiter.mutex import MutexBusy
from gateway.limiter.table import Table
from gateway.nodestate import NodeState, SlotPhase

HOLDS_AT_ONCE: Final = 64
ROWS_AT_ONCE: Final = 512
KEPT_MS: Final = 86_400_000  # how long an expired hold waits for its settlement: the longest replay
CROWDED: Final = 4  # rows are given up when less than one in so many is free
_SLOT_BITS: Final = 16
_SLOT_MASK: Final = (1 << _SLOT_BITS) - 1


class Lapsed(msgspec.Struct, frozen=True):
    """A hold whose lease ended before it was settled: its id as the table keeps it, and who was to settle it."""

    hold: str
    owner: int


class Swept(msgspec.Struct, frozen=True):
    """What a visit did, and whether it did all there was to do: not if the mutex was in use."""

    holds: int = 0
    forgotten: int = 0
    rows: int = 0
    complete: bool = True


def owner_of(slot: int, birth: int) -> int:
    """A process as the number that its holds carry."""
    return birth << _SLOT_BITS | slot


def is_dead(node: NodeState, owner: int) -> bool:
    """Whether the process is gone: its slot says so, or has another process since."""
    state = node.slot(owner & _SLOT_MASK)
    return state.birth != owner >> _SLOT_BITS or state.phase == SlotPhase.GONE


def sweep(table: Table, dead: Callable[[int], bool]) -> Swept:
    """One visit; `dead` tells of an owner whether its process is gone. Raises MutexLost."""
    holds = forgotten = rows = 0
    try:
        _lapse_due(table)
        holds = _lapse_dead(table, dead)
        forgotten = _forget_old(table)
        rows = _reclaim(table)
    except MutexBusy:
        return Swept(holds, forgotten, rows, complete=False)
    return Swept(holds, forgotten, rows)


def lapsed(table: Table) -> list[Lapsed]:
    """The holds that wait for a settlement after their lease has ended. Raises MutexBusy, MutexLost."""
    numbers = [number for number, *_ in table.holds.in_states(State.EXPIRED)]
    found: list[Lapsed] = []
    for batch in _batches(numbers):
        with table.locked():
            holds = [table.holds.load(number) for number in batch]
            found += [Lapsed(hold_name(held.key), held.owner) for held in holds if held.state is State.EXPIRED]
    return found


def _lapse_due(table: Table) -> None:
    while table.now_ms() >= table.words[AT_NEXT_LAPSE]:
        with table.locked(wait_ms=0):
            pass  # taking the mutex ends leases that are over, a bounded number at a time


def _lapse_dead(table: Table, dead: Callable[[int], bool]) -> int:
    holds = list(table.holds.in_states(State.OPEN))
    gone = {owner for owner in {owner for _, owner, _ in holds} if dead(owner)}
    ended = 0
    for batch in _batches([number for number, owner, _ in holds if owner in gone]):
        with table.locked(wait_ms=0) as now_ms:
            for held in map(table.holds.load, batch):
                if held.state is State.OPEN and held.owner in gone:  # it may be over, and its memory another's, by now
                    table.step(now_ms).lapse(held)
                    table.words[AT_COUNTERS + Counter.SWEPT] += 1
                    ended += 1
    return ended


def _forget_old(table: Table) -> int:
    now_ms = table.now_ms()
    old = [number for number, _, until_ms in table.holds.in_states(State.EXPIRED) if now_ms - until_ms >= KEPT_MS]
    forgotten = 0
    for batch in _batches(old):
        with table.locked(wait_ms=0):
            for held in map(table.holds.load, batch):
                if held.state is State.EXPIRED and now_ms - held.lease_ms >= KEPT_MS:
                    table.holds.give_up(held)
                    forgotten += 1
    return forgotten


def _reclaim(table: Table) -> int:
    rows = table.layout.rows
    given_up = looked = 0
    while looked < rows and rows - table.words[AT_ROW_COUNT] < rows // CROWDED:
        with table.locked(wait_ms=0) as now_ms:
            given_up += table.rows.reclaim(now_ms, table.wall_ms(), ROWS_AT_ONCE)
        looked += ROWS_AT_ONCE
    return given_up


def _batches(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), HOLDS_AT_ONCE):
        yield numbers[first : first + HOLDS_AT_ONCE]
