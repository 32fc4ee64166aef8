"""What each operation of an engine does to the shared table: the rules, not the fast way.

Each method of Step is one atomic step under the mutex: it reads the rows it needs once, decides with the pure functions
of `bucket.py` and `hold.py`, and writes every change together. `table.py` has shorter ways for the two commonest cases
and comes here for all others; its tests hold the two together.

Invariants: nothing is written before everything is decided, but for rows that count nothing, which cannot be told from
full buckets. Left out: the mutex, the clocks, who calls.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.limiter.bucket import NEVER, Row, charged, current, level, wait_ms
from gateway.limiter.engine import (
    MAX_CHARGES,
    NOTHING_BINDS,
    Amount,
    Outcome,
    Reserved,
    Settled,
    Slice,
    Standing,
)
from gateway.limiter.hold import Charge, State, belongs, merged, owed, state_at
from gateway.limiter.holds import IN_FLIGHT, Held, Holds, Taken
from gateway.limiter.layout import AT_COUNTERS, AT_NEXT_LAPSE, ROW_AMOUNT, ROW_USED, Counter
from gateway.limiter.rows import SLICE, Mode, Place, Rows
from gateway.limiter.spec import MAX_SLOTS, Kind, Spec, slots
from gateway.limiter.undo import Change, write
from gateway.segment import WORD

_ANY_SLOTS: Final = slots(MAX_SLOTS)


class Cell:
    """A row as this step sees it; lines that are counted in one row have one cell."""

    __slots__ = ("at", "changed", "name", "row", "spec")

    def __init__(self, at: int, row: Row, name: str, spec: Spec) -> None:
        self.at = at  # byte offset; -1 for a row that is yet to be made
        self.row = row
        self.name = name
        self.spec = spec
        self.changed = False


class Line:
    """One bucket of a step: what was asked, and where it is counted."""

    __slots__ = ("_now_ms", "amount", "cell", "place", "spec")

    def __init__(self, asked: Amount, place: Place, cell: Cell, now_ms: int) -> None:
        self.spec = asked.spec
        self.amount = asked.amount
        self.place = place
        self.cell = cell
        self._now_ms = now_ms

    @property
    def row(self) -> Row:
        """The row as it stands now. Looking at it moves no window and refills nothing in what will be written."""
        return current(self.cell.row, self.spec, self._now_ms)

    @property
    def level(self) -> int:
        """What is left of the bucket."""
        return level(self.row, self.spec)

    @property
    def is_slots(self) -> bool:
        """Whether the bucket counts holds in flight."""
        return self.spec.kind is Kind.SLOTS

    def charge(self, amount: int) -> None:
        """Use that much more; nothing is nothing, so that a row which only passes by is not written."""
        if amount and self.place.mode is not Mode.UNCOUNTED:
            self.cell.row = charged(self.row, self.spec, amount)
            self.cell.changed = True

    def settle(self, state: State, taken: Taken | None, *, counted: bool) -> None:
        """Apply the amount as what was really used; `counted` tells whether the hold's slots are still counted."""
        if self.is_slots:
            self.charge(-1 if taken is not None and counted else 0)
            return
        charge = Charge(taken.reserved, taken.window_ms) if taken is not None else None
        if self.spec.kind is Kind.RATE or belongs(charge, self.row.mark_ms, self.spec.start_ms):
            self.charge(owed(state, charge, self.amount))


