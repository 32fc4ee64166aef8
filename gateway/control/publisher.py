"""Snapshots while the node runs: control is their only writer, and this module is control's hand.

Models one thing at a time: the snapshot in use here (config, keys, generation), and a reload that either replaces it
everywhere or leaves it everywhere. A reload comes by SIGHUP (a counter on the board, see `nodestate.py`) or from the
admin API; both take the same path and never run side by side. Reading, checking and writing happen in a thread,
because a million keys take seconds and the heartbeat must go on.

A revocation needs no snapshot: it is a line in a file that every worker watches (`config/revocations.py`), so it acts
within a tick, also when control is dead. Control adds lines on behalf of the admin API, and watches like the rest.

Invariant: the number on the board always names files that are in place. Left out: adopting, which is each worker's.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from gateway.config.boot import reload_snapshot
from gateway.config.keyfile import DuplicateKey
from gateway.config.keyindex import KeyIndex
from gateway.config.problems import ConfigProblems
from gateway.config.restart import restart_needed
from gateway.config.snapshot import SnapshotStore, SnapshotUnusable
from gateway.control import views
from gateway.control.context import Context

if TYPE_CHECKING:
    from gateway.config.schema import Config

ADMIN: Final = "admin"  # who did something: whoever has the admin token, or whoever has the node
OPERATOR: Final = "operator"
_log: Final = logging.getLogger("gateway.control")


class Reloaded(NamedTuple):
    """What came of a reload: the generation in use, and why it is the old one when there are problems."""

    generation: int
    problems: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()  # changed settings that act after a restart only


class Publisher:
    """The snapshot in use by control, and the way to the next. `config` is None until one could be read.

    `told` hears what came of each reload, and who asked for it.
    """

    def __init__(self, context: Context, told: Callable[[Reloaded, str], None]) -> None:
        self._context = context
        self._told = told
        self._store = SnapshotStore(context.settings.state_dir)
        self._busy = asyncio.Lock()
        self.config: Config | None = None
        self.keys: KeyIndex | None = None
        self.generation = 0
        self.last_reload = Reloaded(0)
        self.reloads_published = 0
        self.reloads_refused = 0

    @property
    def revoked(self) -> set[str]:
        """Ids of revoked keys."""
        return self._store.revocations.ids

    def open(self) -> None:
        """Read the snapshot the board names; when that fails say why and go on without, until a reload brings one."""
        generation = self._context.state.generation
        try:
            snapshot = self._store.load(generation)
        except (SnapshotUnusable, ConfigProblems, OSError) as error:
            _log.error("control cannot read snapshot %d: %s", generation, error)
            return
        self.config, self.keys, self.generation = snapshot.config, snapshot.keys, generation

    async def answer_requests(self) -> None:
        """Reload whenever the supervisor asks; returns when told to stop."""
        while (request := await self._context.next_reload()) is not None:
            result = await self.reload(OPERATOR)
            if result.problems:
                self._context.reload_refused(request)
            else:
                self._context.reloaded(request, result.generation)

    async def reload(self, actor: str) -> Reloaded:
        """Read the config file again: publish what it says, or keep what is in use and log every problem.

        `actor` is who asked for it.
        """
        async with self._busy:
            try:
                result = await asyncio.to_thread(self._reload)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the new one, the old one serves
                _log.exception("reload failed")
                result = self._kept((f"internal error: {type(error).__name__}",))
            self.last_reload = result
            if result.problems:
                self.reloads_refused += 1
                for problem in result.problems:
                    _log.error("%s", problem)
                _log.error("reload refused: keeping snapshot %d", self.generation)
            else:
                self.reloads_published += 1
                self._announce(result)
            self._told(result, actor)
        return result

    async def revoke(self, key_id: str) -> bool:
        """Revoke a key for good; False when there is no such key. Raises OSError when it cannot be written down."""
        keys = self.keys
        if keys is None or not await asyncio.to_thread(_has, keys, key_id):
            return False
        await asyncio.to_thread(self._store.revocations.add, key_id, time.time_ns() // 1_000_000)
        self.watch_revocations()
        return True

    async def page(self, after: int, limit: int) -> dict[str, Any]:
        """One page of keys; in a thread, because the last page of a million is a second away."""
        keys = self.keys
        return await asyncio.to_thread(views.keys, () if keys is None else keys, self.revoked, after, limit)

    def watch_revocations(self) -> None:
        """Take in what was revoked since the last look."""
        try:
            self._store.revocations.poll()
        except OSError as error:
            _log.warning("revocations cannot be read: %s", error)

    def _reload(self) -> Reloaded:
        settings = self._context.settings
        try:
            booted = reload_snapshot(settings.config, settings.overrides, settings.state_dir)
            keys = self._store.keys(booted.generation)
        except ConfigProblems as error:
            return self._kept(tuple(str(problem) for problem in error.problems))
        except (OSError, DuplicateKey, SnapshotUnusable) as error:
            return self._kept((f"the snapshot cannot be written: {error}",))
        restart = () if self.config is None else tuple(restart_needed(self.config, booted.config))
        self.config, self.keys, self.generation = booted.config, keys, booted.generation
        return Reloaded(booted.generation, restart=restart)

    def _kept(self, problems: tuple[str, ...]) -> Reloaded:
        return Reloaded(self.generation, problems)

    def _announce(self, result: Reloaded) -> None:
        state = self._context.state
        if self.config is not None:
            state.workers_wanted = self.config.listen.workers or len(os.sched_getaffinity(0))
        self._context.publish(result.generation)
        _log.info("snapshot %d published", result.generation)
        for setting in result.restart:
            _log.warning("%s has changed: it acts after a restart", setting)


def _has(keys: KeyIndex, key_id: str) -> bool:
    return any(record.id == key_id for record in keys)
