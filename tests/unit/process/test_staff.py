"""Processes by pid: slots before forks, orders before kills. The fork is played, its pids are invented."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.nodestate import NodeState, Order, SlotPhase
from gateway.process import staff as module
from gateway.process.control import ControlContext
from gateway.process.crew import Child
from gateway.process.node import Node, open_node
from gateway.process.settings import ServeSettings
from gateway.process.staff import STOP_NS, Staff
from gateway.process.worker import App, WorkerContext
from gateway.segment import Segment
from gateway.units import NS_PER_S


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(config=tmp_path / "c", state_dir=tmp_path, port=0, admin_port=0, workers=2, drain_s=4)


@pytest.fixture
def node(settings: ServeSettings) -> Iterator[Node]:
    node = open_node(settings, [])
    yield node
    node.close()


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    kills: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: kills.append((pid, number)))
    return kills


def no_worker(_: WorkerContext) -> App:
    raise AssertionError


async def no_control(_: ControlContext) -> None:
    raise AssertionError


@pytest.fixture
def staff(node: Node, settings: ServeSettings, monkeypatch: pytest.MonkeyPatch) -> Staff:
    pids = itertools.count(1_000_001)
    monkeypatch.setattr(module, "fork", lambda *_: next(pids))
    return Staff(node, settings, no_worker, no_control, lambda: None)


def hired(staff: Staff, seat: int, slot: int = -1) -> Child:
    child = staff.hire_worker(seat, slot)
    assert child
    return child


def test_a_worker_gets_the_slot_asked_for_or_the_first_free_one(staff: Staff, node: Node) -> None:
    assert hired(staff, 0, 5).slot == 5
    assert hired(staff, 1, 5).slot == 0
    child = hired(staff, 2)
    assert child.slot == 1
    words = node.state.slot(1)
    assert (words.pid, words.phase, words.birth) == (child.pid, SlotPhase.STARTING, 1)


def test_no_slot_no_worker(staff: Staff, node: Node) -> None:
    for seat in node.state.worker_slots:
        hired(staff, seat)
    assert staff.hire_worker(99, -1) is None
    assert len(staff.workers()) == len(node.state.worker_slots)


def test_no_process_no_worker_and_the_slot_is_free_again(
    staff: Staff, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "fork", fails)
    assert staff.hire_worker(0, -1) is None
    assert node.state.slot(0).phase == SlotPhase.GONE
    assert staff.children == {}


def test_control_has_its_own_slot_and_is_no_worker(staff: Staff, node: Node) -> None:
    control = staff.hire_control(0, -1)
    assert control
    assert control.slot == node.state.control_slot
    assert staff.workers() == []
    assert list(staff.children) == [control.pid]


def test_newcomers_are_told_first_what_holds_for_all(staff: Staff) -> None:
    staff.newcomers = Order.ANNOUNCE
    assert hired(staff, 0).words.order == Order.ANNOUNCE


def test_who_leaves_has_drain_s_and_who_must_go_has_not(staff: Staff) -> None:
    leaving, going = hired(staff, 0), hired(staff, 1)
    staff.dismiss(leaving, Order.LEAVE, 100)
    staff.dismiss(going, Order.EXIT, 100)
    assert (leaving.words.order, leaving.words.deadline_ns) == (Order.LEAVE, 100 + 4 * NS_PER_S)
    assert leaving.kill_at_ns == 100 + 4 * NS_PER_S + STOP_NS
    assert (going.words.order, going.kill_at_ns) == (Order.EXIT, 100 + STOP_NS)


def test_patience_only_ever_gets_shorter(staff: Staff) -> None:
    child = hired(staff, 0)
    staff.end(child, 50, Order.EXIT)
    staff.end(child, 70, Order.EXIT)
    assert child.kill_at_ns == 50


def test_at_the_end_of_patience_comes_the_kill_again_and_again(staff: Staff, killed: list[tuple[int, int]]) -> None:
    child, other = hired(staff, 0), hired(staff, 1)
    staff.end(child, 50, Order.EXIT)
    for now_ns in (49, 50, 51, 50 + NS_PER_S):
        staff.enforce(now_ns)
    assert killed == [(child.pid, signal.SIGKILL)] * 2
    assert other.kill_at_ns == 0


def test_the_dead_are_told_apart_from_strangers(staff: Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    child, left = hired(staff, 0), hired(staff, 1)
    statuses = iter([(child.pid, signal.SIGKILL), (77, 3 << 8), (0, 0)])
    monkeypatch.setattr(os, "waitpid", lambda *_: next(statuses))
    assert list(staff.reap()) == [(child.pid, child, -signal.SIGKILL), (77, None, 3)]
    assert staff.workers() == [left]
    monkeypatch.undo()


def test_without_children_there_is_nobody_to_reap(staff: Staff, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> tuple[int, int]:
        raise ChildProcessError

    monkeypatch.setattr(os, "waitpid", none)
    assert list(staff.reap()) == []


def test_an_adopted_child_in_another_segment_takes_no_slot_here(staff: Staff, settings: ServeSettings) -> None:
    elsewhere = NodeState(Segment.create(settings.sections, settings.slots()))
    staff.adopt(Child(7, 0, 0, elsewhere, 0))
    assert hired(staff, 0).slot == 0
    assert len(staff.workers()) == 2
