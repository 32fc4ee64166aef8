"""What the loop decides, with forks that are played; what it does to real processes is tested in integration."""

import gc
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.nodestate import NodeState, Order, SlotPhase
from gateway.process import linux
from gateway.process import staff as staff_module
from gateway.process.control import ControlContext
from gateway.process.crew import Child
from gateway.process.node import Node, open_node
from gateway.process.settings import ServeSettings, StartError
from gateway.process.signals import HANDLED
from gateway.process.supervisor import Supervisor, serve
from gateway.process.upgrade import Preflight
from gateway.process.worker import App, WorkerContext
from gateway.segment import Segment
from gateway.units import NS_PER_S

TICK = NS_PER_S // 10


def no_worker(_: WorkerContext) -> App:
    raise AssertionError


async def no_control(_: ControlContext) -> None:
    raise AssertionError


class Scene:
    """A supervisor whose children exist on the board only; `die` and `beat` play their part."""

    def __init__(self, settings: ServeSettings, node: Node, imports: list[tuple[Segment, Segment]]) -> None:
        self.ready_calls: list[Node] = []
        self.supervisor = Supervisor(
            settings, no_worker, no_control, node, self.ready_calls.append, lambda old, new: imports.append((old, new))
        )
        self.node = node
        self.now_ns = time.monotonic_ns()
        self.exits: list[tuple[int, int]] = []

    @property
    def state(self) -> NodeState:
        return self.node.state

    @property
    def staff(self) -> dict[int, Child]:
        return self.supervisor._staff.children

    def workers(self) -> list[Child]:
        return self.supervisor._staff.workers()

    def control(self) -> Child:
        return next(child for child in self.staff.values() if not child.is_worker)

    def tick(self, ticks: int = 1, *, silent: tuple[Child, ...] = (), signals: tuple[int, ...] = ()) -> bool:
        over = False
        for _ in range(ticks):
            self.now_ns += TICK
            for child in self.staff.values():
                if child not in silent:
                    child.words.beat_ns = self.now_ns
                    child.words.accepting = child.words.sockets
            over = self.supervisor._tick(self.now_ns, signals)
        return over

    def come_up(self) -> None:
        self.tick()
        for child in self.staff.values():
            child.words.phase = SlotPhase.READY
        self.tick(2)

    def die(self, child: Child, status: int = signal.SIGKILL) -> None:
        self.exits.append((child.pid, status))


@pytest.fixture
def settings(tmp_path: Path) -> ServeSettings:
    return ServeSettings(
        config=tmp_path / "c",
        state_dir=tmp_path,
        port=0,
        admin_port=0,
        workers=2,
        stuck_s=2.0,
        argv=("/no/such/gateway",),
    )


@pytest.fixture
def imports() -> list[tuple[Segment, Segment]]:
    return []


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: made.append((pid, number)))
    return made


