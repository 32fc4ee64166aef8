"""Two crews side by side: the old one leaves only when every new worker accepts, and stays if they never do."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.nodestate import Order, SlotPhase
from gateway.process.crew import Child, Crew
from gateway.process.node import Node, open_node
from gateway.process.rollover import Rollover
from gateway.process.settings import ServeSettings
from gateway.units import NS_PER_S


class Scene:
    """An old crew of two at work on snapshot 4, and a new one to come on snapshot 5."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pids = itertools.count(1)
        self.slots = itertools.count(0)
        self.dismissed: list[tuple[Child, Order]] = []
        self.old = Crew(self.hire, 2)
        self.old.staff(0)
        for child in self.old.children():
            child.words.phase = SlotPhase.READY
            child.words.sockets = child.words.accepting = 1 << child.seat
        self.new = Crew(self.hire, 2)
        node.state.generation = 5
        self.rollover = Rollover(self.old, self.new, node, generation=4, until_ns=NS_PER_S)

    def hire(self, seat: int, _slot: int) -> Child:
        child = Child(next(self.pids), seat, next(self.slots), self.node.state, 0)
        child.words.begin(Order.SERVE, 0)
        return child

    def step(self, now_ns: int = 1) -> Crew | None:
        return self.rollover.step(now_ns, lambda child, order: self.dismissed.append((child, order)))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    node = open_node(ServeSettings(config=tmp_path, state_dir=tmp_path, port=0, admin_port=0, workers=2), [])
    yield Scene(node)
    node.close()


def test_the_old_ones_hold_still_from_the_start(scene: Scene) -> None:
    assert [child.words.order for child in scene.old.children()] == [Order.HOLD] * 2


def test_step_by_step_to_the_new_crew(scene: Scene) -> None:
    assert scene.step() is None
    first, second = scene.new.children()
    first.words.phase = SlotPhase.READY
    assert scene.step() is None
    assert first.words.sockets == 0  # nobody new accepts before all could
    second.words.phase = SlotPhase.READY
    assert scene.step() is None
    assert (first.words.sockets, second.words.sockets) == (0b01, 0b10)
    assert scene.dismissed == []
    first.words.accepting, second.words.accepting = 0b01, 0b10
    assert scene.step() is scene.new
    assert scene.dismissed == [(child, Order.LEAVE) for child in scene.old.children()]
    assert scene.node.state.generation == 5


@pytest.mark.parametrize("why", ["late", "dying"])
def test_new_workers_that_do_not_come_leave_all_as_it_was(scene: Scene, why: str) -> None:
    staying = scene.step()
    if why == "late":
        staying = scene.step(NS_PER_S + 1)
    else:
        for _ in range(3):
            child = scene.new.seats[0].child
            assert child
            assert scene.rollover.lost(child, 0)
            scene.new.seats[0].retry_at_ns = 0
            staying = scene.step()
    assert staying is scene.old
    assert {order for _, order in scene.dismissed} == {Order.EXIT}
    assert [child for child, _ in scene.dismissed] == scene.new.children()
    assert scene.node.state.generation == 4
    assert [child.words.order for child in scene.old.children()] == [Order.SERVE] * 2


def test_an_old_worker_that_dies_is_not_the_new_crews_loss(scene: Scene) -> None:
    assert not scene.rollover.lost(scene.old.children()[0], 0)
