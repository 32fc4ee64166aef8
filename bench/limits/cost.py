"""CPU of a worker's thread for one request's reserve and settle, for 0 to 8 limits, in shared memory and by a store.

Both are called as the pipeline calls them: `Limiter.reserve` awaited, `Hold.settle` with another use than was reserved.
A thousand keys take turns, each with buckets of its own; holds have ids as exchanges have. The table is the worker's
own (`QuickTable`, robust mutex and undo record included), the store a redis-server on the other core, asked by 64
requests of one loop turn at a time, which leave as one pipeline. For the table there is also one key alone, whose rows
and objects stay in the processor's caches, and of that key the two operations of the table by themselves.

Taken off is what the loop around costs: the same calls of a coroutine that does nothing, the same tasks waking up from
a future that the loop itself resolves. What the server spends is read from /proc. Nothing is told of waiting: that is
the proof's and `bench.speed`'s.
"""

import asyncio
import mmap
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Final

import uvloop

from bench.limits.redis import RedisServer, redis_server
from bench.speed import procfs
from bench.speed.launch import CannotRun
from bench.speed.verdict import Range
from gateway.config import limits as config
from gateway.config.limits import Allowance, Rule
from gateway.limiter import address
from gateway.limiter.layout import Layout
from gateway.limiter.limiter import LEASE_MS, Engines, Limiter
from gateway.limiter.quick import QuickTable
from gateway.limiter.reservation import Origin
from gateway.limiter.rows import OnFull
from gateway.limiter.rules import Limits, Rules, Subject
from gateway.limiter.store import Store
from gateway.limiter.table import Table, TableEngine
from gateway.limiter.use import Estimate, use
from gateway.segment import WORD
from gateway.units import NS_PER_MS

KEYS: Final = 1_000
TABLE: Final = "shared memory"
ONE_KEY: Final = "shared memory, one key"
ALONE: Final = "its operations alone"
STORE: Final = "store"
LIMITS: Final = (0, 1, 2, 3, 4, 6, 8)
IN_FLIGHT: Final = 64
GOAL_LIMITS: Final = 4
GOAL_US: Final = 8.0
HOLDS: Final = 50_000
STORE_PATIENCE_S: Final = 10.0
SETTLE_PATIENCE_S: Final = 0.2
ESTIMATE: Final = Estimate(use(250, 1024, 12_000), use(250, 0, 800))
USED: Final = use(240, 310, 3_900)
_AMPLE: Final = 10**9
_OWN: Final = Allowance(rpm=_AMPLE, tpm=_AMPLE, max_in_flight=1_000_000, usd_per_month=1_000_000)
_SHORT: Final = ("rpm", "tpm", "max_in_flight", "usd_per_month")
_MORE: Final = (
    Rule(name="team-requests", per=("team",), requests=_AMPLE, every="minute"),
    Rule(name="team-tokens", per=("team", "model"), tokens=_AMPLE, every="minute"),
    Rule(name="org-in-flight", per=("org",), in_flight=1_000_000),
    Rule(name="org-budget", per=("org",), usd=1_000_000, every="month"),
)


@dataclass
class Figure:
    """One kind of request by one engine: µs of the worker's thread each, a repeat at a time."""

    engine: str
    limits: int
    worker_us: list[float] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)

    @property
    def worker(self) -> Range:
        """Median, least and greatest of the repeats."""
        return Range.of(self.worker_us) or Range(0, 0, 0)

    def summary(self) -> dict[str, object]:
        """For cost.json."""
        return {**asdict(self), "worker_us_median": self.worker.median}


def limits_of(number: int) -> list[Limits | None]:
    """What a request of each key meets: the first `number` of the key's four short forms and four shared rules."""
    own = Allowance(**{name: getattr(_OWN, name) for name in _SHORT[:number]})
    rules = Rules(config.Limits(rules=_MORE[: max(0, number - len(_SHORT))]), name_key=b"")
    return [
        rules.limits(
            Subject(
                f"key-{key:04d}",
                org=f"org-{key % 20}",
                team=f"team-{key % 100}",
                model="gpt-4o",
                entry="gpt-4o",
                route="default",
                allowance=own if number else None,
            )
        )
        for key in range(KEYS)
    ]


def _ids() -> Iterator[str]:
    """Ids like those of exchanges: 32 characters."""
    return (f"req_{number:028x}" for number in count(time.time_ns()))


async def _request(limiter: Limiter, limits: Limits | None, hold_id: str) -> None:
    if limits is None:
        return
    hold = await limiter.reserve(limits, hold_id, ESTIMATE)
    hold.settle(USED)


async def _nothing(_limiter: Limiter, _limits: Limits | None, _hold_id: str) -> None:
    return


