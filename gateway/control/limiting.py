"""Control's part in limits, put together: what was used, given back before the node is ready; budgets, watched.

From the start of the process there is a `NodeLimits`: which memory limits count in, and whether a control before this
one has seen to it already. Once the journal is open there is a `Limiting`: a reader that counts what the journal says,
the keeper who gives it back to a memory that began anew, and those who are told of budgets.

Invariants: the reader of budgets runs only after the keeper has begun; other readers wait for neither. A node whose
journal is off has no `Limiting`: its budgets begin anew with every start, which `warn_unkept` says once. Left out:
giving back (`limits_keeper.py`), telling (`alerting.py`), and counting itself, which is the workers'.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from msgspec.structs import replace

from gateway.config.keyindex import KeyIndex
from gateway.config.keys import KeyRecord
from gateway.config.limits import Limits
from gateway.config.restart import as_started
from gateway.config.schema import Config
from gateway.control import budget_events, limits_repeat
from gateway.control.alerting import Alerting
from gateway.control.context import Context
from gateway.control.forgetting import Books, Forgetting, Memories
from gateway.control.limits_keeper import LimitsKeeper, Memory, of_table
from gateway.control.readers.budgets import BudgetReader
from gateway.control.readers.runner import PIECE_BY_PIECE, Runner, Source
from gateway.journal import layout
from gateway.journal.journal import Journal
from gateway.journal.read import Place
from gateway.limiter.crowd import Crowd
from gateway.limiter.opening import open_store
from gateway.limiter.rows import most_end_users
from gateway.limiter.rules import Rule
from gateway.limiter.shared import open_table
from gateway.limiter.spec import Spec
from gateway.limiter.store import Store
from gateway.limiter.table import TableEngine
from gateway.nodestate import SlotPhase
from gateway.telemetry import families
from gateway.telemetry.scrape import counted
from gateway.telemetry.transfer import areas
from gateway.units import NS_PER_US

STORE_DEADLINE_S: Final = 1.0  # nobody waits for control, which has a small share of a busy core
STORE_REST_S: Final = 0.5  # what workers admit before a store that came back empty is noticed is not yet known there
STORE_WAIT_S: Final = 3.0  # for a store's first connection; one that is away keeps no node from serving
NAMED: Final = 3  # of the budgets that are not kept
_READING: Final = "what was used of limits is being read from the journal"
_log: Final = logging.getLogger("gateway.limits")


class Engine(limits_repeat.Engine, budget_events.Engine, Protocol):
    """The part of an engine that control needs."""

    async def close(self) -> None:
        """Let go of what it holds open."""


class Counted(NamedTuple):
    """The engine that the node's limits count with, and what is known of its memory; where it forgets.

    `there` ends when it answers.
    """

    engine: Engine
    memory: Memory
    there: Callable[[], Awaitable[None]]
    memories: Memories


class NodeLimits:
    """What is known of a node's limits when control begins. `keys` are those of the snapshot in use.

    `started`: what the node was started with, and its workers count by, whatever a later snapshot says; `generation`
    is that of the snapshot in use, which may be about to be published.
    """

    def __init__(
        self,
        context: Context,
        keys: Callable[[], KeyIndex | None],
        started: Limits | None = None,
        generation: Callable[[], int] = lambda: 0,
    ) -> None:
        age_us = (time.monotonic_ns() - context.boot_ns) // NS_PER_US
        self.keys = keys
        self.began_us = time.time_ns() // NS_PER_US - age_us  # the node, by the wall clock
        self.given_back = not context.state.recounting  # by a control before this one
        self._segment = context.segment
        self._state = context.state
        self._started = started
        self._generation = generation

    def as_counted(self, config: Config) -> Limits:
        """What a config says of limits, as this node counts them."""
        return config.limits if self._started is None else as_started(self._started, config.limits)

    def open(self, config: Config) -> Counted:
        """The engine of these limits. Raises OSError, which says what of a store cannot be used, and NoJournal."""
        limits = self.as_counted(config)
        table = open_table(self._segment, limits)
        if limits.store_url is None:
            return Counted(TableEngine(table), of_table(table, kept=self.given_back), _at_once, Memories(table))
        there, back = asyncio.Event(), asyncio.Event()
        store = _opened(limits, _name(config), there, back)

        async def until_back(longest_s: float) -> None:
            with suppress(TimeoutError):
                await asyncio.wait_for(back.wait(), longest_s)
            back.clear()

        memory = Memory(
            store,
            store.epoch,
            marked=True,
            sliced=limits.slices,
            undelivered=self._undelivered,
            owed=self._owed,
            pause=until_back,
        )

        async def connected() -> None:
            store.start()
            with suppress(TimeoutError):
                await asyncio.wait_for(there.wait(), STORE_WAIT_S)

        return Counted(store, memory, connected, Memories(table, store))

    def adopted(self) -> bool:
        """Whether every worker that serves does so by the snapshot in use."""
        generation = max(self._generation(), self._state.generation)
        serving = [slot for _, slot in self._state.live_workers() if slot.phase == SlotPhase.READY]
        return all(slot.generation >= generation for slot in serving)

    def forgetting(self, config: Config, memories: Memories, books: Books | None = None) -> Forgetting:
        """Who forgets what the config does not limit any more."""
        return Forgetting(config, self.keys, memories, self.adopted, books)

    def _undelivered(self) -> int:
        """Settlements that workers could not deliver, and workers that may have had more: births count up, too."""
        failed = sum(counted(self._segment, families.LIMITS_UNDELIVERED).values())
        return failed + sum(self._state.slot(slot).birth for slot in self._state.worker_slots)

    def _owed(self) -> int:
        """Settlements that living workers still try to deliver, as they said last."""
        _, *slots = areas(self._segment)
        living = [slots[slot] for slot, _ in self._state.live_workers()]
        return sum(
            area.cells[one.cell] for area in living for one in area.read()[1] if one.family == families.LIMIT_OWED
        )


class Limiting:
    """Control's part in the limits of one node, from when its journal is open. `run` until cancelled, then `close`."""

    def __init__(self, config: Config, node: NodeLimits, limits: Counted, journal: Journal, source: Source) -> None:
        config = replace(config, limits=node.as_counted(config))
        state_dir = Path(config.state_dir)
        self.reader = BudgetReader(state_dir, source.journal, source.node)
        if config.limits.store_url is None:
            most = most_end_users(limits.memories.table.layout.rows)
            self.reader.bound(Crowd(config.limits.max_end_users, most))
        self.runner = Runner(self.reader, source, state_dir, PIECE_BY_PIECE)
        self.keeper = LimitsKeeper(
            self.reader,
            limits.memory,
            source.node,
            node.began_us,
            nodes=1 if config.limits.store_url is None else config.limits.nodes,
            capacity_of=capacities(config.limits),
        )
        self.forgetting = node.forgetting(config, limits.memories, Books(journal, self.reader))
        self.alerting = Alerting(config, limits.engine, self.reader, journal, node.keys)
        self._there = limits.there

    @property
    def reason(self) -> str:
        """Why what limits count is not yet what was used; "" when it is."""
        if self.keeper.ready:
            return ""
        trouble = self.keeper.failing
        lines = f", {self.reader.rebuilt} lines so far" if self.reader.rebuilt else ""
        return f"{_READING}{lines}" + (f": {trouble}" if trouble else "")

    def places(self) -> Mapping[str, Place]:
        """What lies before them in the journal is not needed for limits any more."""
        return self.reader.saved_places

    async def run(self) -> None:
        """Give back what was used; then follow the journal, and look after it."""
        with suppress(OSError):  # what waits to be sent need not wait; `turn` tries again, and says why
            await self.alerting.adopt()
        await self._there()
        await self.keeper.begin()
        await asyncio.gather(self.runner.run(), self.keeper.run(self._forget, self._alert))

    async def _forget(self) -> None:
        await self.forgetting.turn()

    async def _alert(self) -> None:
        await self.alerting.turn()

    def stop(self) -> None:
        """Leave after the batch in hand."""
        self.runner.stop()

    def follow(self, config: Config) -> None:
        """Follow a reload."""
        self.forgetting.follow(config)
        self.alerting.follow(config)

    async def close(self) -> None:
        """Keep what is new. The engine is its owner's to close."""
        await self.keeper.close()
        await self.alerting.close()