@pytest.fixture
def scene(
    settings: ServeSettings, imports: list[tuple[Segment, Segment]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    pids = itertools.count(1_000_001)
    monkeypatch.setattr(staff_module, "fork", lambda *_: next(pids))
    monkeypatch.setattr(gc, "collect", lambda: 0)  # over the heap of a whole run it takes half a second
    monkeypatch.setattr(gc, "freeze", lambda: None)
    node = open_node(settings, [])
    scene = Scene(settings, node, imports)
    monkeypatch.setattr(time, "monotonic_ns", lambda: scene.now_ns)  # signals come in the time of the ticks
    monkeypatch.setattr(os, "waitpid", lambda *_: scene.exits.pop(0) if scene.exits else (0, 0))
    scene.supervisor.start(lambda: 7, None)
    yield scene
    scene.supervisor._queue.close()
    node.close()


@pytest.fixture(autouse=True)
def handlers_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*HANDLED, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_it_is_ready_when_everybody_accepts_and_says_so_once(scene: Scene) -> None:
    scene.tick(3)
    assert (len(scene.workers()), len(scene.staff)) == (2, 3)
    assert scene.ready_calls == []
    assert scene.state.generation == 7
    scene.come_up()
    scene.tick(3)
    assert scene.ready_calls == [scene.node]
    assert scene.state.workers_ready == 2
    assert [child.words.sockets for child in scene.workers()] == [0b01, 0b10]


def test_control_that_is_not_there_keeps_it_from_being_ready(scene: Scene) -> None:
    scene.tick()
    for child in scene.workers():
        child.words.phase = SlotPhase.READY
    scene.tick(3)
    assert scene.ready_calls == []


def test_processes_that_fail_thrice_at_boot_end_it(scene: Scene) -> None:
    scene.tick()
    for _ in range(3):
        scene.die(next(child for child in scene.workers() if child.seat == 0), 1 << 8)
        scene.tick(6)
    assert {child.words.order for child in scene.staff.values()} == {Order.EXIT}
    for child in scene.staff.values():
        scene.die(child)
    assert scene.tick()
    assert scene.supervisor._exit_code == 1


def test_a_dead_worker_is_replaced_in_its_slot_while_the_neighbour_accepts_for_it(scene: Scene) -> None:
    scene.come_up()
    dead, neighbour = scene.workers()
    scene.die(dead)
    scene.tick()
    replacement = next(child for child in scene.workers() if child is not neighbour)
    assert (replacement.slot, replacement.words.birth) == (dead.slot, 2)
    assert neighbour.words.sockets == 0b11
    replacement.words.phase = SlotPhase.READY
    scene.tick()
    assert (replacement.words.sockets, neighbour.words.sockets) == (0b01, 0b10)


def test_a_body_is_counted_at_an_abnormal_death_only(scene: Scene) -> None:
    scene.come_up()
    for _ in range(2):
        child = scene.workers()[0]
        child.words.reading = 99
        scene.die(child)
        scene.tick(6)
    assert scene.state.is_refused(99, scene.now_ns)
    child = scene.workers()[0]
    child.words.reading = 88
    scene.supervisor._staff.dismiss(child, Order.LEAVE, scene.now_ns)
    scene.die(child)
    scene.tick()
    assert not scene.state.count_death(88, scene.now_ns)


def test_a_silent_worker_is_helped_then_killed_once_per_interval(
    scene: Scene, kills: list[tuple[int, int]], caplog: pytest.LogCaptureFixture
) -> None:
    scene.come_up()
    stuck, other = scene.workers()
    scene.tick(12, silent=(stuck,))
    assert other.words.sockets == 0b11
    assert kills == []
    scene.tick(9, silent=(stuck,))
    assert kills == [(stuck.pid, signal.SIGABRT)]
    scene.tick(6, silent=(stuck,))
    assert kills[1:] == [(stuck.pid, signal.SIGKILL)]
    assert f"slot {stuck.slot}, pid {stuck.pid}, is stuck" in caplog.text


def test_when_all_are_silent_nobody_is_killed_before_a_successor_serves(
    scene: Scene, kills: list[tuple[int, int]]
) -> None:
    scene.come_up()
    stuck = tuple(scene.workers())
    scene.tick(22, silent=stuck)
    assert kills == []
    successors = [child for child in scene.workers() if child not in stuck]
    assert sorted(child.seat for child in successors) == [0, 1]
    for child in successors:
        child.words.phase = SlotPhase.READY
    scene.tick(2, silent=stuck)
    assert [number for _, number in kills] == [signal.SIGABRT]
    assert all(child.words.order == Order.LEAVE for child in stuck)


def test_a_worker_that_asks_gets_a_successor_and_leaves(scene: Scene) -> None:
    scene.come_up()
    asking = scene.workers()[0]
    asking.words.asked_to_leave = 1
    scene.tick(2)
    assert len(scene.workers()) == 3
    assert asking.words.order == Order.SERVE
    scene.workers()[2].words.phase = SlotPhase.READY
    scene.tick()
    assert asking.words.order == Order.LEAVE


def test_it_follows_the_number_of_workers_wanted(scene: Scene) -> None:
    scene.come_up()
    scene.state.workers_wanted = 4
    scene.tick()
    assert (len(scene.workers()), scene.node.listening.open) == (4, 4)
    for child in scene.workers():
        child.words.phase = SlotPhase.READY
    scene.state.workers_wanted = 1
    scene.tick()
    assert [child.words.order for child in scene.workers()] == [Order.SERVE] + [Order.LEAVE] * 3
    assert scene.workers()[0].words.sockets == 0b1111
    scene.state.workers_wanted = 999
    scene.tick()
    assert len(scene.supervisor._crew.seats) == scene.node.room


def test_a_reload_is_asked_for_on_the_board_and_reported(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    scene.come_up()
    scene.supervisor._on_signal(signal.SIGHUP, scene.now_ns)
    assert scene.state.reload_asked == 1
    scene.tick(3)
    scene.state.reload_done, scene.state.reload_generation = 1, 8
    for child in scene.workers():
        child.words.generation = 8
    scene.tick()
    assert "reload: snapshot 8 is in use by all 2 workers" in caplog.text


def test_an_upgrade_waits_for_the_start_to_be_over(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.supervisor._on_signal(signal.SIGUSR2, scene.now_ns)
    assert "upgrade refused" in caplog.text


def test_an_upgrade_waits_for_old_workers_to_leave_but_not_for_those_that_have_left(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.come_up()
    scene.state.workers_wanted = 1
    scene.tick()
    leaving = scene.workers()[1]
    scene.tick(signals=(signal.SIGUSR2,))
    assert "upgrade refused" in caplog.text
    caplog.clear()
    scene.die(leaving, 0)
    scene.tick(signals=(signal.SIGCHLD, signal.SIGUSR2))
    assert "upgrade refused" not in caplog.text
    assert scene.control().words.order == Order.EXIT


def test_a_command_that_cannot_be_executed_leaves_the_node_as_it_was(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.come_up()
    control = scene.control()
    scene.tick(signals=(signal.SIGUSR2,))
    assert control.words.order == Order.EXIT
    scene.die(control, 0)
    scene.tick()
    assert "cannot execute /no/such/gateway" in caplog.text
    scene.tick()
    assert scene.control() is not control
    assert [child.words.order for child in scene.workers()] == [Order.SERVE] * 2


@pytest.mark.parametrize("signals", [(signal.SIGCHLD, signal.SIGTERM), (signal.SIGTERM, signal.SIGCHLD)])
def test_a_sigterm_beside_the_end_of_the_preflight_leaves_control_in_its_seat(
    scene: Scene, signals: tuple[int, ...]
) -> None:
    scene.come_up()
    scene.supervisor._preflight = Preflight(999_999, scene.now_ns + NS_PER_S)
    scene.exits.append((999_999, 0))
    scene.tick(signals=signals)
    assert scene.control().words.order == Order.SERVE
    assert {child.words.order for child in scene.workers()} == {Order.ANNOUNCE}


def test_a_sigterm_while_control_leaves_for_an_upgrade_brings_it_back(scene: Scene) -> None:
    scene.come_up()
    control = scene.control()
    scene.tick(signals=(signal.SIGUSR2,))
    assert control.words.order == Order.EXIT
    scene.die(control, 0)
    scene.tick(signals=(signal.SIGCHLD, signal.SIGTERM))
    scene.tick(2)
    assert scene.control() is not control
    assert scene.state.draining


def test_sigterm_starts_the_way_down_and_a_second_one_ends_it(scene: Scene) -> None:
    scene.come_up()
    scene.supervisor._on_signal(signal.SIGTERM, scene.now_ns)
    assert {child.words.order for child in scene.workers()} == {Order.ANNOUNCE}
    assert not scene.tick()
    scene.supervisor._on_signal(signal.SIGHUP, scene.now_ns)
    scene.supervisor._on_signal(signal.SIGUSR2, scene.now_ns)
    assert scene.state.reload_asked == 0
    scene.supervisor._on_signal(signal.SIGTERM, scene.now_ns)
    assert {child.words.order for child in scene.staff.values()} == {Order.EXIT}
    for child in scene.staff.values():
        scene.die(child)
    assert scene.tick()
    assert scene.supervisor._exit_code == 0


def test_ctrl_c_does_not_wait_for_balancers(scene: Scene) -> None:
    scene.come_up()
    scene.supervisor._on_signal(signal.SIGINT, scene.now_ns)
    scene.tick()
    assert scene.node.listening.data == []


def test_a_turn_has_one_time_for_what_it_hears_and_what_it_does(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.come_up()
    monkeypatch.setattr(time, "monotonic_ns", lambda: scene.now_ns + 1)  # a clock goes on meanwhile
    scene.tick(signals=(signal.SIGINT,))
    assert scene.node.listening.data == []


def test_counters_of_an_older_layout_are_brought_until_its_last_process_is_gone(
    scene: Scene, settings: ServeSettings, imports: list[tuple[Segment, Segment]]
) -> None:
    previous = NodeState(Segment.create(settings.sections, settings.slots()))
    scene.node.previous = previous
    old = Child(999_999, 0, 0, previous, 0)
    scene.supervisor._staff.adopt(old)
    scene.tick(11)
    assert imports == [(previous.segment, scene.node.segment)] * 2
    scene.die(old, 0)
    scene.tick(21)
    assert len(imports) == 3
    assert scene.node.previous is None


def test_a_boot_snapshot_that_cannot_be_written_is_told(
    settings: ServeSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(linux, "set_title", lambda _: None)
    assert serve(settings, no_worker, no_control, publish=full) == 1
    assert "cannot write the boot snapshot: [Errno 28] No space left on device" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_publish_finds_wrong_is_told(
    settings: ServeSettings, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> int:
        raise StartError("put it right")

    monkeypatch.setattr(linux, "set_title", lambda _: None)
    assert serve(settings, no_worker, no_control, publish=wrong) == 1
    assert "put it right" in caplog.text


class Visitor:
    """A caretaker that writes down."""

    def __init__(self) -> None:
        self.visits = 0
        self.opened = 0

    def open(self, node: NodeState) -> bool:
        assert node.generation
        self.opened += 1
        return self.opened == 1

    def visit(self, node: NodeState) -> None:
        assert node.worker_slots
        self.visits += 1


def test_shared_memory_is_visited_each_second_and_after_a_death(scene: Scene) -> None:
    visitor = Visitor()
    scene.supervisor._caretaker = visitor
    scene.supervisor.start(lambda: 1, None)
    assert (visitor.opened, visitor.visits, scene.state.recounting) == (1, 0, 1)
    scene.supervisor.start(lambda: 1, None)
    assert (visitor.opened, scene.state.recounting) == (2, 0)
    scene.come_up()
    before = visitor.visits
    scene.tick(10 * (NS_PER_S // TICK))
    assert visitor.visits - before == 10
    before = visitor.visits
    scene.die(scene.workers()[0])
    scene.tick()
    assert visitor.visits == before + 1
