"""Config → wired stages: the one place that builds the objects of a worker and connects them.

An `Assembly` lives as long as its worker and makes one `Gateway` per snapshot. What outlives a snapshot is handed on:
deadlines, counters, and connection pools whose origin did not change, so that a reload costs no provider connection.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.config.proxy import proxy_for
from gateway.config.schema import Config, Model, Provider
from gateway.config.schema import Target as TargetConfig
from gateway.config.snapshot import Snapshot, SnapshotStore
from gateway.dialects.surfaces import SURFACES
from gateway.identity.identify import Identity
from gateway.journal.opening import Desk
from gateway.ledger.book import PriceReader
from gateway.ledger.prices import Price, PriceList
from gateway.limiter.opening import WorkerLimits
from gateway.nodestate import NodeState, SlotState, body_mark
from gateway.pipeline import Gateway, RandomBytes
from gateway.providers.base import Account, HeaderPairs
from gateway.providers.registry import vendor
from gateway.record import Record
from gateway.relay.origin import Origin
from gateway.relay.outgoing import Target
from gateway.relay.pool import Pool
from gateway.routing.match import Router
from gateway.routing.models import Candidate, catalogue
from gateway.segment import Segment
from gateway.telemetry.directory import METRICS
from gateway.telemetry.lines import LineSink
from gateway.telemetry.logs import RequestLog, as_text
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.recorder import Gauges, Journaled, Limited, Names, Recorder, rule_names
from gateway.units import NS_PER_US
from gateway.wheel import Wheel

_REFUSING: Final = NodeState.refusing.index
_READING: Final = SlotState.reading.index


class NodeGuard:
    """`pipeline.BodyGuard` on the node's board: the mark outlives this process, so the supervisor can read it."""

    def __init__(self, node: NodeState, slot: int) -> None:
        self._node = node
        self._board = node.words
        self._own = node.slot(slot).words

    def enter(self, body: bytes) -> bool:
        """Set the mark, unless the body is refused."""
        mark = body_mark(body)
        if self._board[_REFUSING] and self._node.is_refused(mark, time.monotonic_ns()):
            return False
        self._own[_READING] = mark
        return True

    def leave(self) -> None:
        """Clear the mark."""
        self._own[_READING] = 0


