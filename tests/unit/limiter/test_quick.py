"""The short way is the long way, shorter: the same answers, the same rows, number by number."""

import random
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gateway.limiter import bucket
from gateway.limiter.bucket import Row
from gateway.limiter.check import problems
from gateway.limiter.engine import MAX_CHARGES, Amount, Outcome, Reserved, Settled
from gateway.limiter.hold import Charge, State, belongs, owed
from gateway.limiter.holds import MAX_ATTEMPT
from gateway.limiter.layout import AT_ARMED, ROW_USED, Layout
from gateway.limiter.quick import QuickTable
from gateway.limiter.spec import (
    MAX_AMOUNT,
    MAX_LEASE_MS,
    MAX_PERIOD_MS,
    MAX_RATE_USED,
    MAX_WINDOW_USED,
    Kind,
    Spec,
    rate,
    slots,
    window,
)
from gateway.limiter.table import Table
from gateway.segment import WORD
from tests.fakes.limit_lives import lives
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_sequences import Operation, play, sequence
from tests.fakes.limit_table import SMALL, Moment, TimedTable, memory, table

NOW_MS = 1_700_000_000_000
TPM = rate(1_000, 1_000, 60_000)
OWNER = 7


class Watched(QuickTable):
    """Counts how often the long way was taken."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.long: Tally[str] = Tally()

    def _reserve(self, *arguments: Any) -> Reserved:
        self.long["reserve"] += 1
        return super()._reserve(*arguments)

    def _settle(self, *arguments: Any) -> Settled:
        self.long["settle"] += 1
        return super()._settle(*arguments)


class Scene:
    def __init__(self, layout: Layout = SMALL) -> None:
        self.moment = Moment(NOW_MS)
        made = table(memory(layout), self.moment, kind=Watched)
        assert isinstance(made, Watched)
        self.table = made

    def reserve(self, hold: str, *takes: Amount, **options: Any) -> Reserved:
        return self.table.reserve(hold, takes, owner=OWNER, **({"lease_ms": 1_000} | options))

    def warm(self, *takes: Amount) -> None:
        """Let the buckets have rows, and this process know them."""
        for turn in range(3):
            self.reserve(f"warm {turn}", *takes)
            self.table.settle(f"warm {turn}", [Amount(take.bucket, take.spec, 0) for take in takes])
        self.table.long.clear()

    def is_right(self) -> bool:
        return problems(self.table.rows, self.table.holds) == []


@pytest.fixture
def scene() -> Scene:
    return Scene()


def tokens(amount: int, name: str = "tpm", spec: Spec = TPM) -> Amount:
    return Amount(name, spec, amount)


# --- both ways are one -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("calls", [lives, sequence])
def test_both_ways_give_the_same_and_leave_the_same(seed: int, calls: Callable[[int], Iterator[Operation]]) -> None:
    long, short = TimedTable(kind=Table, checked=True), TimedTable(kind=Watched, checked=True)
    play(calls(seed), [LimitModel(), long, short])
    assert short.counts() == long.counts()


def test_ordinary_lives_take_the_short_way() -> None:
    short = TimedTable(kind=Watched)
    operations = list(lives(1, 2_000))
    play(iter(operations), [short])
    assert isinstance(short.table, Watched)
    asked = Tally(operation.name for operation in operations)
    assert short.table.long["reserve"] < asked["reserve"] / 2
    assert short.table.long["settle"] < asked["settle"]


# --- its arithmetic is bucket.py's, row by row -----------------------------------------------------------------------


def numbers(chance: random.Random, most: int) -> int:
    return chance.choice((0, 1, most, most - 1, chance.randint(0, most), chance.randint(0, 1 + most // 1_000)))


def any_spec(chance: random.Random, kind: Kind) -> Spec:
    shadow = chance.random() < 0.3
    if kind is Kind.SLOTS:
        return slots(chance.randint(0, 5), shadow=shadow)
    limit = numbers(chance, MAX_AMOUNT)
    if kind is Kind.WINDOW:
        start_ms = NOW_MS - chance.choice((0, 1, 60_000))
        return window(limit, start_ms, start_ms + chance.choice((1, 60_000)), shadow=shadow)
    period_ms = chance.choice((1_000, 7_919, 60_000, MAX_PERIOD_MS))
    return rate(limit, max(numbers(chance, MAX_AMOUNT), 1), period_ms, shadow=shadow)


def any_row(chance: random.Random, kind: Kind) -> Row:
    mark_ms = NOW_MS + chance.choice((0, 1, -1, -999, -60_000, -(10**9)))
    if kind is Kind.SLOTS:
        return Row(chance.randint(0, 6), 0, 0)
    if kind is Kind.WINDOW:
        return Row(numbers(chance, MAX_WINDOW_USED), mark_ms + chance.choice((1, 60_000)), mark_ms)
    return Row(numbers(chance, MAX_RATE_USED), numbers(chance, MAX_PERIOD_MS), mark_ms)


class OneRow:
    """One bucket of a kind, whose row can be set and read."""

    def __init__(self, kind: Kind) -> None:
        self.scene = Scene()
        self.name = kind.name
        self.at = self.scene.table.rows.make(self.name, kind, TPM)
        self.first = self.at // WORD + ROW_USED

    def asked(self, spec: Spec, amount: int) -> Amount:
        """So much of the bucket, whose spec this process has seen."""
        amount_ = Amount(self.name, spec, amount)
        self.scene.table._learn([amount_])
        return amount_

    @property
    def row(self) -> Row:
        return self.scene.table.rows.read(self.at)

    @row.setter
    def row(self, row: Row) -> None:
        for index, word in enumerate(row):
            self.scene.table.words[self.first + index] = word


@pytest.mark.parametrize("kind", [Kind.RATE, Kind.WINDOW, Kind.SLOTS])
def test_a_take_is_bucket_py(kind: Kind) -> None:
    one, chance = OneRow(kind), random.Random(1)
    for number in range(3_000):
        spec, row, cost = any_spec(chance, kind), any_row(chance, kind), numbers(chance, MAX_AMOUNT)
        one.row = row
        given = one.scene.reserve(f"{number}", one.asked(spec, cost))
        cost = 1 if kind is Kind.SLOTS else cost
        now = bucket.current(row, spec, NOW_MS)
        wait = bucket.wait_ms(now, spec, cost, NOW_MS)
        if wait and not spec.shadow:
            assert given == Reserved(Outcome.REFUSED, 0, wait, (bucket.level(now, spec),)), (spec, row, cost)
            assert one.row == row
        else:
            then = bucket.charged(now, spec, cost) if cost else row
            left = bucket.level(then if cost else now, spec)
            assert given == Reserved(Outcome.ADMITTED, levels=(left,)), (spec, row, cost)
            assert one.row == then, (spec, row, cost)
            one.row = Row(0, 0, 0) if kind is not Kind.SLOTS else Row(1, 0, 0)
            one.scene.table.settle(f"{number}", [one.asked(spec, 0)])
    assert not one.scene.table.long


@pytest.mark.parametrize("kind", [Kind.RATE, Kind.WINDOW])
def test_a_settlement_is_bucket_py_and_hold_py(kind: Kind) -> None:
    one, chance = OneRow(kind), random.Random(2)
    for number in range(3_000):
        spec, actual = any_spec(chance, kind), numbers(chance, MAX_AMOUNT)
        one.row = Row(0, 0, 0)
        reserved = min(actual, spec.limit)
        one.scene.reserve(f"{number}", one.asked(spec, reserved))
        charge = Charge(reserved, spec.start_ms if kind is Kind.WINDOW else 0)
        actual, row = numbers(chance, MAX_AMOUNT), any_row(chance, kind)
        one.row = row
        given = one.scene.table.settle(f"{number}", [one.asked(spec, actual)])
        now = bucket.current(row, spec, NOW_MS)
        owes = owed(State.OPEN, charge, actual)
        owes = owes if kind is Kind.RATE or belongs(charge, now.mark_ms, spec.start_ms) else 0
        then = bucket.charged(now, spec, owes) if owes else row
        left = bucket.level(then if owes else now, spec)
        assert given == Settled(State.OPEN, (left,)), (spec, row, charge, actual)
        assert one.row == then, (spec, row, charge, actual)
    assert not one.scene.table.long


# --- what it leaves to the long way ----------------------------------------------------------------------------------


def test_a_known_bucket_takes_the_short_way(scene: Scene) -> None:
    scene.warm(tokens(1), tokens(1, "other"))
    assert scene.reserve("a", tokens(10), tokens(20, "other")).levels == (990, 980)
    assert scene.table.settle("a", [tokens(5), tokens(5, "other")]).levels == (995, 995)
    assert not scene.table.long
    assert scene.is_right()


def test_a_refusal_takes_the_short_way_and_leaves_no_trace(scene: Scene) -> None:
    scene.warm(tokens(1), tokens(1, "other"))
    before = scene.table.words[AT_ARMED + 1 :].tolist()
    undo = slice(scene.table.layout.undo_at - AT_ARMED - 1, scene.table.layout.row_index_at - AT_ARMED - 1)
    refused = scene.reserve("a", tokens(600), tokens(1_001, "other"))
    assert refused == Reserved(Outcome.REFUSED, 1, bucket.NEVER, (1_000, 1_000))
    after = scene.table.words[AT_ARMED + 1 :].tolist()
    before[undo] = after[undo] = []
    assert after == before
    assert not scene.table.long


@pytest.mark.parametrize("first", [True, False])
def test_a_bucket_without_a_row_takes_the_long_way_once(scene: Scene, *, first: bool) -> None:
    scene.warm(tokens(1))
    both = (tokens(1, "new"), tokens(1)) if first else (tokens(1), tokens(1, "new"))
    for hold, long in (("a", 1), ("b", 1), ("c", 1)):
        levels = scene.reserve(hold, *both).levels
        assert sorted(levels) == sorted(scene.table.settle(hold, [Amount(b.bucket, TPM, 1) for b in both]).levels)
        assert scene.table.long["reserve"] <= long + 1
    assert scene.table.peek([tokens(0), tokens(0, "new")])[0].level == 997
    assert scene.table.peek([tokens(0), tokens(0, "new")])[1].level == 997
    assert scene.is_right()


def test_a_row_given_up_and_made_anew_elsewhere_is_noticed(scene: Scene) -> None:
    scene.warm(tokens(1))
    rows = scene.table.rows
    at, _ = rows.find("tpm", Kind.RATE)
    rows.give_up(at)
    rows.make("intruder", Kind.RATE, TPM)
    assert rows.find("intruder", Kind.RATE)[0] == at
    assert scene.reserve("a", tokens(10)).levels == (990,)
    assert rows.read(at).used == 0, "the intruder pays for nobody"
    assert scene.is_right()


def test_a_changed_limit_is_noticed_at_once(scene: Scene) -> None:
    scene.warm(tokens(1))
    scene.reserve("a", tokens(600))
    assert scene.reserve("b", tokens(1, spec=rate(500, 1_000, 60_000))).outcome is Outcome.REFUSED
    assert scene.reserve("b", tokens(1, spec=rate(2_000, 1_000, 60_000))).levels == (1_399,)


def test_settling_in_another_order_or_other_buckets(scene: Scene) -> None:
    two = (tokens(10), tokens(20, "other"))
    scene.warm(*two)
    for hold in "abc":
        scene.reserve(hold, *two)
    assert scene.table.settle("a", [tokens(0, "other"), tokens(0)]).levels == (960, 980)
    assert scene.table.settle("b", [tokens(0)]).levels == (990,)
    assert scene.table.settle("c", [tokens(0), tokens(0, "other"), tokens(7, "third")]).levels == (1_000, 980, 993)
    assert scene.table.peek([tokens(0, "other")])[0].level == 980, "b named it not, so it keeps its 20"
    assert scene.is_right()


def test_holds_whose_ids_hash_alike_are_told_apart(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("quick", "holds"):
        monkeypatch.setattr(f"gateway.limiter.{module}.crc32", lambda _: 3)
    scene.warm(tokens(1))
    for hold in "abc":
        scene.reserve(hold, tokens(100))
    for hold, left in (("b", 800), ("d", 750), ("a", 850), ("c", 950)):
        assert scene.table.settle(hold, [tokens(50 if hold == "d" else 0)]).levels == (left,)
        assert scene.is_right()


def test_with_all_memory_in_use_it_is_as_the_long_way() -> None:
    scene = Scene(Layout(rows=16, holds=16))
    scene.warm(tokens(1))
    for number in range(100):
        scene.reserve(f"{number}", tokens(10))
        scene.table.settle(f"{number}", [tokens(0)])
    assert scene.table.long["reserve"] < 10
    for number in range(16):
        assert scene.reserve(f"open {number}", tokens(10)).outcome is Outcome.ADMITTED
    assert scene.reserve("one more", tokens(10)).outcome is Outcome.NO_ROOM
    scene.table.settle("open 3", [tokens(0)])
    assert scene.reserve("one more", tokens(10)).levels == (840,)
    assert scene.is_right()


def test_a_mark_that_is_next_to_go_still_answers_for_its_hold() -> None:
    scene = Scene(Layout(rows=16, holds=16))
    for number in range(16):
        scene.reserve(f"{number}", tokens(10))
        scene.table.settle(f"{number}", [tokens(10)])
    assert scene.reserve("0", tokens(10)) == Reserved(Outcome.SETTLED, levels=(840,))
    assert scene.reserve("new", tokens(10)).outcome is Outcome.ADMITTED
    assert scene.reserve("1", tokens(10)).outcome is Outcome.SETTLED
    assert scene.reserve("0", tokens(10)).outcome is Outcome.ADMITTED, "its mark has gone"
    assert scene.is_right()


def test_it_forgets_which_rows_it_knew_before_that_is_too_many(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.limiter.quick.CACHED_ROWS", 3)
    for turn in range(3):
        for number in range(5):
            scene.reserve(f"{turn} {number}", tokens(10, f"{number}"))
    assert len(scene.table._known) <= 3
    assert [standing.level for standing in scene.table.peek([tokens(0, "0"), tokens(0, "4")])] == [970, 970]


# --- what is refused before anything is done -------------------------------------------------------------------------


def test_an_actual_out_of_bounds_is_refused_even_if_little_is_owed(scene: Scene) -> None:
    big = rate(MAX_AMOUNT, 1, MAX_PERIOD_MS)
    scene.warm(tokens(1, "big", big))
    scene.reserve("a", tokens(MAX_AMOUNT, "big", big))
    with pytest.raises(ValueError, match="amount is"):
        scene.table.settle("a", [tokens(MAX_AMOUNT + 1, "big", big)])
    assert scene.table.settle("a", [tokens(MAX_AMOUNT, "big", big)]).found is State.OPEN


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1])
@pytest.mark.parametrize("place", [0, 1])
def test_an_amount_out_of_bounds_changes_nothing(scene: Scene, amount: int, place: int) -> None:
    scene.warm(tokens(1), tokens(1, "other"))
    scene.reserve("open", tokens(100), tokens(100, "other"))
    amounts = [tokens(5), tokens(5, "other")]
    amounts[place] = tokens(amount, amounts[place].bucket)
    for spec in (TPM, rate(1_000, 1_000, 60_000, shadow=True)):
        named = [Amount(asked.bucket, spec, asked.amount) for asked in amounts]
        with pytest.raises(ValueError, match="amount is"):
            scene.reserve("a", *named)
        with pytest.raises(ValueError, match="amount is"):
            scene.table.settle("open", named)
        with pytest.raises(ValueError, match="amount is"):
            scene.table.settle("nobody", named)
    assert [standing.level for standing in scene.table.peek([tokens(0), tokens(0, "other")])] == [900, 900]
    assert scene.is_right()
    assert not scene.table.mutex.holder


@pytest.mark.parametrize(
    "options", [{"lease_ms": 0}, {"lease_ms": MAX_LEASE_MS + 1}, {"attempt": -1}, {"attempt": MAX_ATTEMPT + 1}]
)
def test_options_out_of_bounds_are_refused(scene: Scene, options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        scene.reserve("a", tokens(1), **options)
    assert not scene.table.mutex.holder


def test_too_many_takes_are_refused(scene: Scene) -> None:
    with pytest.raises(ValueError, match="at most 16"):
        scene.reserve("a", *[tokens(1, f"{number}") for number in range(MAX_CHARGES + 1)])


def test_a_defect_in_the_middle_takes_everything_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.warm(tokens(1), tokens(1, "other"))
    before = scene.table.peek([tokens(0), tokens(0, "other")])
    monkeypatch.setattr("gateway.limiter.quick.PUT_HOLD", None)
    with pytest.raises(TypeError):
        scene.reserve("a", tokens(10), tokens(20, "other"))
    monkeypatch.undo()
    assert scene.table.peek([tokens(0), tokens(0, "other")]) == before
    assert scene.table.settle("a", []).found is State.UNKNOWN
    assert scene.is_right()
