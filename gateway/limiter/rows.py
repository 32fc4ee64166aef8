"""The rows of the shared table: finding the one of a bucket, making it, giving it up, and what to do without one.

A row that does not exist is a full bucket, so rows are made only when something is charged, and may be given up when
they say nothing any more: a RATE that is full again, a WINDOW that is over, SLOTS that are all free. Nothing but
pressure gives up a row.

Who may have how many: names from the config (keys, teams, models) are bounded by it, and the table is sized for them.
End users are named by callers and are not. All of them together leave an eighth of the table to the names of the
config. A set of them, those that agree in all other scopes, has at most `max_end_users` rows, and never more than are
still free to end users: so the greediest set leaves as much as it has, n of them leave a share as large as each one's,
and a set that comes later finds room (dynamic thresholds, Choudhury and Hahne 1998). Who gets no row shares one with
the others of its set, `…|end_user=*`. A set must be one tenant's: a rule on end users names the key, team or org too.

Should the table be full for a name of the config as well, it is too small, and `on_full` decides: OTHER admits
uncounted, because a row that tenants share would make one tenant's use another's refusal; REFUSE answers NO_ROOM. Both
are counted. REFUSE does the same for end users, but for those that only their own `max_end_users` keeps out.

Invariants: a row in use is in the index once, and nothing else is; a row with a parent is counted in the parent's
children; a parent with children stays. Left out: what a row counts (`bucket.py`), which takes fit (`steps.py`).
"""

from enum import IntEnum
from typing import Final, NamedTuple

from gateway.limiter.bucket import FRESH, Row
from gateway.limiter.index import TAG_MASK, Index
from gateway.limiter.layout import (
    AT_COUNTERS,
    AT_HAND,
    AT_KEY,
    AT_ROW_COUNT,
    AT_ROW_TOP,
    AT_USER_COUNT,
    GET,
    NAME_BYTES,
    PUT,
    ROW_AMOUNT,
    ROW_CHILDREN,
    ROW_INFO,
    ROW_NAME,
    ROW_NEXT,
    ROW_PARENT,
    ROW_TAG,
    ROW_TWIN,
    ROW_USED,
    ROW_WORDS,
    UNDO_CELLS,
    Counter,
    Layout,
    ints,
    kept_name,
    row_digest,
)
from gateway.limiter.spec import Kind, Spec
from gateway.limiter.undo import Change, write
from gateway.segment import WORD

SLICE: Final = 3  # a row's kind beside those of Kind: what a node holds of another row (`steps.lease`)
SLICE_KEPT_MS: Final = 86_400_000  # how long after its end the last turn of a slice is remembered
RECLAIM_STEP: Final = 32  # rows looked at when a row is wanted and none is free
_RESERVE: Final = 8  # one row in so many is kept for names of the config
_KIND_BITS: Final = 8
KIND_MASK: Final = (1 << _KIND_BITS) - 1  # of a row's info word
_END_USER: Final = "end_user="
EVERYBODY: Final = f"{_END_USER}*"  # of a set, who has no row of its own
_NONE: Final = -1


class OnFull(IntEnum):
    """What becomes of a bucket that the table has no row for."""

    OTHER = 0  # an end user's is counted with others of its kind; a name of the config is not counted
    REFUSE = 1


class Mode(IntEnum):
    """Where a bucket is counted."""

    OWN = 0  # in its row
    NEW = 1  # in a row of its own that is yet to be made
    SHARED = 2  # in the row of its set
    UNCOUNTED = 3
    NO_ROOM = 4


class Place(NamedTuple):
    """Where a bucket is counted: how, in which row (its byte offset, or -1), and under which tag a hold charges it."""

    mode: Mode
    at: int
    tag: int


