"""What has come of a reload, read off the board."""

import pytest

from gateway.nodestate import NODE, NodeState, SlotState
from gateway.process.reload import Reload
from gateway.segment import Segment
from gateway.units import NS_PER_S


@pytest.fixture
def state() -> NodeState:
    return NodeState(Segment.create([NODE], 8))


def workers(state: NodeState, *generations: int) -> list[SlotState]:
    for slot, generation in enumerate(generations):
        state.slot(slot).generation = generation
    return [state.slot(slot) for slot in range(len(generations))]


def answered(state: NodeState, generation: int) -> Reload:
    reload = Reload.ask(state)
    state.reload_done, state.reload_generation = reload.request, generation
    return reload


def test_it_is_open_until_control_answers_this_very_request(state: NodeState) -> None:
    Reload.ask(state)
    second = Reload.ask(state)
    state.reload_done, state.reload_generation = 1, 5
    assert second.outcome(state, workers(state, 5), 0) is None
    state.reload_done = 2
    assert second.outcome(state, workers(state, 5), 0) == "snapshot 5 is in use by all 1 workers"


def test_a_refused_config_is_said_so(state: NodeState) -> None:
    assert answered(state, 0).outcome(state, workers(state, 4, 4), 0) == (
        "reload refused: serving with the old configuration"
    )


def test_workers_are_waited_for_but_not_for_ever(state: NodeState) -> None:
    reload = answered(state, 5)
    assert reload.outcome(state, workers(state, 5, 4), 1) is None
    assert reload.outcome(state, workers(state, 5, 4), 1 + 10 * NS_PER_S) == (
        "snapshot 5: 0 workers refused it and stay on the old one, 1 are late"
    )


def test_workers_that_refuse_are_counted(state: NodeState) -> None:
    reload = answered(state, 5)
    found = workers(state, 5, 4, 4)
    found[1].swap_failed = found[2].swap_failed = 5
    assert reload.outcome(state, found, 0) == "snapshot 5: 2 workers refused it and stay on the old one, 0 are late"


def test_an_edit_that_overtook_the_reload_counts_as_adopted(state: NodeState) -> None:
    assert answered(state, 5).outcome(state, workers(state, 6, 5), 0) == "snapshot 5 is in use by all 2 workers"
