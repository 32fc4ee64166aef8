"""A Hold as the request sees it: what was reserved, where, and the one settlement that ends it.

`settle` and `finish` do the same thing once; whichever comes first counts, and a second is nothing. While attempts
follow each other, `extend` moves the hold from the buckets of one provider to those of the next, and remembers what the
failed attempts have used: the request's own buckets are charged for all of them, each provider's for its own.

A provider's buckets are given back whole when its attempt has failed, and what it is charged all the same is owed in
the settlement, as by a hold that never reserved it. So it does not matter whether the engine has done an exchange of
which the answer was lost: every bucket that may be charged is named in the end, with all that it is owed.

Invariants: one settlement; its amounts name every bucket the hold was charged to, in the order they were taken, which
is also what the engines' short way wants. Left out: the engine (`limiter.py`), what an ending costs (`settling.py`).
"""

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Protocol

from gateway.limiter.engine import Amount
from gateway.limiter.headers import limit_headers
from gateway.limiter.lines import Lines, TooLarge
from gateway.limiter.recorded import amounts_of
from gateway.limiter.settling import charge, request_charge
from gateway.limiter.spec import MAX_AMOUNT
from gateway.limiter.use import NOTHING, Estimate, Use, and_besides, most

if TYPE_CHECKING:
    from gateway.limiter.rules import Limits
    from gateway.record import Outcome


class Origin(Enum):
    """Where a hold is counted."""

    TABLE = "table"
    STORE = "store"
    SLICE = "slice"  # parts of the store's limits that this node has leased
    SHARE = "share"  # the store was away: this node's part of the limits
    OPEN = "open"  # the store was away, and the limits say: uncounted


class Keeper(Protocol):
    """The limiter, as a hold needs it."""

    def settle(self, hold: "Hold", actuals: Sequence[Amount]) -> None:
        """Apply what was used."""

    async def extend(self, hold: "Hold", lines: Lines, takes: list[Amount], releases: list[Amount]) -> bool:
        """Exchange the buckets of one attempt for those of the next."""

    def wall_ms(self) -> int:
        """The wall clock."""