class Rows:
    """All rows of a table. Every method wants the mutex held."""

    def __init__(self, words: memoryview, layout: Layout, *, max_end_users: int, on_full: OnFull) -> None:
        self.words = words
        self.layout = layout
        self.index = Index(words, layout.row_index_at, layout.row_index_words)
        self._key = words[AT_KEY : AT_KEY + 2].tobytes()
        self._max_end_users = max_end_users
        self._on_full = on_full
        self._most_users = most_end_users(layout.rows)
        self._looked_ms = -1
        self.pinned: set[int] = set()  # rows that the step under way has read, and must not lose

    # --- reading ----------------------------------------------------------------------------------------------------

    def at(self, number: int) -> int:
        """Byte offset of a row."""
        return (self.layout.rows_at + number * ROW_WORDS) * WORD

    def number(self, at: int) -> int:
        """The number of the row at a byte offset."""
        return (at // WORD - self.layout.rows_at) // ROW_WORDS

    def find(self, name: str, kind: int) -> tuple[int, int]:
        """Where the row of this name is (byte offset, -1 for nowhere), and the tag of the name."""
        tag, twin = row_digest(kept_name(name), kind, self._key)
        for number in self.index.candidates(tag & TAG_MASK):
            at = self.at(number)
            if self.words[at // WORD] == tag and self.words[at // WORD + ROW_TWIN] == twin:
                return at, tag
        return _NONE, tag

    def by_tag(self, tag: int) -> int:
        """Where the row with this tag is, -1 for nowhere."""
        for number in self.index.candidates(tag & TAG_MASK):
            at = self.at(number)
            if self.words[at // WORD] == tag:
                return at
        return _NONE

    def read(self, at: int) -> Row:
        """What a row counts; nothing (a full bucket) for the row at -1."""
        return Row(*GET[3](self.words, at + ROW_USED * WORD)) if at >= 0 else FRESH

    def name(self, at: int) -> str:
        """The name of a row, its end replaced by a digest when it was long."""
        size = self.words[at // WORD + ROW_INFO] >> _KIND_BITS
        first = at // WORD + ROW_NAME
        return self.words[first : first + NAME_BYTES // WORD].tobytes()[:size].decode(errors="replace")

    def kind(self, at: int) -> int:
        """The kind of a row: one of Kind, or SLICE."""
        kind: int = self.words[at // WORD + ROW_INFO] & KIND_MASK
        return kind

    # --- where a bucket is counted ----------------------------------------------------------------------------------

    def place(self, name: str, spec: Spec, now_ms: int, wall_ms: int) -> Place:
        """Where a bucket is to be counted; a row that it would share is made, its own is not."""
        at, tag = self.find(name, spec.kind)
        if at >= 0:
            self.pinned.add(at)
            self.note(at, spec)
            return Place(Mode.OWN, at, tag)
        shared = shared_name(name)
        if shared:
            return self._end_user(shared, spec, tag, now_ms, wall_ms)
        return Place(Mode.NEW, _NONE, tag) if self.room(now_ms, wall_ms) else self._none_left(tag)

    def seen(self, name: str, kind: int) -> int:
        """Where a bucket would be counted now, for who only looks: -1 is a full bucket."""
        at, _ = self.find(name, kind)
        shared = shared_name(name) if at < 0 else ""
        if shared:
            parent, _ = self.find(shared, kind)
            return parent if parent >= 0 and self._crowded(parent) else _NONE
        return at

    def shared_place(self, name: str, spec: Spec, now_ms: int, wall_ms: int) -> Place:
        """Where a bucket is counted that was charged to a shared row: there again."""
        at = self._set_row(shared_name(name), spec, now_ms, wall_ms)
        _, tag = self.find(name, spec.kind)
        return Place(Mode.SHARED, at, tag) if at >= 0 else self._none_left(tag)

    def _end_user(self, shared: str, spec: Spec, tag: int, now_ms: int, wall_ms: int) -> Place:
        parent = self._set_row(shared, spec, now_ms, wall_ms)
        if parent < 0:
            return self._none_left(tag)
        if self._crowded(parent):
            self._look(now_ms, wall_ms)
        if not self._crowded(parent):
            return Place(Mode.NEW, _NONE, tag)
        capped = self.words[parent // WORD + ROW_CHILDREN] >= self._max_end_users
        if self._on_full is OnFull.REFUSE and not capped:
            return self._none_left(tag)
        return Place(Mode.SHARED, parent, tag)

    def _crowded(self, parent: int) -> bool:
        """Whether this set has all the rows it may have, or there is none left for anybody."""
        words = self.words
        most = min(self._max_end_users, self._most_users - words[AT_USER_COUNT])
        return bool(words[parent // WORD + ROW_CHILDREN] >= most or words[AT_ROW_COUNT] >= self.layout.rows)

    def _set_row(self, shared: str, spec: Spec, now_ms: int, wall_ms: int) -> int:
        """Where the row of a set is, made if there is room; -1 if not."""
        at, _ = self.find(shared, spec.kind)
        if at >= 0:
            self.pinned.add(at)
            self.note(at, spec)
            return at
        return self.make(shared, spec.kind, spec) if self.room(now_ms, wall_ms) else _NONE

    def room(self, now_ms: int, wall_ms: int) -> bool:
        """Whether a row can be made, after looking for some to give up if need be."""
        if self.words[AT_ROW_COUNT] >= self.layout.rows:
            self._look(now_ms, wall_ms)
        return bool(self.words[AT_ROW_COUNT] < self.layout.rows)

    def _none_left(self, tag: int) -> Place:
        refused = self._on_full is OnFull.REFUSE
        return Place(Mode.NO_ROOM if refused else Mode.UNCOUNTED, _NONE, tag)

    def _look(self, now_ms: int, wall_ms: int) -> None:
        """Look for rows to give up, once a millisecond: a flood of new names must not make every request search."""
        if now_ms != self._looked_ms:
            self._looked_ms = now_ms
            self.reclaim(now_ms, wall_ms, RECLAIM_STEP)

    def note(self, at: int, spec: Spec) -> None:
        """Remember how fast a RATE refills, for `says_nothing`."""
        told = (spec.amount, spec.period_ms)
        if spec.kind is Kind.RATE and GET[2](self.words, at + ROW_AMOUNT * WORD) != told:
            write(self.words, self.layout.undo_at, [(at + ROW_AMOUNT * WORD, *told)])

    # --- making and giving up ---------------------------------------------------------------------------------------

    def make(self, name: str, kind: int, spec: Spec) -> int:
        """Make the row of a name that has none; its byte offset. There must be room."""
        words, kept = self.words, kept_name(name)
        tag, twin = row_digest(kept, kind, self._key)
        shared = shared_name(name)
        parent = self.find(shared, kind)[0] if shared else _NONE
        top, free, count = GET[3](words, AT_ROW_TOP * WORD)
        number = free - 1 if free else top
        at = self.at(number)
        following = words[at // WORD + ROW_NEXT] if free else 0
        info = kind | len(kept) << _KIND_BITS
        body = (twin, info, spec.amount, spec.period_ms, self.number(parent) + 1 if parent >= 0 else 0, 0)
        PUT[6](words, at + ROW_TWIN * WORD, *body)  # nobody reaches the row yet: no undo
        PUT[NAME_BYTES // WORD](words, at + ROW_NAME * WORD, *ints(kept.ljust(NAME_BYTES, b"\0")))
        changes: list[Change] = [
            (AT_ROW_TOP * WORD, top if free else top + 1, following, count + 1),
            (at + ROW_TAG * WORD, tag),
            (at + ROW_NEXT * WORD, 0),
            self.index.insertion(tag & TAG_MASK, number),
        ]
        write(words, self.layout.undo_at, changes + self._adopted(parent, 1))
        self.pinned.add(at)
        return at

    def give_up(self, at: int) -> bool:
        """Free a row; False when the index cannot let go of it in one change, which leaves it as it is."""
        words, number = self.words, self.number(at)
        removal = self.index.removal(words[at // WORD] & TAG_MASK, number)
        if len(removal) > UNDO_CELLS // 2:
            return False
        top, free, count = GET[3](words, AT_ROW_TOP * WORD)
        parent = words[at // WORD + ROW_PARENT]
        changes: list[Change] = [
            (AT_ROW_TOP * WORD, top, number + 1, count - 1),
            (at + ROW_TAG * WORD, 0, 0, 0),
            (at + (ROW_USED + 2) * WORD, 0),
            (at + ROW_NEXT * WORD, free),
        ]
        changes += removal + self._adopted(self.at(parent - 1) if parent else _NONE, -1)
        write(words, self.layout.undo_at, changes)
        words[AT_COUNTERS + Counter.RECLAIMED] += 1
        return True

    def empty(self, at: int) -> None:
        """Forget what a row counts, and keep its name: it is as good as one that was never made."""
        write(self.words, self.layout.undo_at, [(at + ROW_USED * WORD, *FRESH)])

    def says_nothing(self, at: int, now_ms: int, wall_ms: int) -> bool:
        """Whether giving up the row would forget nothing."""
        words, first = self.words, at // WORD
        if not words[first] or words[first + ROW_CHILDREN] or at in self.pinned:
            return False
        (used, rest, mark_ms), kind = self.read(at), self.kind(at)
        if kind == Kind.WINDOW:
            return wall_ms >= rest
        if kind == SLICE:
            return now_ms >= mark_ms + SLICE_KEPT_MS
        if kind == Kind.RATE and used:
            amount, period_ms = GET[2](words, at + ROW_AMOUNT * WORD)
            return (now_ms - mark_ms) * amount + rest >= used * period_ms  # as bucket.refilled
        return used == 0

    def reclaim(self, now_ms: int, wall_ms: int, rows: int) -> int:
        """Look at the next `rows` rows and give up those that say nothing; how many that were."""
        words, top = self.words, self.words[AT_ROW_TOP]
        given_up, hand = 0, words[AT_HAND]
        for _ in range(min(rows, top)):
            hand = hand + 1 if hand + 1 < top else 0
            at = self.at(hand)
            given_up += self.says_nothing(at, now_ms, wall_ms) and self.give_up(at)
        words[AT_HAND] = hand
        return given_up

    def _adopted(self, parent: int, more: int) -> list[Change]:
        if parent < 0:
            return []
        children = self.words[parent // WORD + ROW_CHILDREN] + more
        return [(parent + ROW_CHILDREN * WORD, children), (AT_USER_COUNT * WORD, self.words[AT_USER_COUNT] + more)]


def most_end_users(rows: int) -> int:
    """How many end users have rows of their own in a table of so many rows, at most."""
    return rows - max(rows // _RESERVE, 4)


def shared_name(name: str) -> str:
    """The name of the row that an end user's bucket shares when it gets none; empty for a name without an end user."""
    if _END_USER not in name:
        return ""
    parts = name.split("|")
    shared = "|".join(EVERYBODY if part.startswith(_END_USER) else part for part in parts)
    return shared if shared != name else ""