class Step:
    """One step at one moment; made anew for every operation."""

    def __init__(self, rows: Rows, holds: Holds, now_ms: int, wall_ms: int) -> None:
        self._rows = rows
        self._holds = holds
        self._words = rows.words
        self._now_ms = now_ms
        self._wall_ms = wall_ms
        self._cells: dict[int, Cell] = {}
        rows.pinned.clear()

    # --- the operations ---------------------------------------------------------------------------------------------

    def reserve(
        self, held: Held, takes: Sequence[Amount], releases: Sequence[Amount], attempt: int, lease_ms: int
    ) -> Reserved:
        """RESERVE for a hold, as found or new."""
        state = state_at(held.state, held.lease_ms, self._now_ms)
        if attempt <= held.attempt or state in {State.SETTLED, State.EXPIRED}:
            return Reserved(_ECHOES[state], levels=self._seen_levels(takes))
        for line in self._lines(releases, held):
            line.settle(state, held.charges.pop(line.place.tag, None), counted=True)
        lines = self._lines(takes, held)
        costs = [self._cost(line, held) for line in lines]
        refused = self._refusal(lines, costs)
        if refused is not None:
            return refused
        for line, cost in zip(lines, costs, strict=True):
            self._take(line, cost, held)
        if len(held.charges) > MAX_CHARGES:
            raise ValueError(f"a hold of {len(held.charges)} charges, it can have {MAX_CHARGES}")
        if not self._make_rows():  # the last free row went to another bucket of this very call: decide again
            again = Step(self._rows, self._holds, self._now_ms, self._wall_ms)
            held = self._holds.find(held.key) or Held(held.key, held.owner)
            return again.reserve(held, takes, releases, attempt, lease_ms)
        if state is State.UNKNOWN:
            held.state = State.OPEN
            held.lease_ms = self._now_ms + lease_ms
        held.attempt = attempt
        levels = tuple(line.level for line in lines)
        if not self._save(held):
            self._words[AT_COUNTERS + Counter.NO_ROOM] += 1
            return Reserved(Outcome.NO_ROOM, levels=self._seen_levels(takes))
        return Reserved(Outcome.ADMITTED, levels=levels)

    def settle(self, held: Held, actuals: Sequence[Amount]) -> Settled:
        """SETTLE for a hold, as found or new."""
        state = state_at(held.state, held.lease_ms, self._now_ms)
        if state is State.SETTLED:
            return Settled(state, self._seen_levels(actuals))
        lines = self._lines(actuals, held)
        for line in lines:
            line.settle(state, held.charges.pop(line.place.tag, None), counted=held.state is State.OPEN)
        self._make_rows()
        if held.state is State.OPEN:
            self._count_slots(held, -1)  # of those not named
        held.state = State.SETTLED
        held.charges = {}
        self._save(held)
        return Settled(state, tuple(line.level for line in lines))

    def renew(self, held: Held, names: Iterable[str], lease_ms: int) -> State:
        """RENEW for a hold that was found."""
        if held.state is State.SETTLED:
            return held.state
        if held.state is State.EXPIRED:
            self._remake_slots(held, names)
            self._count_slots(held, 1)
        held.state = State.OPEN
        held.lease_ms = self._now_ms + lease_ms
        self._save(held)
        return held.state

    def lapse(self, held: Held) -> None:
        """The lease of an OPEN hold is over: its slots are free, its other charges stay."""
        self._count_slots(held, -1)
        held.state = State.EXPIRED
        self._save(held)
        self._words[AT_COUNTERS + Counter.LAPSED] += 1

    def lease(self, node: str, turn: int, asked: Amount, want: int, unused: int, lease_ms: int) -> Slice:
        """LEASE; the amount of `asked` is the least that is worth granting.

        A slice is a row of its own kind: what was granted, how many turns there were, when it ends, and its window.
        """
        line = self._line(asked, None)
        name = f"{node}|{asked.spec.kind.name}|{asked.bucket}"
        at, _ = self._rows.find(name, SLICE)
        had, turns, until_ms = self._rows.read(at)
        if turn < turns:
            return self._granted(line, had if turn == turns - 1 else 0)
        if at < 0 and not self._rows.room(self._now_ms, self._wall_ms):
            return self._granted(line, 0)
        counted_ms = self._words[at // WORD + ROW_AMOUNT] if at >= 0 else asked.spec.start_ms
        unused = min(unused, had if self._now_ms < until_ms else 0)
        if asked.spec.kind is Kind.RATE or counted_ms == line.row.mark_ms:
            line.charge(-unused)
        granted = min(want, max(line.level, 0))
        granted = granted if granted >= asked.amount else 0
        line.charge(granted)
        at = at if at >= 0 else self._rows.make(name, SLICE, asked.spec)
        granted = granted if self._make_rows() else 0
        row = (at + ROW_USED * WORD, granted, turn + 1, self._now_ms + lease_ms)
        self._write([row, (at + ROW_AMOUNT * WORD, line.row.mark_ms)])
        return self._granted(line, granted)

    def peek(self, asked: Sequence[Amount]) -> tuple[Standing, ...]:
        """PEEK."""
        found = []
        for amount in asked:
            row = self._seen(amount)
            found.append(Standing(level(row, amount.spec), self._wait_ms(row, amount.spec, amount.amount)))
        return tuple(found)

    # --- reading ----------------------------------------------------------------------------------------------------

    def _lines(self, amounts: Sequence[Amount], held: Held) -> list[Line]:
        return [self._line(amount, held) for amount in amounts]

    def _line(self, asked: Amount, held: Held | None) -> Line:
        name, spec = asked.bucket, asked.spec
        place = self._rows.place(name, spec, self._now_ms, self._wall_ms)
        taken = held.charges.get(place.tag) if held is not None else None
        if taken is not None and taken.shared:
            place = self._rows.shared_place(name, spec, self._now_ms, self._wall_ms)
        key = place.at if place.at >= 0 else -1 - place.tag
        cell = self._cells.get(key)
        if cell is None:
            cell = self._cells[key] = Cell(place.at, self._rows.read(place.at), name, spec)
        return Line(asked, place, cell, self._now_ms)

    def _seen(self, amount: Amount) -> Row:
        at = self._rows.seen(amount.bucket, amount.spec.kind)
        return current(self._rows.read(at), amount.spec, self._now_ms)

    def _seen_levels(self, amounts: Sequence[Amount]) -> tuple[int, ...]:
        return tuple(level(self._seen(amount), amount.spec) for amount in amounts)

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _wait_ms(self, row: Row, spec: Spec, cost: int) -> int:
        return wait_ms(row, spec, cost, self._wall_ms if spec.kind is Kind.WINDOW else self._now_ms)

    def _cost(self, line: Line, held: Held) -> int:
        """What a take costs: a slot costs 1, and nothing when the hold has it already."""
        return int(line.place.tag not in held.charges) if line.is_slots else line.amount

    def _refusal(self, lines: list[Line], costs: list[int]) -> Reserved | None:
        """The refusal by the takes that do not fit, None when all do."""
        binding, longest = NOTHING_BINDS, 0
        for index, (line, cost) in enumerate(zip(lines, costs, strict=True)):
            wait = 0 if line.is_slots and not cost else self._wait_ms(line.row, line.spec, cost)
            if wait and not line.spec.shadow and longest != NEVER and (wait == NEVER or wait > longest):
                binding, longest = index, wait
        levels = tuple(line.level for line in lines)
        if binding != NOTHING_BINDS:
            return Reserved(Outcome.REFUSED, binding, longest, levels)
        for index, line in enumerate(lines):
            if line.place.mode is Mode.NO_ROOM:
                self._words[AT_COUNTERS + Counter.NO_ROOM] += 1
                return Reserved(Outcome.NO_ROOM, index, 0, levels)
        return None

    def _granted(self, line: Line, granted: int) -> Slice:
        wait = self._wait_ms(line.row, line.spec, line.amount) if granted < line.amount else 0
        return Slice(granted, line.level, wait)

    # --- changing, in memory ----------------------------------------------------------------------------------------

    def _take(self, line: Line, cost: int, held: Held) -> None:
        if line.place.mode is Mode.UNCOUNTED:
            self._words[AT_COUNTERS + Counter.UNCOUNTED] += 1
            return
        line.charge(cost)
        tag, shared = line.place.tag, line.place.mode is Mode.SHARED
        self._words[AT_COUNTERS + Counter.SHARED] += shared
        before = held.charges.get(tag)
        if line.is_slots:  # where others have an amount, a slot has the tag of the row it is counted in
            counted_in = self._words[line.cell.at // WORD] if shared else tag
            held.charges[tag] = before or Taken(counted_in, IN_FLIGHT, shared)
            return
        window_ms = line.row.mark_ms if line.spec.kind is Kind.WINDOW else 0
        charge = merged(Charge(before.reserved, before.window_ms) if before else None, cost, window_ms)
        held.charges[tag] = Taken(charge.reserved, charge.window_ms, shared)

    def _count_slots(self, held: Held, more: int) -> None:
        """Count the slots of a hold once more, or once less."""
        for taken in held.charges.values():
            at = self._rows.by_tag(taken.reserved) if taken.window_ms == IN_FLIGHT else -1
            if at >= 0:
                cell = self._cells.get(at)
                if cell is None:
                    cell = self._cells[at] = Cell(at, self._rows.read(at), "", _ANY_SLOTS)
                cell.row = charged(cell.row, _ANY_SLOTS, more)
                cell.changed = True

    def _remake_slots(self, held: Held, names: Iterable[str]) -> None:
        """Make the rows of a renewed hold's slots that were given up meanwhile."""
        for name in names:
            at, tag = self._rows.find(name, Kind.SLOTS)
            taken = held.charges.get(tag)
            if taken is None or self._rows.by_tag(taken.reserved) >= 0:
                continue
            place = self._rows.place(name, _ANY_SLOTS, self._now_ms, self._wall_ms)
            at = place.at
            if place.mode is Mode.NEW:
                at = self._rows.make(name, Kind.SLOTS, _ANY_SLOTS)
            if at >= 0:
                held.charges[tag] = Taken(self._words[at // WORD], IN_FLIGHT, place.mode is Mode.SHARED)

    def _make_rows(self) -> bool:
        """Make the rows of buckets charged for the first time; False if one cannot be, which is then not counted."""
        made = True
        for cell in self._cells.values():
            if cell.changed and cell.at < 0:
                place = self._rows.place(cell.name, cell.spec, self._now_ms, self._wall_ms)
                if place.mode is Mode.NEW:
                    cell.at = self._rows.make(cell.name, cell.spec.kind, cell.spec)
                else:
                    made = cell.changed = False
        return made

    # --- writing ----------------------------------------------------------------------------------------------------

    def _save(self, held: Held) -> bool:
        """Write the hold and every changed row; False, having written nothing, when a new OPEN hold finds no memory."""
        if held.number >= 0:
            changes: list[Change] | None = self._holds.saved(held)
        else:
            changes = self._holds.opened(held, self._now_ms)
        if changes is None and held.state is State.OPEN:
            return False
        if held.state is State.OPEN:
            self._holds.leased(held.lease_ms)
        self._write(changes or [])
        return True

    def _write(self, changes: list[Change]) -> None:
        rows: list[Change] = [
            (cell.at + ROW_USED * WORD, *cell.row) for cell in self._cells.values() if cell.changed and cell.at >= 0
        ]
        write(self._words, self._rows.layout.undo_at, changes + rows)


_ECHOES: Final = {State.OPEN: Outcome.ADMITTED, State.SETTLED: Outcome.SETTLED, State.EXPIRED: Outcome.EXPIRED}


def lapse_due(rows: Rows, holds: Holds, now_ms: int, wall_ms: int, most: int) -> None:
    """End the leases that are over, at most so many, and note when the next one is."""
    if holds.next_lapse_ms() <= now_ms:
        leases = sorted((lease_ms, number) for number, _, lease_ms in holds.in_states(State.OPEN) if lease_ms <= now_ms)
        for _, number in leases[:most]:
            Step(rows, holds, now_ms, wall_ms).lapse(holds.load(number))
    rows.words[AT_NEXT_LAPSE] = holds.next_lapse_ms()
