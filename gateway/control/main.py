"""Control from its first moment to its last: open the snapshot, serve the admin port, answer reload requests, leave.

Whatever fails here costs callers nothing: the supervisor starts control again. The heartbeat and the order to stop
are the process layer's business (`context.stopping`).
"""

import asyncio
import gc
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web

from gateway import __version__
from gateway.config.limits import Limits
from gateway.control.admin import Admin
from gateway.control.context import Context
from gateway.control.counts import Counts
from gateway.control.keeping import GATEWAY, Keeping
from gateway.control.limiting import NodeLimits
from gateway.control.publisher import Publisher
from gateway.control.readiness import Readiness
from gateway.record import Kind
from gateway.tasks import spawn
from gateway.telemetry import families
from gateway.telemetry.directory import METRICS
from gateway.telemetry.logs import setup_logging
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.telemetry.lines import LineSink

WATCH_S: Final = 0.2
UNREADY_S: Final = 0.02  # instead, while the node is not ready for want of what it has used
WARM_S: Final = 10.0  # after which what is loaded when it is first needed, the database above all, is there
_CLOSE_S: Final = 1.0  # of the two seconds the process layer gives
_log: Final = logging.getLogger("gateway.control")


async def control_main(context: Context, limits: Limits | None = None) -> None:
    """Run control until `context.stopping`; raises when the admin port cannot be served, or a part of it breaks.

    `limits` are those that the node was started with, None where they are the snapshot's.
    """
    node = NodeLimits(context, lambda: publisher.keys, limits, lambda: publisher.generation)
    keeping = Keeping(lambda: publisher.config, limits=node)
    publisher = Publisher(context, keeping.reloaded)
    publisher.open()
    keeping.tell(Kind.ADMIN, "control.start", f"generation {publisher.generation}", GATEWAY, version=__version__)
    logs = Logs(publisher)
    logs.follow()
    publisher.watch_revocations()
    readiness = Readiness(context.state, lambda: keeping.unready)
    admin = Admin(context, publisher, readiness, keeping)
    counts = _counts(context, publisher, admin, keeping, logs)
    runner = web.AppRunner(admin.application(), access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_S)
    await runner.setup()
    work = [
        spawn(publisher.answer_requests(), name="reload requests"),
        spawn(watch(Watched(context, publisher, readiness, keeping, logs, counts)), name="watch"),
        spawn(keeping.run(), name="journal"),
        spawn(publisher.keep_prices(), name="prices"),
    ]
    try:
        await web.SockSite(runner, context.admin.dup()).start()
        context.ready()
        await first_to_end(context.stopping, work)
    finally:
        for task in work:
            task.cancel()
        await runner.cleanup()
        await keeping.close()
        logs.close()


async def first_to_end(stopping: asyncio.Event, work: Sequence[asyncio.Task[None]]) -> None:
    """Wait for the order to stop; raises what a piece of work ended with before, since control is no use without it."""
    told = spawn(_set(stopping), name="stop order")
    await asyncio.wait({told, *work}, return_when=asyncio.FIRST_COMPLETED)
    told.cancel()
    for task in work:
        if task.done():
            task.result()


async def _set(event: asyncio.Event) -> None:
    await event.wait()


@dataclass(frozen=True, slots=True)
class Watched:
    """What control looks after while it runs."""

    context: Context
    publisher: Publisher
    readiness: Readiness
    keeping: Keeping
    logs: "Logs"
    counts: Counts


async def watch(watched: Watched) -> None:
    """Look at the board, the config in use and the revocations five times a second, until told to stop.

    More often while callers wait for the node to be ready: a start is a fifth of a second shorter for it.
    """
    warm = asyncio.get_running_loop().call_later(WARM_S, _freeze)
    try:
        while not watched.context.stopping.is_set():
            watched.readiness.observe(time.monotonic_ns())
            watched.publisher.watch_revocations()
            watched.logs.follow()
            watched.keeping.follow()
            watched.counts.tick()
            await asyncio.sleep(UNREADY_S if watched.keeping.unready else WATCH_S)
    finally:
        warm.cancel()


def _freeze() -> None:
    """Spare collections what stays for good: a full one took 10 ms. What is garbage by now must not stay with it."""
    gc.collect()
    gc.freeze()


def _counts(context: Context, publisher: Publisher, admin: Admin, keeping: Keeping, logs: "Logs") -> Counts:
    metrics = Metrics(context.segment.slot(METRICS, context.slot))
    counts = Counts(metrics, context.slot, keeping)
    counts.follow(metrics.counter(families.RELOADS, result="published"), lambda: publisher.reloads_published)
    counts.follow(metrics.counter(families.RELOADS, result="refused"), lambda: publisher.reloads_refused)
    counts.follow(metrics.counter(families.ADMIN_REFUSALS), lambda: admin.gate.refused)
    counts.follow(metrics.counter(families.LOG_LINES_DROPPED), lambda: logs.dropped)
    return counts


class Logs:
    """Control's log lines, in the form the config in use asks for."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._form: tuple[str, str] | None = None
        self._sink: LineSink | None = None
        self._dropped_before = 0

    @property
    def dropped(self) -> int:
        """Lines given up since control began."""
        return self._dropped_before + (self._sink.dropped if self._sink is not None else 0)

    def follow(self) -> None:
        """Set logging up again when the config says otherwise than before."""
        config = self._publisher.config
        if config is None or (config.log.level, config.log.format) == self._form:
            return
        self.close()
        self._form = (config.log.level, config.log.format)
        self._sink = setup_logging(config.log.level, config.log.format, "control")

    def close(self) -> None:
        """Write what is queued."""
        if self._sink is not None:
            self._sink.close()
            self._dropped_before += self._sink.dropped
            self._sink = None
