"""A node's slices in its limit table: three rows for each sliced bucket, changed under the table's mutex.

    row       kind    USED             REST          MARK        AMOUNT        PERIOD
    balance   WINDOW  BASE - left      its end       its start   used          epoch
    terms     SLICE   had              turn          kept until  generation    when told
    asked     SLICE   want             asked at      kept until  unused        taken since told

The *balance* is a bucket of BASE like any other, of which all but the slice is used: requests reserve and settle there
through the table's own operations, which many processes may do at once and any may die in. The *terms* say what the
store granted last, under which turn, and when; the *asked* row is an exchange under way (`asked at` is not 0). An
exchange whose asker died, or whose answer was lost, is asked again by whoever looks next, word for word: a turn counts
once in the store, and its answer counts once here.

A *generation* is one life of a slice, and has a balance of its own. When the store has lost its data (its epoch is
another one), a new one begins with nothing, and what the store may have granted since then is given back whole: what
was taken from the old one is settled with the store itself.

Invariants: every change is one undo record, so it is whole or has not begun; only the holder of the mutex writes; terms
exist only where their balance does; a balance is never given up while its window may be used. A slice's name says all
that is needed to give it back, so a new process finds what others have left. Left out: what to ask (`slicing.py`), and
asking (`slicekeeping.py`). The rows of a RATE stay until the table is made anew.
"""

import os
from collections.abc import Callable, Container
from typing import Final, NamedTuple

from gateway.limiter.layout import (
    AT_ROW_COUNT,
    AT_ROW_TOP,
    GET,
    NAME_BYTES,
    ROW_AMOUNT,
    ROW_INFO,
    ROW_PERIOD,
    ROW_USED,
    ROW_WORDS,
)
from gateway.limiter.recorded import Bucket, name_of, parsed
from gateway.limiter.rows import KIND_MASK, SLICE
from gateway.limiter.slicing import Ask, Known
from gateway.limiter.spec import MAX_AMOUNT, MAX_WALL_MS, Kind, Spec, window
from gateway.limiter.table import Table
from gateway.limiter.undo import Change, write
from gateway.segment import WORD

BASE: Final = MAX_AMOUNT
SPARE_ROWS: Final = 64  # that must be free for a slice to be made
PATIENCE_MS: Final = 100  # before an exchange is asked again
EVERYTHING: Final = Ask(MAX_AMOUNT, 0)
_LATE_MS: Final = 2 * 86_400_000  # how long after its window a balance is kept: the longest request, and clocks
_PREFIX: Final = "slice|"
_FOREVER_MS: Final = 2**62
_LONG_AGO_MS: Final = 1
_USED, _REST, _AMOUNT = ROW_USED * WORD, (ROW_USED + 1) * WORD, ROW_AMOUNT * WORD


class Place(NamedTuple):
    """Where a slice is: name, byte offsets of its rows, tag of its terms, its generation, and in which epoch."""

    slice: str
    balance: int
    terms: int
    asked: int
    tag: int
    generation: int
    epoch: int
    spec: Spec  # of the balance

    @property
    def bucket(self) -> str:
        """The name of the balance."""
        return _named(self.slice, self.generation)

    @property
    def words(self) -> tuple[int, int, int]:
        """The words that say which generation counts, BASE - what is left, and what was used of the bucket, as told."""
        balance = self.balance // WORD
        return self.terms // WORD + ROW_AMOUNT, balance + ROW_USED, balance + ROW_AMOUNT


class Asked(NamedTuple):
    """An exchange under way."""

    turn: int
    ask: Ask


Decide = Callable[[Known], Ask | None]


