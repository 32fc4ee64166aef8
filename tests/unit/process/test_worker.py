"""A worker in step with its board: what each order leads to, on a loop of its own and without sockets."""

import asyncio
import gc
import os
import signal
import ssl
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.nodestate import NODE, NodeState, Order, SlotPhase
from gateway.process import acceptor
from gateway.process import worker as module
from gateway.process.settings import ServeSettings
from gateway.process.worker import Worker, WorkerContext, run_worker
from gateway.segment import Segment
from gateway.units import NS_PER_S
from tests.fakes.patience import PATIENCE_S

SLOT = 1


class NotedApp:
    """Notes what is asked of it; `open` exchanges keep it from being drained."""

    ssl_context: ssl.SSLContext | None = None

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.open = 0
        self.refuses_swap = False

    async def start(self) -> None:
        self.calls.append("start")

    def connection(self) -> asyncio.Protocol:
        return asyncio.Protocol()

    async def swap(self, generation: int) -> None:
        self.calls.append(f"swap {generation}")
        if self.refuses_swap:
            raise ValueError("no")

    def begin_drain(self) -> None:
        self.calls.append("begin_drain")

    async def drained(self) -> None:
        while self.open:  # noqa: ASYNC110  a test's app
            await asyncio.sleep(0.001)
        self.calls.append("drained")

    async def stop(self) -> None:
        self.calls.append("stop")


class Stage:
    """One worker at work, and its board."""

    def __init__(self, **settings: float) -> None:
        segment = Segment.create([NODE], 6)
        self.state = NodeState(segment)
        self.state.generation = 3
        self.words = self.state.slot(SLOT)
        self.words.begin(Order.SERVE, 0)
        self.app = NotedApp()
        options = ServeSettings(config=Path("c"), state_dir=Path("s"), **settings)  # type: ignore[arg-type]
        self.context = WorkerContext(options, segment, self.state, SLOT, generation=3, boot_ns=0)
        self.worker = Worker(self.app, self.context, [], os.getppid())

    async def until(self, *calls: str) -> None:
        end_s = time.monotonic() + PATIENCE_S
        while self.app.calls != list(calls):
            assert time.monotonic() < end_s, self.app.calls
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def quick_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.002)
    monkeypatch.setattr(gc, "freeze", lambda: None)  # the tests' own garbage stays collectable


def play(stage: Stage, scene: Coroutine[Any, Any, None]) -> None:
    async def both() -> None:
        serving = asyncio.create_task(stage.worker.serve())
        await scene
        await asyncio.wait_for(serving, PATIENCE_S)

    asyncio.run(both())


def test_a_life_in_order() -> None:
    stage = Stage()
    stage.app.ssl_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    async def scene() -> None:
        await stage.until("start")
        await asyncio.sleep(0.004)
        assert stage.words.phase == SlotPhase.READY
        assert stage.worker._acceptor.ssl_context is stage.app.ssl_context
        assert stage.words.generation == 3
        assert stage.words.beat_ns > time.monotonic_ns() - NS_PER_S
        stage.words.order = Order.ANNOUNCE
        await stage.until("start", "begin_drain")
        assert stage.words.phase == SlotPhase.READY
        stage.words.deadline_ns = time.monotonic_ns() + NS_PER_S
        stage.app.open = 1
        stage.words.order = Order.CLOSE
        await asyncio.sleep(0.02)
        assert stage.words.phase == SlotPhase.DRAINING
        assert stage.app.calls == ["start", "begin_drain"]
        stage.app.open = 0

    play(stage, scene())
    assert stage.app.calls == ["start", "begin_drain", "drained", "stop"]


def test_at_the_deadline_it_stops_all_the_same() -> None:
    stage = Stage()

    async def scene() -> None:
        await stage.until("start")
        stage.app.open = 1
        stage.words.deadline_ns = time.monotonic_ns() + NS_PER_S // 50
        stage.words.order = Order.LEAVE

    play(stage, scene())
    assert stage.app.calls == ["start", "begin_drain", "stop"]


