"""The way down, step by step, on a board and with a clock that is an argument."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.nodestate import Order
from gateway.process import staff as staff_module
from gateway.process.control import ControlContext
from gateway.process.node import Node, open_node
from gateway.process.settings import ServeSettings
from gateway.process.shutdown import Shutdown
from gateway.process.staff import STOP_NS, Staff
from gateway.process.worker import App, WorkerContext
from gateway.units import NS_PER_S


class Scene:
    """Two workers and control, on a node whose drain takes 10 s, 3 of them accepting."""

    def __init__(self, node: Node, settings: ServeSettings, staff: Staff) -> None:
        self.node, self.settings, self.staff = node, settings, staff
        for seat in range(2):
            staff.hire_worker(seat, -1)
        staff.hire_control(0, -1)
        self.workers = staff.workers()
        self.control = next(child for child in staff.children.values() if not child.is_worker)

    def begin(self, delay_s: float = 3.0) -> Shutdown:
        return Shutdown(self.node, self.staff, self.settings, 0, delay_s=delay_s)


def no_worker(_: WorkerContext) -> App:
    raise AssertionError


async def no_control(_: ControlContext) -> None:
    raise AssertionError


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    settings = ServeSettings(config=tmp_path, state_dir=tmp_path, port=0, admin_port=0, workers=2, drain_s=10)
    node = open_node(settings, [])
    pids = iter(range(1_000_000, 2_000_000))
    monkeypatch.setattr(staff_module, "fork", lambda *_: next(pids))
    yield Scene(node, settings, Staff(node, settings, no_worker, no_control, lambda: None))
    node.close()


def test_announced_then_closed_then_drained_then_control(scene: Scene) -> None:
    shutdown = scene.begin()
    assert scene.node.state.draining == 1
    assert [child.words.order for child in scene.workers] == [Order.ANNOUNCE] * 2
    assert not shutdown.step(3 * NS_PER_S - 1)
    assert scene.node.listening.open == 2
    assert not shutdown.step(3 * NS_PER_S)
    assert not shutdown.accepting
    assert scene.node.listening.data == []
    for child in scene.workers:
        assert (child.words.order, child.words.deadline_ns) == (Order.CLOSE, 10 * NS_PER_S)
        assert child.kill_at_ns == 10 * NS_PER_S + STOP_NS
    assert scene.control.words.order == Order.SERVE
    for child in scene.workers:
        del scene.staff.children[child.pid]
    assert not shutdown.step(4 * NS_PER_S)
    assert scene.control.words.order == Order.LEAVE
    del scene.staff.children[scene.control.pid]
    assert shutdown.step(5 * NS_PER_S)


def test_the_delay_is_part_of_the_drain(scene: Scene) -> None:
    shutdown = scene.begin(delay_s=99)
    assert not shutdown.step(10 * NS_PER_S)
    assert not shutdown.accepting


@pytest.mark.parametrize(("told_at_s", "until_s"), [(-5, 5), (5, 10)])
def test_who_was_leaving_already_gets_no_more_time_than_anybody(scene: Scene, told_at_s: int, until_s: int) -> None:
    leaver = scene.workers[0]
    scene.staff.dismiss(leaver, Order.LEAVE, told_at_s * NS_PER_S)
    shutdown = scene.begin(delay_s=0)
    shutdown.step(1)
    assert (leaver.words.order, leaver.words.deadline_ns) == (Order.LEAVE, until_s * NS_PER_S)
    assert leaver.kill_at_ns == until_s * NS_PER_S + STOP_NS


def test_who_comes_in_during_the_delay_is_told_at_once(scene: Scene) -> None:
    scene.begin()
    newcomer = scene.staff.hire_worker(0, -1)
    assert newcomer
    assert newcomer.words.order == Order.ANNOUNCE


def test_in_a_hurry_everybody_goes_within_a_second(scene: Scene) -> None:
    shutdown = scene.begin()
    shutdown.hurry(5)
    assert scene.node.listening.data == []
    for child in scene.staff.children.values():
        assert (child.words.order, child.kill_at_ns) == (Order.EXIT, 5 + NS_PER_S)