class SliceRows:
    """One process's access to the slices of its node. Every method takes the mutex: raises MutexBusy, MutexLost."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.words = table.words

    def open(self, bucket: str, spec: Spec, epoch: int) -> Place | None:
        """The slice of a bucket, made if there is none; None where the table has no room to spare.

        None, too, for a name that is too long to be read again by `known`.
        """
        name = _PREFIX + name_of(bucket, spec)
        if len(name.encode()) > NAME_BYTES:
            return None
        rows = self.table.rows
        with self.table.locked() as now_ms:
            place = self._found(name, spec)
            if place is None and rows.layout.rows - self.words[AT_ROW_COUNT] >= SPARE_ROWS:
                place = self._made(name, spec, epoch, now_ms)
            return place

    def known(self) -> list[Bucket]:
        """Every bucket that this node has ever sliced, as far as the table remembers; the limits are not told."""
        rows, words = self.table.rows, self.words
        first, top = rows.layout.rows_at + ROW_INFO, words[AT_ROW_TOP]
        infos = words[first : first + top * ROW_WORDS : ROW_WORDS].tolist()
        names = [rows.name(rows.at(number)) for number, info in enumerate(infos) if info & KIND_MASK == SLICE]
        return [parsed(name.removeprefix(_PREFIX)) for name in names if name.startswith(_PREFIX)]

    def look(self, place: Place, taken: int, epoch: int, past: Container[int], decide: Decide) -> Asked | None:
        """Note what was taken, and begin the exchange that is due, or an old one again; None if there is none.

        A slice of an epoch that is past begins anew instead, and is not at this place any more.
        """
        with self.table.locked() as now_ms:
            if not self._stands(place):
                return None
            want, asked_ms, _, unused, before = self._row(place.asked)
            had, turn, _, _, told_ms = self._row(place.terms)
            taken += before
            used, of_epoch = GET[2](self.words, place.balance + _AMOUNT)
            if of_epoch in past:
                self._anew(place, epoch, now_ms)
                return None
            if asked_ms:
                return self._again(place, Asked(turn, Ask(unused, want)), asked_ms, now_ms, taken)
            ask = decide(Known(self.left(place), had, used, now_ms - told_ms, taken))
            if ask is None:
                if taken != before:
                    self._write((place.asked + _AMOUNT, unused, taken))
                return None
            return self._begin(place, Asked(max(turn + 1, self.table.wall_ms()), ask), now_ms)

    def answer(self, place: Place, asked: Asked, granted: int, used: int) -> None:
        """The store has done an exchange; unless that is known already, the slice is what it comes to."""
        turn, ask = asked
        with self.table.locked() as now_ms:
            had, current, *_ = self._row(place.terms)
            if not self._stands(place) or current != turn or not self._row(place.asked)[1]:
                return
            balance, end_ms, start_ms = GET[3](self.words, place.balance + _USED)
            more = granted - ask.unused + ask.escrow
            self._write(
                (place.balance + _USED, max(balance - more, 0), end_ms, start_ms),
                (place.balance + _AMOUNT, used),
                (place.terms + _USED, had if ask.charges else granted),
                (place.terms + _AMOUNT, place.generation, now_ms),
                (place.asked + _USED, ask.want, 0),
            )

    def left(self, place: Place) -> int:
        """What is left of a slice, at a glance."""
        used: int = self.words[place.balance // WORD + ROW_USED]
        return BASE - used

    # --- under the mutex --------------------------------------------------------------------------------------------

    def _row(self, at: int) -> tuple[int, int, int, int, int]:
        """USED, REST, MARK, AMOUNT, PERIOD."""
        used, rest, mark = GET[3](self.words, at + _USED)
        amount, period = GET[2](self.words, at + _AMOUNT)
        return used, rest, mark, amount, period

    def _stands(self, place: Place) -> bool:
        """Whether this is still the slice that counts."""
        words, at = self.words, place.terms // WORD
        return bool(words[at] == place.tag and words[at + ROW_AMOUNT] == place.generation)

    def _begin(self, place: Place, asked: Asked, now_ms: int) -> Asked:
        turn, ask = asked
        balance, end_ms, start_ms = GET[3](self.words, place.balance + _USED)
        self._write(
            (place.balance + _USED, balance + ask.escrow, end_ms, start_ms),
            (place.terms + _REST, turn),
            (place.asked + _USED, ask.want, now_ms),
            (place.asked + _AMOUNT, ask.unused, 0),
        )
        return asked

    def _again(self, place: Place, asked: Asked, asked_ms: int, now_ms: int, taken: int) -> Asked | None:
        late = now_ms - asked_ms >= PATIENCE_MS
        self._write(
            (place.asked + _USED, asked.ask.want, now_ms if late else asked_ms),
            (place.asked + _AMOUNT, asked.ask.unused, taken),
        )
        return asked if late else None

    def _found(self, name: str, spec: Spec) -> Place | None:
        """The slice of this name; None if there is none, or who made it died at it."""
        rows = self.table.rows
        terms, tag = rows.find(name, SLICE)
        if terms < 0 or not self._row(terms)[2]:
            return None
        generation = self.words[terms // WORD + ROW_AMOUNT]
        balance, _ = rows.find(_named(name, generation), Kind.WINDOW)
        asked, _ = rows.find(_asked(name), SLICE)
        if min(balance, asked) < 0:
            return None
        epoch = self.words[balance // WORD + ROW_PERIOD]
        return Place(name, balance, terms, asked, tag, generation, epoch, _own(spec))

    def _made(self, name: str, spec: Spec, epoch: int, now_ms: int) -> Place:
        """A new slice; it is there with the last write, whatever a maker before has left."""
        kept_ms = _FOREVER_MS if spec.kind is Kind.RATE else now_ms + spec.end_ms - self.table.wall_ms() + _LATE_MS
        rows = self.table.rows
        balance, generation = self._balance(name, _own(spec), epoch)
        asked, terms = (rows.find(of, SLICE)[0] for of in (_asked(name), name))
        asked = asked if asked >= 0 else rows.make(_asked(name), SLICE, spec)
        terms = terms if terms >= 0 else rows.make(name, SLICE, spec)
        self._write(
            (asked + _USED, 0, 0, kept_ms),
            (asked + _AMOUNT, 0, 0),
            (terms + _USED, 0, 0, kept_ms),
            (terms + _AMOUNT, generation, now_ms),
        )
        return Place(name, balance, terms, asked, self.words[terms // WORD], generation, epoch, _own(spec))

    def _balance(self, name: str, own: Spec, epoch: int) -> tuple[int, int]:
        """A balance of which nothing is left, and its generation."""
        generation = int.from_bytes(os.urandom(7), "little") + 1
        at = self.table.rows.make(_named(name, generation), Kind.WINDOW, own)
        self._write((at + _USED, BASE, own.end_ms, own.start_ms), (at + _AMOUNT, 0, epoch))
        return at, generation

    def _anew(self, place: Place, epoch: int, now_ms: int) -> None:
        """Begin a new generation, whose first exchange gives back all that the store may have granted the old one."""
        if self.table.rows.layout.rows == self.words[AT_ROW_COUNT]:
            return
        _, generation = self._balance(place.slice, place.spec, epoch)
        turn = max(self._row(place.terms)[1] + 1, self.table.wall_ms())
        self._write(
            (place.terms + _REST, turn),
            (place.terms + _AMOUNT, generation, now_ms),
            (place.asked + _USED, EVERYTHING.want, _LONG_AGO_MS),
            (place.asked + _AMOUNT, EVERYTHING.unused, 0),
        )

    def _write(self, *changes: Change) -> None:
        write(self.words, self.table.layout.undo_at, changes)


def _own(spec: Spec) -> Spec:
    """How a balance counts: from when it may be used until nobody may need it any more."""
    if spec.kind is Kind.RATE:
        return window(BASE, 1, MAX_WALL_MS)
    return window(BASE, spec.start_ms, min(spec.end_ms + _LATE_MS, MAX_WALL_MS))


def _named(name: str, generation: int) -> str:
    return f"{generation:x}|{name}"


def _asked(name: str) -> str:
    return f"asked|{name}"