def capacities(limits: Limits) -> Callable[[str, Spec], int]:
    """What the bucket of a rate has at most: as its rule says, and a period's amount for short forms."""
    rates = [rule for rule in limits.rules if rule.in_flight is None and not rule.is_budget]
    known = {rule.name: Rule(rule, limits).spec(0).limit for rule in rates}

    def capacity_of(bucket: str, spec: Spec) -> int:
        return known.get(bucket.partition("|")[0], spec.amount)

    return capacity_of


def warn_unkept(config: Config, keys: Iterable[KeyRecord] | None) -> None:
    """Say that budgets do not outlive the node, where there are any and it keeps no journal. May take seconds."""
    budgets = list(islice(_budgets(config, keys or ()), NAMED + 1))
    if budgets:
        _log.warning(
            "limits: journal.enabled is false, so budgets begin anew at each start, and nobody is told of their "
            "thresholds (%s); enable the journal to keep them",
            ", ".join([*budgets[:NAMED], "…"][: len(budgets)]),
        )  # fmt: skip


def _budgets(config: Config, keys: Iterable[KeyRecord]) -> Iterator[str]:
    yield from (rule.name for rule in config.limits.rules if rule.in_flight is None and rule.is_budget)
    yield from (f"team {name}" for name, team in config.teams.items() if team.usd_per_month is not None)
    for key in keys:
        if key.allowance is not None and key.allowance.usd_per_month is not None:
            yield f"key {key.id}"


def _name(config: Config) -> str:
    """Who leaves word in a store: a node is known by its journal. Raises OSError, NoJournal."""
    return layout.node_id(layout.journal_of(Path(config.state_dir))) if config.journal.enabled else ""


def _opened(limits: Limits, node: str, *back: asyncio.Event) -> Store:
    """Raises OSError."""

    def changed(here: bool, _why: str) -> None:  # noqa: FBT001  # as OnChange
        for event in back if here else ():
            event.set()

    try:
        return open_store(limits, changed, node=node, deadline_s=STORE_DEADLINE_S, max_rest_s=STORE_REST_S)
    except ValueError as error:
        raise OSError(f"limits.store cannot be used: {error}") from error


async def _at_once() -> None:
    """Memory of our own is there."""