# ---- in shared memory


def table() -> Table:
    """An empty table of a worker's usual size, in memory of its own."""
    layout = Layout(rows=32_768, holds=HOLDS)
    words = memoryview(mmap.mmap(-1, layout.words * WORD)).cast("q")
    Table.initialise(words, layout)
    return QuickTable(words, max_end_users=10_000, on_full=OnFull.OTHER)


async def _one_after_the_other(
    work: Callable[[Limiter, Limits | None, str], Awaitable[None]],
    limiter: Limiter,
    limits: Sequence[Limits | None],
    ids: Sequence[str],
) -> float:
    """CPU seconds of this thread for a request with each id, the keys in turn."""
    number, keys, before = 0, len(limits), time.thread_time()
    for hold_id in ids:
        await work(limiter, limits[number], hold_id)
        number = number + 1 if number + 1 < keys else 0
    return time.thread_time() - before


def _operations(words: Table, limits: Limits, ids: Sequence[str]) -> float:
    """CPU seconds of this thread for RESERVE and SETTLE alone, with each id."""
    lines = limits.lines(time.time_ns() // NS_PER_MS)
    takes, actuals = lines.takes(ESTIMATE), lines.actuals(USED, USED)
    before = time.thread_time()
    for hold_id in ids:
        words.reserve(hold_id, takes, owner=1, lease_ms=LEASE_MS)
        words.settle(hold_id, actuals)
    return time.thread_time() - before


def _no_operations(ids: Sequence[str]) -> float:
    before = time.thread_time()
    for _ in ids:
        pass
    return time.thread_time() - before


class InMemory:
    """A worker's limiter over a table, and the three ways to look at it."""

    def __init__(self) -> None:
        self._table = table()
        self._limiter = Limiter(Engines(TableEngine(self._table)), owner=1)
        self._subjects = {number: limits_of(number) for number in LIMITS}
        self._ids = _ids()

    async def figures(self, requests: int, repeats: int, tell: Callable[[str], None]) -> list[Figure]:
        """Each repeat visits all of them."""
        figures = [Figure(engine, number) for engine in (TABLE, ONE_KEY) for number in LIMITS]
        alone = [Figure(ALONE, number) for number in LIMITS if number]
        for repeat in range(repeats):
            tell(f"shared memory, repeat {repeat + 1} of {repeats}")
            off_s = await _one_after_the_other(_nothing, self._limiter, self._subjects[0], self._some(requests))
            for figure in figures:
                await asyncio.sleep(0)  # nothing below gives the loop a turn, and Ctrl-C comes with one
                spent_s = await self._through_the_limiter(figure, requests)
                figure.worker_us.append((spent_s - off_s) / requests * 1e6)
            off_s = _no_operations(self._some(requests))
            for figure in alone:
                figure.worker_us.append((self._alone(figure, requests) - off_s) / requests * 1e6)
        return figures + alone

    async def _through_the_limiter(self, figure: Figure, requests: int) -> float:
        subjects = self._subjects[figure.limits][: KEYS if figure.engine == TABLE else 1]
        # Rows are made, and what a process remembers of them: each number of limits has specs of its own.
        await _one_after_the_other(_request, self._limiter, subjects, self._some(KEYS))
        return await _one_after_the_other(_request, self._limiter, subjects, self._some(requests))

    def _alone(self, figure: Figure, requests: int) -> float:
        limits = self._subjects[figure.limits][0]
        if limits is None:
            raise CannotRun(f"{figure.limits} limits came to none")
        _operations(self._table, limits, self._some(KEYS))
        return _operations(self._table, limits, self._some(requests))

    def _some(self, number: int) -> list[str]:
        return [next(self._ids) for _ in range(number)]


# ---- by a store


async def _callers(work: Callable[[int], Awaitable[None]], requests: int) -> float:
    """CPU seconds of this thread for so many requests, IN_FLIGHT at a time, each caller's next behind its last."""
    numbers = iter(range(requests))

    async def caller() -> None:
        for number in numbers:
            await work(number)

    before = time.thread_time()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return time.thread_time() - before


class Turns:
    """Futures that the loop resolves together in its next turn: what waiting for an answer costs by itself."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []

    def wait(self) -> "asyncio.Future[None]":
        """Until the next turn."""
        future: asyncio.Future[None] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._answer)
        self._waiting.append(future)
        return future

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)


async def _connected(server: RedisServer) -> Store:
    # A machine that is busy must not turn a late answer into another way through the limiter.
    store = Store(address.parse(server.url), domain="bench", deadline_s=STORE_PATIENCE_S)
    store.start()
    until = time.monotonic() + STORE_PATIENCE_S
    while not store.there:
        if time.monotonic() > until:
            raise CannotRun(f"the store cannot be reached: {store.trouble}")
        await asyncio.sleep(0.01)
    return store


async def by_store(server: RedisServer, requests: int, repeats: int, tell: Callable[[str], None]) -> list[Figure]:
    """By a store, 64 requests in flight on one connection."""
    store, turns, ids = await _connected(server), Turns(), _ids()
    limiter = Limiter(Engines(store, Origin.STORE), owner=1)
    figures = [Figure(STORE, number) for number in LIMITS if number]
    subjects = {figure.limits: limits_of(figure.limits) for figure in figures}

    async def nothing(_: int) -> None:
        await turns.wait()

    async def measured(figure: Figure, number: int) -> tuple[float, float]:
        async def ask(request: int) -> None:
            await _request(limiter, subjects[figure.limits][request % KEYS], next(ids))

        server_us = _server_cpu_us(server)
        spent_s = await _callers(ask, number)
        await asyncio.sleep(SETTLE_PATIENCE_S)  # the last settlements are on their way
        return spent_s, _server_cpu_us(server) - server_us

    for figure in figures:
        await measured(figure, 2 * KEYS)
    for repeat in range(repeats):
        tell(f"store, repeat {repeat + 1} of {repeats}")
        off_s = await _callers(nothing, requests)
        for figure in figures:
            spent_s, server_us = await measured(figure, requests)
            figure.worker_us.append((spent_s - off_s) / requests * 1e6)
            figure.server_us.append(server_us / requests)
    if limiter.degraded or limiter.unavailable or limiter.undelivered:
        raise CannotRun("the store was away meanwhile: the figures are of something else")
    await store.close()
    return figures


def _server_cpu_us(server: RedisServer) -> int:
    return sum(process.cpu_us for process in procfs.Reading.of(server.pid).processes.values())


# ---- all of it, and the words


def measure(requests: int, repeats: int, tell: Callable[[str], None], *, cores: tuple[int, int]) -> list[Figure]:
    """Both engines; `cores`: this process's and the server's, which is started before this process has only its own."""
    with redis_server(cores[1]) as server, procfs.pinned(cores[0]):
        figures = uvloop.run(InMemory().figures(requests, repeats, tell))
        return figures + uvloop.run(by_store(server, requests, repeats, tell))


def of(figures: Sequence[Figure], engine: str, limits: int) -> Figure:
    """One of them."""
    return next(figure for figure in figures if (figure.engine, figure.limits) == (engine, limits))


def misses(figures: Sequence[Figure]) -> list[str]:
    """Goals that were missed, in words."""
    told = {TABLE: "in shared memory", STORE: f"by a store at {IN_FLIGHT} in flight"}
    return [
        f"{GOAL_LIMITS} limits {words}: {median:.1f} µs, at most {GOAL_US:g} were wanted"
        for engine, words in told.items()
        if (median := of(figures, engine, GOAL_LIMITS).worker.median) > GOAL_US
    ]


def markdown(figures: Sequence[Figure], conditions: dict[str, str]) -> str:
    """The report."""
    rows = [_row(figures, number) for number in LIMITS]
    missed = misses(figures)
    verdict = [f"**missed**: {words}" for words in missed] or [
        f"**met**: {GOAL_LIMITS} limits at most {GOAL_US:g} µs of the worker, either way"
    ]
    return "\n".join(
        [
            "# What limits cost a worker",
            "",
            *verdict,
            "",
            "µs of the worker's thread for reserve + settle of one request, median (least – greatest) of the repeats.",
            "",
            f"| limits | {TABLE} | {ONE_KEY} | {ALONE} | {STORE}, {IN_FLIGHT} in flight | redis-server's own |",
            "|---|---|---|---|---|---|",
            *rows,
            "",
            "The four are rpm, tpm, max_in_flight and usd_per_month of a key; further ones are shared by team and org.",
            "",
            "| condition | |",
            "|---|---|",
            *(f"| {name} | {value} |" for name, value in conditions.items()),
            "",
        ]
    )


def _row(figures: Sequence[Figure], number: int) -> str:
    cells = [_told(of(figures, engine, number).worker) for engine in (TABLE, ONE_KEY)]
    if not number:
        return f"| 0 | {' | '.join(cells)} | – | – | – |"
    cells += [_told(of(figures, engine, number).worker) for engine in (ALONE, STORE)]
    server_us = of(figures, STORE, number).server_us
    return f"| {number} | {' | '.join(cells)} | {statistics.median(server_us):.1f} |"


def _told(value: Range) -> str:
    return f"{value.median:.2f} ({value.low:.2f} – {value.high:.2f})"
