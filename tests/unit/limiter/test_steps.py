"""The long way gives what the model gives, whatever happens, and keeps its promises where the model has no say."""

from collections.abc import Sequence

import pytest

from gateway.limiter.bucket import NEVER
from gateway.limiter.check import problems
from gateway.limiter.engine import MAX_CHARGES, NOTHING_BINDS, Amount, Outcome, Renewal, Reserved
from gateway.limiter.hold import State
from gateway.limiter.layout import AT_NEXT_LAPSE, NO_LEASE, Counter, Layout
from gateway.limiter.rows import OnFull
from gateway.limiter.spec import Kind, Spec, rate, slots, window
from gateway.limiter.steps import lapse_due
from gateway.limiter.table import Table
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_sequences import play, sequence
from tests.fakes.limit_table import SMALL, Moment, TimedTable, memory, table

NOW_MS = 1_700_000_000_000
TPM = rate(1_000, 1_000, 60_000)
BUDGET = window(100, NOW_MS - 1_000, NOW_MS + 60_000)
FLIGHTS = slots(2)
LEASE_MS = 1_000
OWNER = 7


class Scene:
    """A table, taken the long way, and a clock."""

    def __init__(self, layout: Layout = SMALL, *, max_end_users: int = 100, on_full: OnFull = OnFull.OTHER) -> None:
        self.moment = Moment(NOW_MS)
        self.table = table(memory(layout), self.moment, kind=Table, max_end_users=max_end_users, on_full=on_full)

    def reserve(self, hold: str, *takes: Amount, attempt: int = 0, releases: Sequence[Amount] = ()) -> Reserved:
        return self.table.reserve(hold, takes, owner=OWNER, lease_ms=LEASE_MS, attempt=attempt, releases=releases)

    def level(self, name: str, spec: Spec) -> int:
        return self.table.peek([Amount(name, spec, 0)])[0].level

    def is_right(self) -> bool:
        return problems(self.table.rows, self.table.holds) == []


@pytest.fixture
def scene() -> Scene:
    return Scene()


def tokens(amount: int, name: str = "tpm") -> Amount:
    return Amount(name, TPM, amount)


def slot(name: str = "flights", spec: Spec = FLIGHTS) -> Amount:
    return Amount(name, spec, 1)


@pytest.mark.parametrize("seed", range(20))
def test_the_long_way_agrees_with_the_model(seed: int) -> None:
    assert play(sequence(seed, 60), [LimitModel(), TimedTable(kind=Table, checked=True)]) == 60


# --- reserve ---------------------------------------------------------------------------------------------------------


def test_a_refusal_writes_nothing_at_all(scene: Scene) -> None:
    scene.reserve("a", tokens(900), slot(), Amount("usd", BUDGET, 10))
    before = scene.table.words.tolist()
    refused = scene.reserve("b", slot(), tokens(200), Amount("usd", BUDGET, 5), releases=[tokens(5, "other")])
    assert refused == Reserved(Outcome.REFUSED, 1, 6_000, (1, 100, 90))
    assert scene.table.words.tolist() == before


def test_a_refused_bucket_gets_no_row(scene: Scene) -> None:
    scene.reserve("a", tokens(1_000))
    scene.reserve("b", tokens(1), Amount("new", TPM, 1), Amount("key=k|end_user=u", TPM, 1))
    assert scene.table.rows.find("new", Kind.RATE)[0] == -1
    assert scene.table.rows.find("key=k|end_user=u", Kind.RATE)[0] == -1


def test_what_never_fits_outranks_what_takes_long(scene: Scene) -> None:
    scene.reserve("a", tokens(1_000), Amount("usd", BUDGET, 100))
    refused = scene.reserve("b", Amount("usd", BUDGET, 100), tokens(1_001), tokens(2_000, "other"))
    assert (refused.binding, refused.wait_ms) == (1, NEVER)


def test_a_hold_has_at_most_so_many_charges(scene: Scene) -> None:
    scene.reserve("a", *[tokens(1, f"{number}") for number in range(MAX_CHARGES)])
    before = scene.table.peek([tokens(0, "0")])
    with pytest.raises(ValueError, match="a hold of 17 charges"):
        scene.reserve("a", tokens(1, "0"), tokens(1, "another"), attempt=1)
    assert scene.table.peek([tokens(0, "0")]) == before
    released = scene.reserve("a", tokens(1, "another"), attempt=1, releases=[tokens(0, "0")])
    assert released.outcome is Outcome.ADMITTED
    assert scene.is_right()


