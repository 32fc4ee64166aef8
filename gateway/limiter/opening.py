"""One worker's limiter, put together from the config: the engine it counts with, and what it learns and remembers.

Without a store the engine is the table in shared memory. With one, it is the store, and the table counts this node's
part while the store is away. All of it outlives the snapshots that a worker serves by; what follows a snapshot (rules,
how prompts are weighed) is made here from its config.

Left out: which requests there are (`pipeline.py`), and prices (`ledger/`).
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.config.limits import Limits
from gateway.config.schema import Config
from gateway.dialects.mediarules import rule
from gateway.limiter import address, tokens
from gateway.limiter.breaker import MAX_REST_S
from gateway.limiter.deny import DENIALS, Denials
from gateway.limiter.estimate import Estimator, Weights
from gateway.limiter.learned import LEARNED, Learned
from gateway.limiter.limiter import Engines, Limiter
from gateway.limiter.reservation import Origin
from gateway.limiter.rules import Rules
from gateway.limiter.shared import open_table
from gateway.limiter.slices import SlicedEngine
from gateway.limiter.store import DEADLINE_S, Store
from gateway.limiter.sweep import owner_of
from gateway.limiter.table import TableEngine
from gateway.limiter.tokens import Tokenizer
from gateway.nodestate import NodeState
from gateway.segment import Segment
from gateway.tasks import spawn

if TYPE_CHECKING:
    import asyncio

OnChange = Callable[[bool, str], None]
"""The store has gone (False, and why) or is back."""


class _Report:
    """Passes on that the store went or came back, until this process lets go of it: that is no outage.

    When it is back, `limiter` renews its leases and delivers what it owes at once: slots wait for both.
    """

    def __init__(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self.over = False
        self.limiter: Limiter | None = None

    def __call__(self, there: bool, why: str) -> None:  # noqa: FBT001  # as OnChange
        if self.over:
            return
        self._on_change(there, why)
        if there and self.limiter is not None:
            spawn(self.limiter.renew(), name="limits since the store was away")


class WorkerLimits:
    """A worker's limiter and its engines. `store` None: usage is counted in this node's shared memory."""

    def __init__(
        self,
        limiter: Limiter,
        learned: Learned,
        name_key: bytes,
        store: Store | None = None,
        slices: SlicedEngine | None = None,
        report: _Report | None = None,
    ) -> None:
        self.limiter: Final = limiter
        self.store: Final = store
        self.slices: Final = slices
        self._report = report
        self._learned = learned
        self._name_key = name_key
        self._tokenizers: dict[tuple[str, int, int], Tokenizer] = {}
        self._keeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to keep the store's connection and the leases; on the worker's loop."""
        if self.store is not None:
            self.store.start()
        if self.slices is not None:
            self.slices.start()
        self._keeping = spawn(self.limiter.keep(), name="limit leases")

    def rules(self, config: Config) -> Rules:
        """The rules of a snapshot."""
        return Rules(config.limits, config.teams, name_key=self._name_key)

    def estimator(self, config: Config, dialects: Mapping[str, str]) -> Estimator:
        """The estimates of a snapshot; `dialects` are those of its providers. Raises TokenizerUnusable."""
        used = {model.tokenizer: self._tokenizer(model.tokenizer) for model in config.models.values()}
        weights = {}
        for name, model in config.models.items():
            target = model.targets[0]
            weights[name] = Weights(rule(dialects[target.provider], target.model), used[model.tokenizer])
        return Estimator(self._learned, weights)

    async def close(self) -> None:
        """Deliver what is owed, and let go of the engines."""
        if self._keeping is not None:
            self._keeping.cancel()
        if self._report is not None:
            self._report.over = True
        await self.limiter.close()

    def _tokenizer(self, path: str) -> Tokenizer | None:
        """The tokenizer of a file, read once while the file stays as it is: a large one takes a tenth of a second."""
        if not path:
            return None
        with suppress(OSError):  # `load` says it better
            found = Path(path).stat()
            key = (path, found.st_mtime_ns, found.st_size)
            if key not in self._tokenizers:
                self._tokenizers[key] = tokens.load(path)
            return self._tokenizers[key]
        return tokens.load(path)


def open_worker_limits(
    limits: Limits, segment: Segment, node: NodeState, slot: int, on_change: OnChange, *, name_key: bytes
) -> WorkerLimits:
    """The limiter of the process in this slot. Raises ValueError for a store's TLS files that cannot be used."""
    table = TableEngine(open_table(segment, limits))
    owner = owner_of(slot, node.slot(slot).birth)
    learned = Learned(segment.shared(LEARNED))
    admit_full = limits.on_table_full == "other"
    if limits.store_url is None:
        return WorkerLimits(Limiter(Engines(table, admit_full=admit_full), owner=owner), learned, name_key)
    report = _Report(on_change)
    store = open_store(limits, report)
    slices = _slices(limits, store, table, node)
    engines = Engines(slices or store, Origin.STORE, local=table, nodes=limits.nodes, admit_full=admit_full)
    denials = Denials(segment.shared(DENIALS))
    limiter = report.limiter = Limiter(engines, owner=owner, denials=denials)
    return WorkerLimits(limiter, learned, name_key, store, slices, report)


def _slices(limits: Limits, store: Store, table: TableEngine, node: NodeState) -> SlicedEngine | None:
    if not limits.slices:
        return None
    name = f"{node.boot_id:x}"  # nobody else's, and another one when the memory that has the slices is another
    return SlicedEngine(store, table.table, name, nodes=limits.nodes, epoch=store.epoch)


def open_store(
    limits: Limits,
    on_change: OnChange,
    *,
    node: str = "",
    deadline_s: float = DEADLINE_S,
    max_rest_s: float = MAX_REST_S,
) -> Store:
    """The store that the config names; `node` is who leaves word there. Raises ValueError, as `open_worker_limits`."""
    if limits.store_url is None:
        raise ValueError("limits.store names no store")
    where = address.parse(
        limits.store_url.reveal(),
        ca_file=limits.ca_file,
        client_cert=limits.client_cert,
        client_key=limits.client_key,
    )
    return Store(
        where, domain=limits.domain, node=node, deadline_s=deadline_s, max_rest_s=max_rest_s, on_change=on_change
    )
