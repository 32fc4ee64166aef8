"""Whether a limit table is right: every invariant of its parts, looked at from outside.

Run after a process died within an operation and its change was taken back, before anybody goes on, and by tests after
everything they do. It reads the table by columns, since the others wait for it: about 0.1 s for a full table of the
default size. Left out: repair. What is wrong here is a defect, and a table that counts wrongly must not go on as if it
did not.
"""

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from typing import Final

from gateway.limiter.hold import State
from gateway.limiter.holds import COUNT_MASK, COUNT_SHIFT, IN_FLIGHT, STATE_MASK, Holds
from gateway.limiter.index import NUMBER_BITS, NUMBER_MASK, TAG_MASK, Index
from gateway.limiter.layout import (
    AT_ARMED,
    AT_HOLD_TOP,
    AT_NEXT_LAPSE,
    AT_ROW_TOP,
    AT_USER_COUNT,
    GET,
    HOLD_CHARGES,
    HOLD_CODE,
    HOLD_LEASE,
    HOLD_META,
    HOLD_NEXT,
    HOLD_WORDS,
    ROW_CHILDREN,
    ROW_INFO,
    ROW_NEXT,
    ROW_PARENT,
    ROW_TAG,
    ROW_USED,
    ROW_WORDS,
)
from gateway.limiter.rows import KIND_MASK, SLICE, Rows
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
    if len(numbers) < numbers.total():
        yield from (
            f"{of} {number - 1} is in the index {times} times" for number, times in numbers.items() if times > 1
        )
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
    tags, following, infos = (
        _column(words, rows.layout.rows_at, ROW_WORDS, top, n) for n in (ROW_TAG, ROW_NEXT, ROW_INFO)
    )
    used = {number for number, tag in enumerate(tags) if tag}
    if len(used) != count:
        yield f"{len(used)} rows are in use, counted are {count}"
    listed = _chain(following, free)
    if listed is None or len(listed) != top - len(used) or not used.isdisjoint(listed):
        yield "the free list is not the rows that are free"
    indexed = _indexed(rows.index)
    if indexed.keys() - used:
        yield f"rows {sorted(indexed.keys() - used)[:5]} are in the index and not in use"
    counts, rests = (_column(words, rows.layout.rows_at, ROW_WORDS, top, ROW_USED + n) for n in (0, 1))
    for number in used:
        if indexed.get(number) != tags[number] & TAG_MASK:
            yield f"row {number} is not in the index"
        if not 0 <= counts[number] <= _MOST_USED[infos[number] & KIND_MASK] or rests[number] < 0:
            yield f"row {number} has used {counts[number]} and {rests[number]}, which cannot be"
    yield from _family_problems(rows, used, top)


def _family_problems(rows: Rows, used: set[int], top: int) -> Iterator[str]:
    words = rows.words
    parents, counted = (
        _column(words, rows.layout.rows_at, ROW_WORDS, top, word) for word in (ROW_PARENT, ROW_CHILDREN)
    )
    children = Tally(parents[number] - 1 for number in used if parents[number])
    if words[AT_USER_COUNT] != children.total():
        yield f"{children.total()} rows have a parent, counted are {words[AT_USER_COUNT]}"
    for number in used:
        if counted[number] != children[number]:
            yield f"row {number} has {children[number]} children, counted are {counted[number]}"


def _hold_problems(rows: Rows, holds: Holds) -> Iterator[str]:
    words = rows.words
    top, oldest, newest = GET[3](words, AT_HOLD_TOP * WORD)
    metas, following, leases, codes = (
        _column(words, holds.layout.holds_at, HOLD_WORDS, top, word)
        for word in (HOLD_META, HOLD_NEXT, HOLD_LEASE, HOLD_CODE)
    )
    live = {number: meta for number, meta in enumerate(metas) if meta & STATE_MASK in {State.OPEN, State.EXPIRED}}
    queue = _chain(following, oldest)
    if queue is None or len(queue) != top - len(live) or not live.keys().isdisjoint(queue):
        yield "the queue is not the holds that are neither open nor expired"
    elif queue and queue[-1] != newest - 1:
        yield "the queue of settled holds does not end at its newest"
    indexed = _indexed(holds.index)
    slots: Tally[int] = Tally()
    for number, meta in live.items():
        if indexed.get(number) != codes[number]:
            yield f"hold {number} is not in the index"
        if meta & STATE_MASK == State.OPEN:
            if leases[number] < words[AT_NEXT_LAPSE]:
                yield f"hold {number} lapses at {leases[number]}, the next is to lapse at {words[AT_NEXT_LAPSE]}"
            slots.update(_slots(holds, number, meta >> COUNT_SHIFT & COUNT_MASK))
    yield from _slot_problems(rows, slots)


def _slots(holds: Holds, number: int, count: int) -> Iterator[int]:
    """Tags of the rows that an open hold's slots are counted in."""
    charges = GET[3 * count](holds.words, holds.at(number) + HOLD_CHARGES * WORD)
    return (charges[index + 1] for index in range(0, 3 * count, 3) if charges[index + 2] == IN_FLIGHT)


def _slot_problems(rows: Rows, slots: Tally[int]) -> Iterator[str]:
    top = rows.words[AT_ROW_TOP]
    columns = (_column(rows.words, rows.layout.rows_at, ROW_WORDS, top, n) for n in (ROW_TAG, ROW_INFO, ROW_USED))
    for tag, info, used in zip(*columns, strict=True):
        if tag and info & KIND_MASK == Kind.SLOTS and used != slots.pop(tag, 0):
            yield f"{rows.name(rows.by_tag(tag))} counts {used} slots, open holds have others"
    if slots:
        yield f"open holds have {slots.total()} slots that no row counts"


def _column(words: memoryview, at: int, size: int, count: int, word: int) -> list[int]:
    """One word of each of `count` records of `size` words, the first at `at`."""
    return words[at + word : at + count * size : size].tolist()


def _chain(following: Sequence[int], first: int) -> list[int] | None:
    """The numbers of a linked list, None for one without an end."""
    found: list[int] = []
    while first:
        if not 0 < first <= len(following) or len(found) == len(following):
            return None
        found.append(first - 1)
        first = following[first - 1]
    return found


def _indexed(index: Index) -> dict[int, int]:
    """Tags by number."""
    entries = index.words[index.at : index.at + index.mask + 1].tolist()
    return {(entry & NUMBER_MASK) - 1: entry >> NUMBER_BITS for entry in entries if entry}
