"""The limit table: the engine for one host, in memory that its processes share, exact across all of them.

Every operation takes the mutex, ends the leases that are due, does one step (`steps.py`), and leaves. A process may die
at any instruction. Whoever takes the mutex next is told, takes back the change that was under way, checks the whole
table (`check.py`), and only then goes on; a table that is wrong after that is given up for good.

Invariants: nothing is awaited, and nothing but the table touched, while the mutex is held; time is read inside. A wait
for the mutex is at most WAIT_MS. Left out: what the words are (`layout.py`), giving up what nobody needs (`sweep.py`).
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NoReturn

from gateway.limiter.check import problems
from gateway.limiter.engine import (
    MAX_CHARGES,
    Amount,
    Ready,
    Reason,
    Renewal,
    Reserved,
    Settled,
    Slice,
    Standing,
    Unavailable,
)
from gateway.limiter.hold import State
from gateway.limiter.holds import MAX_ATTEMPT, Held, Holds
from gateway.limiter.layout import (
    AT_ARMED,
    AT_COUNTERS,
    AT_HOLDS,
    AT_KEY,
    AT_NEXT_LAPSE,
    AT_ROWS,
    NO_LEASE,
    Counter,
    Layout,
    hold_key,
    ints,
)
from gateway.limiter.mutex import LOST, MUTEX_WORDS, Mutex, MutexBusy, MutexLost
from gateway.limiter.rows import OnFull, Rows
from gateway.limiter.spec import Kind, Spec, prove_amount, prove_lease
from gateway.limiter.steps import Step, lapse_due
from gateway.limiter.undo import HOLD_SHIFT, SETTLING, put_back
from gateway.segment import WORD
from gateway.units import NS_PER_MS

WAIT_MS: Final = 500  # for whoever checks a full table after a death, and for a holder that is not running
LAPSES_AT_ONCE: Final = 256
_KEY_WORDS: Final = 2

_log: Final = logging.getLogger("gateway.limiter")


def clock_ms() -> int:
    """The wall clock."""
    return time.time_ns() // NS_PER_MS


class Table:
    """One process's access to the table; made after the fork, or before it by who made the table."""

    def __init__(
        self,
        words: memoryview,
        *,
        max_end_users: int,
        on_full: OnFull,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        wall_ms: Callable[[], int] = clock_ms,
    ) -> None:
        self.words = words
        self.mutex = Mutex(words[:MUTEX_WORDS])
        self.layout = Layout(words[AT_ROWS], words[AT_HOLDS])
        self.rows = Rows(words, self.layout, max_end_users=max_end_users, on_full=on_full)
        self.holds = Holds(words, self.layout)
        self._monotonic_ns = monotonic_ns
        self.wall_ms = wall_ms
        self._try_lock, self._unlock, self._mutex_at = self.mutex.try_lock, self.mutex.unlock, self.mutex.at

    @staticmethod
    def initialise(words: memoryview, layout: Layout) -> None:
        """Make an empty table in these words, which are zero and which nobody uses yet. Raises MutexUnsupported."""
        words[AT_ROWS], words[AT_HOLDS] = layout.rows, layout.holds
        words[AT_KEY], words[AT_KEY + 1] = ints(os.urandom(_KEY_WORDS * WORD))
        words[AT_NEXT_LAPSE] = NO_LEASE
        Mutex.initialise(words[:MUTEX_WORDS])

    # --- the operations ---------------------------------------------------------------------------------------------

    def reserve(
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
        _prove([*takes, *releases])
        prove_lease(lease_ms)
        if not 0 <= attempt <= MAX_ATTEMPT:
            raise ValueError(f"attempt is {attempt}, must be 0 to {MAX_ATTEMPT}")
        if max(len(takes), len(releases)) > MAX_CHARGES:
            raise ValueError(f"{len(takes)} takes, {len(releases)} releases: a hold has at most {MAX_CHARGES} charges")
        with self.locked() as now_ms:
            return self._reserve(hold_key(hold), takes, owner, attempt, lease_ms, now_ms, releases)

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Settled:
        """SETTLE, as `engine.py` says."""
        with self.locked() as now_ms:
            return self._settle(hold_key(hold), actuals, now_ms)

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> tuple[State, ...]:
        """RENEW, as `engine.py` says; one turn of the mutex for each hold."""
        prove_lease(lease_ms)
        return tuple(self._renew(renewal, lease_ms) for renewal in holds)

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> Slice:
        """LEASE, as `engine.py` says."""
        if spec.kind is Kind.SLOTS:
            raise ValueError(f"bucket {bucket!r} counts slots; only a RATE or a WINDOW can be leased in slices")
        if not 0 <= least <= prove_amount(want):
            raise ValueError(f"least is {least}, must be 0 to want, {want}")
        prove_amount(abs(unused))
        prove_lease(lease_ms)
        with self.locked() as now_ms:
            return self.step(now_ms).lease(node, turn, Amount(bucket, spec, least), want, unused, lease_ms)

    def peek(self, asked: Sequence[Amount]) -> tuple[Standing, ...]:
        """PEEK, as `engine.py` says."""
        _prove(asked)
        with self.locked() as now_ms:
            return self.step(now_ms).peek(asked)

    # --- for the sweep ----------------------------------------------------------------------------------------------

    @contextmanager
    def locked(self, wait_ms: int = WAIT_MS) -> Iterator[int]:
        """Under the mutex, with everything due lapsed; gives the time. Raises MutexBusy, MutexLost."""
        code = self._try_lock(self._mutex_at)
        if code:
            self._late(code, wait_ms)
        try:
            now_ms = self.now_ms()
            if now_ms >= self.words[AT_NEXT_LAPSE]:
                self._lapse(now_ms)
            yield now_ms
        except BaseException:
            self.take_back()
            raise
        finally:
            self._unlock(self._mutex_at)

    def now_ms(self) -> int:
        """The monotonic clock, which leases and rates are counted by."""
        return self._monotonic_ns() // NS_PER_MS

    def step(self, now_ms: int) -> Step:
        """One step under the mutex."""
        return Step(self.rows, self.holds, now_ms, self.wall_ms())

    def count(self, counter: Counter) -> int:
        """What the table has counted; read without the mutex."""
        counted: int = self.words[AT_COUNTERS + counter]
        return counted

    def take_back(self) -> int:
        """Undo a change that is under way, if there is one; how many cells that were. Raises MutexLost if it cannot."""
        try:
            armed = self.words[AT_ARMED]
            cells = put_back(self.words, self.layout.undo_at)
            hold = armed >> HOLD_SHIFT
            if hold:
                self.holds.take_back((hold & ~SETTLING) - 1, settling=bool(hold & SETTLING))
            self.words[AT_ARMED] = 0
        except Exception as error:
            self._abandon()
            raise MutexLost("a change of the limit table that was cut short cannot be taken back") from error
        return cells

    # --- within -----------------------------------------------------------------------------------------------------

    def _reserve(
        self,
        key: bytes,
        takes: Sequence[Amount],
        owner: int,
        attempt: int,
        lease_ms: int,
        now_ms: int,
        releases: Sequence[Amount] = (),
    ) -> Reserved:
        _prove(takes)
        held = self.holds.find(key) or Held(key, owner)
        return self.step(now_ms).reserve(held, takes, releases, attempt, lease_ms)

    def _settle(self, key: bytes, actuals: Sequence[Amount], now_ms: int) -> Settled:
        _prove(actuals)
        return self.step(now_ms).settle(self.holds.find(key) or Held(key, 0), actuals)

    def _renew(self, renewal: Renewal, lease_ms: int) -> State:
        with self.locked() as now_ms:
            held = self.holds.find(hold_key(renewal.hold))
            return State.UNKNOWN if held is None else self.step(now_ms).renew(held, renewal.slots, lease_ms)

    def _abandon(self) -> None:
        """Give the table up for good: from now on a lease is always due, and `_lapse` says why nothing goes on."""
        self.words[AT_NEXT_LAPSE] = 0
        self.mutex.abandon()

    def _lapse(self, now_ms: int) -> None:
        if self.mutex.is_lost:
            raise MutexLost(LOST)
        lapse_due(self.rows, self.holds, now_ms, self.wall_ms(), LAPSES_AT_ONCE)

    def _late(self, code: int, wait_ms: int = WAIT_MS) -> None:
        """The mutex was not simply free: wait for it, and if its holder died, put the table right first."""
        if not self.mutex.resolve(code, wait_ms):
            return
        try:
            cells = self.take_back()
            wrong = problems(self.rows, self.holds)
        except MutexLost:
            raise
        except Exception as error:
            self._abandon()
            raise MutexLost("the limit table cannot be read after a process died within it") from error
        if wrong:
            self._abandon()
            raise MutexLost("the limit table is wrong after a process died within it: " + "; ".join(wrong[:5]))
        self.mutex.mark_consistent()
        self.words[AT_COUNTERS + Counter.RECOVERED] += 1
        self.words[AT_COUNTERS + Counter.ROLLED_BACK] += cells > 0
        _log.warning("a process died while it held the limit table; %d cells of its change were taken back", cells)


class TableEngine:
    """The table as an Engine: the same operations, answered at once."""

    def __init__(self, table: Table) -> None:
        self.table = table

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
        """RESERVE."""
        try:
            return self.table.reserve(hold, takes, owner=owner, lease_ms=lease_ms, attempt=attempt, releases=releases)
        except (MutexBusy, MutexLost) as error:
            return Failed(error)

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Awaitable[Settled]:
        """SETTLE."""
        try:
            return self.table.settle(hold, actuals)
        except (MutexBusy, MutexLost) as error:
            return Failed(error)

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        """RENEW."""
        try:
            return Ready(self.table.renew(holds, lease_ms=lease_ms))
        except (MutexBusy, MutexLost) as error:
            return Failed(error)

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> Awaitable[Slice]:
        """LEASE."""
        try:
            return Ready(
                self.table.lease(node, turn, bucket, spec, want=want, least=least, unused=unused, lease_ms=lease_ms)
            )
        except (MutexBusy, MutexLost) as error:
            return Failed(error)

    def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
        """PEEK."""
        try:
            return Ready(self.table.peek(asked))
        except (MutexBusy, MutexLost) as error:
            return Failed(error)

    async def close(self) -> None:
        """Nothing to let go of: the memory is the node's."""


class Failed:
    """The answer of an operation that could not be done: raises Unavailable when awaited, as a store's would."""

    __slots__ = ("_error",)

    def __init__(self, error: MutexBusy | MutexLost) -> None:
        reason = Reason.BUSY if isinstance(error, MutexBusy) else Reason.DOWN
        self._error = Unavailable(reason, str(error))

    def __await__(self) -> Generator[None, None, NoReturn]:
        yield from ()
        raise self._error


def _prove(asked: Sequence[Amount]) -> None:
    for amount in asked:
        prove_amount(amount.amount)
