"""Control in step with its board: requests reach it whenever they were made, and it leaves when told."""

import asyncio
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.nodestate import NODE, NodeState, Order, SlotPhase
from gateway.process import control as module
from gateway.process.control import ControlContext, ControlMain, run_control
from gateway.process.settings import ServeSettings
from gateway.segment import Segment


@pytest.fixture(autouse=True)
def quick_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 0.002)


@pytest.fixture
def context() -> ControlContext:
    segment = Segment.create([NODE], 6)
    state = NodeState(segment)
    settings = ServeSettings(config=Path("c"), state_dir=Path("s"))
    with socket.socket() as admin:
        return ControlContext(settings, segment, state, state.control_slot, 0, admin)


def ran(main: ControlMain, context: ControlContext) -> int:
    return run_control(main, context, os.getppid())


def test_a_request_made_before_control_was_there_reaches_it(context: ControlContext) -> None:
    context.state.reload_asked = 2

    async def main(context: ControlContext) -> None:
        context.ready()
        assert context.state.slot(context.slot).phase == SlotPhase.READY
        request = await context.next_reload()
        assert request == 2
        context.reloaded(request, 9)
        context.state.slot(context.slot).order = Order.LEAVE
        assert await context.next_reload() is None

    assert ran(main, context) == 0
    state = context.state
    assert (state.generation, state.reload_generation, state.reload_done) == (9, 9, 2)
    assert state.slot(context.slot).beat_ns > 0


def test_a_refusal_keeps_the_generation(context: ControlContext) -> None:
    context.state.generation = 4
    context.state.reload_generation = 4

    async def main(context: ControlContext) -> None:
        waiting = asyncio.ensure_future(context.next_reload())
        await asyncio.sleep(0.005)
        assert not waiting.done()
        context.state.reload_asked = 1
        request = await waiting
        assert request == 1
        context.reload_refused(request)
        context.stopping.set()

    assert ran(main, context) == 0
    assert (context.state.generation, context.state.reload_generation, context.state.reload_done) == (4, 0, 1)


def test_a_request_made_while_one_is_answered_comes_next(context: ControlContext) -> None:
    context.state.reload_asked = 1
    seen: list[int | None] = []

    async def main(context: ControlContext) -> None:
        seen.append(await context.next_reload())
        context.state.reload_asked = 2
        context.reload_refused(1)
        seen.append(await context.next_reload())
        context.stopping.set()

    assert ran(main, context) == 0
    assert seen == [1, 2]


def test_ending_without_being_told_is_a_failure(context: ControlContext, caplog: pytest.LogCaptureFixture) -> None:
    async def main(_: ControlContext) -> None:
        return

    assert ran(main, context) == 1
    assert "without being told" in caplog.text


def test_a_crash_is_raised(context: ControlContext) -> None:
    async def main(_: ControlContext) -> None:
        raise LookupError("no database")

    with pytest.raises(LookupError, match="no database"):
        ran(main, context)


@pytest.mark.parametrize("how", ["order", "orphaned"])
def test_work_that_does_not_listen_is_cancelled(
    context: ControlContext, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(module, "_STOP_S", 0.01)
    ended: list[str] = []

    def deaf(context: ControlContext) -> Coroutine[Any, Any, None]:
        async def work() -> None:
            if how == "order":
                context.state.slot(context.slot).order = Order.EXIT
            else:
                monkeypatch.setattr(os, "getppid", lambda: 1)
            try:
                await asyncio.sleep(3600)
            finally:
                ended.append("cancelled")

        return work()

    assert ran(deaf, context) == 0
    assert ended == ["cancelled"]
