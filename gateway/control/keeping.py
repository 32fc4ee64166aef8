"""What control does with the journal, put together: its own chain, the notary, the readers, retention, the anchors.

Each part knows its own business; here they are made from the config, started, followed and stopped in an order that
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
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config.schema import Config
from gateway.control.anchoring import Anchoring
from gateway.control.clockwatch import ClockWatch
from gateway.control.database.handle import Database
from gateway.control.erasure import Erasure
from gateway.control.expiry import RetentionSettings
from gateway.control.holds import Holds
from gateway.control.idle import IdleChains
from gateway.control.journal_api import JournalApi
from gateway.control.notary import Notary
from gateway.control.publisher import OPERATOR, Reloaded
from gateway.control.readers.export import ExportReader
from gateway.control.readers.runner import Readers, Runner, Source
from gateway.control.readers.usage import UsageReader
from gateway.control.retention import Retention
from gateway.control.sinks.registry import sink_of
from gateway.control.usage_api import UsageApi
from gateway.journal import layout
from gateway.journal.end import ForeignChain
from gateway.journal.journal import Journal
from gateway.journal.layout import NoJournal
from gateway.journal.line import content_of
from gateway.journal.opening import open_journal, settings_of
from gateway.journal.read import Place
from gateway.journal.recover import NoFreeChain
from gateway.journal.seal import Opener
from gateway.journal.signing import Signer, SigningError, load_signer
from gateway.record import Kind, Record
from gateway.tasks import spawn
from gateway.units import NS_PER_US

SIGN_S: Final = 1.0
RETAIN_S: Final = 10.0
IDLE_S: Final = 3600.0
RETRY_S: Final = 1.0
THREADS: Final = 32  # readers, anchors and questions wait in threads; one that hangs must not keep the notary waiting
GATEWAY: Final = "gateway"  # who did what nobody asked for
MAX_UNTOLD: Final = 1_000
APPEND_S: Final = 10.0
CLOSE_S: Final = 0.5
_UNUSABLE: Final = (OSError, NoJournal, NoFreeChain, ForeignChain, SigningError)
_log: Final = logging.getLogger("gateway.control")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a journal that is open."""

    journal: Journal
    notary: Notary
    readers: Readers
    exports: Sequence[ExportReader]
    retention: Retention
    idle: IdleChains
    anchoring: Anchoring
    database: Database
    usage_api: UsageApi
    journal_api: JournalApi


