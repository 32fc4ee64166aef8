"""What an engine does: five operations, each atomic, each answered by a value.

An engine keeps the rows of buckets (`bucket.py`) and holds (`hold.py`). There are two: a table in shared memory, for
one host, and a store that many nodes share. This page is their contract; where they could differ, it decides.

- RESERVE checks every take and charges all of them, or none. A refusal changes nothing. The takes that do not fit and
  are not `shadow` refuse; of those, the one with the longest wait is *binding*, NEVER outranks any wait, and the first
  of equals wins. `attempt` counts from 0: an attempt that an OPEN hold has already is a repeated call, admitted again
  without a charge; a new one extends the hold. `releases` are settled and forgotten just before the takes are checked,
  in the same step and under the same all or nothing; levels and waits are told as after them. The lease is set by the
  first attempt and moved only by RENEW.
- A SLOTS bucket is charged 1 by a hold, however often it is taken and whatever the amount says.
- SETTLE applies actual - reserved to every bucket named, once, and frees the slots named. A bucket that is not named
  keeps its charge, and a slot that is not named may stay taken until the lease ends, so the caller names all of the
  hold's. It leaves a mark which makes a repetition harmless for a day.
- RENEW moves the lease of OPEN and EXPIRED holds to now + lease_ms; the slots of the latter count again.
- LEASE moves up to `want` of a RATE or WINDOW bucket into a slice that a node admits from by itself, and first takes
  back what is unused of the slice before, at most what that was (below zero: what was used beyond it, charged). Nothing
  is granted rather than less than `least`. `turn` grows with each call of a node for a bucket, also when the node
  starts anew (begin from the wall clock): the same turn again is a repeated call, granted as before and charged once,
  and an older one is granted nothing. After `lease_ms` the node may not use the slice, and what is then unused of it
  is not taken back any more; nor is it when the window it was of is over.
- PEEK changes nothing.

A charge of 0 leaves a row as it is stored, so a RATE refills, from its last charge on, at the rate in force when it is
next looked at; but once it would be full at the rate of its last charge, an engine may forget it.

Amounts are at most MAX_AMOUNT, a bucket stands at most once among the takes and once among the releases, and a hold
charges at most MAX_CHARGES buckets at a time.

Every operation is under way when its call returns; awaiting only fetches the answer, so that a settlement needs no
task to live on. An operation that an engine cannot do (the store is away) raises Unavailable when awaited. It may have
happened all the same, or may yet: repeating it is harmless, and so is settling a hold whose RESERVE failed that way at
what was used without it (0 if nothing was).
"""

from collections.abc import Awaitable, Generator, Sequence
from enum import Enum, IntEnum
from typing import Final, Generic, NamedTuple, Protocol, Self, TypeVar

import msgspec

from gateway.limiter.hold import State
from gateway.limiter.spec import Spec

Answer = TypeVar("Answer")

MAX_CHARGES: Final = 16
NOTHING_BINDS: Final = -1


class Reason(Enum):
    """Why an engine could not do what it was asked."""

    DOWN = "down"  # it was not asked: the breaker is open
    BUSY = "busy"  # it was not asked: too many calls wait for it
    LATE = "late"  # no answer within the deadline
    LOST = "lost"  # the connection broke before the answer
    REFUSED = "refused"  # it answered with an error


class Unavailable(Exception):
    """The engine could not do it; whether it did is not known unless the reason is DOWN or BUSY."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason


class Epoch(NamedTuple):
    """The name of an engine's memory, made with it: another name means that the memory began anew, with nothing in it.

    `fresh`: it was made by who asks, so nothing of what was used before that can be in it. `known_us` is up to when it
    has all that this node settled, as far as it remembers (wall clock, 0 for nothing); `behind` says that this is less
    than it was, so what was settled since then is to be settled again. `epochs.py` says how that is found.
    """

    id: str
    fresh: bool = False
    known_us: int = 0
    behind: bool = False


class Amount(msgspec.Struct, frozen=True, gc=False):
    """So much of one bucket: what a take costs, what a settlement finds was used, what a peek asks about."""

    bucket: str
    spec: Spec
    amount: int


class Outcome(IntEnum):
    """How a RESERVE ended. Only ADMITTED has charged anything."""

    REFUSED = 0
    ADMITTED = 1
    SETTLED = 2  # the hold is over: an echo
    EXPIRED = 3  # its lease has ended: renew it, then ask again
    NO_ROOM = 4  # a table sized by the config is full


class Reserved(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The answer to RESERVE.

    `levels` has one number for each take: what is left of its bucket, after the charge if there was one (below zero:
    debt, or a shadow limit that would have refused). `binding` is the index of the take that refused, or
    NOTHING_BINDS. `wait_ms` is how long until it would fit, barring others: bucket.NEVER if at no time, 0 if admitted.
    """

    outcome: Outcome
    binding: int = NOTHING_BINDS
    wait_ms: int = 0
    levels: tuple[int, ...] = ()

    def __await__(self) -> Generator[None, None, Self]:
        """An engine that never waits gives the answer itself: on every request's path, wrapping it costs too much."""
        yield from ()
        return self


class Settled(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The answer to SETTLE: the state it found the hold in, and what is left of each bucket named."""

    found: State
    levels: tuple[int, ...] = ()

    def __await__(self) -> Generator[None, None, Self]:
        """As that of Reserved."""
        yield from ()
        return self


class Renewal(msgspec.Struct, frozen=True, gc=False):
    """One hold to renew, and the names of all the SLOTS buckets it stands in."""

    hold: str
    slots: tuple[str, ...] = ()


class Slice(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The answer to LEASE: what was granted, what is left of the bucket, and how long until `least` fits."""

    granted: int
    level: int
    wait_ms: int = 0


class Standing(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The answer to PEEK for one bucket: what is left (below zero: debt), and how long until the amount fits."""

    level: int
    wait_ms: int


class Engine(Protocol):
    """Both engines. Arguments outside of their bounds raise ValueError from the call itself."""

    def reserve(
        self,
        hold: str,
        takes: Sequence[Amount],
        *,
        owner: int,
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Awaitable[Reserved]:
        """Charge all takes or none.

        `owner` is the process that will settle, as a number that the table's sweep can look up (slot and birth); a
        store cannot see processes and frees slots by their lease alone.
        """

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Awaitable[Settled]:
        """Apply what was really used, once."""

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        """Prolong leases; one state for each hold, as it stands now: OPEN, or why it could not be renewed."""

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> Awaitable[Slice]:
        """Exchange a node's slice of a RATE or WINDOW bucket for a new one; `want` 0 gives it back."""

    def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
        """How buckets stand, and when so much would fit."""

    async def close(self) -> None:
        """Let go of what the engine holds open."""


class Ready(Generic[Answer]):
    """An answer that is there already, for an engine that never waits."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def __await__(self) -> Generator[None, None, Answer]:
        yield from ()
        return self._answer
