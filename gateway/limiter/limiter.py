"""Reserve before a token is spent, settle what was really used: one request's way through the engine and back.

`reserve` takes from every bucket of a request or from none, and gives a Hold or raises what the caller is told. A Hold
is settled once, however the request ended (`settling.py`); until then `renew` keeps its lease. A request that nothing
limits never comes here.

When the engine cannot answer, each limit's own mode decides: one `closed` limit refuses the request; `share` takes this
node's part of the limit from the `local` engine, under the same hold id; `open` admits uncounted. Such a hold is
settled in both places: with the engine, it is harmless if RESERVE never arrived, and necessary if it did. A settlement
that did not arrive, as far as we know, is kept and delivered when the engine is back: the store, or the node's limit
table, whose mutex somebody held for too long. Repeating one is harmless. Should this process die before, the journal
has it; and a table that is lost never comes back, so there it is left to the journal at once, which the next start of
the node reads.

A table can have no room for one more request under way. Whoever fills it, others shall not be refused for it: where
the config says so (`admit_full`), such a request goes on uncounted, and is charged what it has used when it is settled.

Invariants: a hold leaves `open` when it is settled, and nothing else makes it leave; no settlement waits for anything.
Counts are plain integers for telemetry to read. Left out: estimates, prices, headers, and knowing when the store is
away (its breaker).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple, NoReturn

from gateway.errors import GatewayError, InternalError, LimitsUnavailable, NeverFits, RateLimited
from gateway.limiter.bucket import NEVER
from gateway.limiter.deny import Denials
from gateway.limiter.engine import Amount, Engine, Outcome, Reason, Renewal, Reserved, Settled, Unavailable
from gateway.limiter.headers import limit_headers
from gateway.limiter.lines import Lines, TooLarge
from gateway.limiter.mutex import MutexBusy, MutexLost
from gateway.limiter.refusal import limited, too_large, unavailable
from gateway.limiter.reservation import Hold, Origin
from gateway.limiter.rules import Limits
from gateway.limiter.scripts import MAX_RENEWALS
from gateway.limiter.sharing import Shares
from gateway.limiter.slices import SettledHere, Sliced
from gateway.limiter.table import TableEngine
from gateway.limiter.use import NOTHING, Estimate
from gateway.units import NS_PER_MS

LEASE_MS: Final = 9_000  # slots of a dead owner are free within ten seconds
MAX_OWED: Final = 10_000  # settlements that wait for the engine to come back; the journal has them, too
_FAILURES: Final = (Unavailable, MutexBusy, MutexLost)
_UNASKED: Final = (Reason.DOWN, Reason.BUSY)
_CLOSED: Final = "closed"
_ADMITTED: Final = Outcome.ADMITTED
_log: Final = logging.getLogger("gateway.limits")


class Engines(NamedTuple):
    """Where a worker's holds are counted. `local` is where `share` counts; without it `share` is `closed`."""

    engine: Engine
    origin: Origin = Origin.TABLE
    local: Engine | None = None
    nodes: int = 1  # that share the engine
    admit_full: bool = False  # a table without room for another request admits it uncounted, until it is settled


