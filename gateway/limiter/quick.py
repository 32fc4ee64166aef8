"""The table with a short way through the two operations that every request needs.

When a hold is new and all its buckets have rows of their own, which is nearly always, RESERVE is one loop over the
takes and a handful of stores: the arithmetic of `bucket.py` and `hold.py` written out, and the changes that `steps.py`
would make, under the same undo record. The same for the SETTLE of what was reserved. Rows are changed as the loop goes
on; at a take that does not fit, or that the short way does not know, what was done is taken back, and the long way
decides. Tests drive both through the same histories: every answer and every row are equal.

Invariants: as `steps.py`; besides, a row is only what this process remembers it to be while its tag says so. Written
flat, in one function each, because it is the hot path. Left out: everything rare.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final
from zlib import crc32

from gateway.limiter.bucket import NEVER, current, level, wait_ms
from gateway.limiter.engine import MAX_CHARGES, NOTHING_BINDS, Amount, Outcome, Reserved, Settled
from gateway.limiter.hold import State
from gateway.limiter.holds import (
    COUNT_MASK,
    COUNT_SHIFT,
    IN_FLIGHT,
    SETTLE,
    SHARED_MASK,
    SHARED_SHIFT,
    STATE_MASK,
)
from gateway.limiter.index import NUMBER_BITS, NUMBER_MASK
from gateway.limiter.layout import (
    AT_ARMED,
    AT_HOLD_TOP,
    AT_NEWEST,
    AT_NEXT_LAPSE,
    AT_OLDEST,
    CELL_WORDS,
    GET,
    GET_HOLD,
    HOLD_META,
    HOLD_NEXT,
    HOLD_WORDS,
    ID_BYTES,
    PUT,
    PUT_HOLD,
    ROW_USED,
    hold_key,
)
from gateway.limiter.rows import OnFull
from gateway.limiter.spec import MAX_AMOUNT, MAX_LEASE_MS, MAX_RATE_USED, MAX_WINDOW_USED, Kind, Spec, prove_amount
from gateway.limiter.table import Table, clock_ms
from gateway.limiter.undo import HOLD_SHIFT, SETTLING
from gateway.segment import WORD
from gateway.units import NS_PER_MS

NO_CEILING: Final = 2**62  # of a shadow limit
CACHED_ROWS: Final = 32_768  # buckets whose rows a process remembers
_get2, _get4, _put3, _put4 = GET[2], GET[4], PUT[3], PUT[4]
_RATE, _WINDOW = int(Kind.RATE), int(Kind.WINDOW)
_OPEN: Final = int(State.OPEN)  # EXPIRED has its bit, too; a mark has not
_ADMITTED: Final = Outcome.ADMITTED
_FOUND: Final = (State.EXPIRED, State.OPEN)
_SHAPE: Final = COUNT_MASK << COUNT_SHIFT | SHARED_MASK << SHARED_SHIFT  # how many charges, and none of them shared
_HOLD: Final = HOLD_WORDS * WORD
_CELL: Final = CELL_WORDS * WORD
_PAD: Final = b"\0"
_NUL: Final = "\0"
_SETTLE: Final = tuple(SETTLE.get(state, 0) for state in State)

# A bucket's spec, row, where its count begins, its tag; then the spec in plain numbers, `limit` twice: to tell what is
# left, and to refuse by.
Known = tuple[Spec | None, int, int, int, int, int, int, int, int]
_UNKNOWN: Final[Known] = (None, 0, 0, 0, 0, 0, 0, 0, 0)


class QuickTable(Table):
    """A Table that takes the short way where it can."""

    def __init__(
        self,
        words: memoryview,
        *,
        max_end_users: int,
        on_full: OnFull,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ms: Callable[[], int] = clock_ms,
    ) -> None:
        super().__init__(
            words, max_end_users=max_end_users, on_full=on_full, monotonic_ns=monotonic_ns, wall_ms=wall_ms
        )
        self._known: dict[str, Known] = {}
        self._index_at = self.holds.index.at
        self._index_mask = self.holds.index.mask
        self._holds_at = self.holds.at(0)
        self._links_at = self.holds.at(-1) + HOLD_NEXT * WORD  # numbers in links count from 1
        self._most_holds = self.layout.holds
        self._undo_at = self.layout.undo_at * WORD

    def reserve(  # noqa: C901, PLR0911, PLR0912, PLR0915 - see the module's head
        self,
        hold: str,
        takes: Sequence[Amount],
        *,
        owner: int,
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Reserved:
        """RESERVE, as `engine.py` says."""
        if attempt or releases or len(takes) > MAX_CHARGES or not 0 < lease_ms <= MAX_LEASE_MS:
            return super().reserve(hold, takes, owner=owner, lease_ms=lease_ms, attempt=attempt, releases=releases)
        key = hold.encode().ljust(ID_BYTES, _PAD)
        if len(key) != ID_BYTES or not hold or hold[-1] == _NUL:
            key = hold_key(hold)
        locked = self._try_lock(self._mutex_at)
        if locked:
            self._late(locked)
        try:
            words, known = self.words, self._known
            now_ms = self._monotonic_ns() // NS_PER_MS
            if now_ms >= words[AT_NEXT_LAPSE]:
                self._lapse(now_ms)
            index_at, mask = self._index_at, self._index_mask
            code = crc32(key)
            top = words[AT_HOLD_TOP]
            if top < self._most_holds:
                at_front = AT_HOLD_TOP
                number = front = top + 1
            elif number := words[AT_OLDEST]:  # the mark at the front of the queue makes room
                at_front = AT_OLDEST
                front, old = _get2(words, self._links_at + number * _HOLD)
                if old == code:  # it may be this very hold's
                    return self._reserve(key, takes, owner, attempt, lease_ms, now_ms)
                place = index_at + (old & mask)
                if words[place] == old << NUMBER_BITS | number and place < index_at + mask and not words[place + 1]:
                    words[place] = 0  # Holds.forget, where nothing has to move up
                elif not self.holds.forget(number - 1):
                    return self._reserve(key, takes, owner, attempt, lease_ms, now_ms)
            else:
                return self._reserve(key, takes, owner, attempt, lease_ms, now_ms)
            place = code & mask
            while entry := words[index_at + place]:
                if entry >> NUMBER_BITS == code:
                    return self._reserve(key, takes, owner, attempt, lease_ms, now_ms)
                place = (place + 1) & mask
            levels: list[int] = []
            charges: list[int] = []
            undo = self._undo_at
            for take in takes:
                try:
                    bucket = known[take.bucket]
                except KeyError:
                    bucket = _UNKNOWN
                spec, at, used_at, tag, kind, limit, ceiling, first, second = bucket
                found, used, rest, mark_ms = _get4(words, at)
                if found != tag or spec is not take.spec:
                    self.take_back()
                    self._learn(takes)
                    return self._reserve(key, takes, owner, attempt, lease_ms, now_ms)
                cost = take.amount
                if kind == _RATE:  # bucket.refilled
                    charges += (tag, cost, 0)
                    if now_ms <= mark_ms:
                        total = used + cost
                        left = rest if rest < second else 0
                        stands_ms = mark_ms
                    elif used:
                        gained, left = divmod((now_ms - mark_ms) * first + (rest if rest < second else 0), second)
                        stands_ms = now_ms
                        if gained < used:
                            total = used - gained + cost
                        else:
                            total, left = cost, 0
                    else:
                        total, left, stands_ms = cost, 0, now_ms
                elif kind == _WINDOW:  # bucket.in_window
                    if first > mark_ms:
                        total, left, stands_ms = cost, second, first
                    else:
                        total, stands_ms = used + cost, mark_ms
                        left = second if first == mark_ms or second > rest else rest
                    charges += (tag, cost, stands_ms)
                else:
                    cost = 1
                    total, left, stands_ms = used + 1, rest, mark_ms
                    charges += (tag, tag, IN_FLIGHT)
                if total > ceiling:
                    self.take_back()
                    return self._refused(key, takes, owner, attempt, lease_ms, now_ms)
                if cost > 0:  # bucket.charged
                    if total > MAX_AMOUNT:
                        prove_amount(cost)
                        total = min(total, MAX_RATE_USED if kind == _RATE else MAX_WINDOW_USED)
                    _put4(words, undo, used_at, used, rest, mark_ms)
                    undo += _CELL
                    words[AT_ARMED] = undo
                    _put3(words, used_at, total, left, stands_ms)
                elif cost:
                    prove_amount(cost)
                levels.append(limit - total)
            words[AT_ARMED] = undo | number << HOLD_SHIFT
            words[at_front] = front
            until_ms = now_ms + lease_ms
            if until_ms < words[AT_NEXT_LAPSE]:  # noqa: PLR1730 - min() costs 0.2 µs and stores in vain
                words[AT_NEXT_LAPSE] = until_ms
            meta = _OPEN | len(takes) << COUNT_SHIFT
            at = self._holds_at + (number - 1) * _HOLD
            PUT_HOLD[5 + len(charges)](words, at, key, owner, meta, until_ms, 0, code, *charges)
            words[index_at + place] = code << NUMBER_BITS | number
            words[AT_ARMED] = 0
            return Reserved(_ADMITTED, NOTHING_BINDS, 0, tuple(levels))
        except BaseException:
            self.take_back()
            raise
        finally:
            self._unlock(self._mutex_at)

    def settle(  # noqa: C901, PLR0912, PLR0915 - see the module's head
        self, hold: str, actuals: Sequence[Amount]
    ) -> Settled:
        """SETTLE, as `engine.py` says."""
        key = hold.encode().ljust(ID_BYTES, _PAD)
        if len(key) != ID_BYTES or not hold or hold[-1] == _NUL:
            key = hold_key(hold)
        locked = self._try_lock(self._mutex_at)
        if locked:
            self._late(locked)
        try:
            words, known = self.words, self._known
            now_ms = self._monotonic_ns() // NS_PER_MS
            if now_ms >= words[AT_NEXT_LAPSE]:
                self._lapse(now_ms)
            index_at, mask = self._index_at, self._index_mask
            code = crc32(key)
            place = code & mask
            while (entry := words[index_at + place]) and entry >> NUMBER_BITS != code:
                place = (place + 1) & mask
            number = entry & NUMBER_MASK
            at = self._holds_at + (number - 1) * _HOLD
            if not entry or len(actuals) > MAX_CHARGES:
                return self._settle(key, actuals, now_ms)
            said = GET_HOLD[len(actuals)](words, at)
            meta, until_ms = said[2], said[3]
            state = meta & STATE_MASK
            if said[0] != key or not state & _OPEN or meta & _SHAPE != len(actuals) << COUNT_SHIFT:
                return self._settle(key, actuals, now_ms)
            levels: list[int] = []
            undo, charge = self._undo_at, 6
            for actual in actuals:
                try:
                    bucket = known[actual.bucket]
                except KeyError:
                    bucket = _UNKNOWN
                spec, row_at, used_at, tag, kind, limit, _, first, second = bucket
                found, used, rest, mark_ms = _get4(words, row_at)
                if found != tag or spec is not actual.spec or said[charge] != tag:
                    self.take_back()
                    self._learn(actuals)
                    return self._settle(key, actuals, now_ms)
                amount = actual.amount
                if kind == _RATE:  # bucket.refilled
                    owed = amount - said[charge + 1]  # hold.owed
                    if now_ms <= mark_ms:
                        total, stands_ms = used, mark_ms
                        left = rest if rest < second else 0
                    elif used:
                        gained, left = divmod((now_ms - mark_ms) * first + (rest if rest < second else 0), second)
                        stands_ms = now_ms
                        if gained < used:
                            total = used - gained
                        else:
                            total = left = 0
                    else:
                        total, left, stands_ms = 0, 0, now_ms
                elif kind == _WINDOW:  # bucket.in_window
                    if first > mark_ms:
                        total, left, stands_ms = 0, second, first
                    else:
                        total, stands_ms = used, mark_ms
                        left = second if first == mark_ms or second > rest else rest
                    owed = amount - said[charge + 1] if said[charge + 2] == stands_ms else 0  # hold.belongs
                else:
                    total, left, stands_ms = used, rest, mark_ms
                    owed = -1 if state == _OPEN else 0
                if not 0 <= amount <= MAX_AMOUNT:
                    prove_amount(amount)
                if owed:  # bucket.charged
                    total += owed
                    if total <= 0:
                        total = 0
                        if kind == _RATE:
                            left = 0
                    elif total > MAX_AMOUNT:
                        total = min(total, MAX_RATE_USED if kind == _RATE else MAX_WINDOW_USED)
                    _put4(words, undo, used_at, used, rest, mark_ms)
                    undo += _CELL
                    words[AT_ARMED] = undo
                    _put3(words, used_at, total, left, stands_ms)
                levels.append(limit - total)
                charge += 3
            words[AT_ARMED] = undo | (number | SETTLING) << HOLD_SHIFT
            if words[AT_OLDEST]:
                words[self._links_at // WORD + words[AT_NEWEST] * HOLD_WORDS] = number
            else:
                words[AT_OLDEST] = number
            words[AT_NEWEST] = number
            words[at // WORD + HOLD_META] = meta ^ _SETTLE[state]
            words[AT_ARMED] = 0
            return Settled(_FOUND[state == _OPEN and now_ms < until_ms], tuple(levels))
        except BaseException:
            self.take_back()
            raise
        finally:
            self._unlock(self._mutex_at)

    def _refused(
        self, key: bytes, takes: Sequence[Amount], owner: int, attempt: int, lease_ms: int, now_ms: int
    ) -> Reserved:
        """The refusal of a new hold, if all its buckets are known here; nothing is changed."""
        levels: list[int] = []
        binding, longest = NOTHING_BINDS, 0
        for index, take in enumerate(takes):
            spec = take.spec
            bucket = self._known.get(take.bucket)
            if bucket is None or bucket[0] is not spec or self.words[bucket[1] // WORD] != bucket[3]:
                return self._reserve(key, takes, owner, attempt, lease_ms, now_ms)
            row = current(self.rows.read(bucket[1]), spec, now_ms)
            levels.append(level(row, spec))
            if spec.shadow or longest == NEVER:
                continue
            cost = 1 if spec.kind is Kind.SLOTS else prove_amount(take.amount)
            wait = wait_ms(row, spec, cost, self.wall_ms() if spec.kind is Kind.WINDOW else now_ms)
            if wait == NEVER or wait > longest:
                binding, longest = index, wait
        return Reserved(Outcome.REFUSED, binding, longest, tuple(levels))

    def _learn(self, asked: Sequence[Amount]) -> None:
        """Remember where the rows of these buckets are, if they have any; nothing is armed."""
        for amount in asked:
            name, spec = amount.bucket, amount.spec
            at, tag = self.rows.find(name, spec.kind)
            self._known.pop(name, None)
            if at < 0:
                continue
            self.rows.note(at, spec)
            if len(self._known) >= CACHED_ROWS:
                self._known.clear()
            ceiling = NO_CEILING if spec.shadow else spec.limit
            first, second = (spec.start_ms, spec.end_ms) if spec.kind is Kind.WINDOW else (spec.amount, spec.period_ms)
            used_at = at + ROW_USED * WORD
            self._known[name] = (spec, at, used_at, tag, int(spec.kind), spec.limit, ceiling, first, second)
