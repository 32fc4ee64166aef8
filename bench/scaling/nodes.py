"""One to three nodes on one store, each in a network namespace of its own.

Callers and the upstream are on this machine's side of the bridge. All nodes share core 0, so together they answer what
that core can, whatever their number: what is to be seen is whether a request costs more as nodes are added, what the
store has to do for it, and that the nodes together admit what the limit says, not each for itself.

Three measurements at each number: as fast as they go (cost, rate, calls of the store), at a fixed rate (latency), and
with a key at its quota, asked by the callers of `bench.limits` and held against the same two bounds as there.
"""

import json
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from bench.limits import callers, evidence
from bench.limits.callers import Load, hammering
from bench.limits.evidence import Rate
from bench.limits.redis import RedisServer, redis_server
from bench.scaling.network import Network, network
from bench.scaling.points import Point
from bench.scaling.stand import CONNECTIONS, COST, P99, RATE, Stand, require_right
from bench.speed import launch, native, workload
from bench.speed.launch import CannotRun
from bench.speed.native import LoadResult
from bench.speed.procfs import Reading
from bench.speed.sections import CLIENT_CORE
from bench.speed.targets import Limited, Place, Running, overlaid

NODES: Final = (1, 2, 3)
RATE_DUE: Final = 2_000.0
REQUESTS_A_SECOND: Final = 4_000  # about what the nodes' core can answer
CALLERS: Final = 32
PER_MINUTE: Final = 6_000
CAPACITY: Final = 100
QUOTA: Final = Rate(CAPACITY, PER_MINUTE / 60)
REFUSED_PAUSE_S: Final = 0.005  # or the second core would be all refusals
_QUOTA_KEY: Final = "quota"


@dataclass
class Sharing(Limited):
    """A node that shares a store with others; a second key has a quota that callers exceed."""

    store: str = ""
    nodes: int = 1
    quota_secret: str = field(default_factory=lambda: f"gw-{secrets.token_urlsafe(32)}")

    def config(self, place: Place, port: int, secret: str) -> dict[str, object]:
        """As the limited one's, and what a fleet agrees on."""
        config = super().config(place, port, secret)
        own = config["keys"] if isinstance(config["keys"], list) else []
        key = {"id": _QUOTA_KEY, "secret": self.quota_secret, "org": "bench", "models": ["*"]}
        rate = {"per": ["key"], "requests": PER_MINUTE, "every": "minute", "capacity": CAPACITY}
        only = {"match": {"key": _QUOTA_KEY}, "on_store_failure": "closed"}  # a store that is late admits nobody
        limits = {"store": self.store, "nodes": self.nodes, "rules": [{"name": _QUOTA_KEY, **rate, **only}]}
        provider = {"bench": {"allow_plain_http": True}}
        return overlaid(config, {"keys": [*own, key], "limits": limits, "providers": provider})


class _Share:
    """One node's part of the load, brought by a generator of its own, on a thread."""

    def __init__(self, stand: Stand, node: Running, number: int, words: Sequence[str]) -> None:
        self._stand, self._node, self._words = stand, node, words
        self._folder = stand.folder / f"share-{number}"
        self._folder.mkdir(exist_ok=True)
        self._load: LoadResult | None = None
        self._failure: CannotRun | None = None
        self.thread = threading.Thread(target=self._run, name=f"bench share {number}")

    def _run(self) -> None:
        work = workload.plain()
        try:
            self._load = native.load(
                self._node.port,
                [*self._words, "--connections", str(CONNECTIONS), *work.checks],
                body=work.write(self._folder),
                headers=self._node.headers,
                core=CLIENT_CORE,
                length_s=self._stand.settings.measurement_s(),
                address=self._node.address,
            )
        except CannotRun as problem:
            self._failure = problem

    def load(self) -> LoadResult:
        """What its callers saw, once it is over."""
        self.thread.join()
        if self._failure is not None or self._load is None:
            raise CannotRun(f"a node's load failed: {self._failure}")
        require_right("nodes", self._load)
        return self._load


