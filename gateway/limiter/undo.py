"""The undo record: what a few words held before they were changed, so that a change cut short can be taken back.

A change is a list of cells of three words. Before one is stored, its old words go to the record, and then `armed` says
where the record ends now; when all is stored, `armed` goes back to 0, and that one store is the commit. Whoever takes
the mutex after its holder died finds `armed` above 0 only if the change had begun, and puts the old words back, the
last first; dying while doing so changes nothing, as it can be done again. A process that is killed has executed a
prefix of its stores, and each aligned store of a word is whole (`segment.py`), so these are all the cases there are.

`armed` holds the end of the record, as a byte offset, in its lower 16 bits. Above them may stand a hold that is being
opened or settled and has no cells, because how to take that back follows from the hold itself: `Holds.take_back`.

Invariants: nothing that is reachable is changed without a record, but for a single word when the table is right both
before and after. Left out: which words to change.
"""

from collections.abc import Sequence
from typing import Final

from gateway.limiter.layout import AT_ARMED, CELL_WORDS, GET, PUT, UNDO_CELLS
from gateway.segment import WORD

END_MASK: Final = 0xFFFF
_CELL: Final = CELL_WORDS * WORD
HOLD_SHIFT: Final = 16  # in `armed`: the number of a hold, from 1, and whether it was being settled
SETTLING: Final = 1 << 24

Change = tuple[int, ...]  # a byte offset, then one to three new words


def write(words: memoryview, undo_at: int, changes: Sequence[Change]) -> None:
    """Make all changes or, should the process die on the way, none. The caller holds the mutex."""
    if len(changes) > UNDO_CELLS:
        raise OverflowError(f"{len(changes)} cells in one change, the undo record has {UNDO_CELLS}")
    read = GET[CELL_WORDS - 1]
    old: list[int] = []
    for change in changes:
        old += (change[0], *read(words, change[0]))
    PUT[len(old)](words, undo_at * WORD, *old)
    words[AT_ARMED] = undo_at * WORD + len(changes) * _CELL
    for at, *new in changes:
        PUT[len(new)](words, at, *new)
    words[AT_ARMED] = 0


def put_back(words: memoryview, undo_at: int) -> int:
    """Put back the old words of a change cut short, which stays armed; how many cells that were."""
    begin = undo_at * WORD
    end = words[AT_ARMED] & END_MASK or begin
    cells, odd = divmod(end - begin, _CELL)
    if odd or not 0 <= cells <= UNDO_CELLS:
        raise OverflowError(f"the undo record ends at byte {end}, it has {UNDO_CELLS} cells from {begin} on")
    read, put = GET[CELL_WORDS], PUT[CELL_WORDS - 1]
    for at in range(end - _CELL, begin - 1, -_CELL):  # a word changed twice has its oldest value in the first
        put(words, *read(words, at))
    return cells