def test_an_exit_order_cuts_a_drain_short() -> None:
    stage = Stage()

    async def scene() -> None:
        await stage.until("start")
        stage.app.open = 1
        stage.words.deadline_ns = time.monotonic_ns() + 60 * NS_PER_S
        stage.words.order = Order.LEAVE
        await stage.until("start", "begin_drain")
        stage.words.order = Order.EXIT

    play(stage, scene())
    assert stage.app.calls == ["start", "begin_drain", "stop"]


def test_who_is_shaking_hands_is_waited_for_before_the_app_drains_unless_it_is_to_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(acceptor, "_LAST_HANDSHAKES_S", 2 * PATIENCE_S)

    async def scene(stage: Stage, *, done: bool) -> None:
        await stage.until("start")
        shaking = asyncio.get_running_loop().create_future()
        stage.worker._acceptor._shaking.add(shaking)
        stage.words.deadline_ns = time.monotonic_ns() + 60 * NS_PER_S
        stage.words.order = Order.LEAVE
        await stage.until("start", "begin_drain")
        await asyncio.sleep(0.01)
        assert stage.app.calls == ["start", "begin_drain"]
        if done:
            shaking.set_result(None)
        else:
            stage.words.order = Order.EXIT
            await stage.until("start", "begin_drain", "stop")

    for done, rest in ((True, ["drained", "stop"]), (False, ["stop"])):
        stage = Stage()
        play(stage, scene(stage, done=done))
        assert stage.app.calls == ["start", "begin_drain", *rest]


def test_a_new_snapshot_is_adopted_and_acknowledged() -> None:
    stage = Stage()

    async def scene() -> None:
        await stage.until("start")
        stage.state.generation = 4
        await stage.until("start", "swap 4")
        await asyncio.sleep(0.005)
        assert (stage.words.generation, stage.words.swap_failed) == (4, 0)
        stage.words.order = Order.EXIT

    play(stage, scene())


def test_a_snapshot_it_cannot_adopt_is_tried_once_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.app.refuses_swap = True

    async def scene() -> None:
        await stage.until("start")
        stage.state.generation = 4
        await stage.until("start", "swap 4")
        await asyncio.sleep(0.01)  # several ticks
        assert stage.app.calls == ["start", "swap 4"]
        assert (stage.words.generation, stage.words.swap_failed) == (3, 4)
        stage.words.order = Order.EXIT

    play(stage, scene())
    assert "snapshot 4 not adopted, staying on 3" in caplog.text


def test_on_hold_it_serves_and_adopts_nothing() -> None:
    stage = Stage()

    async def scene() -> None:
        await stage.until("start")
        stage.words.order = Order.HOLD
        stage.state.generation = 4
        await asyncio.sleep(0.01)
        assert stage.app.calls == ["start"]
        stage.words.order = Order.SERVE
        await stage.until("start", "swap 4")
        stage.words.order = Order.EXIT

    play(stage, scene())


def test_without_its_supervisor_it_drains_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(drain_s=0.02)
    alarms: list[int] = []
    monkeypatch.setattr(signal, "alarm", alarms.append)

    async def scene() -> None:
        await stage.until("start")
        stage.app.open = 1
        monkeypatch.setattr(os, "getppid", lambda: 1)

    play(stage, scene())
    assert stage.app.calls == ["start", "begin_drain", "stop"]
    assert alarms == [6]  # the kernel's, should the drain itself hang


def test_sigterm_to_it_alone_asks_for_a_successor() -> None:
    stage = Stage()

    async def scene() -> None:
        await stage.until("start")
        stage.worker._on_sigterm()
        await asyncio.sleep(0.005)
        assert stage.words.asked_to_leave == 1
        assert stage.words.phase == SlotPhase.READY
        stage.words.order = Order.EXIT

    play(stage, scene())


def test_a_worker_that_cannot_start_says_why() -> None:
    stage = Stage()

    def fails(_: WorkerContext) -> NotedApp:
        raise LookupError("no snapshot")

    with pytest.raises(LookupError, match="no snapshot"):
        run_worker(fails, stage.context, [], os.getppid())