def test_a_bucket_taken_twice_in_one_call_is_charged_twice(scene: Scene) -> None:
    assert scene.reserve("a", tokens(300), tokens(300)).levels == (400, 400)
    assert scene.table.settle("a", [tokens(100)]).levels == (900,)


def test_without_memory_for_the_hold_nothing_is_charged() -> None:
    scene = Scene(Layout(rows=64, holds=16))
    for number in range(16):
        scene.reserve(f"{number}", tokens(1))
    assert scene.reserve("one more", tokens(1), slot()) == Reserved(Outcome.NO_ROOM, NOTHING_BINDS, 0, (984, 2))
    assert scene.table.count(Counter.NO_ROOM) == 1
    assert scene.level("tpm", TPM) == 984
    assert scene.is_right()


# --- settle ----------------------------------------------------------------------------------------------------------


def test_slots_that_a_settlement_does_not_name_are_freed_all_the_same(scene: Scene) -> None:
    scene.reserve("a", tokens(10), slot(), slot("others"))
    scene.table.settle("a", [tokens(10)])
    assert (scene.level("flights", FLIGHTS), scene.level("others", FLIGHTS)) == (2, 2)
    assert scene.is_right()


def test_a_settlement_that_knows_the_first_attempt_only_charges_it_and_keeps_the_last(scene: Scene) -> None:
    """What a dead worker's decision says, after a failover that it does not know of."""
    scene.reserve("a", tokens(10), tokens(10, "first"))
    scene.reserve("a", tokens(10, "last"), attempt=1, releases=[tokens(0, "first")])
    assert [scene.level(name, TPM) for name in ("tpm", "first", "last")] == [990, 1_000, 990]
    scene.table.settle("a", [tokens(10), tokens(10, "first")])
    assert [scene.level(name, TPM) for name in ("tpm", "first", "last")] == [990, 990, 990]


def test_a_settlement_of_nobody_makes_rows_for_what_it_owes(scene: Scene) -> None:
    assert scene.table.settle("a", [tokens(400), slot()]).levels == (600, 2)
    assert scene.table.settle("a", [tokens(400), slot()]).levels == (600, 2), "once"
    assert scene.table.rows.find("flights", Kind.SLOTS)[0] == -1
    assert scene.is_right()


def test_a_row_that_was_given_up_meanwhile_is_made_again_for_debt_and_not_for_a_refund(scene: Scene) -> None:
    for hold, actual, left in (("a", 300, 900), ("b", 10, 1_000)):
        scene.reserve(hold, tokens(200))
        scene.moment.now_ms += 60_000
        scene.table.rows.pinned.clear()
        scene.table.rows.reclaim(scene.moment.now_ms, scene.moment.now_ms, 99)
        assert scene.table.rows.find("tpm", Kind.RATE)[0] == -1
        assert scene.table.settle(hold, [tokens(actual)]).levels == (left,)
        scene.moment.now_ms += 60_000
    assert scene.table.rows.find("tpm", Kind.RATE)[0] >= 0
    assert scene.is_right()


# --- leases ----------------------------------------------------------------------------------------------------------


def test_when_a_lease_ends_the_slot_is_free_and_the_rest_is_kept(scene: Scene) -> None:
    scene.reserve("a", tokens(100), slot(spec=slots(1)))
    assert scene.table.words[AT_NEXT_LAPSE] == NOW_MS + LEASE_MS
    scene.moment.now_ms += LEASE_MS - 1
    assert scene.level("flights", slots(1)) == 0
    scene.moment.now_ms += 1
    assert scene.level("flights", slots(1)) == 1
    assert scene.level("tpm", TPM) == 916
    assert scene.table.words[AT_NEXT_LAPSE] == NO_LEASE
    assert scene.table.count(Counter.LAPSED) == 1
    assert scene.table.settle("a", [tokens(50), slot(spec=slots(1))]).found is State.EXPIRED
    assert scene.level("tpm", TPM) == 966


