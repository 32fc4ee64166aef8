"""Who is told of budgets: the journal, the log and the webhooks of the config, as the config in use has them.

A turn asks for the thresholds that were passed (`budget_events.py`). Each is written to the journal, on the disk, and
then handed to the webhooks (`webhooks.py`); when one of the two cannot take it, it is told again a second later, and to
whom it was told already only if a crash came between.

Left out: when a turn is due (`limits_keeper.py`), and the counters (`counts.py`), which read `crossed` and
`webhooks.results`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.config.keyindex import KeyIndex
from gateway.config.schema import Config, Webhook
from gateway.control.budget_events import ACTION, Budget, BudgetEvents, Budgets, Crossing, Engine, record_of
from gateway.control.key_allowances import KeyAllowances
from gateway.control.readers.budgets import BudgetReader
from gateway.control.webhooks import Destination, Webhooks, check
from gateway.journal.journal import Journal
from gateway.journal.line import content_of
from gateway.units import NS_PER_US

_log: Final = logging.getLogger("gateway.limits")


class Alerting:
    """Tells of the budgets of one node. `keys` are those of the snapshot in use."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        reader: BudgetReader,
        journal: Journal,
        keys: Callable[[], KeyIndex | None],
        clock_us: Callable[[], int] | None = None,
    ) -> None:
        self.webhooks = Webhooks(Path(config.state_dir), clock_us)
        self._config = config
        self._adopted: Config | None = None
        self._reader = reader
        self._journal = journal
        self._clock_us = clock_us or (lambda: time.time_ns() // NS_PER_US)
        self._allowances = KeyAllowances(keys)
        self._budgets = Budgets(config.limits, config.teams, self._allowances.find)
        self._events = BudgetEvents(config.limits.domain, self._budget_of, engine, reader, self._hear)
        self._recorded = set[str]()  # crossings that are in the journal, and with the webhooks not yet

    @property
    def crossed(self) -> Mapping[str, int]:
        """Thresholds passed since it was made, by the names of the rules."""
        return self._events.crossed

    def follow(self, config: Config) -> None:
        """Follow a reload, from the next turn on."""
        self._config = config

    async def turn(self) -> None:
        """Tell what was passed since the last turn. Raises Unavailable, Trouble, OSError; then the rest is due."""
        await self.adopt()
        await self._allowances.look()
        used = await asyncio.to_thread(self._reader.budgets)
        before = sum(self.crossed.values())
        try:
            await self._events.look(used)
        finally:
            if sum(self.crossed.values()) != before:
                await asyncio.to_thread(self._reader.save)  # at once: a crash before it tells them again

    async def adopt(self) -> None:
        """Have the budgets and the webhooks of the config. Raises OSError."""
        config = self._config
        if config is self._adopted:
            return
        await self.webhooks.adopt(list(_usable(config.webhooks)))
        self._budgets = Budgets(config.limits, config.teams, self._allowances.find)
        self._events.again()
        self._adopted = config

    async def close(self) -> None:
        """Stop sending; what waits is sent after the next start."""
        await self.webhooks.close()

    def _budget_of(self, bucket: str) -> Budget | None:
        return self._budgets.find(bucket)

    async def _hear(self, crossing: Crossing) -> None:
        if crossing.id not in self._recorded:
            content = content_of(record_of(crossing, self._clock_us()))
            if not await self._journal.commit(content, synced=True):
                raise OSError("a budget has passed a threshold, and the journal cannot be written at the moment")
            self._recorded.add(crossing.id)
        await self.webhooks.tell(ACTION, crossing.id, crossing)
        self._recorded.discard(crossing.id)
        _log.warning(
            "budget %s has passed %d %%: %d of %d %s are used", crossing.bucket, crossing.percent, crossing.used,
            crossing.limit, crossing.unit,
        )  # fmt: skip


def _usable(webhooks: Sequence[Webhook]) -> Iterator[Destination]:
    """Where events can go; the rest is said once, and keeps nobody else from hearing."""
    for webhook in webhooks:
        url, secret = webhook.url.reveal(), webhook.secret.reveal()
        found = Destination(webhook.name, url, secret, webhook.events, webhook.allow_private, webhook.timeout_s)
        try:
            check(found)
        except ValueError as error:
            _log.error("no events are sent: %s", error)
        else:
            yield found
