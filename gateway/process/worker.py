"""What runs in a worker process: an App on its own loop, kept in step with the node by one small tick.

The tick beats the heart from the loop that serves, reads the slot's orders and obeys them. Nothing arrives by signal
except the parent's death, so an order is never lost between two processes. A worker whose supervisor died drains and
leaves: nobody is there any more to replace, reload or stop it.
"""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import uvloop

from gateway.nodestate import NodeState, Order, SlotPhase
from gateway.process import linux
from gateway.process.acceptor import Acceptor
from gateway.process.settings import ServeSettings
from gateway.segment import Segment
from gateway.tasks import spawn
from gateway.units import NS_PER_S

TICK_S: Final = 0.05
_STOP_S: Final = 2.0  # for App.stop, after the drain
_ORPHAN_GRACE_S: Final = 5

_log: Final = logging.getLogger("gateway.process")


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """What a worker's App is made from. `generation` is the snapshot to load in `start`."""

    settings: ServeSettings
    segment: Segment
    state: NodeState
    slot: int
    generation: int
    boot_ns: int


class App(Protocol):
    """The data plane of one worker, made after the fork and used on the worker's loop only."""

    @property
    def ssl_context(self) -> ssl.SSLContext | None:
        """What connections are wrapped in, None for plain ones; known once started, and the same until the end."""

    async def start(self) -> None:
        """Load the snapshot `generation` and assemble; raising ends the process."""

    def connection(self) -> asyncio.BaseProtocol:
        """The protocol of a newly accepted connection."""

    async def swap(self, generation: int) -> None:
        """Adopt another snapshot; raising keeps the one in use."""

    def begin_drain(self) -> None:
        """Tell callers to go elsewhere (`Connection: close`, readyz fails) while still serving; called once."""

    async def drained(self) -> None:
        """Return when no exchange is open; accepting has ended before. Cancelled when time is up."""

    async def stop(self) -> None:
        """Close what is left."""


WorkerMain = Callable[[WorkerContext], App]


def run_worker(main: WorkerMain, context: WorkerContext, sockets: Sequence[socket.socket], parent: int) -> int:
    """Serve until told to leave; the process's exit code."""
    linux.keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(main, context, sockets, parent))
    return 0


async def _serve(main: WorkerMain, context: WorkerContext, sockets: Sequence[socket.socket], parent: int) -> None:
    app = main(context)
    await Worker(app, context, sockets, parent).serve()


class Worker:
    """One App in step with its slot's words."""

    def __init__(self, app: App, context: WorkerContext, sockets: Sequence[socket.socket], parent: int) -> None:
        self._app = app
        self._state = context.state
        self._words = context.state.slot(context.slot)
        self._generation = context.generation
        self._settings = context.settings
        self._parent = parent
        self._acceptor = Acceptor(sockets, app.connection, context.settings.backlog)
        self._leaving = asyncio.Event()
        self._deadline_ns = 0
        self._take_queued = False
        self._announced = False
        self._changing: asyncio.Task[None] | None = None
        self._swapping: asyncio.Task[None] | None = None

    async def serve(self) -> None:
        """Start, serve, drain, stop."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._on_sigterm)
        self._tick(loop)
        await self._app.start()
        self._acceptor.ssl_context = self._app.ssl_context
        self._words.generation = self._generation
        gc.collect()
        gc.freeze()  # a full collection over the resident heap was a 185 ms stop
        self._words.phase = SlotPhase.READY
        await self._leaving.wait()
        self._words.phase = SlotPhase.DRAINING
        await self._leave()

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(TICK_S, self._tick, loop)
        self._words.beat_ns = time.monotonic_ns()
        if os.getppid() != self._parent:
            self._orphaned()
            return
        wanted = self._state.generation  # before the order: who sees a new number also sees a HOLD set ahead of it
        order = self._words.order
        if self._words.phase == SlotPhase.READY:
            self._keep_up(order, wanted)
        if order >= Order.LEAVE:
            self._take_queued = order == Order.CLOSE
            self._deadline_ns = 0 if order == Order.EXIT else self._words.deadline_ns
            self._leaving.set()

    def _keep_up(self, order: int, wanted: int) -> None:
        if order >= Order.ANNOUNCE:
            self._announce()
        bits = self._words.sockets
        if bits != self._acceptor.accepting and order < Order.LEAVE and _idle(self._changing):
            self._changing = spawn(self._accept_from(bits), name="accept")
        if (
            order < Order.HOLD
            and wanted not in {self._words.generation, self._words.swap_failed}
            and _idle(self._swapping)
        ):
            self._swapping = spawn(self._swap(wanted), name="swap snapshot")

    async def _accept_from(self, bits: int) -> None:
        await self._acceptor.accept_from(bits)
        self._words.accepting = self._acceptor.accepting

    async def _swap(self, generation: int) -> None:
        try:
            await self._app.swap(generation)
        except Exception:  # noqa: BLE001  whatever is wrong with the new snapshot, the old one serves
            _log.exception("snapshot %d not adopted, staying on %d", generation, self._words.generation)
            self._words.swap_failed = generation
        else:
            self._words.generation = generation

    def _announce(self) -> None:
        if not self._announced:
            self._announced = True
            self._app.begin_drain()

    async def _leave(self) -> None:
        if self._changing:
            await self._changing
        self._announce()
        await self._acceptor.close(take_queued=self._take_queued)
        self._words.accepting = 0
        await self._drain()
        try:
            await asyncio.wait_for(self._app.stop(), _STOP_S)
        except TimeoutError:
            _log.warning("worker did not stop within %.0f s", _STOP_S)

    async def _drain(self) -> None:
        drained = spawn(self._drained(), name="drain")
        while not drained.done() and time.monotonic_ns() < self._deadline_ns:  # an EXIT meanwhile sets it to 0
            await asyncio.wait({drained}, timeout=TICK_S)
        drained.cancel()

    async def _drained(self) -> None:
        await self._acceptor.shaken()  # whoever the App has not seen, it would not drain
        await self._app.drained()

    def _on_sigterm(self) -> None:
        """Someone sent it to this worker alone: the supervisor finds a successor first. Or the supervisor died."""
        if os.getppid() == self._parent:
            self._words.asked_to_leave = 1
        else:
            self._orphaned()

    def _orphaned(self) -> None:
        if self._leaving.is_set():
            return
        _log.warning("the supervisor is gone: draining for at most %.0f s", self._settings.drain_s)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(math.ceil(self._settings.drain_s) + _ORPHAN_GRACE_S)  # nobody else would end a drain that hangs
        self._deadline_ns = time.monotonic_ns() + int(self._settings.drain_s * NS_PER_S)
        self._take_queued = True
        self._leaving.set()


def _idle(task: asyncio.Task[None] | None) -> bool:
    return task is None or task.done()