class Keeping:
    """Control's part in the journal. `parts` is None until it is open, and where none is kept."""

    def __init__(self, config: Callable[[], Config | None], clock_us: Callable[[], int] | None = None) -> None:
        self._config = config
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._untold: list[bytes] = []
        self._followed: Config | None = None
        self._problem = ""
        self._revoked = set[str]()
        self._looked = False
        self.parts: Parts | None = None

    def tell(self, kind: Kind, action: str, subject: str, actor: str, **detail: object) -> None:
        """Write down what somebody did, or what began or ended."""
        told = json.dumps(detail) if detail else ""
        record = Record(kind, "", self._clock_us(), action=action, subject=subject, actor=actor, detail=told)
        if self.parts is not None:
            self.parts.journal.append(content_of(record))
        elif len(self._untold) < MAX_UNTOLD:
            self._untold.append(content_of(record))

    def revoking(self, key_id: str) -> None:
        """The admin API is about to revoke a key, and will say so itself."""
        self._revoked.add(key_id)

    def watch_revoked(self, ids: set[str]) -> None:
        """Write down keys that were revoked since the last look, by whoever has the node."""
        if self._looked:
            for key_id in sorted(ids - self._revoked):
                self.tell(Kind.ADMIN, "key.revoke", key_id, OPERATOR)
        self._looked = True
        self._revoked |= ids

    def reloaded(self, result: Reloaded, actor: str) -> None:
        """Write down what came of a reload."""
        action = "config.refused" if result.problems else "config.reload"
        self.tell(Kind.ADMIN, action, f"generation {result.generation}", actor, problems=len(result.problems))

    async def run(self) -> None:
        """Open the journal, and keep it until cancelled."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="control"))
        config = await self._wanted()
        parts = self.parts = await self._opened(config)
        parts.journal.start(loop)
        for content in self._untold:
            parts.journal.append(content)
        self._untold.clear()
        notary, retention = parts.notary, parts.retention
        work = [
            spawn(_repeat(notary.turn, lambda: 0.0 if notary.behind else SIGN_S), name="notary"),
            spawn(_repeat(retention.turn, lambda: SIGN_S if retention.behind else RETAIN_S), name="retention"),
            spawn(_repeat(parts.idle.turn, lambda: IDLE_S), name="idle chains"),
            spawn(parts.readers.run(), name="readers"),
            spawn(parts.anchoring.run(), name="anchoring"),
        ]
        try:
            await asyncio.gather(*work)
        finally:
            parts.readers.stop()
            for task in work:
                task.cancel()

    async def close(self) -> None:
        """Write, sync and sign everything; readers go on from where they are at the next start."""
        parts = self.parts
        if parts is None:
            return
        await parts.journal.close()
        await asyncio.to_thread(parts.notary.close)
        for close in (*(export.close for export in parts.exports), parts.database.close):
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.to_thread(close), CLOSE_S)

    def follow(self) -> None:
        """Follow a reload; called on control's tick."""
        config, parts = self._config(), self.parts
        if parts is None or config is None or config is self._followed:
            return
        self._followed = config
        parts.journal.adopt(settings_of(config))
        parts.retention.adopt(RetentionSettings(config.journal.max_bytes, config.journal.keep_days))
        parts.anchoring.adopt(config.journal.anchors)

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _wanted(self) -> Config:
        """The config, once one could be read; never where it keeps no journal, since that takes a restart to change."""
        while (config := self._config()) is None:  # noqa: ASYNC110 - a reload brings it, and tells nobody here
            await asyncio.sleep(RETRY_S)
        if not config.journal.enabled:
            await asyncio.get_running_loop().create_future()
        return config

    async def _opened(self, config: Config) -> Parts:
        while True:
            try:
                journal = await asyncio.to_thread(open_journal, config, (layout.CONTROL,))
                return self._made(config, journal)
            except _UNUSABLE as error:
                if str(error) != self._problem:
                    self._problem = str(error)
                    _log.error("control cannot open the journal, and tries again each second: %s", error)
            await asyncio.sleep(RETRY_S)

    def _made(self, config: Config, journal: Journal) -> Parts:
        state_dir = Path(config.state_dir)
        directory = layout.journal_of(state_dir)
        node = layout.node_id(directory)
        notary = Notary(directory, layout.signing_of(state_dir))
        opener = Opener(layout.sealing_of(state_dir))
        database = Database.of(config)
        source = Source(directory, node, lambda: notary.signed, lambda: notary.head_seq)
        usage = Runner(UsageReader(database, node, opener.open), source, state_dir)
        exports = [
            ExportReader(export, sink_of(export), directory, node, state_dir, opener.open) for export in config.exports
        ]
        readers = Readers(source, [usage, *(Runner(reader, source, state_dir) for reader in exports)])
        append = _FromThreads(journal, asyncio.get_running_loop())
        holds = Holds(directory, append.record, self._clock_us)

        def places() -> dict[str, dict[str, Place]]:
            return {runner.name: runner.places() for runner in readers.runners}

        limits = RetentionSettings(config.journal.max_bytes, config.journal.keep_days)
        clock = ClockWatch(state_dir / "clock", self._clock_us)
        retention = Retention(state_dir, limits, notary, places, append.content, holds, self._clock_us, clock.doubt)
        erasure = Erasure(state_dir, holds, _forget(database), append.record, self._clock_us)
        self._followed = config

        def signer() -> Signer:
            return load_signer(layout.signing_of(state_dir))

        return Parts(
            journal,
            notary,
            readers,
            exports,
            retention,
            IdleChains(directory, config.region, config.journal.segment_s, signer, self._clock_us),
            Anchoring(directory, config.journal.anchors),
            database,
            UsageApi(database, lambda: usage.lag_records),
            JournalApi(state_dir, notary, retention, readers.runners, holds, erasure),
        )


class _FromThreads:
    """Control's chain, written from other threads: returns when a record is on the disk. Raises OSError."""

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop) -> None:
        self._journal = journal
        self._loop = loop

    def content(self, content: bytes) -> None:
        """Write a record's content."""
        written = asyncio.run_coroutine_threadsafe(self._commit(content), self._loop)
        try:
            if written.result(APPEND_S):
                return
        except TimeoutError:
            written.cancel()
        raise OSError("the journal cannot be written at the moment")

    def record(self, record: Record) -> None:
        """Write a record."""
        self.content(content_of(record))

    async def _commit(self, content: bytes) -> bool:
        return await self._journal.commit(content, synced=True)


def _forget(database: Database) -> Callable[[str, str], int]:
    def forget(org: str, user: str) -> int:
        from gateway.control.database import usage_rows  # noqa: PLC0415 - it loads SQLAlchemy, control starts without

        return usage_rows.forget_user(database, org, user) if user else usage_rows.forget_org_users(database, org)

    return forget


async def _repeat(turn: Callable[[], None], every_s: Callable[[], float]) -> None:
    """A turn in a thread, again and again, at a steady pace; `every_s` is asked after each."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while True:
        await asyncio.to_thread(turn)
        due_s = max(due_s + every_s(), loop.time())
        await asyncio.sleep(due_s - loop.time())
