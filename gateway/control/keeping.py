"""What control does with the journal, from its opening to its last manifest: its own chain, and all that reads it.

The parts are made when the journal is open (`parts.py`); here they are started, followed and stopped in an order that
loses nothing. A journal that cannot be opened (a full disk, a damaged file) does not keep control from serving its
port: it is said once and tried again each second, and what operators did meanwhile is written down then.

Invariants: on the way down readers stop first, then control's chain is closed, then the notary signs all there is:
workers have left before, so the last manifest covers everything. What blocks runs in threads. Left out: what the parts
do, and the admin port (`admin.py`).
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.config.schema import Config
from gateway.control.limiting import Counted, Engine, Limiting, NodeLimits, warn_unkept
from gateway.control.parts import Parts, made, retention_of
from gateway.control.publisher import Reloaded
from gateway.control.revoked import Revokers
from gateway.journal import layout
from gateway.journal.end import ForeignChain
from gateway.journal.layout import NoJournal
from gateway.journal.line import content_of
from gateway.journal.opening import open_journal, settings_of
from gateway.journal.recover import NoFreeChain
from gateway.journal.signing import SigningError
from gateway.limiter.engine import Unavailable
from gateway.record import Kind, Record
from gateway.tasks import spawn
from gateway.units import NS_PER_US

if TYPE_CHECKING:
    from gateway.control.forgetting import Forgetting

T = TypeVar("T")

SIGN_S: Final = 1.0
RETAIN_S: Final = 10.0
REVOKED_S: Final = 0.5
IDLE_S: Final = 3600.0
RETRY_S: Final = 1.0
THREADS: Final = 32  # readers, anchors and questions wait in threads; one that hangs must not keep the notary waiting
GATEWAY: Final = "gateway"  # who did what nobody asked for
MAX_UNTOLD: Final = 1_000
CLOSE_S: Final = 0.5
_UNUSABLE: Final = (OSError, NoJournal, NoFreeChain, ForeignChain, SigningError)
_log: Final = logging.getLogger("gateway.control")


class Keeping:
    """Control's part in the journal. `parts` is None until it is open, and where none is kept.

    `limits` is None where nobody asks what limits count.
    """

    def __init__(
        self,
        config: Callable[[], Config | None],
        clock_us: Callable[[], int] | None = None,
        limits: NodeLimits | None = None,
    ) -> None:
        self._config = config
        self._limits = limits
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._untold: list[bytes] = []
        self._followed: Config | None = None
        self._problem = ""
        self._counted: Counted | None = None
        self._unkept = False  # the config keeps no journal
        self._forgetting: Forgetting | None = None  # there; else it is among the parts
        self.parts: Parts | None = None
        self.revokers = Revokers()

    def tell(self, kind: Kind, action: str, subject: str, actor: str, **detail: object) -> None:
        """Write down what somebody did, or what began or ended."""
        told = json.dumps(detail) if detail else ""
        record = Record(kind, "", self._clock_us(), action=action, subject=subject, actor=actor, detail=told)
        if self.parts is not None:
            self.parts.journal.append(content_of(record))
        elif len(self._untold) < MAX_UNTOLD:
            self._untold.append(content_of(record))

    def reloaded(self, result: Reloaded, actor: str) -> None:
        """Write down what came of a reload, or that other prices have come in force."""
        subject = f"generation {result.generation}"
        if result.prices:
            self.tell(Kind.ADMIN, "prices.renew", subject, actor, prices=result.prices)
            return
        action = "config.refused" if result.problems else "config.reload"
        self.tell(Kind.ADMIN, action, subject, actor, problems=len(result.problems))

    @property
    def unready(self) -> str:
        """Why what limits count is not yet what was used; "" when it is, or where no journal tells what was."""
        if self._limits is None or self._limits.given_back or self._unkept:
            return ""
        if self.parts is not None and self.parts.limiting is not None:
            return self.parts.limiting.reason
        return f"what was used of limits is not known: {self._problem or 'the journal is being opened'}"

    @property
    def limits_engine(self) -> Engine | None:
        """What this node's limits count with; None while it is not open."""
        return None if self._counted is None else self._counted.engine

    async def run(self) -> None:
        """Open the journal, and keep it until cancelled."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="control"))
        config = await self._wanted()
        parts = self.parts = await self._tried("the journal", lambda: self._opened(config))
        parts.journal.start(loop)
        for content in self._untold:
            parts.journal.append(content)
        self._untold.clear()
        work = [spawn(coroutine, name=name) for name, coroutine in _work(parts)]
        try:
            await asyncio.gather(*work)
        finally:
            for runner in parts.runners:
                runner.stop()
            for task in work:
                task.cancel()

    async def close(self) -> None:
        """Write, sync and sign everything; readers go on from where they are at the next start."""
        parts = self.parts
        if parts is not None:
            await self._close(parts)
        if self._counted is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._counted.engine.close(), CLOSE_S)

    async def _close(self, parts: Parts) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.to_thread(parts.revoked.turn), CLOSE_S)
        await parts.journal.close()
        await asyncio.to_thread(parts.notary.close)
        if parts.limiting is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(parts.limiting.close(), CLOSE_S)
        for close in (*(export.close for export in parts.exports), parts.database.close):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(close), CLOSE_S)

    def follow(self) -> None:
        """Follow a reload; called on control's tick."""
        config, parts = self._config(), self.parts
        if config is None or config is self._followed or (parts is None and self._forgetting is None):
            return
        self._followed = config
        if self._forgetting is not None:
            self._forgetting.follow(config)
        if parts is None:
            return
        parts.journal.adopt(settings_of(config))
        parts.retention.adopt(retention_of(config))
        parts.anchoring.adopt(config.journal.anchors)
        if parts.limiting is not None:
            parts.limiting.follow(config)

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _wanted(self) -> Config:
        """The config, once one could be read; never where it keeps no journal, since that takes a restart to change."""
        while (config := self._config()) is None:  # noqa: ASYNC110 - a reload brings it, and tells nobody here
            await asyncio.sleep(RETRY_S)
        self._counted = await self._tried("the store of limits", lambda: self._limited(config))
        if not config.journal.enabled:
            self._unkept = True
            await self._unkept_limits(config)
            await asyncio.get_running_loop().create_future()
        return config

    async def _tried(self, what: str, opened: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await opened()
            except _UNUSABLE as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("control cannot open %s, and tries again each second: %s", what, error)
            await asyncio.sleep(RETRY_S)

    async def _opened(self, config: Config) -> Parts:
        journal = await asyncio.to_thread(open_journal, config, (layout.CONTROL,))
        self._followed = config
        limited = None
        if self._limits is not None and self._counted is not None:
            limited = partial(Limiting, config, self._limits, self._counted)
        return made(config, journal, limited, self.revokers, self._clock_us)

    async def _limited(self, config: Config) -> Counted | None:
        return None if self._limits is None else self._limits.open(config)

    async def _unkept_limits(self, config: Config) -> None:
        if self._limits is None or self._counted is None:
            return
        await asyncio.to_thread(warn_unkept, config, self._limits.keys())
        await self._counted.there()
        self._followed = config
        self._forgetting = self._limits.forgetting(config, self._counted.memories)
        while True:
            with suppress(Unavailable):
                await self._forgetting.turn()
            await asyncio.sleep(RETRY_S)


def _work(parts: Parts) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """What runs while the journal is kept."""
    notary, retention = parts.notary, parts.retention
    yield "notary", _repeat(notary.turn, lambda: 0.0 if notary.behind else SIGN_S)
    yield "retention", _repeat(retention.turn, lambda: SIGN_S if retention.behind else RETAIN_S)
    yield "revoked keys", _repeat(parts.revoked.turn, lambda: REVOKED_S)
    yield "idle chains", _repeat(parts.idle.turn, lambda: IDLE_S)
    yield "readers", parts.readers.run()
    yield "anchoring", parts.anchoring.run()
    if parts.limiting is not None:
        yield "limits", parts.limiting.run()


async def _repeat(turn: Callable[[], None], every_s: Callable[[], float]) -> None:
    """A turn in a thread, again and again, at a steady pace; `every_s` is asked after each."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while True:
        await asyncio.to_thread(turn)
        due_s = max(due_s + every_s(), loop.time())
        await asyncio.sleep(due_s - loop.time())
