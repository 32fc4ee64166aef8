"""What was refused a moment ago is refused again without asking: a small cache in memory that a node's workers share.

A bucket that has refused a cost refuses it, and any greater one, until its refill has caught up; a smaller one may fit
and is asked about. What is given back could come earlier than the refill, so a refusal of a bucket that gets refunds is
remembered for CAP_MS at most, and a settlement of this node clears it. Slots are given back at any moment and are not
remembered.

    header   when the last of all entries ends (ms)
    row      tag, smallest cost refused, remembered until, fits at, level then, guard

Rows are written without a lock, by any worker; `guard` is the exclusive or of the others, so that a reader who meets
two writers' halves sees no row. A lost row costs one question to the engine.

Invariants: an entry never outlives the moment its cost fits, by the clock of this node; so a refusal from here is one
that the engine would have given, unless something was given back in the last CAP_MS. Times are CLOCK_MONOTONIC ms,
equal in all processes of a node.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.limiter.engine import Amount
from gateway.limiter.spec import Kind
from gateway.limiter.use import Resource
from gateway.segment import Section

ROWS: Final = 1024
ROW_WORDS: Final = 8
DENIALS: Final = Section("denials", version=1, words_shared=ROW_WORDS * (ROWS + 1))

CAP_MS: Final = 100
REQUESTS_CAP_MS: Final = 1_000  # a request is given back only when none of it was sent
_MASK: Final = 2**62 - 1
_COST, _UNTIL, _FITS, _LEVEL, _GUARD = 1, 2, 3, 4, 5


class Denied(NamedTuple):
    """A refusal that is remembered: which take it is of, the wait from now, and what was left of the bucket."""

    line: int
    wait_ms: int
    level: int


class Denials:
    """One process's access to the cache."""

    def __init__(self, words: memoryview) -> None:
        self._words = words

    def add(self, take: Amount, resource: int, wait_ms: int, level: int, now_ms: int) -> None:
        """Remember a refusal."""
        cap_ms = REQUESTS_CAP_MS if resource == Resource.REQUESTS else CAP_MS
        if take.spec.kind is Kind.SLOTS or wait_ms <= 0 or take.spec.shadow:
            return
        words, tag = self._words, _tag(take)
        at = _at(tag)
        until_ms, fits_ms = now_ms + min(wait_ms, cap_ms), now_ms + wait_ms
        found = self._row(at, tag)
        if found is not None and found[_COST - 1] < take.amount and now_ms < found[_UNTIL - 1]:
            return  # a cheaper one is refused already
        words[at + _GUARD] = 0
        row = (tag, take.amount, until_ms, fits_ms, level)
        for index, word in enumerate(row):
            words[at + index] = word
        words[at + _GUARD] = _guard(*row)
        words[0] = max(words[0], until_ms)

    def find(self, takes: Sequence[Amount], now_ms: int) -> Denied | None:
        """The take that is known to be refused, if there is one; of several, the one with the longest wait."""
        if now_ms >= self._words[0]:
            return None
        longest: Denied | None = None
        for index, take in enumerate(takes):
            tag = _tag(take)
            row = self._row(_at(tag), tag)
            if row is None or take.amount < row[_COST - 1] or now_ms >= row[_UNTIL - 1] or take.spec.shadow:
                continue
            wait_ms = row[_FITS - 1] - now_ms + _more(take, row[_COST - 1])
            if longest is None or wait_ms > longest.wait_ms:
                longest = Denied(index, wait_ms, row[_LEVEL - 1])
        return longest

    def clear(self, settled: Sequence[Amount], now_ms: int) -> None:
        """Something was given back to these buckets, perhaps."""
        if now_ms >= self._words[0]:
            return
        for amount in settled:
            tag = _tag(amount)
            at = _at(tag)
            if self._words[at] == tag:
                self._words[at + _GUARD] = 0
                self._words[at] = 0

    def _row(self, at: int, tag: int) -> tuple[int, int, int, int] | None:
        words = self._words
        if words[at] != tag:
            return None
        cost, until_ms, fits_ms, level, guard = words[at + _COST : at + _GUARD + 1].tolist()
        return (cost, until_ms, fits_ms, level) if guard == _guard(tag, cost, until_ms, fits_ms, level) else None


def _more(take: Amount, cost: int) -> int:
    """How much longer a greater cost waits than the one that was refused."""
    spec = take.spec
    return -(-(take.amount - cost) * spec.period_ms // spec.amount) if spec.kind is Kind.RATE else 0


def _tag(take: Amount) -> int:
    """A number for a bucket and its limit, other than 0; equal in the processes that were forked from one."""
    spec = take.spec
    return hash((take.bucket, spec.limit, spec.amount, spec.period_ms, spec.start_ms)) & _MASK | 1


def _at(tag: int) -> int:
    return ROW_WORDS * (1 + (tag >> 1) % ROWS)


def _guard(tag: int, cost: int, until_ms: int, fits_ms: int, level: int) -> int:
    return (tag ^ cost ^ until_ms ^ fits_ms ^ level) | 2**62
