"""Snapshots while the node runs: control is their only writer, and this module is control's hand.

Models one thing at a time: the snapshot in use here (config, keys, generation), and a reload that either replaces it
everywhere or leaves it everywhere. A reload comes by SIGHUP (a counter on the board, see `nodestate.py`) or from the
admin API; both take the same path and never run side by side. Reading, checking and writing happen in a thread,
because a million keys take seconds and the heartbeat must go on.

Published prices are part of a snapshot: a reload takes those in force, and `keep_prices` publishes the same config with
others when their day has come (`pricing.py`).

A revocation needs no snapshot: it is a line in a file that every worker watches (`config/revocations.py`), so it acts
within a tick, also when control is dead. Control adds lines on behalf of the admin API, and watches like the rest.

Invariants: the number on the board always names files that are in place; other prices come with the very config that
is in use. Left out: adopting, which is each worker's.
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
from gateway.control.pricing import LOOK_S, Pricing, named, unpriced_warning
from gateway.ledger.book import PriceReader
from gateway.ledger.prices import PriceList

if TYPE_CHECKING:
    from gateway.config.schema import Config

ADMIN: Final = "admin"  # who did something: whoever has the admin token, or whoever has the node
OPERATOR: Final = "operator"
ITSELF: Final = "gateway"  # nobody asked
_log: Final = logging.getLogger("gateway.control")


class Reloaded(NamedTuple):
    """What came of a reload: the generation in use, and why it is the old one when there are problems."""

    generation: int
    problems: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()  # changed settings that act after a restart only
    prices: str = ""  # which ones have come in force, where nothing else has changed


class Publisher:
    """The snapshot in use by control, and the way to the next. `config` is None until one could be read.

    `prices` are as the snapshot carries them. `told` hears what came of each reload, and who asked for it; and of other
    prices.
    """

    def __init__(self, context: Context, told: Callable[[Reloaded, str], None], pricing: Pricing | None = None) -> None:
        self._context = context
        self._told = told
        self._pricing = pricing or Pricing()
        self._reader = PriceReader()
        self._store = SnapshotStore(context.settings.state_dir)
        self._busy = asyncio.Lock()
        self.config: Config | None = None
        self.keys: KeyIndex | None = None
        self.prices = b""
        self.generation = 0
        self.last_reload = Reloaded(0)
        self.reloads_published = 0
        self.reloads_refused = 0

    @property
    def revoked(self) -> set[str]:
        """Ids of revoked keys."""
        return self._store.revocations.ids

    def price_list(self) -> PriceList:
        """The prices of the snapshot in use; the same object for as long as they stay the same."""
        return self._reader.read(self.prices)

    def open(self) -> None:
        """Read the snapshot the board names; when that fails say why and go on without, until a reload brings one."""
        generation = self._context.state.generation
        try:
            snapshot = self._store.load(generation)
        except (SnapshotUnusable, ConfigProblems, OSError) as error:
            _log.error("control cannot read snapshot %d: %s", generation, error)
            return
        self.config, self.keys, self.prices = snapshot.config, snapshot.keys, snapshot.prices
        self.generation = generation

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

    async def keep_prices(self, every_s: float = LOOK_S) -> None:
        """Publish other prices as they come in force: looks at once and then again and again, until cancelled.

        Not at once where there are none: whoever started the node has just looked.
        """
        await asyncio.to_thread(self._warn_unpriced)
        if not self.prices:
            await asyncio.sleep(every_s)
        while True:
            await self.renew_prices()
            await asyncio.sleep(every_s)

    async def renew_prices(self) -> None:
        """Publish the prices in force, if they are others than in the snapshot in use."""
        async with self._busy:
            result = await asyncio.to_thread(self._renew)
            if result is not None:
                self._context.publish(result.generation)
                _log.info("snapshot %d published: %s", result.generation, result.prices)
                self._told(result, ITSELF)

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
            booted = reload_snapshot(
                settings.config, settings.overrides, settings.state_dir, prices=self._pricing.asked
            )
            keys, prices = self._store.keys(booted.generation), self._store.prices()
        except ConfigProblems as error:
            return self._kept(tuple(str(problem) for problem in error.problems))
        except (OSError, DuplicateKey, SnapshotUnusable) as error:
            return self._kept((f"the snapshot cannot be written: {error}",))
        restart = () if self.config is None else tuple(restart_needed(self.config, booted.config))
        if prices != self.prices:
            _log.info("%s come in force", named(prices))
        self.config, self.keys, self.prices = booted.config, keys, prices
        self.generation = booted.generation
        self._warn_unpriced()
        return Reloaded(booted.generation, restart=restart)

    def _renew(self) -> Reloaded | None:
        if self.config is None:  # then it is not known what is in use
            return None
        try:
            prices = self._pricing.renewed(self.prices)
            if prices == self.prices:
                return None
            generation = self._store.reprice(self.generation, prices)
            self.keys, self.generation, self.prices = self._store.keys(generation), generation, prices
        except Exception as error:  # noqa: BLE001 - whatever is wrong with other prices, the old ones serve
            known = isinstance(error, OSError | SnapshotUnusable)
            _log.warning("other prices cannot be published, tried again later: %s", error, exc_info=not known)
            return None
        return Reloaded(generation, prices=named(prices))

    def _warn_unpriced(self) -> None:
        if self.config is not None and self.keys is not None:
            text = unpriced_warning(self.config, self.keys, self.price_list())
            if text:
                _log.warning("%s", text)

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
