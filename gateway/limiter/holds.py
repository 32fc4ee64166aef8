"""The holds of the shared table: what each has charged, and the marks of those that are settled.

A hold's memory is OPEN or EXPIRED while it waits for its settlement. Settled, it stays where it is as a mark and joins
the end of a queue; the next new hold takes the memory at the queue's front. So a mark outlives at least as many
settlements as the table has holds that are not in flight: with 50,000, a minute at nearly a thousand
requests a second. That is enough for what marks are for here: on one host no answer is lost on the way, and a process
that dies between writing its outcome and settling has that outcome settled from the journal within seconds, by the
start of the process that replaces it.

When no memory is free, the EXPIRED hold whose lease ended first gives up its own; its settlement then finds nobody,
and owes the actual in full on top of what was kept. It is counted (FORGOTTEN).

Invariants: a hold is in the queue exactly when it is neither OPEN nor EXPIRED; OPEN and EXPIRED holds are in the index;
no lease of an OPEN hold ends before `AT_NEXT_LAPSE`. Left out: what a charge is (`hold.py`), rows (`rows.py`).
"""

import sys
from collections.abc import Iterator
from functools import cache
from heapq import nsmallest
from typing import Final, NamedTuple
from zlib import crc32

from gateway.limiter.hold import State
from gateway.limiter.index import NUMBER_MASK, Index
from gateway.limiter.layout import (
    AT_COUNTERS,
    AT_HOLD_TOP,
    AT_NEWEST,
    AT_NEXT_LAPSE,
    AT_OLDEST,
    GET,
    GET_HEAD,
    HOLD_CHARGES,
    HOLD_CODE,
    HOLD_LEASE,
    HOLD_META,
    HOLD_NEXT,
    HOLD_OWNER,
    HOLD_WORDS,
    ID_BYTES,
    NO_LEASE,
    UNDO_CELLS,
    Counter,
    Layout,
    ints,
)
from gateway.limiter.undo import Change, write
from gateway.segment import WORD

LOOK_AGAIN_MS: Final = 1000  # for expired holds to give up, when there was none: of 50,000 looking takes 3 to 10 ms
REMEMBERED: Final = 1024  # of those that a look has found
IN_FLIGHT: Final = -1  # where a charge has its window: it is a slot
MAX_ATTEMPT: Final = 2**24 - 1

# A hold's meta word: state, number of charges, attempt, a bit for each charge that went to a shared row, and one more.
STATE_MASK: Final = 3
COUNT_SHIFT: Final = 2
COUNT_MASK: Final = 63
ATTEMPT_SHIFT: Final = 8
SHARED_SHIFT: Final = 32
SHARED_MASK: Final = 0xFFFF
WAS_EXPIRED: Final = 1 << 48  # of a mark: what it was before
SETTLE: Final = {State.OPEN: 3, State.EXPIRED: 1 | WAS_EXPIRED}  # the bits of a meta word to turn over

_CELL: Final = 3
_LOWEST: Final = 0 if sys.byteorder == "little" else WORD - 1  # byte of a word


class Taken(NamedTuple):
    """One charge of a hold: what was reserved, the start of its window (0: none, or IN_FLIGHT), and in which row."""

    reserved: int
    window_ms: int
    shared: bool = False


class Held:
    """A hold as read from the table; `number` is -1 for one that has no memory yet."""

    __slots__ = ("attempt", "charges", "key", "lease_ms", "number", "owner", "state")

    def __init__(self, key: bytes, owner: int) -> None:
        self.number = -1
        self.key = key
        self.owner = owner
        self.state = State.UNKNOWN
        self.attempt = -1
        self.lease_ms = 0  # when it ends
        self.charges: dict[int, Taken] = {}  # by the bucket's tag

    @property
    def meta(self) -> int:
        """State, number of charges, attempt and shared bits in one word."""
        shared = sum(taken.shared << index for index, taken in enumerate(self.charges.values()))
        counts = len(self.charges) << COUNT_SHIFT | max(self.attempt, 0) << ATTEMPT_SHIFT
        return int(self.state) | counts | shared << SHARED_SHIFT