class Limiter:
    """One worker's limiter; `owner` is what the engines know this process by."""

    def __init__(
        self,
        engines: Engines,
        *,
        owner: int,
        denials: Denials | None = None,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.engine = engines.engine
        self.refused: dict[str, int] = {}  # by the name of the rule
        self.shadowed: dict[str, int] = {}  # likewise: what a shadow limit would have refused
        self.degraded = 0  # requests admitted without the engine
        self.unavailable = 0  # and refused for want of it
        self.undelivered = 0  # settlements that did not arrive at first
        self.owed: dict[str, Sequence[Amount]] = {}  # those that still have to, and can
        self.open: dict[str, Hold] = {}
        # a table tells at once what its engine tells when it is awaited, a failure too
        self._quick = self.engine.table if isinstance(self.engine, TableEngine) else self.engine
        self._owner = owner
        self._origin = engines.origin
        self._local = engines.local
        self._admit_full = engines.admit_full
        self._shares = Shares(engines.nodes)
        self._denials = denials
        self._wall_ns = wall_ns
        self._monotonic_ns = monotonic_ns

    def wall_ms(self) -> int:
        """The wall clock."""
        return self._wall_ns() // NS_PER_MS

    # --- reserve ----------------------------------------------------------------------------------------------------

    def reserve(
        self, limits: Limits, hold: str, estimate: Estimate, *, end_user: str = "", providers: Sequence[str] = ()
    ) -> Coroutine[Any, Any, Hold]:
        """Take what a request needs, under this id.

        `providers` are those of its targets, in the order they will be tried; one whose own limits refuse is skipped,
        and `Hold.first` is the index of the first that does not. Raises RateLimited, NeverFits or LimitsUnavailable.
        """
        wall_ms = self._wall_ns() // NS_PER_MS
        lines = limits.plain
        if lines is None or wall_ms >= lines.until_ms:
            lines = limits.lines(wall_ms, end_user, providers[0] if providers else "")
        made = Hold(self, hold, limits, lines, estimate, self._origin, end_user)
        return self._reserve_at(made, providers, wall_ms) if limits.varies and providers else self._reserve(made)

    async def _reserve_at(self, hold: Hold, providers: Sequence[str], wall_ms: int) -> Hold:
        """Reserve at the first provider whose own limits admit; the first refusal if none does."""
        refusal: RateLimited | NeverFits | None = None
        for hold.first, provider in enumerate(providers):
            lines = hold.lines = hold.limits.lines(wall_ms, hold.end_user, provider)
            try:
                return await self._reserve(hold)
            except (RateLimited, NeverFits) as error:
                refusal = refusal or error
                if error.rule not in {line.rule for line in lines.lines[lines.own :]}:
                    raise
        raise refusal or InternalError("a request without a target")

    async def _reserve(self, hold: Hold) -> Hold:
        lines = hold.lines
        try:
            takes = hold.takes = lines.takes(hold.reserved)
        except TooLarge as error:
            line = lines.lines[error.index]
            self._count_refusal(line.rule)
            raise too_large(line, error.cost) from None
        if self._denials is not None:
            self._ask_denials(self._denials, hold)
        try:
            answered = self._quick.reserve(hold.id, takes, owner=self._owner, lease_ms=LEASE_MS)
            answer = answered if isinstance(answered, Reserved) else await answered
        except _FAILURES as error:
            return await self._without(hold, error)
        except asyncio.CancelledError:  # the caller has left; the store may have charged it
            self._let_go(hold)
            raise
        if answer.outcome is not _ADMITTED:
            self._refuse_or_go_on(hold, answer)
        levels = hold.levels = hold.limits.seen = answer.levels
        if lines.shadows:
            self._count_shadows(lines, levels)
        if type(answer) is Sliced:
            hold.origin = Origin.SLICE
        self.open[hold.id] = hold
        return hold

    def _ask_denials(self, denials: Denials, hold: Hold) -> None:
        """Raise RateLimited for what was refused a moment ago, unless what is left of its other limits is not known."""
        denied = denials.find(hold.takes, self._monotonic_ns() // NS_PER_MS)
        seen = hold.limits.seen
        if denied is None or len(seen) != len(hold.takes):
            return
        line = hold.lines.lines[denied.line]
        seen = (*seen[: denied.line], denied.level, *seen[denied.line + 1 :])
        self._count_refusal(line.rule)
        raise self._told(hold, limited(line, hold.takes[denied.line].amount, denied.level, denied.wait_ms, seen))

    def _refuse_or_go_on(self, hold: Hold, answer: Reserved) -> None:
        """Raise what the answer comes to, unless all that is missing is room, and that is not to refuse anybody."""
        if answer.outcome is not Outcome.NO_ROOM or not self._admit_full:
            self._refuse(hold, answer)
        hold.origin = Origin.OPEN
        self.degraded += 1

    def _refuse(self, hold: Hold, answer: Reserved) -> NoReturn:
        if answer.outcome is Outcome.NO_ROOM:
            self.unavailable += 1
            raise LimitsUnavailable(
                "this gateway has no room to count another limit: retry in a moment", detail="the limit table is full"
            )
        if answer.outcome is not Outcome.REFUSED:
            raise InternalError("a hold's id was used twice")
        binding, lines = answer.binding, hold.lines
        levels = hold.limits.seen = answer.levels
        line, take = lines.lines[binding], hold.takes[binding]
        self._count_refusal(line.rule)
        if answer.wait_ms == NEVER:
            raise too_large(line, take.amount)
        if self._denials is not None:
            now_ms = self._monotonic_ns() // NS_PER_MS
            self._denials.add(take, line.resource, answer.wait_ms, levels[binding], now_ms)
        raise self._told(hold, limited(line, take.amount, levels[binding], answer.wait_ms, levels))

    def _told(self, hold: Hold, error: RateLimited) -> RateLimited:
        """The error, with what the headers of its answer need."""
        error.header_lines = partial(limit_headers, hold.lines, error.levels, self.wall_ms())
        return error

    def _count_refusal(self, rule: str) -> None:
        self.refused[rule] = self.refused.get(rule, 0) + 1

    def _count_shadows(self, lines: Lines, levels: tuple[int, ...]) -> None:
        for index in lines.shadows:
            if levels[index] < 0:
                rule = lines.lines[index].rule
                self.shadowed[rule] = self.shadowed.get(rule, 0) + 1

    # --- without the engine -----------------------------------------------------------------------------------------

    async def _without(self, hold: Hold, error: Exception) -> Hold:
        """Each limit's own mode: refuse, count here, or admit. Raises LimitsUnavailable, RateLimited or NeverFits."""
        shared = self._shares.of(hold.lines, hold.takes)
        try:
            self._refuse_closed(hold.lines, error)
            hold.levels = await self._take_share(hold, shared)
        except (GatewayError, asyncio.CancelledError):
            if isinstance(error, Unavailable) and error.reason not in _UNASKED:
                self._let_go(hold)
            raise
        hold.shared = [take for _, take in shared]
        hold.origin = Origin.SHARE if shared else Origin.OPEN
        self.degraded += 1
        self.open[hold.id] = hold
        return hold

    def _refuse_closed(self, lines: Lines, error: Exception) -> None:
        """Raise LimitsUnavailable if one of the limits is closed while the engine is away."""
        for line in lines.lines:
            closed = line.on_failure == _CLOSED or (line.on_failure == "share" and self._local is None)
            if closed and not line.spec.shadow:
                self.unavailable += 1
                raise unavailable(line, str(error))

    async def _take_share(self, hold: Hold, shared: list[tuple[int, Amount]]) -> tuple[int, ...]:
        """Take this node's part; the levels of all lines, as far as they are known."""
        lines = hold.lines.lines
        levels = [line.spec.limit for line in lines]
        if self._local is None or not shared:
            return tuple(levels)
        takes = [take for _, take in shared]
        try:
            answer = await self._local.reserve(hold.id, takes, owner=self._owner, lease_ms=LEASE_MS)
        except _FAILURES as error:
            self.unavailable += 1
            raise unavailable(lines[shared[0][0]], str(error)) from None
        for (index, _), level in zip(shared, answer.levels, strict=False):
            levels[index] = level
        if answer.outcome is Outcome.REFUSED:
            index, take = shared[answer.binding]
            part = lines[index]._replace(spec=take.spec)
            if answer.wait_ms == NEVER:  # this node's part is too small for it; the whole, which is away, may not be
                self.unavailable += 1
                raise unavailable(part, "this node's part of the limit is too small for the request")
            self._count_refusal(part.rule)
            raise self._told(hold, limited(part, take.amount, levels[index], answer.wait_ms, tuple(levels)))
        if answer.outcome is not _ADMITTED and not self._admit_full:
            self.unavailable += 1
            raise unavailable(lines[shared[0][0]], "no room to count this node's part")
        return tuple(levels)

    # --- settle -----------------------------------------------------------------------------------------------------

    def settle(self, hold: Hold, actuals: Sequence[Amount]) -> None:
        """Apply what a hold has really used; called by the hold, once."""
        self.open.pop(hold.id, None)
        if hold.origin is Origin.SHARE and self._local is not None:
            self._settle_share(self._local, hold, actuals)
        self._deliver(hold, actuals)
        if self._denials is not None:
            self._denials.clear(actuals, self._monotonic_ns() // NS_PER_MS)

    def _let_go(self, hold: Hold) -> None:
        """A hold that will not be: give back what it may have taken."""
        self._deliver(hold, hold.lines.actuals(NOTHING, NOTHING))

    def _deliver(self, hold: Hold, actuals: Sequence[Amount]) -> None:
        try:
            answered = self._quick.settle(hold.id, actuals)
        except MutexBusy:
            self._owe(hold.id, actuals)
            return
        except MutexLost:
            self._give_up()
            return
        if isinstance(answered, Settled):
            return
        if isinstance(answered, asyncio.Future):
            answered.add_done_callback(lambda done: self._delivered(hold.id, actuals, done))
        elif isinstance(answered, SettledHere):
            hold.mark = answered.mark

    def _delivered(self, hold: str, actuals: Sequence[Amount], done: "asyncio.Future[Settled]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._owe(hold, actuals)

    def _settle_share(self, local: Engine, hold: Hold, actuals: Sequence[Amount]) -> None:
        used = {actual.bucket: actual.amount for actual in actuals}
        parts = [Amount(take.bucket, take.spec, used.get(take.bucket, 0)) for take in hold.shared]
        with suppress(*_FAILURES):  # the share's slots are freed by their lease; the whole is what counts
            local.settle(hold.id, parts)

    def _owe(self, hold: str, actuals: Sequence[Amount]) -> None:
        """A settlement did not arrive, as far as we know: keep it until it does."""
        self.undelivered += 1
        if len(self.owed) < MAX_OWED:
            self.owed[hold] = actuals
        elif self.undelivered % MAX_OWED == 0:  # of so many, one is told
            waiting = "limits: %d settlements wait for the store, or the node's limit table; the journal has the rest"
            _log.error(waiting, MAX_OWED)

    def _give_up(self) -> None:
        """The table is lost: nothing can be delivered until the node is restarted, and the journal has it."""
        self.undelivered += 1
        self.owed.clear()

    async def _pay(self) -> None:
        """Deliver what is owed, until something fails again."""
        for hold, actuals in tuple(self.owed.items()):
            try:
                await self._quick.settle(hold, actuals)
            except MutexLost:
                self.owed.clear()
                return
            except _FAILURES:
                return
            self.owed.pop(hold, None)

    # --- further attempts -------------------------------------------------------------------------------------------

    async def extend(self, hold: Hold, lines: Lines, takes: list[Amount], releases: list[Amount]) -> bool:
        """Exchange the buckets of one attempt for those of the next; False where those refuse. Called by the hold."""
        for _ in range(2):
            try:
                answer = await self.engine.reserve(
                    hold.id, takes, owner=self._owner, lease_ms=LEASE_MS, attempt=hold.attempt + 1, releases=releases
                )
                if answer.outcome is Outcome.NO_ROOM and self._admit_full:  # it goes on as it began, uncounted
                    return True
                if answer.outcome is not Outcome.EXPIRED:
                    return answer.outcome is _ADMITTED
                await self.engine.renew([Renewal(hold.id, hold.lines.slots)], lease_ms=LEASE_MS)
            except _FAILURES:
                self.degraded += 1
                return all(line.on_failure != _CLOSED or line.spec.shadow for line in lines.lines[lines.own :])
        return False

    # --- leases -----------------------------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Prolong the leases of all holds that were open the last time, and deliver what is owed.

        Call it every third of LEASE_MS.
        """
        aged = [hold for hold in self.open.values() if hold.aged]
        for hold in self.open.values():
            hold.aged = True
        for start in range(0, len(aged), MAX_RENEWALS):
            some = [hold for hold in aged[start : start + MAX_RENEWALS] if hold.id in self.open]
            if some:
                await self._renew_some(some)
            await asyncio.sleep(0)  # ten thousand open streams must not hold up the others
        if self.owed:
            await self._pay()

    async def close(self) -> None:
        """Deliver what is owed, if that is possible now, and let go of the engines."""
        if self.owed:
            await self._pay()
        await self.engine.close()
        if self._local is not None:
            await self._local.close()

    async def keep(self) -> None:
        """Renew for as long as this worker lives."""
        while True:
            await asyncio.sleep(LEASE_MS / 3000)
            await self.renew()

    async def _renew_some(self, holds: list[Hold]) -> None:
        renewals = [Renewal(hold.id, hold.lines.slots) for hold in holds]
        shared = [Renewal(hold.id, hold.lines.slots) for hold in holds if hold.origin is Origin.SHARE]
        for engine, some in ((self.engine, renewals), (self._local, shared)):
            if engine is None or not some:
                continue
            try:
                await engine.renew(some, lease_ms=LEASE_MS)
            except _FAILURES:  # the slots may be taken by others; the next turn takes them back
                continue
