"""A fleet in one process: a store, and nodes whose workers lease slices of its buckets; the clock stands still."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gateway import tasks
from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Epoch, Reason, Renewal, Reserved, Settled, Slice, Standing, Unavailable
from gateway.limiter.hold import State
from gateway.limiter.layout import Layout
from gateway.limiter.slices import SlicedEngine
from gateway.limiter.spec import Spec
from tests.fakes.limit_engines import TimedEngine
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_table import Moment, memory, table

T = TypeVar("T")

START_MS = 1_793_527_200_000
LAYOUT = Layout(rows=512, holds=1024)
LEASE_MS = 9_000
OWNER = 7


class FleetStore:
    """What all nodes share: a model, or anything that does as it does. Trouble is `away`, or `lossy` for one call."""

    def __init__(self, moment: Moment, engine: TimedEngine | None = None) -> None:
        self.engine = engine or LimitModel()
        self.away = False  # it is not asked
        self.lossy = False  # it does what is asked, and the answer is lost
        self.lives = 0
        self.calls: list[str] = []
        self.closed = 0
        self._moment = moment

    def forget(self) -> None:
        """Lose all data."""
        self.engine = LimitModel()
        self.lives += 1

    def used(self, bucket: str, spec: Spec) -> int:
        (standing,) = self.engine.peek(self._moment.now_ms, [Amount(bucket, spec, 0)])
        return spec.limit - standing.level

    async def epoch(self) -> Epoch:
        if self.away:
            raise Unavailable(Reason.DOWN)
        return Epoch(f"life {self.lives}")

    def reserve(
        self,
        hold: str,
        takes: Sequence[Amount],
        *,
        owner: int,  # noqa: ARG002
        lease_ms: int,
        attempt: int = 0,
        releases: Sequence[Amount] = (),
    ) -> Awaitable[Reserved]:
        return self._do(
            "reserve",
            lambda now_ms: self.engine.reserve(
                now_ms, hold, takes, lease_ms=lease_ms, attempt=attempt, releases=releases
            ),
        )

    def settle(self, hold: str, actuals: Sequence[Amount]) -> Awaitable[Settled]:
        return self._do("settle", lambda now_ms: self.engine.settle(now_ms, hold, actuals))

    def renew(self, holds: Sequence[Renewal], *, lease_ms: int) -> Awaitable[tuple[State, ...]]:
        return self._do("renew", lambda now_ms: self.engine.renew(now_ms, holds, lease_ms=lease_ms))

    def lease(
        self, node: str, turn: int, bucket: str, spec: Spec, *, want: int, least: int, unused: int, lease_ms: int
    ) -> Awaitable[Slice]:
        return self._do(
            "lease",
            lambda now_ms: self.engine.lease(
                now_ms, node, turn, bucket, spec, want=want, least=least, unused=unused, lease_ms=lease_ms
            ),
        )

    def peek(self, asked: Sequence[Amount]) -> Awaitable[tuple[Standing, ...]]:
        return self._do("peek", lambda now_ms: self.engine.peek(now_ms, asked))

    async def close(self) -> None:
        self.closed += 1

    def _do(self, name: str, work: Callable[[int], T]) -> "asyncio.Future[T]":
        told: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self.away:
            told.set_exception(Unavailable(Reason.DOWN))
        else:
            self.calls.append(name)
            answer = work(self._moment.now_ms)
            if self.lossy:
                told.set_exception(Unavailable(Reason.LATE))
            else:
                told.set_result(answer)
        self.lossy = False
        if told.exception() is not None:
            told.exception()  # nobody has to ask for it
        return told


class Node:
    """One node: its memory, and its workers."""

    def __init__(self, fleet: "Fleet", name: str, workers: int) -> None:
        self.name = name
        self._fleet = fleet
        self.words = memory(LAYOUT)
        self.table = table(self.words, fleet.moment)
        self.workers = [self.worker() for _ in range(workers)]

    def worker(self) -> SlicedEngine:
        """Another process of this node."""
        fleet = self._fleet
        own = table(self.words, fleet.moment)
        return SlicedEngine(fleet.store, own, self.name, nodes=fleet.size, epoch=fleet.store.epoch)

    def left(self, bucket: str) -> int:
        """What is left of this node's slice of a bucket."""
        found = {
            account.name: worker.keeper.left(account)
            for worker in self.workers
            for account in worker.keeper.accounts.values()
            if account.bucket == bucket and not worker.keeper.is_void(account)
        }
        return sum(found.values())


class Fleet:
    """Some nodes on one store."""

    def __init__(self, *, nodes: int = 3, workers: int = 2, engine: TimedEngine | None = None) -> None:
        self.moment = Moment(START_MS)
        self.size = nodes
        self.store = FleetStore(self.moment, engine)
        self.nodes = [Node(self, f"n{number}", workers) for number in range(nodes)]

    @property
    def workers(self) -> list[SlicedEngine]:
        return [worker for node in self.nodes for worker in node.workers]

    async def tick(self, *workers: SlicedEngine, after_ms: int = 100) -> None:
        """Let time pass, and each of these workers (or all) look after its slices."""
        self.moment.now_ms += after_ms
        for worker in workers or self.workers:
            await worker.keeper.tick()
        await settled()

    def check(self) -> None:
        """Every table is right."""
        for node in self.nodes:
            assert problems(node.table.rows, node.table.holds) == []


async def settled() -> None:
    """Let the exchanges that are under way end."""
    while tasks.running():  # noqa: ASYNC110  # they end by themselves
        await asyncio.sleep(0)
