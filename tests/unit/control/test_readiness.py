"""Ready means: send traffic. What heals by itself in a moment does not take the node out."""

from gateway.control.readiness import GRACE_NS, Readiness, workers_wanted
from gateway.nodestate import NODE, NodeState, Order, SlotPhase
from gateway.segment import Segment

NOW = 10**12


def board(ready: int = 2) -> NodeState:
    state = NodeState(Segment.create([NODE], slots=6))
    state.generation, state.workers_wanted, state.workers_ready = 7, 2, ready
    for slot in range(ready):
        words = state.slot(slot)
        words.begin(Order.SERVE, 0)
        words.phase, words.generation = SlotPhase.READY, 7
    return state


def test_a_complete_node_is_ready() -> None:
    assert Readiness(board()).reasons(NOW) == []


def test_a_draining_node_is_not_ready_at_once() -> None:
    state = board()
    readiness = Readiness(state)
    readiness.observe(NOW)
    state.draining = 1
    assert readiness.reasons(NOW) == ["the node is draining"]


def test_without_a_worker_it_is_not_ready_at_once() -> None:
    state = board()
    readiness = Readiness(state)
    readiness.observe(NOW)
    state.workers_ready = 0
    assert readiness.reasons(NOW) == ["no worker is ready"]


def test_a_node_whose_limits_have_forgotten_what_was_used_is_not_ready_at_once() -> None:
    state, why = board(), ["the journal is being read"]
    readiness = Readiness(state, lambda: why[0])
    readiness.observe(NOW)
    assert readiness.reasons(NOW) == ["the journal is being read"]
    assert state.recounting == 1
    state.workers_ready = 0
    assert readiness.reasons(NOW) == ["no worker is ready"]
    state.workers_ready = 2
    why[0] = ""
    assert readiness.reasons(NOW) == []
    readiness.observe(NOW)
    assert state.recounting == 0


def test_a_node_that_never_was_complete_is_not_ready() -> None:
    assert Readiness(board(ready=1)).reasons(NOW) == ["1 of 2 workers are ready"]


def test_a_worker_being_replaced_counts_only_when_it_takes_long() -> None:
    state = board()
    readiness = Readiness(state)
    readiness.observe(NOW)
    state.workers_ready = 1
    readiness.observe(NOW + GRACE_NS)
    assert readiness.reasons(NOW + GRACE_NS) == []
    assert readiness.reasons(NOW + GRACE_NS + 1) == ["1 of 2 workers are ready"]
    state.workers_ready = 2
    assert readiness.reasons(NOW + GRACE_NS + 2) == []


def test_a_worker_behind_counts_only_when_it_stays_behind() -> None:
    state = board()
    readiness = Readiness(state)
    readiness.observe(NOW)
    state.generation = 8
    state.slot(0).generation = 8
    assert readiness.reasons(NOW + 1) == []
    late = NOW + GRACE_NS + 1
    assert readiness.reasons(late) == ["worker in slot 1 has not adopted snapshot 8 and stays on 7"]
    state.slot(1).swap_failed = 8
    assert readiness.reasons(late) == ["worker in slot 1 refused snapshot 8 and stays on 7"]


def test_a_worker_that_leaves_need_not_be_up_to_date() -> None:
    state = board()
    state.slot(2).phase = SlotPhase.DRAINING
    assert Readiness(state).reasons(NOW) == []


def test_more_workers_than_there_is_room_for_are_not_waited_for() -> None:
    state = board()
    state.workers_wanted = 64
    assert workers_wanted(state) == 2
    assert Readiness(state).reasons(NOW) == []
