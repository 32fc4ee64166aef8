"""The arithmetic of a bucket: what is used of it now, what fits, and how long until it does.

A bucket is a Row of three numbers. `used` counts up from 0 (full) and may exceed the limit (debt); the level is what
is left, limit - used. Storing what is used has three effects we want: a row of zeros is a full bucket, a changed limit
keeps the usage (so after it was lowered, the excess is waited out at the new rate), and no refund can lift a bucket
above its capacity, because nothing is below 0.

    kind    used                      rest                          mark_ms
    RATE    milli-units not refilled  refill below one unit, carried  when it was last brought up to date
    WINDOW  units used in the window  end_ms of the window            start_ms of the window
    SLOTS   holds in flight           0                               0

Invariants: `0 <= used <= most_used(spec)`. For a RATE, `0 <= rest < period_ms`, bringing a row up to date twice is the
same as doing it once, and time that runs backwards refills nothing and leaves the mark. For a WINDOW, see `window.py`.

Python's integers do not overflow, so products are written plainly here; `lua/bucket.lua` takes them in parts that stay
below 2^53 (the proof is in `spec.py`), and the rows of `tests/corpus/bucket` hold the two together. Left out: holds
(`hold.py`), storage, clocks. Source of the model: token bucket, RFC 2697.
"""

from typing import Final, NamedTuple

from gateway.limiter.spec import MAX_RATE_USED, MAX_WINDOW_USED, Kind, Spec

NEVER: Final = -1  # a wait: the cost is above the limit, so it fits at no time
SLOT_WAIT_MS: Final = 1_000  # when a request in flight ends, nobody knows; callers come back after this
MAX_WAIT_MS: Final = 10 * 366 * 86_400_000  # longer waits read as this one


class Row(NamedTuple):
    """What a bucket remembers; all zeros for one that was never used."""

    used: int
    rest: int
    mark_ms: int


FRESH: Final = Row(0, 0, 0)


def current(row: Row, spec: Spec, now_ms: int) -> Row:
    """The row as it stands at `now_ms`: refilled (RATE), in its window (WINDOW), as it is (SLOTS)."""
    if spec.kind is Kind.RATE:
        return refilled(row, spec, now_ms)
    if spec.kind is Kind.WINDOW:
        return in_window(row, spec)
    return row


def refilled(row: Row, spec: Spec, now_ms: int) -> Row:
    """Bring a RATE row up to date. What does not make up a whole unit is carried, so nothing drifts."""
    used, rest, mark_ms = row
    if rest >= spec.period_ms:  # the period became shorter: less than one unit is lost, none is won
        rest = 0
    if now_ms <= mark_ms:
        return Row(used, rest, mark_ms)
    gained, rest = divmod((now_ms - mark_ms) * spec.amount + rest, spec.period_ms)
    if gained >= used:
        return Row(0, 0, now_ms)
    return Row(used - gained, rest, now_ms)


def in_window(row: Row, spec: Spec) -> Row:
    """The row of the window that counts: the newer of the row's and the spec's.

    A caller whose clock is behind is counted in the newer window, never in none: an old clock must not be a way past
    a budget.
    """
    used, end_ms, start_ms = row
    if spec.start_ms > start_ms:
        return Row(0, spec.end_ms, spec.start_ms)
    if spec.start_ms == start_ms:
        return Row(used, spec.end_ms, start_ms)
    return Row(used, max(end_ms, spec.end_ms), start_ms)


def charged(row: Row, spec: Spec, amount: int) -> Row:
    """The row with `amount` more used, or less if it is negative: a refund."""
    used = min(max(row.used + amount, 0), most_used(spec))
    if spec.kind is Kind.RATE and used == 0:
        return Row(0, 0, row.mark_ms)
    return Row(used, row.rest, row.mark_ms)


def charged_at(row: tuple[int, int, int], spec: Spec, now_ms: int, amount: int) -> tuple[int, int, int]:
    """`charged(current(row, spec, now_ms), spec, amount)` as plain numbers, for who charges without looking.

    Written out because counting a journal again is little else: 0.3 µs instead of 1.1 with the rows in between.
    """
    used, rest, mark_ms = row
    kind = spec.kind
    if kind is Kind.RATE:
        period_ms = spec.period_ms
        if rest >= period_ms:
            rest = 0
        if now_ms > mark_ms:
            gained, rest = divmod((now_ms - mark_ms) * spec.amount + rest, period_ms)
            used, mark_ms = used - gained, now_ms
            if used <= 0:
                used = rest = 0
    elif kind is Kind.WINDOW:
        used, rest, mark_ms = in_window(Row(*row), spec) if spec.start_ms != mark_ms else (used, spec.end_ms, mark_ms)
    used += amount
    if used <= 0:
        return (0, 0, mark_ms) if kind is Kind.RATE else (0, rest, mark_ms)
    if used > _MOST_USED[kind]:
        return _MOST_USED[kind], rest, mark_ms
    return used, rest, mark_ms


def level(row: Row, spec: Spec) -> int:
    """What is left; below zero is debt. The row is up to date."""
    return spec.limit - row.used


def wait_ms(row: Row, spec: Spec, cost: int, now_ms: int) -> int:
    """How long until `cost` fits, barring others: 0 for now, NEVER for above the limit. The row is up to date.

    Exact for RATE (it fits after this many ms and not one earlier) and WINDOW (its end); SLOT_WAIT_MS for SLOTS.
    """
    if cost > spec.limit:
        return NEVER
    missing = row.used + cost - spec.limit
    if missing <= 0:
        return 0
    if spec.kind is Kind.SLOTS:
        return SLOT_WAIT_MS
    if spec.kind is Kind.WINDOW:
        return max(row.rest - now_ms, 1)
    refill_ms = -((row.rest - missing * spec.period_ms) // spec.amount)
    return min(refill_ms + max(row.mark_ms - now_ms, 0), MAX_WAIT_MS)


def most_used(spec: Spec) -> int:
    """Where debt stops growing: the bound that keeps every number exact."""
    return _MOST_USED[spec.kind]


_MOST_USED: Final = (MAX_RATE_USED, MAX_WINDOW_USED, MAX_WINDOW_USED)