class Holds:
    """All holds of a table. Every method wants the mutex held."""

    def __init__(self, words: memoryview, layout: Layout) -> None:
        self.words = words
        self.layout = layout
        self.index = Index(words, layout.hold_index_at, layout.hold_index_words)
        self._look_again_ms = 0
        self._expired: list[tuple[int, int]] = []  # end of the lease and number, the first to give up at the end

    def at(self, number: int) -> int:
        """Byte offset of a hold."""
        return (self.layout.holds_at + number * HOLD_WORDS) * WORD

    def key(self, number: int) -> bytes:
        """The id of a hold, as kept."""
        first = self.at(number) // WORD
        return self.words[first : first + ID_BYTES // WORD].tobytes()

    def find(self, key: bytes) -> Held | None:
        """The hold with this id, None when there is none."""
        for number in self.index.candidates(crc32(key)):
            if self.key(number) == key:
                return self.load(number)
        return None

    def load(self, number: int) -> Held:
        """The hold with this number."""
        at = self.at(number)
        key, owner, meta, lease_ms, _, _ = GET_HEAD(self.words, at)
        held = Held(key, owner)
        held.number, held.lease_ms = number, lease_ms
        held.state = State(meta & STATE_MASK)
        held.attempt = meta >> ATTEMPT_SHIFT & MAX_ATTEMPT
        count = meta >> COUNT_SHIFT & COUNT_MASK
        flat = GET[_CELL * count](self.words, at + HOLD_CHARGES * WORD)
        for index in range(count):
            tag, reserved, window_ms = flat[_CELL * index : _CELL * index + _CELL]
            held.charges[tag] = Taken(reserved, window_ms, bool(meta >> SHARED_SHIFT >> index & 1))
        return held

    def in_states(self, *states: State) -> Iterator[tuple[int, int, int]]:
        """Number, owner and end of the lease of every hold in one of the states."""
        words, first = self.words, self.layout.holds_at
        for number in self._numbers(states):
            at = first + number * HOLD_WORDS
            yield number, words[at + HOLD_OWNER], words[at + HOLD_LEASE]

    def next_lapse_ms(self) -> int:
        """When the first lease of an OPEN hold ends; quick, since it is done with the mutex held."""
        words, first = self.words, self.layout.holds_at + HOLD_LEASE
        return min((words[first + number * HOLD_WORDS] for number in self._numbers((State.OPEN,))), default=NO_LEASE)

    def _numbers(self, states: tuple[State, ...]) -> Iterator[int]:
        """The holds in one of the states; of 50,000 in 0.9 ms, where looking at each meta word took 2.8."""
        first, count = self.layout.holds_at, self.words[AT_HOLD_TOP]
        raw = self.words[first : first + count * HOLD_WORDS].cast("B")
        lowest = raw[HOLD_META * WORD + _LOWEST :: HOLD_WORDS * WORD].tobytes()  # a state is in a word's last bits
        marks = lowest.translate(_marks(states))
        number = marks.find(1)
        while number >= 0:
            yield number
            number = marks.find(1, number + 1)

    # --- changes, to be written together with those of rows ---------------------------------------------------------

    def opened(self, held: Held, now_ms: int) -> list[Change] | None:
        """Give a new hold memory and an entry in the index, as it stands; None when all memory is in use."""
        taken = self._memory(now_ms)
        if taken is None:
            return None
        held.number, top, oldest, newest = taken
        changes = [*self.body(held), self.index.insertion(crc32(held.key), held.number)]
        if held.state is not State.SETTLED:
            return [(AT_HOLD_TOP * WORD, top, oldest, newest), *changes]
        return changes + self._queued(held.number, top, oldest, newest)

    def body(self, held: Held) -> list[Change]:
        """Everything a hold says, but that a lease ends: see `leased`."""
        at = self.at(held.number)
        flat = [*ints(held.key), held.owner, held.meta, held.lease_ms, 0, crc32(held.key)]
        for tag, taken in held.charges.items():
            flat += (tag, taken.reserved, taken.window_ms)
        return [(at + n * WORD, *flat[n : n + _CELL]) for n in range(0, len(flat), _CELL)]

    def saved(self, held: Held) -> list[Change]:
        """What a hold in memory says now; SETTLED turns it into a mark, at the end of the queue."""
        if held.state is not State.SETTLED:
            return self.body(held)
        held.charges = {}
        meta: Change = (self.at(held.number) + HOLD_META * WORD, held.meta, held.lease_ms, 0)
        return [meta, *self._queued(held.number, *GET[3](self.words, AT_HOLD_TOP * WORD))]

    def _queued(self, number: int, top: int, oldest: int, newest: int) -> list[Change]:
        mine = number + 1
        header: Change = (AT_HOLD_TOP * WORD, top, oldest or mine, mine)
        return [header, (self.at(newest - 1) + HOLD_NEXT * WORD, mine)] if oldest else [header]

    def leased(self, lease_ms: int) -> None:
        """Note that a lease ends then. Before the lease is stored: too early an end only means a look in vain."""
        self.words[AT_NEXT_LAPSE] = min(self.words[AT_NEXT_LAPSE], lease_ms)

    def _memory(self, now_ms: int) -> tuple[int, int, int, int] | None:
        """Memory for one hold: its number, and the three words of the header without it."""
        top, oldest, newest = GET[3](self.words, AT_HOLD_TOP * WORD)
        if top < self.layout.holds:
            return top, top + 1, oldest, newest
        if not oldest and not self._give_up_oldest(now_ms):
            return None
        top, oldest, newest = GET[3](self.words, AT_HOLD_TOP * WORD)
        number = oldest - 1
        if not self.forget(number):
            return None
        following = self.words[self.at(number) // WORD + HOLD_NEXT]
        return number, top, following, newest if following else 0

    def forget(self, number: int) -> bool:
        """Take a mark from the index; False when the index cannot let go of it in one change."""
        words, index = self.words, self.index
        code = words[self.at(number) // WORD + HOLD_CODE]
        if index.blank(code, number):
            return True
        removal = index.removal(code, number)
        if len(removal) > UNDO_CELLS:
            return False
        if removal:
            write(words, self.layout.undo_at, removal)
        return True

    def take_back(self, number: int, *, settling: bool) -> None:
        """Undo the opening or settling that `armed` names; any part of it may have been done, and of its undoing."""
        if settling:
            self._reopen(number)
        else:
            self._unmake(number)

    def _reopen(self, number: int) -> None:
        words, at = self.words, self.at(number) // WORD
        meta = words[at + HOLD_META]
        if meta & STATE_MASK == State.SETTLED:
            words[at + HOLD_META] = meta ^ SETTLE[State.EXPIRED if meta & WAS_EXPIRED else State.OPEN]
        before = 0
        place = words[AT_OLDEST]
        while place and place != number + 1:
            before, place = place, words[self.at(place - 1) // WORD + HOLD_NEXT]
        if not before and place:
            words[AT_OLDEST] = 0
        elif before:
            words[AT_NEWEST] = before
            words[self.at(before - 1) // WORD + HOLD_NEXT] = 0

    def _unmake(self, number: int) -> None:
        words, at, index = self.words, self.at(number) // WORD, self.index
        entries = words[index.at : index.at + index.mask + 1].tolist()
        for place, entry in enumerate(entries):
            if entry & NUMBER_MASK == number + 1:
                words[index.at + place] = 0  # the last store of an opening: nothing stands behind it yet
        top, oldest, _ = GET[3](words, AT_HOLD_TOP * WORD)
        if number >= top or oldest == number + 1:
            return
        words[at + HOLD_META] = 0
        if number == top - 1:
            words[AT_HOLD_TOP] = top - 1
            return
        words[at + HOLD_NEXT] = oldest
        if not oldest:
            words[AT_NEWEST] = number + 1
        words[AT_OLDEST] = number + 1

    def give_up(self, held: Held) -> None:
        """Make an EXPIRED hold a mark without settling it: its charges stay as they are."""
        held.state = State.SETTLED
        write(self.words, self.layout.undo_at, self.saved(held))
        self.words[AT_COUNTERS + Counter.FORGOTTEN] += 1

    def _give_up_oldest(self, now_ms: int) -> bool:
        """Give up the EXPIRED hold whose lease ended first; False when there was none a moment ago."""
        if not self._expired and now_ms >= self._look_again_ms:
            found = ((lease_ms, number) for number, _, lease_ms in self.in_states(State.EXPIRED))
            self._expired = nsmallest(REMEMBERED, found)[::-1]
            if not self._expired:
                self._look_again_ms = now_ms + LOOK_AGAIN_MS
        while self._expired:
            lease_ms, number = self._expired.pop()
            held = self.load(number)
            if held.state is State.EXPIRED and held.lease_ms == lease_ms:  # else it has been settled or given up since
                self.give_up(held)
                return True
        return False


@cache
def _marks(states: tuple[State, ...]) -> bytes:
    """A 1 for every byte that ends in one of the states: made once, since it is wanted with the mutex held."""
    return bytes(byte & STATE_MASK in states for byte in range(256))
