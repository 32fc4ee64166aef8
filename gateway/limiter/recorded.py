"""What a bucket is called in a record: its name and how it counts, so that a journal can be counted again by itself.

    team-tpm|team=acme/search|rate=1000000000/60000             RATE: amount and period, in ms
    org-budget|org=acme|window=1793491200000-1796083200000      WINDOW: its start and its end, in ms since the epoch

The last part is always ours, so a name may contain anything. The amounts beside such names (`hold_amounts` of a
decision, `settled_amounts` of an outcome) are whole numbers of the bucket's own unit: thousandths for rates of requests
and tokens, micro-USD for rates and budgets of money, whole requests and tokens for other budgets.

A hold that was settled in slices (`slices.py`) has `slice:` and a digest as its outcome's `limits_verdict`: that of the
epoch of the store's memory which granted them. While that memory lasts, the store has charged it, without its id.

Invariants: `parsed(name_of(bucket, spec))` gives the bucket and a spec that counts in the same way; its limit is not
told, because what was used does not depend on it. What was parsed is remembered, up to a bound: a journal names the
same buckets over and over, and few ways of counting. Left out: SLOTS, which nothing outlives.
"""

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.limiter.engine import Amount
from gateway.limiter.spec import MAX_AMOUNT, Kind, Spec, rate, window

_COUNTING: Final = re.compile(r"rate=([0-9]{1,16})/([0-9]{1,16})|window=([0-9]{1,16})-([0-9]{1,16})")
_NAMES: Final = 16_384  # of which a control process remembers the buckets; 0.5 KB each
_COUNTINGS: Final = 1_024
SLICE: Final = "slice:"


def slice_mark(epoch: str) -> str:
    """Where a hold is counted that has taken from slices of the memory with this name."""
    return SLICE + hashlib.blake2b(epoch.encode(), digest_size=6).hexdigest()


class Key(NamedTuple):
    """What is counted apart: a RATE by its name, a budget by its name and window."""

    kind: Kind
    bucket: str
    start_ms: int = 0


class Bucket(NamedTuple):
    """A bucket as a record names it. `spec.limit` means nothing."""

    key: Key
    spec: Spec

    @property
    def name(self) -> str:
        """Of the bucket alone, without how it counts."""
        return self.key.bucket


def key_of(bucket: str, spec: Spec) -> Key:
    """Where a bucket is counted."""
    return Key(spec.kind, bucket, spec.start_ms)


def name_of(bucket: str, spec: Spec) -> str:
    """What a bucket is called in a record. Raises ValueError for SLOTS."""
    if spec.kind is Kind.RATE:
        return f"{bucket}|rate={spec.amount}/{spec.period_ms}"
    if spec.kind is Kind.WINDOW:
        return f"{bucket}|window={spec.start_ms}-{spec.end_ms}"
    raise ValueError(f"bucket {bucket!r} counts slots, which end with their holds and are not recorded")


def amounts_of(amounts: Iterable[Amount]) -> dict[str, int]:
    """What a record says of these takes or settlements; slots are left out."""
    return {name_of(taken.bucket, taken.spec): taken.amount for taken in amounts if taken.spec.kind is not Kind.SLOTS}


@lru_cache(maxsize=_NAMES)
def parsed(name: str) -> Bucket:
    """The bucket of a name in a record. Raises ValueError."""
    bucket, parted, counting = name.rpartition("|")
    spec = _spec(counting) if parted else None
    if spec is None:
        raise ValueError(f"{name!r} does not end with how the bucket counts")
    return Bucket(key_of(bucket, spec), spec)


@lru_cache(maxsize=_COUNTINGS)
def _spec(counting: str) -> Spec | None:
    """How a bucket counts, by the last part of its name; None if that does not tell. Raises ValueError."""
    found = _COUNTING.fullmatch(counting)
    if found is None:
        return None
    amount, period_ms, start_ms, end_ms = found.groups()
    if amount is not None:
        return rate(MAX_AMOUNT, int(amount), int(period_ms))
    return window(MAX_AMOUNT, int(start_ms), int(end_ms))
