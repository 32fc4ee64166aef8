"""An engine in plain words: dictionaries and the pure functions of gateway/limiter, and nothing else.

What the engines have to agree with. It is slow, keeps everything for ever, and is handed the time with every call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.limiter.bucket import FRESH, NEVER, Row, charged, current, level, wait_ms
from gateway.limiter.engine import NOTHING_BINDS, Amount, Outcome, Renewal, Reserved, Settled, Slice, Standing
from gateway.limiter.hold import Charge, Event, State, belongs, merged, owed, state_at, step
from gateway.limiter.spec import Kind, Spec

Key = tuple[Kind, str]


@dataclass
class ModelHold:
    """A hold; a SLOTS bucket is charged in `charges` and counted where the hold is OPEN."""

    state: State = State.UNKNOWN
    attempt: int = -1
    lease_until_ms: int = 0
    charges: dict[Key, Charge] = field(default_factory=dict)


@dataclass
class ModelSlice:
    turn: int
    granted: int
    until_ms: int
    window_ms: int


class LimitModel:
    """All five operations; `now_ms` is both the monotonic and the wall clock."""

    def __init__(self) -> None:
        self.rows: dict[Key, Row] = {}
        self.holds: dict[str, ModelHold] = {}
        self.slices: dict[tuple[str, Key], ModelSlice] = {}

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
        hold = self._hold(hold_id, now_ms)
        event = Event.RESERVED if attempt <= hold.attempt and hold.state is not State.UNKNOWN else Event.EXTENDED
        state = step(hold.state, event)
        if hold.state in (State.SETTLED, State.EXPIRED):
            outcome = Outcome.SETTLED if state is State.SETTLED else Outcome.EXPIRED
            return Reserved(outcome, levels=self._levels(takes, now_ms))
        if event is Event.RESERVED:
            return Reserved(Outcome.ADMITTED, levels=self._levels(takes, now_ms))
        rows, kept = dict(self.rows), self.holds.get(hold_id)
        for release in releases:
            self._settle_one(hold, release, now_ms)
            hold.charges.pop(key_of(release), None)
        if releases and kept is not None:
            self.holds[hold_id] = hold
        binding, wait = self._binding(hold, takes, now_ms)
        if binding != NOTHING_BINDS:
            refused = Reserved(Outcome.REFUSED, binding, wait, self._levels(takes, now_ms))
            self.rows = rows
            if kept is not None:
                self.holds[hold_id] = kept
            return refused
        if hold.state is State.UNKNOWN:
            hold.lease_until_ms = now_ms + lease_ms
        hold.state, hold.attempt = state, attempt
        self.holds[hold_id] = hold
        for take in takes:
            self._take(hold, take, now_ms)
        return Reserved(Outcome.ADMITTED, levels=self._levels(takes, now_ms))

    def settle(self, now_ms: int, hold_id: str, actuals: Sequence[Amount]) -> Settled:
        hold = self._hold(hold_id, now_ms)
        found = hold.state
        if found is not State.SETTLED:
            for actual in actuals:
                self._settle_one(hold, actual, now_ms)
            self.holds[hold_id] = ModelHold(step(found, Event.SETTLED))
        return Settled(found, self._levels(actuals, now_ms))

    def renew(self, now_ms: int, holds: Sequence[Renewal], *, lease_ms: int) -> tuple[State, ...]:
        states = []
        for renewal in holds:
            hold = self._hold(renewal.hold, now_ms)
            hold.state = step(hold.state, Event.RENEWED)
            if hold.state is State.OPEN:
                hold.lease_until_ms = now_ms + lease_ms
                self.holds[renewal.hold] = hold
            states.append(hold.state)
        return tuple(states)

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
        key = spec.kind, bucket
        row = current(self.rows.get(key, FRESH), spec, now_ms)
        last = self.slices.get((node, key))
        if last is not None and turn <= last.turn:
            return self._slice(row, spec, last.granted if turn == last.turn else 0, least, now_ms)
        had = last.granted if last is not None and now_ms < last.until_ms else 0
        window_ms = last.window_ms if last is not None else spec.start_ms
        if spec.kind is Kind.RATE or window_ms == row.mark_ms:
            row = self._charge(key, row, spec, -min(unused, had))
        granted = min(want, max(level(row, spec), 0))
        granted = granted if granted >= least else 0
        row = self._charge(key, row, spec, granted)
        counted = row.mark_ms if spec.kind is Kind.WINDOW else 0
        self.slices[node, key] = ModelSlice(turn, granted, now_ms + lease_ms, counted)
        return self._slice(row, spec, granted, least, now_ms)

    def peek(self, now_ms: int, asked: Sequence[Amount]) -> tuple[Standing, ...]:
        rows = [self._row(amount, now_ms) for amount in asked]
        return tuple(
            Standing(level(row, amount.spec), wait_ms(row, amount.spec, amount.amount, now_ms))
            for row, amount in zip(rows, asked, strict=True)
        )

    def _hold(self, hold_id: str, now_ms: int) -> ModelHold:
        """A copy that knows whether its lease has ended."""
        hold = self.holds.get(hold_id, ModelHold())
        state = state_at(hold.state, hold.lease_until_ms, now_ms)
        return ModelHold(state, hold.attempt, hold.lease_until_ms, dict(hold.charges))

    def _row(self, amount: Amount, now_ms: int) -> Row:
        key = key_of(amount)
        if amount.spec.kind is not Kind.SLOTS:
            return current(self.rows.get(key, FRESH), amount.spec, now_ms)
        holds = [self._hold(name, now_ms) for name in self.holds]
        return Row(sum(hold.state is State.OPEN and key in hold.charges for hold in holds), 0, 0)

    def _charge(self, key: Key, row: Row, spec: Spec, amount: int) -> Row:
        """A charge of nothing leaves what is stored alone: it refills at the rate in force when it is next charged."""
        if amount:
            row = self.rows[key] = charged(row, spec, amount)
        return row

    def _levels(self, amounts: Sequence[Amount], now_ms: int) -> tuple[int, ...]:
        return tuple(level(self._row(amount, now_ms), amount.spec) for amount in amounts)

    def _binding(self, hold: ModelHold, takes: Sequence[Amount], now_ms: int) -> tuple[int, int]:
        binding, longest = NOTHING_BINDS, 0
        for index, take in enumerate(takes):
            slot = take.spec.kind is Kind.SLOTS
            if take.spec.shadow or (slot and key_of(take) in hold.charges):
                continue
            wait = wait_ms(self._row(take, now_ms), take.spec, 1 if slot else take.amount, now_ms)
            if wait == NEVER:
                return index, NEVER
            if wait > longest:
                binding, longest = index, wait
        return binding, longest

    def _take(self, hold: ModelHold, take: Amount, now_ms: int) -> None:
        key = key_of(take)
        if take.spec.kind is Kind.SLOTS:
            hold.charges[key] = Charge(1, 0)
            return
        row = self._charge(key, self._row(take, now_ms), take.spec, take.amount)
        window_ms = row.mark_ms if take.spec.kind is Kind.WINDOW else 0
        hold.charges[key] = merged(hold.charges.get(key), take.amount, window_ms)

    def _settle_one(self, hold: ModelHold, actual: Amount, now_ms: int) -> None:
        if actual.spec.kind is Kind.SLOTS:
            return
        key = key_of(actual)
        row = self._row(actual, now_ms)
        charge = hold.charges.get(key)
        if actual.spec.kind is Kind.RATE or belongs(charge, row.mark_ms, actual.spec.start_ms):
            self._charge(key, row, actual.spec, owed(hold.state, charge, actual.amount))

    @staticmethod
    def _slice(row: Row, spec: Spec, granted: int, least: int, now_ms: int) -> Slice:
        wait = wait_ms(row, spec, least, now_ms) if granted < least else 0
        return Slice(granted, level(row, spec), wait)


def key_of(amount: Amount) -> Key:
    """What a bucket is known by: its name and the kind of its spec."""
    return amount.spec.kind, amount.bucket
