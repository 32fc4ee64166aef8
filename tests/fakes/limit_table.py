"""Limit tables for tests: in memory of their own, with a clock that stands still, behind the face of any engine."""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Renewal, Reserved, Settled, Slice, Standing
from gateway.limiter.hold import State
from gateway.limiter.layout import Layout
from gateway.limiter.quick import QuickTable
from gateway.limiter.rows import OnFull
from gateway.limiter.spec import Spec
from gateway.limiter.table import Table
from gateway.segment import WORD
from gateway.units import NS_PER_MS

OWNER = 7
SMALL = Layout(rows=256, holds=256)  # marks must outlive what the sequences settle again

_MAPPED: list[mmap.mmap] = []  # never unmapped: the C library links a held mutex by address, even after a failing test


class Moment:
    """A clock: both the monotonic and the wall one."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def ns(self) -> int:
        return self.now_ms * NS_PER_MS

    def ms(self) -> int:
        return self.now_ms


def memory(layout: Layout = SMALL) -> memoryview:
    """Words with an empty table in them, shared with whoever is forked."""
    _MAPPED.append(mmap.mmap(-1, layout.words * WORD))
    words = memoryview(_MAPPED[-1]).cast("q")
    Table.initialise(words, layout)
    return words


def empty(words: memoryview, layout: Layout = SMALL) -> None:
    """Begin anew in words that nobody else uses."""
    words.cast("B")[:] = bytes(words.nbytes)
    Table.initialise(words, layout)


def table(
    words: memoryview,
    moment: Moment,
    *,
    kind: type[Table] = QuickTable,
    max_end_users: int = 100,
    on_full: OnFull = OnFull.OTHER,
) -> Table:
    """One process's access to the table in these words."""
    return kind(words, max_end_users=max_end_users, on_full=on_full, monotonic_ns=moment.ns, wall_ms=moment.ms)


class TimedTable:
    """A table as a TimedEngine; `checked`: every invariant of it is looked at after each operation."""

    def __init__(self, *, kind: type[Table] = QuickTable, checked: bool = False) -> None:
        self._moment = Moment(0)
        self._kind = kind
        self._words = memory()
        self._checked = checked
        self.table = table(self._words, self._moment, kind=kind)

    def forget(self) -> None:
        """Begin anew."""
        empty(self._words)
        self.table = table(self._words, self._moment, kind=self._kind)

    def counts(self) -> dict[str, tuple[int, ...]]:
        """What every row that says something counts, by kind and name."""
        rows = self.table.rows
        used = [rows.at(number) for number in range(rows.layout.rows) if rows.words[rows.at(number) // WORD]]
        return {f"{rows.kind(at)} {rows.name(at)}": tuple(rows.read(at)) for at in used}

    def reserve(
        self,
        now_ms: int,
        hold_id: str,
        takes: Sequence[Amount],
        *,
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Reserved:
        with self._at(now_ms) as table:
            return table.reserve(hold_id, takes, owner=OWNER, lease_ms=lease_ms, attempt=attempt, releases=releases)

    def settle(self, now_ms: int, hold_id: str, actuals: Sequence[Amount]) -> Settled:
        with self._at(now_ms) as table:
            return table.settle(hold_id, actuals)

    def renew(self, now_ms: int, holds: Sequence[Renewal], *, lease_ms: int) -> tuple[State, ...]:
        with self._at(now_ms) as table:
            return table.renew(holds, lease_ms=lease_ms)

    def lease(  # noqa: PLR0913  # Engine.lease and the time
        self,
        now_ms: int,
        node: str,
        turn: int,
        bucket: str,
        spec: Spec,
        *,
        want: int,
        least: int,
        unused: int,
        lease_ms: int,
    ) -> Slice:
        with self._at(now_ms) as table:
            return table.lease(node, turn, bucket, spec, want=want, least=least, unused=unused, lease_ms=lease_ms)

    def peek(self, now_ms: int, asked: Sequence[Amount]) -> tuple[Standing, ...]:
        with self._at(now_ms) as table:
            return table.peek(asked)

    @contextmanager
    def _at(self, now_ms: int) -> Iterator[Table]:
        self._moment.now_ms = now_ms
        yield self.table
        if self._checked:
            assert problems(self.table.rows, self.table.holds) == []