def test_leases_end_a_few_at_a_time_the_oldest_first(scene: Scene) -> None:
    for number in range(5):
        scene.reserve(f"{number}", slot(spec=slots(9)))
        scene.moment.now_ms += 10
    rows, holds = scene.table.rows, scene.table.holds
    late_ms = NOW_MS + 10 * LEASE_MS
    for left, next_ms in ((3, 20), (1, 40)):
        lapse_due(rows, holds, late_ms, late_ms, most=2)
        assert len(list(holds.in_states(State.OPEN))) == left
        assert scene.table.words[AT_NEXT_LAPSE] == NOW_MS + LEASE_MS + next_ms
        assert scene.is_right()
    lapse_due(rows, holds, late_ms, late_ms, most=2)
    assert scene.table.words[AT_NEXT_LAPSE] == NO_LEASE
    assert scene.table.count(Counter.LAPSED) == 5


def test_a_lease_that_has_ended_unnoticed_has_ended(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.reserve("a", tokens(10), slot())
    monkeypatch.setattr(scene.table, "_lapse", lambda _: None)  # as when too many end at once
    scene.moment.now_ms += LEASE_MS
    assert scene.reserve("a", tokens(10), attempt=1).outcome is Outcome.EXPIRED
    assert scene.table.settle("a", [tokens(10), slot()]).found is State.EXPIRED
    assert scene.level("flights", FLIGHTS) == 2
    assert scene.is_right()


def test_a_renewed_hold_counts_its_slots_again_even_if_their_row_was_given_up(scene: Scene) -> None:
    scene.reserve("a", slot(), slot("others"))
    scene.moment.now_ms += LEASE_MS
    assert scene.level("flights", FLIGHTS) == 2
    scene.table.rows.pinned.clear()
    assert scene.table.rows.reclaim(scene.moment.now_ms, scene.moment.now_ms, 99) == 2
    states = scene.table.renew([Renewal("a", ("flights", "others")), Renewal("b")], lease_ms=LEASE_MS)
    assert states == (State.OPEN, State.UNKNOWN)
    assert (scene.level("flights", FLIGHTS), scene.level("others", FLIGHTS)) == (1, 1)
    assert scene.is_right()
    scene.table.settle("a", [slot(), slot("others")])
    assert scene.level("flights", FLIGHTS) == 2
    assert scene.table.renew([Renewal("a")], lease_ms=LEASE_MS) == (State.SETTLED,)


# --- end users, and a table that is full -----------------------------------------------------------------------------


def end_user(number: int | str, amount: int, key: str = "k") -> Amount:
    return tokens(amount, f"r|key={key}|end_user={number}")


def test_end_users_beyond_the_cap_share_one_limit() -> None:
    scene = Scene(max_end_users=2)
    for number in range(2):
        assert scene.reserve(f"own {number}", end_user(number, 600)).levels == (400,)
    assert scene.reserve("third", end_user(2, 600)).levels == (400,)
    assert scene.reserve("fourth", end_user(3, 600)).outcome is Outcome.REFUSED
    assert scene.reserve("own again", end_user(0, 300)).levels == (100,)
    assert scene.reserve("another key's", end_user(3, 600, key="other")).levels == (400,)
    assert scene.table.settle("third", [end_user(2, 100)]).levels == (900,)
    assert scene.reserve("fourth", end_user(3, 600)).levels == (300,)
    assert scene.table.count(Counter.SHARED) == 2
    assert scene.is_right()


def test_a_charge_in_a_shared_row_is_settled_there_even_when_its_owner_has_a_row_by_then() -> None:
    scene = Scene(max_end_users=1)
    scene.reserve("own", end_user(0, 900))
    scene.reserve("shared", end_user(1, 900))
    scene.table.settle("own", [end_user(0, 0)])
    scene.moment.now_ms += 10  # user 0's row says nothing now, and user 1 may have one
    assert scene.reserve("later", end_user(1, 500)).levels == (500,)
    assert scene.table.settle("shared", [end_user(1, 0)]).levels == (1_000,)
    assert scene.level("r|key=k|end_user=1", TPM) == 500
    assert scene.is_right()


def test_slots_of_end_users_in_a_shared_row_come_back_too() -> None:
    scene = Scene(max_end_users=1)
    names = [f"f|key=k|end_user={number}" for number in range(3)]
    for name in names:
        assert scene.reserve(name, slot(name)).outcome is Outcome.ADMITTED
    assert scene.level(names[2], FLIGHTS) == 0, "two of them in the shared row"
    assert scene.is_right()
    scene.moment.now_ms += LEASE_MS
    assert scene.level(names[2], FLIGHTS) == 2
    scene.table.renew([Renewal(name, (name,)) for name in names], lease_ms=LEASE_MS)
    assert scene.level(names[2], FLIGHTS) == 0
    assert scene.is_right()
    for name in names:
        scene.table.settle(name, [slot(name)])
    assert scene.level(names[2], FLIGHTS) == 2
    assert scene.is_right()


def crowded(on_full: OnFull) -> Scene:
    """A table whose last row has gone."""
    scene = Scene(Layout(rows=16, holds=64), on_full=on_full)
    for number in range(16):
        scene.reserve(f"filler {number}", tokens(900, f"filler {number}"))
    return scene


def test_a_full_table_admits_what_it_cannot_count_if_the_config_says_so() -> None:
    scene = crowded(OnFull.OTHER)
    admitted = scene.reserve("a", tokens(50, "filler 0"), tokens(999, "new"), slot("new flights"))
    assert admitted == Reserved(Outcome.ADMITTED, levels=(50, 1_000, 2))
    assert scene.table.count(Counter.UNCOUNTED) == 2
    assert scene.table.settle("a", [tokens(0, "filler 0"), tokens(999, "new"), slot("new flights")]).levels[0] == 100
    assert scene.is_right()


def test_a_full_table_refuses_what_it_cannot_count_if_the_config_says_so() -> None:
    scene = crowded(OnFull.REFUSE)
    assert scene.reserve("a", tokens(50, "filler 0"), tokens(9, "new")) == Reserved(Outcome.NO_ROOM, 1, 0, (100, 1_000))
    assert scene.reserve("a", tokens(950, "filler 0"), tokens(9, "new")).outcome is Outcome.REFUSED
    assert scene.table.count(Counter.NO_ROOM) == 1
    assert scene.level("filler 0", TPM) == 100
    assert scene.is_right()


@pytest.mark.parametrize(("on_full", "outcome"), [(OnFull.OTHER, Outcome.ADMITTED), (OnFull.REFUSE, Outcome.NO_ROOM)])
def test_one_free_row_is_not_promised_twice_in_one_call(on_full: OnFull, outcome: Outcome) -> None:
    scene = Scene(Layout(rows=16, holds=64), on_full=on_full)
    for number in range(15):
        scene.reserve(f"filler {number}", tokens(900, f"filler {number}"))
    assert scene.reserve("a", tokens(10, "new"), tokens(10, "newer")).outcome is outcome
    assert scene.level("new", TPM) == (990 if outcome is Outcome.ADMITTED else 1_000)
    assert scene.is_right()


def test_a_row_read_by_a_step_is_not_given_up_for_another_of_the_same_step() -> None:
    scene = crowded(OnFull.OTHER)
    for number in range(16):
        scene.table.settle(f"filler {number}", [tokens(0, f"filler {number}")])  # every row says nothing now
    scene.moment.now_ms += 1
    admitted = scene.reserve("a", tokens(10, "filler 3"), tokens(10, "new"))
    assert admitted.levels == (990, 990)
    assert (scene.level("filler 3", TPM), scene.level("new", TPM)) == (990, 990)
    assert scene.is_right()


# --- slices ----------------------------------------------------------------------------------------------------------


def test_a_slice_without_a_row_to_remember_it_is_not_granted() -> None:
    scene = crowded(OnFull.OTHER)
    leased = scene.table.lease("n", 1, "filler 0", TPM, want=50, least=1, unused=0, lease_ms=LEASE_MS)
    assert (leased.granted, leased.level) == (0, 100)
    assert scene.level("filler 0", TPM) == 100


def test_a_slice_of_a_bucket_without_a_row_is_not_granted() -> None:
    scene = Scene(Layout(rows=16, holds=64))
    for number in range(15):
        scene.reserve(f"filler {number}", tokens(900, f"filler {number}"))
    assert scene.table.lease("n", 1, "new", TPM, want=50, least=1, unused=0, lease_ms=LEASE_MS).granted == 0
    assert scene.is_right()
