"""The dead are swept at once and the living never; what nobody needs is given up; nobody is made to wait."""

import pytest

from gateway.limiter import sweep as sweep_module
from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Renewal
from gateway.limiter.hold import State
from gateway.limiter.layout import AT_ROW_COUNT, Counter, Layout
from gateway.limiter.mutex import MutexBusy
from gateway.limiter.spec import rate, slots
from gateway.limiter.sweep import KEPT_MS, Lapsed, Swept, is_dead, lapsed, owner_of, sweep
from gateway.limiter.table import Table
from gateway.nodestate import NODE, NodeState, Order, SlotPhase
from gateway.segment import Segment
from tests.fakes.limit_table import Moment, memory, table

TPM = rate(1_000, 1_000, 60_000)
LEASE_MS = 10_000
TAKES = [Amount("tpm", TPM, 10), Amount("flights", slots(99), 1)]


class Scene:
    def __init__(self) -> None:
        self.moment = Moment(1_700_000_000_000)
        self.table = table(memory(Layout(rows=32, holds=256)), self.moment, kind=Table)

    def reserve(self, hold: str, owner: int) -> None:
        self.table.reserve(hold, TAKES, owner=owner, lease_ms=LEASE_MS)

    def levels(self) -> list[int]:
        return [standing.level for standing in self.table.peek([Amount(t.bucket, t.spec, 0) for t in TAKES])]

    def is_right(self) -> bool:
        return problems(self.table.rows, self.table.holds) == []


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def node() -> NodeState:
    return NodeState(Segment.create([NODE], slots=6))


def begin(node: NodeState, slot: int) -> int:
    node.slot(slot).begin(Order.SERVE, now_ns=1)
    return owner_of(slot, node.slot(slot).birth)


# --- who is dead -----------------------------------------------------------------------------------------------------


def test_a_process_lives_from_its_fork_to_its_end(node: NodeState) -> None:
    owner = begin(node, 2)
    for phase in (SlotPhase.STARTING, SlotPhase.READY, SlotPhase.DRAINING):
        node.slot(2).phase = phase
        assert not is_dead(node, owner)
    node.slot(2).end()
    assert is_dead(node, owner)


def test_who_takes_a_dead_ones_slot_is_another(node: NodeState) -> None:
    first = begin(node, 2)
    second = begin(node, 2)
    assert first != second
    assert is_dead(node, first)
    assert not is_dead(node, second)
    assert not is_dead(node, begin(node, 3))


# --- the sweep -------------------------------------------------------------------------------------------------------


def test_a_dead_ones_slots_are_free_at_once_and_its_charges_stay(scene: Scene) -> None:
    scene.reserve("theirs", owner=1)
    scene.reserve("ours", owner=2)
    assert sweep(scene.table, {1}.__contains__) == Swept(holds=1)
    assert scene.levels() == [980, 98]
    assert lapsed(scene.table) == [Lapsed("theirs", 1)]
    assert scene.table.count(Counter.SWEPT) == scene.table.count(Counter.LAPSED) == 1
    assert scene.table.settle("theirs", [Amount("tpm", TPM, 3), TAKES[1]]).found is State.EXPIRED
    assert scene.levels() == [987, 98]
    assert lapsed(scene.table) == []
    assert scene.is_right()


def test_any_number_of_holds_is_swept_in_batches(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep_module, "HOLDS_AT_ONCE", 10)
    for number in range(95):
        scene.reserve(f"{number}", owner=number % 3)
    assert sweep(scene.table, {0, 1}.__contains__).holds == 64
    assert scene.levels() == [50, 68]
    assert len(lapsed(scene.table)) == 64
    assert scene.is_right()


def test_a_hold_that_is_over_by_the_time_of_the_sweep_is_left_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.reserve("theirs", owner=1)
    found = list(scene.table.holds.in_states(State.OPEN))
    scene.table.settle("theirs", TAKES)
    monkeypatch.setattr(scene.table.holds, "in_states", lambda *_: found)  # what a look without the mutex saw
    assert sweep(scene.table, {1}.__contains__).holds == 0
    assert scene.levels() == [990, 99]


def test_memory_that_is_anothers_by_the_time_of_the_sweep_is_left_alone(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.reserve("ours", owner=2)
    monkeypatch.setattr(scene.table.holds, "in_states", lambda *_: [(0, 1, 0)])
    assert sweep(scene.table, {1}.__contains__).holds == 0
    assert scene.levels() == [990, 98]


def test_a_swept_hold_that_was_alive_after_all_comes_back(scene: Scene) -> None:
    scene.reserve("theirs", owner=1)
    sweep(scene.table, {1}.__contains__)
    assert scene.table.renew([Renewal("theirs", ("flights",))], lease_ms=LEASE_MS) == (State.OPEN,)
    assert scene.levels() == [990, 98]
    assert scene.is_right()


def test_a_settlement_that_never_comes_is_given_up_after_a_day(scene: Scene) -> None:
    scene.reserve("theirs", owner=1)
    scene.moment.now_ms += LEASE_MS + KEPT_MS - 1
    assert sweep(scene.table, set[int]().__contains__).forgotten == 0
    assert lapsed(scene.table) == [Lapsed("theirs", 1)]
    scene.moment.now_ms += 1
    assert sweep(scene.table, set[int]().__contains__).forgotten == 1
    assert lapsed(scene.table) == []
    assert scene.table.settle("theirs", TAKES).found is State.SETTLED
    assert scene.is_right()


def test_rows_are_given_up_when_few_are_left_and_not_before(scene: Scene) -> None:
    for number in range(32):
        name = f"r{number}"
        scene.table.reserve(name, [Amount(name, TPM, 10)], owner=1, lease_ms=LEASE_MS)
        scene.table.settle(name, [Amount(name, TPM, 10)])
        if number == 23:
            scene.moment.now_ms += 600
            assert sweep(scene.table, set[int]().__contains__).rows == 0
    scene.table.rows.pinned.clear()
    assert sweep(scene.table, set[int]().__contains__).rows == 24
    assert scene.table.words[AT_ROW_COUNT] == 8
    assert scene.is_right()


def test_a_mutex_in_use_is_not_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.reserve("theirs", owner=1)
    waits: list[int] = []

    def busy(code: int, wait_ms: int) -> None:
        waits.append(wait_ms)
        raise MutexBusy(code)

    monkeypatch.setattr(scene.table, "_try_lock", lambda _: 16)
    monkeypatch.setattr(scene.table, "_late", busy)
    assert sweep(scene.table, {1}.__contains__) == Swept(complete=False)
    assert waits == [0]
