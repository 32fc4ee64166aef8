"""How large a node's slice of a bucket should be, and when to exchange it: arithmetic, and nothing else.

A slice is as large as what the node takes in SPAN_MS, but never more than this node's share of half of what is left, so
no node can starve the others, and it shrinks by itself when the bucket gets empty. Less than LEAST_TAKES requests are
not worth a slice: then there is none, and the store decides on each request.

One exchange (LEASE) gives back `unused` and is granted at most `want`, so afterwards

    left = left - unused + granted

whatever was granted. `unused` is not only what is left: it is as much as the store will take back (`had`, what it
granted last) and has in use, and most of it is granted again in the same step. That changes nothing in the bucket, but
what was granted last is then all that this node has had, and what its requests turn out not to need can be given back
later. Of a RATE no more goes this way than is still in use by a cautious guess, since what has refilled meanwhile
cannot be given back; what is left of a slice beyond that is nothing any more, as a late refund to a full bucket.

What was used beyond a slice (left < 0) is made good by the next grant. Where the bucket has nothing to grant it is
charged outright: `want` 0 and `unused` below zero.

Invariants: a slice that is granted in full is as large as was meant; an exchange that asks for nothing asks for no more
than it gives back. Times are in ms, amounts in the bucket's own unit. Left out: who counts, who asks (`slices.py`).
"""

from typing import Final, NamedTuple

from gateway.limiter.spec import MAX_AMOUNT, Kind, Spec

HOT_PER_S: Final = 20  # requests of one worker: an exchange every 200 ms replaces twice as many calls each second
SPAN_MS: Final = 400
GAP_MS: Final = 50  # between two exchanges
AGAIN_MS: Final = 250  # before what is too much is given back
IDLE_MS: Final = 1_000  # without a request; then all is given back
KEPT_MS: Final = 1_200_000  # before the store is told that the slice is still there
LEASE_MS: Final = 3_600_000  # for as long the store takes back what was granted
LEAST_TAKES: Final = 4
PART: Final = 2  # one part in so many of what is left may be sliced, by all nodes together


class Known(NamedTuple):
    """What a node knows of its slice, and of the bucket when it was last told."""

    left: int  # of the slice; below zero: used beyond it
    had: int  # granted last: so much can be given back
    used: int  # of the bucket, slices included
    age_ms: int  # since then
    taken: int = 0  # by requests of this node, since then


class Ask(NamedTuple):
    """What to exchange."""

    unused: int
    want: int

    @property
    def charges(self) -> bool:
        """Whether it only charges what was used beyond the slice."""
        return self.unused < 0

    @property
    def escrow(self) -> int:
        """What nobody may use of the slice any more while the exchange is under way."""
        return max(self.unused - self.want, 0)


NOTHING: Final = Ask(0, 0)


def used_now(known: Known, spec: Spec) -> int:
    """At least so much of the bucket is still in use, unless others have given something back."""
    refilled = 0 if spec.kind is Kind.WINDOW else -(-known.age_ms * spec.amount // spec.period_ms)
    return max(known.used - refilled, 0)


def free_now(known: Known, spec: Spec) -> int:
    """What is free as far as this node knows, its slice included."""
    return spec.limit - used_now(known, spec) + known.left


def demand(known: Known) -> int:
    """What this node takes in SPAN_MS."""
    return known.taken * SPAN_MS // max(known.age_ms, GAP_MS)


def size(known: Known, spec: Spec, nodes: int, take: int) -> int:
    """How large the slice should be, 0 for none; `take` is what one request takes."""
    wanted = min(demand(known), max(free_now(known, spec), 0) // (PART * nodes))
    return wanted if wanted >= LEAST_TAKES * take else 0


def due(known: Known, spec: Spec, nodes: int, take: int) -> Ask | None:
    """The exchange that is due now, None if there is none."""
    left, age_ms = known.left, known.age_ms
    if left < 0:
        return _debt(known, spec)
    if age_ms < GAP_MS:
        return None
    target = size(known, spec, nodes, take)
    starving = not target and demand(known) >= LEAST_TAKES * take
    patience_ms = AGAIN_MS if target or starving else IDLE_MS
    ask = exchange(known, spec, target)
    if left and free_now(known, spec) < 0:  # a debt of others that this would not pay: nobody would get in by it
        return None
    if 2 * left < target or (known.had and age_ms >= KEPT_MS) or (starving and age_ms >= IDLE_MS):
        return ask
    return ask if left > 2 * target and age_ms >= patience_ms and ask != NOTHING else None


def exchange(known: Known, spec: Spec, target: int) -> Ask:
    """Exchange the slice for one of `target`; 0 gives all of it back."""
    left, used = known.left, used_now(known, spec)
    unused = min(known.had, used) + max(left - used, 0)
    return Ask(min(unused, MAX_AMOUNT), min(max(unused + target - left, 0), MAX_AMOUNT))


def farewell(known: Known, spec: Spec) -> Ask | None:
    """The exchange after which nothing is left, None if nothing is."""
    if known.left < 0:
        return _debt(known, spec)
    if free_now(known, spec) < 0:
        return Ask(known.left, 0) if known.left else None
    return exchange(known, spec, 0) if known.left else None


def abandoned(known: Known, spec: Spec) -> Ask | None:
    """The exchange that is due for a slice whose limit is not known; None while others may look after it."""
    if known.left >= 0 and (known.taken or known.age_ms < IDLE_MS):
        return None
    return farewell(known, spec)


def _debt(known: Known, spec: Spec) -> Ask:
    """Have it granted while the bucket has as much, else charge it."""
    if free_now(known, spec) > 0:
        return exchange(known, spec, 0)
    return Ask(max(known.left, -MAX_AMOUNT), 0)
