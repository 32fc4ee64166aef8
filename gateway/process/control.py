"""What runs in the control process: one coroutine, with the reload requests and the order to stop brought to it.

A reload request is a counter on the board, not a signal: control may be dead when it is made and finds it when it is
back. Control can die at any time; callers notice nothing.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop

from gateway.nodestate import NodeState, Order, SlotPhase, SlotState
from gateway.process.settings import ServeSettings
from gateway.process.worker import TICK_S
from gateway.segment import Segment
from gateway.tasks import spawn

NICE: Final = 10  # a tenth of a worker's share of a core that both want
_STOP_S: Final = 2.0
_log: Final = logging.getLogger("gateway.process")


@dataclass(slots=True)
class ControlContext:
    """What control is made from, and how it answers.

    `admin` is the supervisor's listening admin socket: serve on `admin.dup()`, so that closing a server does not
    close the port.
    """

    settings: ServeSettings
    segment: Segment
    state: NodeState
    slot: int
    boot_ns: int
    admin: socket.socket
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def ready(self) -> None:
        """The admin port is being served."""
        self.state.slot(self.slot).phase = SlotPhase.READY

    async def next_reload(self) -> int | None:
        """The number of the newest unanswered reload request, as soon as there is one; None when told to stop.

        Answer it with `reloaded` or `reload_refused`; unanswered it comes again. Requests made meanwhile are one.
        """
        while not self.stopping.is_set():
            self._asked.clear()
            if self.state.reload_asked > self.state.reload_done:
                return self.state.reload_asked
            await self._asked.wait()
        return None

    def reloaded(self, request: int, generation: int) -> None:
        """The request led to this snapshot, whose file is in place: publish its number to the workers."""
        self.publish(generation)
        self.state.reload_generation = generation
        self.state.reload_done = request

    def reload_refused(self, request: int) -> None:
        """The new config is no good (the reasons are logged already); everyone stays with the old one."""
        self.state.reload_generation = 0
        self.state.reload_done = request

    def publish(self, generation: int) -> None:
        """Make a snapshot current, for a reload or for an edit; the workers adopt it within two ticks."""
        self.state.generation = generation

    def wake(self) -> None:
        """Let waiting callers look at the board again; called by the tick."""
        self._asked.set()


ControlMain = Callable[[ControlContext], Coroutine[Any, Any, None]]


def run_control(main: ControlMain, context: ControlContext, parent: int) -> int:
    """Run control until told to leave; exit code 0 then, 1 when it ended by itself.

    It steps back behind the workers where a core is short: what it reads waits, and callers do not.
    """
    os.nice(NICE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(main, context, parent))


async def _run(main: ControlMain, context: ControlContext, parent: int) -> int:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, context.stopping.set)
    words = context.state.slot(context.slot)
    work = asyncio.ensure_future(main(context))
    _tick(loop, context, words, parent)
    stopping = spawn(_wait(context.stopping), name="stop order")
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if context.stopping.is_set():
        await asyncio.wait({work}, timeout=_STOP_S)
        work.cancel()
        await asyncio.wait({work}, timeout=_STOP_S)
        return 0
    stopping.cancel()
    work.result()
    _log.error("control ended without being told to")
    return 1


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def _tick(loop: asyncio.AbstractEventLoop, context: ControlContext, words: SlotState, parent: int) -> None:
    loop.call_later(TICK_S, _tick, loop, context, words, parent)
    words.beat_ns = time.monotonic_ns()
    if words.order >= Order.LEAVE or os.getppid() != parent:
        context.stopping.set()
    context.wake()