class Assembly:
    """Builds the Gateway of each snapshot for one worker. `desk` None: no journal is kept."""

    def __init__(
        self,
        segment: Segment,
        node: NodeState,
        slot: int,
        state_dir: Path,
        sink: LineSink,
        desk: Desk | None,
        worker_limits: WorkerLimits,
    ) -> None:
        self._store = SnapshotStore(state_dir)
        self._desk = desk
        self._worker_limits = worker_limits
        self._guard = NodeGuard(node, slot)
        self._wheel = Wheel()
        self._prices = PriceReader()
        self._random = RandomBytes()
        self._sink = sink
        self._recorder = Recorder(Metrics(segment.slot(METRICS, slot)), slot, Names())
        self._pools: dict[Origin, Pool] = {}
        self._providers: dict[str, Pool] = {}
        self._log: RequestLog  # follows the snapshot

    def load(self, generation: int) -> Gateway:
        """The Gateway of a snapshot. Raises what cannot be used (a certificate, a secret), before anything changes."""
        snapshot = self._store.load(generation)
        return self._wire(snapshot)

    def _wire(self, snapshot: Snapshot) -> Gateway:
        config = snapshot.config
        providers = {name: self._provider(name, provider) for name, provider in config.providers.items()}
        accounts = {name: account for name, (account, _) in providers.items()}
        dialects = {name: account.dialect for name, account in accounts.items()}
        estimator = self._worker_limits.estimator(config, dialects)
        prices = self._prices.read(snapshot.prices)
        models = catalogue(config, lambda model, star: _candidates(model, star, config, providers, prices))
        self._providers = {name: pool for name, (_, pool) in providers.items()}
        self._log = RequestLog(config.log.requests, self._sink, text=as_text(config.log.format))
        self._recorder.renamed(_names(config))
        if self._desk is not None:
            self._desk.adopt(config)
        return Gateway(
            config=config,
            identity=Identity(snapshot.keys),
            router=Router(config),
            catalogue=models,
            passthrough={
                name: Target(account=accounts[name], pool=pool, model="*") for name, (_, pool) in providers.items()
            },
            guard=self._guard,
            wheel=self._wheel,
            scribe=self._desk.scribe if self._desk is not None else None,
            rules=self._worker_limits.rules(config),
            limiter=self._worker_limits.limiter,
            estimator=estimator,
            record=self._record,
            tick=self._tick,
            poll=self._poll,
            retire=self._retire,
            close=self._close,
            generation=snapshot.generation,
            loaded_s=int(time.time()),
            random_bytes=self._random,
        )

    def _provider(self, name: str, provider: Provider) -> tuple[Account, Pool]:
        account = Account(
            name,
            vendor(provider.kind),
            base_url=provider.base_url,
            api_key=provider.api_key.reveal() if provider.api_key is not None else "",
            caller_credential=provider.credential == "caller",
            headers=_pairs(provider.headers),
            dedicated_to=frozenset(provider.dedicated_to),
        )
        origin = Origin(
            scheme=account.scheme,
            host=account.host,
            port=account.port,
            ca_file=provider.ca_file,
            client_cert=provider.client_cert,
            client_key=provider.client_key,
            proxy=proxy_for(provider.proxy, account.scheme, account.host, account.port, os.environ),
            max_connections=provider.max_connections,
            max_idle=provider.max_idle,
            idle_s=provider.idle_s,
            max_age_s=provider.max_age_s,
            resolve_s=provider.resolve_s,
        )
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin)
        return account, pool

    def _record(self, record: Record, route: str, model: str) -> None:
        self._recorder.exchange(record, route, model)
        self._log.write(record)

    def _tick(self, open_streams: int, connections: int) -> None:
        upstream = {name: (pool.open - pool.idle, pool.idle) for name, pool in self._providers.items()}
        gauges = Gauges(
            open_streams, connections, upstream, self._sink.dropped, self._journaled(), limits=self._limited()
        )
        self._recorder.tick(gauges)

    def _limited(self) -> Limited:
        limiter, store = self._worker_limits.limiter, self._worker_limits.store
        return Limited(
            refused=limiter.refused,
            shadowed=limiter.shadowed,
            degraded=limiter.degraded,
            unavailable=limiter.unavailable,
            undelivered=limiter.undelivered,
            open=len(limiter.open),
            owed=len(limiter.owed),
            store=None if store is None else store.counts,
            store_up=store is None or store.there,
            store_outages=0 if store is None else store.breaker.trips,
            slices=None if self._worker_limits.slices is None else self._worker_limits.slices.counts,
        )

    def _journaled(self) -> Journaled:
        desk = self._desk
        if desk is None:
            return Journaled()
        desk.scribe.tick(time.time_ns() // NS_PER_US)
        journal = desk.journal
        return Journaled(
            journal.lines,
            journal.written_bytes,
            journal.lost,
            journal.failures,
            journal.failing,
            journal.synced_by_thread,
        )

    def _poll(self) -> None:
        self._store.revocations.poll()
        if self._desk is not None:
            self._desk.scribe.poll()

    def _retire(self, successor: Gateway) -> None:
        """Close the pools that the new snapshot has no use for, as their exchanges end."""
        del successor
        used = set(self._providers.values())
        for origin, pool in tuple(self._pools.items()):
            if pool not in used:
                pool.close()
                del self._pools[origin]

    async def _close(self) -> None:
        for pool in self._pools.values():
            pool.close()
        await self._worker_limits.close()
        if self._desk is not None:
            await self._desk.close(time.time_ns() // NS_PER_US)
        self._sink.flush()


def _candidates(
    model: Model, star: str, config: Config, providers: dict[str, tuple[Account, Pool]], prices: PriceList
) -> Sequence[Candidate[Target]]:
    override = msgspec.structs.asdict(model.price) if model.price is not None else None

    def price_at(provider: Provider) -> Callable[[str], Price | None]:
        return lambda name: prices.resolve(
            provider.kind, name, override, base_url=provider.base_url, context_tokens=model.context_tokens
        )

    def made(target: TargetConfig) -> Candidate[Target]:
        provider, (account, pool) = config.providers[target.provider], providers[target.provider]
        return Candidate(
            Target(
                account=account,
                pool=pool,
                model=target.model,
                star=star,
                ask_usage=provider.usage_flag == "auto",
                headers=_pairs(target.headers),
                defaults=target.defaults,
                price=price_at(provider),
                context_tokens=model.context_tokens,
            ),
            target.weight,
            account.dialect,
        )

    return [made(target) for target in model.targets]


def _pairs(headers: dict[str, str]) -> HeaderPairs:
    return tuple((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items())


def _names(config: Config) -> Names:
    targets = {f"{target.provider}/{target.model}" for model in config.models.values() for target in model.targets}
    return Names(
        routes=frozenset(route.name for route in Router(config).routes),
        models=frozenset(config.models),
        targets=frozenset(targets) | {f"{name}/*" for name in config.providers},
        surfaces=frozenset(surface.name for surface in SURFACES),
        rules=rule_names(rule.name for rule in config.limits.rules),
    )