def nodes(stand: Stand) -> Iterator[Point]:
    """One to three. Where there can be no namespaces, that is said instead."""
    with ExitStack() as stack:
        try:
            launch.ensure("redis-server:redis-server", "ip:iproute2")
            net = stack.enter_context(network(1 + max(NODES), stand.folder))
        except CannotRun as problem:
            stand.remark(f"nodes were not measured: {problem}")
            return
        log = stand.folder / "upstream-nodes.log"
        upstream = stack.enter_context(native.upstream(CLIENT_CORE, log, net.here.address))
        for number in NODES:
            with ExitStack() as fleet:
                store = fleet.enter_context(redis_server(CLIENT_CORE, net.hosts[0]))
                target = Sharing(store=store.url, nodes=number)
                places = _places(stand, net, number, upstream)
                running = [fleet.enter_context(target.running(place)) for place in places]
                measure = partial(_point, stand, running, store)
                length_s = 2 * stand.settings.measurement_s()
                for _ in range(stand.settings.repeats):
                    yield stand.again.undisturbed("nodes", f"nodes: {number}", measure, length_s)
                _judge_quota(stand, running, target.quota_secret)


def _places(stand: Stand, net: Network, number: int, upstream: int) -> list[Place]:
    """A host for each node; the first host is the store's."""
    base = replace(stand.place("nodes"), upstream_port=upstream, upstream_address=net.here.address)
    hosts = net.hosts[1 : number + 1]
    return [replace(base, folder=stand.folder / f"nodes-{number}-{n}", host=host) for n, host in enumerate(hosts)]


def _point(stand: Stand, running: Sequence[Running], store: RedisServer) -> Point:
    """One repeat, and what others took meanwhile."""
    watch = stand.again.watch()
    watch.look()
    figures = _figures(stand, running, store)
    watch.look()
    return Point("nodes", str(len(running)), figures, watch.found())


def _figures(stand: Stand, running: Sequence[Running], store: RedisServer) -> Mapping[str, float]:
    """Cost by a number of requests, so that the store's calls are known to belong to them; latency by a rate."""
    each = round(REQUESTS_A_SECOND * stand.settings.seconds / len(running))
    calls, of_store, of_nodes = store.calls(), Reading.of(store.pid), [node.reading() for node in running]
    loads = _brought(stand, running, "as fast as they go", "--requests", str(each))
    nodes_us = sum(_spent_us(before, node.reading()) for before, node in zip(of_nodes, running, strict=True))
    store_us, called = _spent_us(of_store, Reading.of(store.pid)), store.calls() - calls
    timed = _brought(stand, running, f"{RATE_DUE:,.0f}/s", *_timed(stand, RATE_DUE / len(running)))
    answered = sum(load.ok for load in loads)
    rps = answered / max(load.seconds for load in loads)
    return {
        COST: nodes_us / answered,
        RATE: rps,
        f"{RATE} of a node": rps / len(running),
        "calls of the store a request": called / answered,
        "µs CPU of the store a request": store_us / answered,
        f"{P99} at {RATE_DUE:,.0f}/s": max(load.latency.quantile_us(0.99) for load in timed) / 1e3,
    }


def _timed(stand: Stand, rate: float) -> list[str]:
    settings = stand.settings
    return ["--rate", f"{rate:.0f}", "--seconds", str(settings.seconds), "--warmup", str(settings.warmup)]


def _spent_us(before: Reading, after: Reading) -> int:
    return sum(after.cpu_us_since(before).values())


def _brought(stand: Stand, running: Sequence[Running], what: str, *words: str) -> list[LoadResult]:
    """A load on every node at once, to its end."""
    stand.progress.step(f"nodes: {len(running)}, {what}", stand.settings.measurement_s())
    shares = [_Share(stand, node, number, words) for number, node in enumerate(running)]
    for share in shares:
        share.thread.start()
    return [share.load() for share in shares]


def quota_s(stand_seconds: float) -> float:
    """How long a quota is asked for, calm end included."""
    return stand_seconds + callers.CALM_S


def _judge_quota(stand: Stand, running: Sequence[Running], secret: str) -> None:
    """Whether all nodes together admitted what the limit allows, by both of its bounds."""
    seconds = stand.settings.seconds
    stand.progress.step(f"nodes: {len(running)}, at a quota", quota_s(seconds))
    body = json.loads(workload.streamed(0).body())
    request = callers.request(secret, json.dumps(body | {"max_tokens": 100}).encode())
    addresses = {node.port: node.address for node in running}
    with hammering(Load([*addresses], request, CALLERS, REFUSED_PAUSE_S, addresses), seconds) as hammer:
        pass
    seen = hammer.seen
    admitted = evidence.requests_within(seen, QUOTA)[:2]  # how far apart the two lie says how busy the machine was
    found = [evidence.answers_right(seen), *evidence.undisturbed(seen), *admitted]
    name = f"{len(running)} node{'s' if len(running) > 1 else ''}"
    stand.findings.extend(replace(finding, what=f"{name}: {finding.what}") for finding in found)
