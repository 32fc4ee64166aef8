"""A node's slices in its table: found by all, exchanged one at a time, answered once, and whole whoever dies."""

from collections.abc import Callable

import pytest

from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Outcome
from gateway.limiter.layout import AT_ROW_COUNT, ROW_USED, Layout
from gateway.limiter.slicerows import BASE, EVERYTHING, PATIENCE_MS, SPARE_ROWS, Asked, Place, SliceRows
from gateway.limiter.slicing import Ask, Known
from gateway.limiter.spec import MAX_AMOUNT, Spec, rate, window
from gateway.limiter.table import Table
from gateway.segment import WORD
from tests.fakes.killed_stores import killed
from tests.fakes.limit_table import Moment, memory, table

NOW_MS = 1_700_000_000_000
RATE = rate(5_000, 1_000, 60_000)
BUDGET = window(5_000, NOW_MS - 1_000, NOW_MS + 10**7)
LAYOUT = Layout(rows=128, holds=32)
EPOCH = 7
NOBODY = frozenset[int]()


class Scene:
    """One node, of which any number of processes look at the same table."""

    def __init__(self) -> None:
        self.moment = Moment(NOW_MS)
        self.words = memory(LAYOUT)
        self.table = table(self.words, self.moment)
        self.rows = SliceRows(self.table)

    def process(self) -> SliceRows:
        return SliceRows(table(self.words, self.moment))

    def open(self, spec: Spec = RATE, bucket: str = "b") -> Place:
        place = self.rows.open(bucket, spec, EPOCH)
        assert place is not None
        return place

    def look(self, place: Place, ask: Ask | None, taken: int = 0, past: frozenset[int] = NOBODY) -> Asked | None:
        return self.rows.look(place, taken, EPOCH + 1, past, lambda _: ask)

    def known(self, place: Place) -> Known:
        """What a look would be told."""
        told: list[Known] = []

        def decide(known: Known) -> None:
            told.append(known)

        self.rows.look(place, 0, EPOCH, NOBODY, decide)
        (known,) = told
        return known

    def grant(self, place: Place, granted: int, ask: Ask | None = None) -> Asked:
        asked = self.look(place, ask or Ask(0, granted))
        assert asked is not None
        self.rows.answer(place, asked, granted, 900)
        return asked

    def take(self, place: Place, hold: str, amount: int) -> Outcome:
        return self.table.reserve(hold, [Amount(place.bucket, place.spec, amount)], owner=1, lease_ms=9_000).outcome

    def check(self) -> None:
        assert problems(self.table.rows, self.table.holds) == []


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.mark.parametrize("spec", [RATE, BUDGET])
def test_a_new_slice_is_empty_and_every_process_finds_it(scene: Scene, spec: Spec) -> None:
    place = scene.open(spec)
    assert scene.process().open("b", spec, EPOCH + 1) == place
    assert scene.known(place) == Known(0, 0, 0, 0)
    assert scene.take(place, "h", 1) is Outcome.REFUSED
    scene.check()


def test_buckets_and_ways_to_count_have_slices_of_their_own(scene: Scene) -> None:
    places = [scene.open(spec, bucket) for bucket in ("b", "c") for spec in (RATE, BUDGET, rate(5_000, 2_000, 60_000))]
    assert len({place.balance for place in places}) == len(places)
    assert scene.open(rate(9, 1_000, 60_000)) == places[0]  # a limit may change
    unlimited = rate(MAX_AMOUNT, 1_000, 60_000)
    assert ("b", unlimited) in [(known.name, known.spec) for known in scene.process().known()]
    assert len(scene.rows.known()) == len(places)


def test_what_is_granted_can_be_taken(scene: Scene) -> None:
    place = scene.open()
    asked = scene.grant(place, 100)
    assert asked.ask == Ask(0, 100)
    assert scene.known(place) == Known(100, 100, 900, 0)
    assert scene.take(place, "h", 60) is Outcome.ADMITTED
    assert scene.take(place, "g", 41) is Outcome.REFUSED
    scene.table.settle("h", [Amount(place.bucket, place.spec, 110)])
    scene.moment.now_ms += 30
    assert scene.known(place) == Known(-10, 100, 900, 30)
    _, at_left, at_used = place.words
    assert (BASE - scene.words[at_left], scene.words[at_used]) == (-10, 900)
    scene.check()


def test_turns_grow_and_begin_with_the_clock(scene: Scene) -> None:
    place = scene.open()
    turns = [scene.grant(place, 10).turn for _ in range(3)]
    assert turns == [NOW_MS, NOW_MS + 1, NOW_MS + 2]


def test_what_goes_back_is_not_used_meanwhile(scene: Scene) -> None:
    place = scene.open()
    scene.grant(place, 100)
    asked = scene.look(place, Ask(80, 30))
    assert asked is not None
    assert scene.rows.left(place) == 50
    scene.rows.answer(place, asked, 25, 700)
    assert scene.known(place) == Known(45, 25, 700, 0)


def test_what_is_charged_outright_leaves_what_can_be_given_back(scene: Scene) -> None:
    place = scene.open()
    scene.grant(place, 100)
    scene.take(place, "h", 100)
    scene.table.settle("h", [Amount(place.bucket, place.spec, 130)])
    scene.grant(place, 0, Ask(-30, 0))
    assert scene.known(place) == Known(0, 100, 900, 0)


