"""Whether a limit table is right: every invariant of its parts, looked at from outside.

Run after a process died within an operation and its change was taken back, before anybody goes on, and by tests after
everything they do. Left out: repair. What is wrong here is a defect, and a table that counts wrongly must not go on as
if it did not.
"""

from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Final

from gateway.limiter.hold import State
from gateway.limiter.holds import IN_FLIGHT, Holds
from gateway.limiter.index import NUMBER_BITS, NUMBER_MASK, TAG_MASK, Index
from gateway.limiter.layout import (
    AT_ARMED,
    AT_HOLD_TOP,
    AT_NEXT_LAPSE,
    AT_ROW_TOP,
    AT_USER_COUNT,
    GET,
    HOLD_NEXT,
    ROW_CHILDREN,
    ROW_NEXT,
    ROW_PARENT,
    ROW_TAG,
)
from gateway.limiter.rows import SLICE, Rows
from gateway.limiter.spec import MAX_RATE_USED, MAX_SLOTS, MAX_WINDOW_USED, Kind
from gateway.segment import WORD

_MOST_USED: Final = {
    Kind.RATE: MAX_RATE_USED,
    Kind.WINDOW: MAX_WINDOW_USED,
    Kind.SLOTS: 2 * MAX_SLOTS,
    SLICE: MAX_RATE_USED,
}


def problems(rows: Rows, holds: Holds) -> list[str]:
    """What is wrong, in words; empty for a table that is right. The caller holds the mutex."""
    found = ["an undo record is armed"] if rows.words[AT_ARMED] else []
    found += _index_problems("row", rows.index)
    found += _index_problems("hold", holds.index)
    found += _row_problems(rows)
    found += _hold_problems(rows, holds)
    return found


def _index_problems(of: str, index: Index) -> Iterator[str]:
    entries = index.words[index.at : index.at + index.mask + 1].tolist()
    numbers = Tally(entry & NUMBER_MASK for entry in entries if entry)
    yield from (f"{of} {number - 1} is in the index {times} times" for number, times in numbers.items() if times > 1)
    for place, entry in enumerate(entries):
        step = (entry >> NUMBER_BITS) & index.mask
        while entry and step != place:
            if not entries[step]:
                yield f"{of} {(entry & NUMBER_MASK) - 1} is in the index behind an empty place"
                break
            step = (step + 1) & index.mask


def _row_problems(rows: Rows) -> Iterator[str]:
    words = rows.words
    top, free, count = GET[3](words, AT_ROW_TOP * WORD)
    used = {number for number in range(top) if words[rows.at(number) // WORD + ROW_TAG]}
    if len(used) != count:
        yield f"{len(used)} rows are in use, counted are {count}"
    listed = _chain(words, free, lambda number: rows.at(number) // WORD + ROW_NEXT)
    if listed is None or set(listed) != set(range(top)) - used:
        yield "the free list is not the rows that are free"
    indexed = _indexed(rows.index)
    if indexed.keys() - used:
        yield f"rows {sorted(indexed.keys() - used)[:5]} are in the index and not in use"
    for number in used:
        if indexed.get(number) != words[rows.at(number) // WORD] & TAG_MASK:
            yield f"row {number} is not in the index"
        (used_now, rest, _), most = rows.read(rows.at(number)), _MOST_USED[rows.kind(rows.at(number))]
        if not 0 <= used_now <= most or rest < 0:
            yield f"row {number} has used {used_now} and {rest}, its most is {most}"
    yield from _family_problems(rows, used)


def _family_problems(rows: Rows, used: set[int]) -> Iterator[str]:
    words = rows.words
    parents = [words[rows.at(number) // WORD + ROW_PARENT] for number in used]
    children = Tally(parent - 1 for parent in parents if parent)
    if words[AT_USER_COUNT] != children.total():
        yield f"{children.total()} rows have a parent, counted are {words[AT_USER_COUNT]}"
    for number in used:
        counted = words[rows.at(number) // WORD + ROW_CHILDREN]
        if counted != children[number]:
            yield f"row {number} has {children[number]} children, counted are {counted}"


def _hold_problems(rows: Rows, holds: Holds) -> Iterator[str]:
    words = rows.words
    top, oldest, newest = GET[3](words, AT_HOLD_TOP * WORD)
    live = {number: holds.load(number) for number, *_ in holds.in_states(State.OPEN, State.EXPIRED)}
    indexed = _indexed(holds.index)
    queue = _chain(words, oldest, lambda number: holds.at(number) // WORD + HOLD_NEXT)
    if queue is None or set(queue) != set(range(top)) - live.keys():
        yield "the queue is not the holds that are neither open nor expired"
    elif queue and queue[-1] != newest - 1:
        yield "the queue of settled holds does not end at its newest"
    slots: Tally[int] = Tally()
    for number, held in live.items():
        if number not in indexed:
            yield f"hold {number} is not in the index"
        if held.state is State.OPEN and held.lease_ms < words[AT_NEXT_LAPSE]:
            yield f"hold {number} lapses at {held.lease_ms}, the next is to lapse at {words[AT_NEXT_LAPSE]}"
        if held.state is State.OPEN:
            slots.update(taken.reserved for taken in held.charges.values() if taken.window_ms == IN_FLIGHT)
    for number in range(words[AT_ROW_TOP]):
        at = rows.at(number)
        if words[at // WORD] and rows.kind(at) == Kind.SLOTS and rows.read(at).used != slots[words[at // WORD]]:
            yield f"row {number} counts {rows.read(at).used} slots, open holds have {slots[words[at // WORD]]}"


def _chain(words: memoryview, first: int, link: Callable[[int], int]) -> list[int] | None:
    """The numbers of a linked list, None for one without an end."""
    found: dict[int, None] = {}
    while first:
        if first - 1 in found:
            return None
        found[first - 1] = None
        first = words[link(first - 1)]
    return list(found)


def _indexed(index: Index) -> dict[int, int]:
    """Tags by number."""
    entries = index.words[index.at : index.at + index.mask + 1].tolist()
    return {(entry & NUMBER_MASK) - 1: entry >> NUMBER_BITS for entry in entries if entry}
