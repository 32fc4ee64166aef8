"""From facts to counts: the one place that turns an ended exchange and a worker's gauges into metrics.

Models two calls. `exchange` is handed to the pipeline as a callable and counts one Record; `tick` is called each
second by the worker's loop with the plain integers its stages keep. So no stage knows telemetry.

Invariants: labels are the names the config knows (`Names`); anything else counts as `unknown`, so a caller cannot
make series. Handles are found once per combination of labels and kept; the caches are bounded, because an attempt
at a wildcard target may carry a name the caller chose. A config may have a limit for each of thousands of keys:
`rule_names` picks those that have series of their own. `exchange` never raises over a record, and costs about 1 us.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from gateway.config.limitcheck import RESERVED_NAMES
from gateway.record import Attempt, Ending, Record
from gateway.telemetry import families
from gateway.telemetry.directory import Family
from gateway.telemetry.metrics import Counter, Gauge, Metrics

_K = TypeVar("_K")
_V = TypeVar("_V")

MAX_CACHED: Final = 4096
MAX_RULES: Final = 256  # with series of their own: a config may have thousands, a process has room for 3,600 series
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")


class Names(msgspec.Struct, frozen=True):
    """The names a config declares, which alone may become labels.

    `targets` are provider/model as configured; `rules` are what `rule_names` picks.
    """

    routes: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()
    targets: frozenset[str] = frozenset()
    surfaces: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()

    def target(self, name: str) -> str:
        """The label for a target: its own name, its provider's wildcard, or `unknown`."""
        if name in self.targets:
            return name
        wildcard = name.partition("/")[0] + "/*"
        return wildcard if wildcard in self.targets else families.UNKNOWN


def rule_names(rules: Iterable[str]) -> frozenset[str]:
    """The rules that may become labels: those of the short forms, and the first MAX_RULES of these."""
    return RESERVED_NAMES.union(islice(rules, MAX_RULES))


class Journaled(msgspec.Struct, frozen=True):
    """What a process's chain of the journal says of itself; totals are since the process began."""

    lines: int = 0
    written_bytes: int = 0
    lost: int = 0
    failures: int = 0
    failing: bool = False
    sync_thread: bool = False


class StoreNumbers(Protocol):
    """What a store of limits counts of its calls and connections; totals."""

    answered: int
    late: int
    refused: int
    unasked: int
    reloads: int
    dials: int
    lost: int


class SliceNumbers(Protocol):
    """What a worker counts of slices of limits; totals."""

    admitted: int
    dry: int
    exchanges: int


class Limited(msgspec.Struct, frozen=True):
    """What a worker's limiter says of itself; totals are since the worker's start, by the name of the rule."""

    refused: Mapping[str, int] = {}
    shadowed: Mapping[str, int] = {}
    degraded: int = 0
    unavailable: int = 0
    undelivered: int = 0
    open: int = 0  # holds at this moment
    owed: int = 0  # settlements at this moment
    store: StoreNumbers | None = None  # None: usage is counted in shared memory
    store_up: bool = True
    store_outages: int = 0
    slices: SliceNumbers | None = None  # None: none are leased


class Gauges(msgspec.Struct, frozen=True):
    """What a worker's stages say of themselves each second; totals are since the worker's start."""

    open_streams: int = 0
    connections: int = 0
    upstream: Mapping[str, tuple[int, int]] = {}  # provider -> connections busy, idle
    log_lines_dropped: int = 0
    journal: Journaled = Journaled()
    limits: Limited | None = None


class JournalCounts:
    """Shows what a process's chain says of itself; workers and control have one each."""

    def __init__(self, metrics: Metrics, slot: int) -> None:
        self._failing = metrics.gauge(families.JOURNAL_FAILING, slot=str(slot))
        self._sync_thread = metrics.gauge(families.JOURNAL_SYNC_THREAD, slot=str(slot))
        self._lines = metrics.counter(families.JOURNAL_LINES)
        self._bytes = metrics.counter(families.JOURNAL_BYTES)
        self._lost = metrics.counter(families.JOURNAL_LOST)
        self._failures = metrics.counter(families.JOURNAL_FAILURES)
        self._seen = Journaled()

    def show(self, now: Journaled) -> None:
        """Count what was added since the last time."""
        seen, self._seen = self._seen, now
        self._failing.set(int(now.failing))
        self._sync_thread.set(int(now.sync_thread))
        self._lines.add(now.lines - seen.lines)
        self._bytes.add(now.written_bytes - seen.written_bytes)
        self._lost.add(now.lost - seen.lost)
        self._failures.add(now.failures - seen.failures)


