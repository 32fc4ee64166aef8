"""What a bucket allows: three kinds of limit in one shape, proved when made.

- RATE: a token bucket. `limit` is its capacity; it starts full and refills continuously, `amount` every `period_ms`.
- WINDOW: a budget. `limit` may be used between `start_ms` and `end_ms` (wall clock, from `window.py`), then anew.
- SLOTS: `limit` holds may be in flight at once, one slot each, leased.

A spec travels with every call and is never stored, so changing a limit keeps what was used of it. A bucket is its
name *and* the kind of its spec: the same name with another kind is another bucket.

Invariant: a Spec that exists is within the bounds below, so that no engine computes a number of 2^53 or more: Lua 5.1
counts in doubles, which are exact up to there, and Lua 5.4 in integers that wrap. The proof, for every step the engines
take, with the bounds of this module (used <= 2 * MAX_AMOUNT for a RATE, everything in milliseconds, one step for all):

- Whole periods are counted first; more of them than used // amount + 1 mean "full", and nothing is multiplied. So
  periods * amount <= used + amount <= 3 * MAX_AMOUNT.
- Within a period, elapsed and amount % period are below 2^32. Their product is taken in two halves of 16 bits:
  2^32 * 2^16 + 2^32 * 2^16 + 2^32 < 2^50. elapsed * (amount // period) <= amount.
- A wait is missing / amount in periods, missing <= 3 * MAX_AMOUNT. What is left, below amount < 2^40, times the period
  is taken in three parts of 11 bits: 2^40 * 2^11 + 2^40 * 2^11 < 2^53. Whole periods are capped by MAX_WAIT_MS first.

Left out: what is counted. An amount is an integer of the caller's unit: thousandths for rates of requests and tokens
(`MILLI`), so that slow limits refill smoothly; whole tokens or micro-USD for windows.
"""

from enum import IntEnum
from typing import Final

import msgspec

MILLI: Final = 1000
MAX_AMOUNT: Final = 10**12  # of any limit, amount per period, cost or actual
MAX_RATE_USED: Final = 2 * MAX_AMOUNT  # where debt stops growing
MAX_WINDOW_USED: Final = 4 * 10**15  # a window only counts; with one more MAX_AMOUNT still below 2^53
MIN_PERIOD_MS: Final = 1_000
MAX_PERIOD_MS: Final = 31 * 86_400_000  # below 2^32, which the halving of products rests on
MAX_SLOTS: Final = 1_000_000
MAX_WALL_MS: Final = 2**48  # the year 10889
MAX_LEASE_MS: Final = 3_600_000
EXACT: Final = 2**53


class Kind(IntEnum):
    """How a bucket counts."""

    RATE = 0
    WINDOW = 1
    SLOTS = 2


class Spec(msgspec.Struct, frozen=True, gc=False):
    """A limit; use `rate`, `window` or `slots` to make one. A `shadow` one is charged and reported, never refuses.

    Raises ValueError, naming the bound, when a number is outside of what the engines can count exactly.
    """

    kind: Kind
    limit: int
    amount: int = 0  # RATE
    period_ms: int = 0  # RATE
    start_ms: int = 0  # WINDOW
    end_ms: int = 0  # WINDOW
    shadow: bool = False

    def __post_init__(self) -> None:
        prove(self)


def rate(capacity: int, amount: int, period_ms: int, *, shadow: bool = False) -> Spec:
    """At most `capacity` at once, and `amount` more every `period_ms`. Raises ValueError."""
    return Spec(Kind.RATE, capacity, amount, period_ms, shadow=shadow)


def window(limit: int, start_ms: int, end_ms: int, *, shadow: bool = False) -> Spec:
    """At most `limit` from `start_ms` until `end_ms`, wall clock. Raises ValueError."""
    return Spec(Kind.WINDOW, limit, start_ms=start_ms, end_ms=end_ms, shadow=shadow)


def slots(limit: int, *, shadow: bool = False) -> Spec:
    """At most `limit` holds in flight. Raises ValueError."""
    return Spec(Kind.SLOTS, limit, shadow=shadow)


def prove(spec: Spec) -> None:
    """Raise ValueError, naming the bound, unless every number computed from this spec stays below 2^53."""
    if spec.kind is Kind.SLOTS:
        _within("limit", spec.limit, 0, MAX_SLOTS, "holds in flight")
        return
    _within("limit", spec.limit, 0, MAX_AMOUNT, "units; count in larger units, or split the scope")
    if spec.kind is Kind.RATE:
        _within("amount", spec.amount, 1, MAX_AMOUNT, "units a period; to allow nothing, set the limit to 0")
        _within("period_ms", spec.period_ms, MIN_PERIOD_MS, MAX_PERIOD_MS, "ms; a longer span is a budget window")
        return
    _within("start_ms", spec.start_ms, 1, MAX_WALL_MS, "ms since the epoch")
    _within("end_ms", spec.end_ms, spec.start_ms + 1, MAX_WALL_MS, "ms since the epoch, after start_ms")


def prove_amount(amount: int) -> int:
    """The amount of one charge, if it can be counted exactly. Raises ValueError."""
    _within("amount", amount, 0, MAX_AMOUNT, "units in one charge")
    return amount


def prove_lease(lease_ms: int) -> int:
    """The length of a lease, if it is one. Raises ValueError."""
    _within("lease_ms", lease_ms, 1, MAX_LEASE_MS, "ms")
    return lease_ms


def _within(name: str, value: int, least: int, most: int, unit: str) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}, must be {least} to {most} {unit}")
