"""A process's own chain, opened as the config says: what workers and control are given to write with.

Opening blocks (locks, reads the end of the chain, perhaps repairs it), so it happens before a process serves.

A process goes on in the segment that is there, so its first line says that it began: who reads the chain knows that
whoever wrote the lines before is gone, and will not end what it has begun.
"""

import json
import logging
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from gateway import __version__
from gateway.config.schema import Config
from gateway.journal import layout
from gateway.journal.end import Signed
from gateway.journal.journal import Journal, JournalSettings
from gateway.journal.line import content_of
from gateway.journal.manifest import BadManifest, last_manifest
from gateway.journal.read import Place
from gateway.journal.scribe import Scribe
from gateway.journal.seal import Sealer
from gateway.journal.signing import SigningError, has_signer, load_signer
from gateway.record import Kind, Record
from gateway.units import NS_PER_US, US_PER_S

_GENERATIONS: Final = 4
_log: Final = logging.getLogger("gateway.journal")


class Desk:
    """A worker's chain, the keys of its sealed parts, and the scribe who writes with both."""

    def __init__(self, journal: Journal, sealer: Sealer, refusals_per_s: int) -> None:
        self.journal = journal
        self.sealer = sealer
        self.scribe = Scribe(journal, sealer, refusals_per_s)

    def adopt(self, config: Config) -> None:
        """Follow a snapshot."""
        self.journal.adopt(settings_of(config))
        self.scribe.adopt(config.journal.refusals_per_s)

    async def close(self, now_us: int) -> None:
        """Everything said is on the disk, and the chain is free."""
        self.scribe.tick(now_us + US_PER_S)
        await self.journal.close()
        self.sealer.close()


def ensure_journal(state_dir: Path) -> None:
    """The node's id and its first signing key, before any process opens a chain.

    For the holder of the state_dir's lock. A journal that has been signed gets no first key: nobody would believe what
    another one signs. Raises OSError, NoJournal, SigningError.
    """
    journal, signing = layout.journal_of(state_dir), layout.signing_of(state_dir)
    layout.ensure_node(journal)
    if layout.manifest_files(journal) and not has_signer(signing):
        raise SigningError(
            f"the keys in {signing} are gone, and {journal} is signed by one of them: restore that directory from a "
            "copy; if the key is lost, move the journal away, and another one begins"
        )
    load_signer(signing)


def open_desk(config: Config, slot: int, slots: int) -> Desk | None:
    """The desk of a worker slot, None where no journal is kept. Raises OSError, NoJournal, NoFreeChain, NoSalt."""
    if not config.journal.enabled:
        return None
    journal = open_journal(config, _names(slot, slots))
    sealer = Sealer(layout.sealing_of(Path(config.state_dir)), journal.chain)
    journal.rest_on(sealer)
    return Desk(journal, sealer, config.journal.refusals_per_s)


def open_journal(config: Config, names: Iterable[str]) -> Journal:
    """The first chain of these names that no other process writes. The first line will say that this process began."""
    state_dir = Path(config.state_dir)
    journal = Journal.open(
        settings_of(config),
        names,
        lambda: load_signer(layout.signing_of(state_dir)),
        lambda chain: signed_end(layout.journal_of(state_dir), chain),
    )
    detail = json.dumps({"pid": os.getpid(), "version": __version__})
    journal.append(content_of(Record(Kind.CHECKPOINT, "", time.time_ns() // NS_PER_US, action="began", detail=detail)))
    return journal


def signed_end(journal: Path, chain: str) -> Signed | None:
    """How far the newest manifest covers a chain; None where that cannot be told, and all of its end is checked."""
    try:
        manifest = last_manifest(journal)
    except (OSError, BadManifest) as error:
        _log.warning("journal %s: the newest manifest cannot be read: %s", chain, error)
        return None
    end = manifest.end_of(chain) if manifest is not None else None
    if end is None:
        return None
    return Signed(Place(end.segment, end.offset), end.seq, bytes.fromhex(end.head))


def settings_of(config: Config) -> JournalSettings:
    """What a chain needs to know of the config."""
    journal = layout.journal_of(Path(config.state_dir))
    return JournalSettings(
        journal=journal,
        node=layout.node_id(journal),
        region=config.region,
        segment_bytes=config.journal.segment_bytes,
        segment_s=config.journal.segment_s,
    )


def _names(slot: int, slots: int) -> Iterator[str]:
    """The slot's own chain; while a process of an earlier build, with other slots, still writes it, the next."""
    return (layout.worker_chain(slot + generation * slots) for generation in range(_GENERATIONS))