class Hold:
    """One request's reservation; the limiter makes it and says what became of it.

    `levels`: what is left of each bucket of `lines`; `first`: which target to begin with.
    """

    __slots__ = (
        "_failed",
        "_failures",
        "_keeper",
        "_spent",
        "_told",
        "actuals",
        "aged",
        "attempt",
        "end_user",
        "first",
        "id",
        "levels",
        "limits",
        "lines",
        "mark",
        "origin",
        "reserved",
        "settled",
        "shared",
        "takes",
    )

    def __init__(
        self,
        keeper: Keeper,
        hold: str,
        limits: "Limits",
        lines: Lines,
        reserved: Estimate,
        origin: Origin,
        end_user: str = "",
    ) -> None:
        self.id = hold
        self.limits = limits
        self.lines = lines
        self.reserved = reserved
        self.origin = origin
        self.end_user = end_user
        self.takes: list[Amount] = []
        self.actuals: Sequence[Amount] = ()
        self.shared: Sequence[Amount] = ()  # what was taken of this node's part instead
        self.levels: tuple[int, ...] = ()
        self.attempt = 0
        self.mark = ""  # of the memory that its slices were leased from, once it is settled in them (`recorded.py`)
        self.first = 0
        self.aged = False  # it was open when leases were last renewed
        self.settled = False
        self._keeper = keeper
        self._spent = NOTHING
        self._failures = 0  # attempts that have failed, the last one included or not
        self._failed: dict[str, Amount] | None = None  # what earlier attempts are charged at their providers
        self._told: Lines | None = None  # what the levels are of, once `lines` are those of another attempt

    @property
    def amounts(self) -> dict[str, int]:
        """What is reserved, for the decision's record (`recorded.py` tells the names)."""
        return self.lines.amounts(self.takes)

    def header_lines(self, dialect: str) -> bytes:
        """What is left of its limits, as lines of the answer's head."""
        return limit_headers(self._told or self.lines, self.levels, self._keeper.wall_ms(), dialect)

    @property
    def settled_amounts(self) -> dict[str, int]:
        """What was settled, for the outcome's record; what failed attempts were charged is in it."""
        if self._failures or not self.settled:  # it has been charged to more than its last attempt's buckets
            return amounts_of(self.actuals)
        return self.lines.amounts(self.actuals)

    def settle(self, own: Use, attempt: Use | None = None, *, certain: Use | None = None) -> None:
        """End the hold: the request has used `own`, its last attempt `attempt` (None: likewise).

        With `certain` that is partly what was reserved: a bucket is charged no more of it than was taken there, or is
        certain to be used. What was estimated may be a thousand times what a limit has.
        """
        if self.settled:
            return
        self.settled = True
        last = own if attempt is None else attempt
        if own is last is self.reserved.full and certain is NOTHING and not self._failures:
            self.actuals = self.takes
        else:
            self.actuals = self.lines.actuals(own, NOTHING if self._failures > self.attempt else last)
            if certain is not None:
                self.actuals = _within(self.actuals, self.takes, self.lines.actuals(certain, certain))
            if self._spent is not NOTHING:
                self.actuals = list(map(_sum, self.actuals, self.lines.actuals(self._spent, NOTHING)))
        if self._failed:
            self.actuals = _with(self.actuals, self._failed)
        self._keeper.settle(self, self.actuals)

    def finish(
        self, outcome: "Outcome", usage: Use | None = None, metered: Use | None = None, *, unseen: bool = False
    ) -> None:
        """End the hold by how its request ended; see `settling.charge`."""
        attempt = charge(outcome, self.reserved.full, usage, metered, unseen=unseen)
        certain = None
        if attempt is not usage:
            certain = NOTHING if usage is None and metered is None else most(usage or NOTHING, metered or NOTHING)
        own = request_charge(outcome, attempt) if attempt is NOTHING else attempt
        self.settle(own, attempt, certain=certain)

    def leave(self, upstream_bytes: int) -> None:
        """End the hold of a request that broke off without an outcome: a refund if no byte of it was sent."""
        self.settle(self.reserved.full if upstream_bytes else NOTHING, certain=NOTHING)

    async def extend(self, provider: str, failed: Use = NOTHING, usage: Use | None = None) -> bool:
        """Move on to an attempt at another provider; False where its own limits refuse: ask for the one after it.

        `failed` is what the attempt before is charged at its provider (`settling.charge`), `usage` what it is known to
        have used, which is the caller's to pay once another attempt follows; until then it is what the outcome tells.
        Both count once, however many providers refuse.
        """
        self._note_failure(failed, usage or NOTHING)
        lines = self._lines_at(provider)
        if lines.own < len(lines.lines) or self.lines.own < len(self.lines.lines):
            try:
                takes = lines.takes(self.reserved, lines.own)
            except TooLarge:
                return False
            releases = self.lines.actuals(NOTHING, NOTHING)[self.lines.own :]
            self._owe([Amount(take.bucket, take.spec, 0) for take in takes])
            if not await self._keeper.extend(self, lines, takes, releases):
                return False
            self.takes = self.takes[: self.lines.own] + takes
        if usage is not None:
            self._spent = and_besides(self._spent, usage)  # the request is the last attempt's
        self.attempt += 1
        self._told = self._told or self.lines
        self.lines = lines
        return True

    def _lines_at(self, provider: str) -> Lines:
        """Those of an attempt at this provider; the request's own stay those it took from, in their windows."""
        before, limits = self.lines, self.limits
        if not limits.varies:
            return before
        now = limits.lines(self._keeper.wall_ms(), self.end_user, provider)
        own = before.lines[: before.own]
        return now if now.lines[: now.own] == own else Lines((*own, *now.lines[now.own :]), len(own))

    def _note_failure(self, failed: Use, certain: Use) -> None:
        if self._failures > self.attempt:
            return
        self._failures = self.attempt + 1
        lines = self.lines
        amounts = _within(lines.actuals(NOTHING, failed), self.takes, lines.actuals(NOTHING, certain))
        self._owe(amounts[lines.own :])

    def _owe(self, amounts: list[Amount]) -> None:
        """What a failed attempt is charged at its provider, to be settled in the end."""
        failed = self._failed = self._failed or {}
        for owed in amounts:
            before = failed.get(owed.bucket)
            failed[owed.bucket] = owed if before is None else _sum(before, owed)


def _with(actuals: Sequence[Amount], failed: dict[str, Amount]) -> list[Amount]:
    """The actuals of a request and of its failed attempts, each bucket once."""
    named = {actual.bucket for actual in actuals}
    joined = [_sum(actual, failed[actual.bucket]) if actual.bucket in failed else actual for actual in actuals]
    return joined + [owed for bucket, owed in failed.items() if bucket not in named]


def _within(actuals: Sequence[Amount], takes: Sequence[Amount], certain: Sequence[Amount]) -> list[Amount]:
    """The actuals, each at most what was taken or, if that is more, what is certain."""
    return [
        Amount(actual.bucket, actual.spec, min(actual.amount, max(take.amount, known.amount)))
        for actual, take, known in zip(actuals, takes, certain, strict=True)
    ]


def _sum(one: Amount, other: Amount) -> Amount:
    return Amount(one.bucket, one.spec, min(one.amount + other.amount, MAX_AMOUNT))