class RuleCounts:
    """Shows one family of totals by rule. A rule that is not in `rules` counts as `unknown`, unless it once was."""

    def __init__(self, metrics: Metrics, family: Family) -> None:
        self._metrics = metrics
        self._family = family
        self._counters: dict[str, Counter] = {}
        self._seen: dict[str, int] = {}

    def show(self, totals: Mapping[str, int], rules: frozenset[str]) -> None:
        """Count what was added since the last time."""
        for rule, total in totals.items():
            added = total - self._seen.get(rule, 0)
            if added:
                self._seen[rule] = total
                self._counter(rule, rules).add(added)

    def _counter(self, rule: str, rules: frozenset[str]) -> Counter:
        counter = self._counters.get(rule)
        if counter is None:
            if rule not in rules:
                return self._metrics.counter(self._family, rule=families.UNKNOWN)
            counter = self._counters[rule] = self._metrics.counter(self._family, rule=rule)
        return counter


class LimitCounts:
    """Shows what a worker's limiter says of itself. Until it says so, its store is not said to be away."""

    def __init__(self, metrics: Metrics, slot: int) -> None:
        self._metrics = metrics
        self._refused = RuleCounts(metrics, families.LIMIT_REFUSALS)
        self._shadowed = RuleCounts(metrics, families.LIMIT_SHADOWED)
        self._degraded = metrics.counter(families.LIMITS_DEGRADED)
        self._unavailable = metrics.counter(families.LIMITS_UNAVAILABLE)
        self._undelivered = metrics.counter(families.LIMITS_UNDELIVERED)
        self._holds = metrics.gauge(families.LIMIT_HOLDS)
        self._owed = metrics.gauge(families.LIMIT_OWED)
        self._up = metrics.gauge(families.LIMIT_STORE_UP, slot=str(slot))
        self._up.set(1)
        self._seen = Limited()
        self._store: _StoreCounts | None = None
        self._slices: _SliceCounts | None = None

    def show(self, now: Limited, rules: frozenset[str]) -> None:
        """Count what was added since the last time; `rules` may become labels."""
        seen, self._seen = self._seen, now
        self._refused.show(now.refused, rules)
        self._shadowed.show(now.shadowed, rules)
        self._degraded.add(now.degraded - seen.degraded)
        self._unavailable.add(now.unavailable - seen.unavailable)
        self._undelivered.add(now.undelivered - seen.undelivered)
        self._holds.set(now.open)
        self._owed.set(now.owed)
        self._up.set(int(now.store_up))
        if now.store is not None:
            if self._store is None:
                self._store = _StoreCounts(self._metrics)
            self._store.show(now.store, now.store_outages)
        if now.slices is not None:
            if self._slices is None:
                self._slices = _SliceCounts(self._metrics)
            self._slices.show(now.slices)


class _SliceCounts:
    """Shows what a worker counts of slices."""

    def __init__(self, metrics: Metrics) -> None:
        events = ("admitted", "dry", "exchanges")
        self._counters = [metrics.counter(families.LIMIT_SLICES, event=event) for event in events]
        self._seen = (0,) * len(events)

    def show(self, now: SliceNumbers) -> None:
        totals = (now.admitted, now.dry, now.exchanges)
        for counter, total, seen in zip(self._counters, totals, self._seen, strict=True):
            counter.add(total - seen)
        self._seen = totals


