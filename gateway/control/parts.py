"""The parts of control's work on the journal, made and connected once the journal is open.

Each part knows its own business; here they are given each other. Everything is made, and nothing runs yet: running,
following reloads and stopping in an order that loses nothing is `keeping.py`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
from gateway.control.limiting import Limiting
from gateway.control.notary import Notary
from gateway.control.pace import Pace
from gateway.control.readers.export import ExportReader
from gateway.control.readers.lately import Lately
from gateway.control.readers.runner import Readers, Runner, Source
from gateway.control.readers.usage import UsageReader
from gateway.control.retention import Retention
from gateway.control.revoked import RevokedKeys, Revokers
from gateway.control.sinks.registry import sink_of
from gateway.control.usage_api import UsageApi
from gateway.journal import layout
from gateway.journal.journal import Journal
from gateway.journal.line import content_of
from gateway.journal.read import Place
from gateway.journal.seal import Opener
from gateway.journal.signing import Signer, load_signer
from gateway.record import Record

APPEND_S: Final = 10.0

Limited = Callable[[Journal, Source], Limiting]
"""Control's part in limits, on this journal."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a journal that is open. `readers` run on their own, the one of budgets within `limiting`."""

    journal: Journal
    notary: Notary
    readers: Readers
    limiting: Limiting | None
    exports: Sequence[ExportReader]
    retention: Retention
    revoked: RevokedKeys
    idle: IdleChains
    anchoring: Anchoring
    database: Database
    usage_api: UsageApi
    journal_api: JournalApi

    @property
    def runners(self) -> tuple[Runner, ...]:
        """Every reader."""
        return _runners(self.readers, self.limiting)


def retention_of(config: Config) -> RetentionSettings:
    """What a config says of retention."""
    return RetentionSettings(config.journal.max_bytes, config.journal.keep_days)


def made(
    config: Config, journal: Journal, limited: Limited | None, revokers: Revokers, clock_us: Callable[[], int]
) -> Parts:
    """All parts of this journal; on the loop that will run them. Raises OSError, NoJournal."""
    state_dir = Path(config.state_dir)
    directory = layout.journal_of(state_dir)
    node = layout.node_id(directory)
    notary = Notary(directory, layout.signing_of(state_dir))
    opener = Opener(layout.sealing_of(state_dir))
    database = Database.of(config)
    source = Source(directory, node, lambda: notary.signed, lambda: notary.head_seq, Lately())
    pace = Pace()
    usage = Runner(UsageReader(database, node, opener.open, pace), source, state_dir, pace=pace)
    paces = [Pace() for _ in config.exports]
    exports = [
        ExportReader(export, sink_of(export), directory, node, state_dir, opener.open, pace)
        for export, pace in zip(config.exports, paces, strict=True)
    ]
    exporting = (Runner(reader, source, state_dir, pace=pace) for reader, pace in zip(exports, paces, strict=True))
    readers = Readers(source, [usage, *exporting])
    limiting = limited(journal, source) if limited is not None else None
    append = _FromThreads(journal, asyncio.get_running_loop())
    holds = Holds(directory, append.record, clock_us)
    doubt = ClockWatch(state_dir / "clock", clock_us).doubt
    places = _places(readers, limiting)
    retention = Retention(state_dir, retention_of(config), notary, places, append.content, holds, clock_us, doubt)
    erasure = Erasure(state_dir, holds, _forget(database), append.record, clock_us)

    def signer() -> Signer:
        return load_signer(layout.signing_of(state_dir))

    return Parts(
        journal,
        notary,
        readers,
        limiting,
        exports,
        retention,
        RevokedKeys(state_dir, append.record, lambda: notary.head_seq.get(layout.CONTROL, -1), revokers, clock_us),
        IdleChains(directory, config.region, config.journal.segment_s, signer, clock_us),
        Anchoring(directory, config.journal.anchors),
        database,
        UsageApi(database, lambda: usage.lag_records),
        JournalApi(state_dir, notary, retention, _runners(readers, limiting), holds, erasure),
    )


def _runners(readers: Readers, limiting: Limiting | None) -> tuple[Runner, ...]:
    return readers.runners if limiting is None else (*readers.runners, limiting.runner)


def _places(readers: Readers, limiting: Limiting | None) -> Callable[[], dict[str, Mapping[str, Place]]]:
    def places() -> dict[str, Mapping[str, Place]]:
        """By reader, up to where it needs nothing any more."""
        found: dict[str, Mapping[str, Place]] = {runner.name: runner.places() for runner in readers.runners}
        return found if limiting is None else {**found, limiting.runner.name: limiting.places()}

    return places


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