def test_one_exchange_at_a_time_and_again_if_it_is_not_answered(scene: Scene) -> None:
    place, other = scene.open(), scene.process()
    asked = scene.look(place, Ask(0, 100), taken=5)
    assert other.look(place, 3, EPOCH, NOBODY, lambda _: Ask(0, 50)) is None
    scene.moment.now_ms += PATIENCE_MS
    assert other.look(place, 4, EPOCH, NOBODY, lambda _: Ask(0, 50)) == asked
    assert scene.look(place, None) is None
    assert asked is not None
    other.answer(place, asked, 70, 900)
    scene.rows.answer(place, asked, 70, 900)
    assert scene.known(place) == Known(70, 70, 900, 0, taken=7)  # since it was asked


def test_an_old_answer_is_nothing(scene: Scene) -> None:
    place = scene.open()
    first = scene.grant(place, 10)
    second = scene.look(place, Ask(10, 40))
    scene.rows.answer(place, first, 10, 1)
    assert second is not None
    scene.rows.answer(place, second, 40, 2)
    assert scene.known(place) == Known(40, 40, 2, 0)


def test_requests_are_noted_without_an_exchange(scene: Scene) -> None:
    place = scene.open()
    for _ in range(3):
        scene.look(place, None, taken=4)
    assert scene.known(place).taken == 12


def test_after_a_loss_everything_is_given_back_and_begins_anew(scene: Scene) -> None:
    place = scene.open()
    scene.grant(place, 100)
    scene.take(place, "h", 60)
    assert scene.look(place, Ask(0, 5), past=frozenset({EPOCH})) is None
    anew = scene.process().open("b", RATE, EPOCH + 1)
    assert anew is not None
    assert (anew.generation != place.generation, anew.epoch) == (True, EPOCH + 1)
    assert scene.words[place.words[0]] == anew.generation
    assert scene.look(place, Ask(0, 5)) is None  # it is not there any more
    scene.moment.now_ms += 1
    asked = scene.look(anew, Ask(0, 5))
    assert asked == Asked(NOW_MS + 1, EVERYTHING)
    assert asked is not None
    scene.rows.answer(place, asked, 0, 0)
    scene.rows.answer(anew, asked, 0, 30)
    assert scene.known(anew) == Known(0, 0, 30, 0)
    scene.table.settle("h", [Amount(place.bucket, place.spec, 10)])
    assert scene.rows.left(anew) == 0
    scene.check()


def test_no_slice_takes_the_last_rows_nor_has_a_name_that_cannot_be_read(scene: Scene) -> None:
    assert scene.rows.open("b" * 200, RATE, EPOCH) is None
    while LAYOUT.rows - scene.words[AT_ROW_COUNT] >= SPARE_ROWS:
        scene.open(bucket=f"b{scene.words[AT_ROW_COUNT]}")
    assert scene.rows.open("another", RATE, EPOCH) is None
    scene.check()


def test_a_slice_stays_until_its_window_is_long_over(scene: Scene) -> None:
    place = scene.open(BUDGET)
    scene.grant(place, 10)
    rows = scene.table.rows
    scene.table.peek([])  # nothing is pinned any more
    assert rows.reclaim(scene.moment.now_ms, BUDGET.end_ms, LAYOUT.rows) == 0
    later_ms = NOW_MS + 10 * 86_400_000
    assert rows.reclaim(later_ms, later_ms, LAYOUT.rows) == 3
    scene.moment.now_ms = later_ms
    assert scene.look(place, Ask(0, 1)) is None
    scene.check()


# --- killed between any two stores -----------------------------------------------------------------------------------


Work = Callable[[Table, Place], object]


def opened(made: Table, _: Place) -> None:
    SliceRows(made).open("c", RATE, EPOCH)


def asked_for(made: Table, place: Place) -> None:
    SliceRows(made).look(place, 5, EPOCH, NOBODY, lambda _: Ask(60, 20))


def answered(made: Table, place: Place) -> None:
    SliceRows(made).answer(place, Asked(NOW_MS + 1, Ask(60, 20)), 15, 700)


def voided(made: Table, place: Place) -> None:
    SliceRows(made).look(place, 0, EPOCH + 1, {EPOCH}, lambda _: None)


def _with(work: Work, place: Place) -> Callable[[Table], object]:
    return lambda made: work(made, place)


@pytest.mark.parametrize(
    ("before", "work", "states"),
    [
        ((), opened, {(100, 100)}),
        ((), asked_for, {(100, 100), (60, 100)}),
        ((asked_for,), answered, {(60, 100), (55, 15)}),
        ((), voided, {(100, 100), (0, 100)}),
    ],
)
def test_who_dies_leaves_a_slice_that_is_whole(
    before: tuple[Work, ...], work: Work, states: set[tuple[int, int]]
) -> None:
    """The slice is as it was, or as it was to be, wherever its process dies; doing it again completes it."""
    total, store, found = None, 0, set[tuple[int, int]]()
    while total is None:
        store += 1
        scene = Scene()
        place = scene.open()
        scene.grant(place, 100)
        for step in before:
            step(scene.table, place)
        total = killed(scene.table, _with(work, place), store)
        place = scene.open()
        scene.check()
        found.add((scene.rows.left(place), scene.words[place.terms // WORD + ROW_USED]))
        work(scene.table, place)
        scene.check()
        assert scene.rows.left(scene.open()) in {left for left, _ in states}
        assert scene.rows.left(scene.open(bucket="c")) == 0
    assert store > 5
    assert found == states


def test_the_base_is_an_amount_that_an_engine_counts() -> None:
    assert BASE <= MAX_AMOUNT