class _StoreCounts:
    """Shows what a worker's connection to a store of limits counts."""

    def __init__(self, metrics: Metrics) -> None:
        calls = [
            metrics.counter(families.LIMIT_STORE_CALLS, result=result)
            for result in ("answered", "late", "refused", "unasked")
        ]
        connections = [
            metrics.counter(families.LIMIT_STORE_RELOADS),
            metrics.counter(families.LIMIT_STORE_DIALS),
            metrics.counter(families.LIMIT_STORE_LOST),
            metrics.counter(families.LIMIT_STORE_OUTAGES),
        ]
        self._counters = (*calls, *connections)
        self._seen = (0,) * len(self._counters)

    def show(self, now: StoreNumbers, outages: int) -> None:
        totals = (now.answered, now.late, now.refused, now.unasked, now.reloads, now.dials, now.lost, outages)
        for counter, total, seen in zip(self._counters, totals, self._seen, strict=True):
            counter.add(total - seen)
        self._seen = totals


class _Kept(NamedTuple):
    """The cells one combination of route, model, surface and status counts in; a tuple, to be unpacked in one step."""

    requests: int
    request: int
    request_sum: int
    overhead: int
    overhead_sum: int
    first_token: int
    first_token_sum: int
    input_tokens: int
    output_tokens: int
    cost: int


_REQUEST_BOUNDS: Final = families.REQUEST_BOUNDS_US
_OVERHEAD_BOUNDS: Final = families.OVERHEAD_BOUNDS_US
_FIRST_TOKEN_BOUNDS: Final = families.FIRST_TOKEN_BOUNDS_US
_COMPLETE: Final = Ending.COMPLETE.value


class Recorder:
    """Counts a worker's exchanges and gauges. One a process; `names` follows the snapshot."""

    def __init__(self, metrics: Metrics, slot: int, names: Names) -> None:
        self._metrics = metrics
        self._cells = metrics.cells
        self._names = names
        self._kept: dict[tuple[str, str, str, int], _Kept] = {}
        self._attempts: dict[tuple[str, str], int] = {}
        self._endings: dict[tuple[str, str, str], Counter] = {}
        self._upstream: dict[str, tuple[Gauge, Gauge]] = {}
        self._rss = metrics.gauge(families.WORKER_RSS, slot=str(slot))
        self._open_streams = metrics.gauge(families.OPEN_STREAMS)
        self._connections = metrics.gauge(families.CONNECTIONS)
        self._lines_dropped = metrics.counter(families.LOG_LINES_DROPPED)
        self._lines_dropped_seen = 0
        self._journal = JournalCounts(metrics, slot)
        self._limits = LimitCounts(metrics, slot)

    def renamed(self, names: Names) -> None:
        """Follow a new snapshot: labels come from its names from now on."""
        self._names = names
        for cache in (self._kept, self._attempts, self._endings):
            cache.clear()

    def exchange(self, record: Record, route: str, model: str) -> None:
        """Count one ended exchange. `model` is the entry of the config that answered, a pattern perhaps."""
        cells = self._cells
        kept = self._kept.get((route, model, record.surface, record.status))
        if kept is None:
            kept = self._keep(route, model, record.surface, record.status)
        requests, request, request_sum, overhead, overhead_sum, first, first_sum, tokens_in, tokens_out, cost = kept
        cells[requests] += 1
        us = record.duration_us
        cells[request + bisect_left(_REQUEST_BOUNDS, us)] += 1
        cells[request_sum] += us
        us = record.overhead_us
        cells[overhead + bisect_left(_OVERHEAD_BOUNDS, us)] += 1
        cells[overhead_sum] += us
        us = record.first_content_us
        if us >= 0:
            cells[first + bisect_left(_FIRST_TOKEN_BOUNDS, us)] += 1
            cells[first_sum] += us
        usage = record.usage
        if usage is not None:
            cells[tokens_in] += usage.input_tokens
            cells[tokens_out] += usage.output_tokens
        if record.cost_microusd > 0:
            cells[cost] += record.cost_microusd
        for attempt in record.attempts:
            cell = self._attempts.get((attempt.target, attempt.cause))
            cells[self._keep_attempt(attempt) if cell is None else cell] += 1
        if record.ending != _COMPLETE:
            self._count_ending(record, model)

    def tick(self, gauges: Gauges) -> None:
        """Show the worker's gauges, and its resident memory."""
        self._open_streams.set(gauges.open_streams)
        self._connections.set(gauges.connections)
        self._rss.set(resident_bytes())
        self._lines_dropped.add(gauges.log_lines_dropped - self._lines_dropped_seen)
        self._lines_dropped_seen = gauges.log_lines_dropped
        self._journal.show(gauges.journal)
        if gauges.limits is not None:
            self._limits.show(gauges.limits, self._names.rules)
        for provider, (busy, idle) in gauges.upstream.items():
            self._upstream_gauges(provider, busy, idle)
        for provider in self._upstream.keys() - gauges.upstream.keys():
            self._upstream_gauges(provider, 0, 0)

    def _keep(self, route: str, model: str, surface: str, status: int) -> _Kept:
        names, metrics = self._names, self._metrics
        route_label = route if route in names.routes else families.UNKNOWN
        model_label = self._model_label(model)
        surface_label = surface if surface in names.surfaces else families.UNKNOWN
        request = metrics.histogram(families.REQUEST_SECONDS, model=model_label)
        overhead = metrics.histogram(families.OVERHEAD, route=route_label)
        first_token = metrics.histogram(families.FIRST_TOKEN, model=model_label)
        kept = _Kept(
            requests=metrics.counter(
                families.REQUESTS, route=route_label, model=model_label, surface=surface_label, code=str(status)
            ).cell,
            request=request.cell,
            request_sum=request.sum_cell,
            overhead=overhead.cell,
            overhead_sum=overhead.sum_cell,
            first_token=first_token.cell,
            first_token_sum=first_token.sum_cell,
            input_tokens=metrics.counter(families.TOKENS, model=model_label, direction="input").cell,
            output_tokens=metrics.counter(families.TOKENS, model=model_label, direction="output").cell,
            cost=metrics.counter(families.COST, model=model_label).cell,
        )
        _bounded(self._kept)[route, model, surface, status] = kept
        return kept

    def _keep_attempt(self, attempt: Attempt) -> int:
        target = self._names.target(attempt.target)
        cell = self._metrics.counter(families.ATTEMPTS, target=target, cause=attempt.cause).cell
        _bounded(self._attempts)[attempt.target, attempt.cause] = cell
        return cell

    def _count_ending(self, record: Record, model: str) -> None:
        key = (record.ending, model, record.error)
        counter = self._endings.get(key)
        if counter is None:
            counter = self._ending_counter(record, model)
            if counter is None:
                return
            _bounded(self._endings)[key] = counter
        counter.add()

    def _ending_counter(self, record: Record, model: str) -> Counter | None:
        if record.ending == Ending.TRUNCATED.value:
            return self._metrics.counter(families.TRUNCATED, model=self._model_label(model))
        if record.ending == Ending.ABANDONED.value:
            return self._metrics.counter(families.ABANDONED, model=self._model_label(model))
        if record.ending == Ending.REFUSED.value:
            return self._metrics.counter(families.REFUSALS, reason=record.error or families.UNKNOWN)
        return None  # a failed exchange shows in its attempts and its status

    def _model_label(self, model: str) -> str:
        return model if model in self._names.models else families.UNKNOWN

    def _upstream_gauges(self, provider: str, busy: int, idle: int) -> None:
        pair = self._upstream.get(provider)
        if pair is None:
            pair = (
                self._metrics.gauge(families.UPSTREAM_CONNECTIONS, provider=provider, state="busy"),
                self._metrics.gauge(families.UPSTREAM_CONNECTIONS, provider=provider, state="idle"),
            )
            self._upstream[provider] = pair
        pair[0].set(busy)
        pair[1].set(idle)


def resident_bytes() -> int:
    """Resident memory of this process."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE_BYTES


def _bounded(cache: dict[_K, _V]) -> dict[_K, _V]:
    if len(cache) >= MAX_CACHED:
        cache.clear()
    return cache
