"""Three nodes, each a process of its own, on one real redis-server: what slices save it, and what they never break.

Each node has two workers on one table and real clocks; its requests last a few milliseconds, and use less or more than
they reserved. What a node was admitted and what it settled it counts in memory that outlives it.
"""

import asyncio
import mmap
import os
import random
import re
import signal
import time
from collections.abc import Iterator, Sequence

import pytest
import uvloop

from gateway.limiter.address import parse
from gateway.limiter.engine import Amount, Engine, Outcome, Unavailable
from gateway.limiter.layout import Layout
from gateway.limiter.quick import QuickTable
from gateway.limiter.rows import OnFull
from gateway.limiter.slices import SlicedEngine
from gateway.limiter.spec import Spec, rate, window
from gateway.limiter.store import Store
from tests.fakes.limit_table import memory
from tests.fakes.patience import PATIENCE_S
from tests.fakes.store_server import StoreServer, running

pytestmark = pytest.mark.slow

NODES, WORKERS, CALLERS = 3, 2, 16
PATIENT_S = 10.0
WITHIN_S = 60.0
LEASE_MS = 9_000
WORDS = 4  # of a node: requests admitted, units reserved and not settled, units settled, requests under way
ADMITTED, RESERVED, SETTLED = range(3)


class Fleet:
    """The nodes' processes, and what they have done."""

    def __init__(self, url: str, spec: Spec, *, sliced: bool, seconds: float) -> None:
        self.done = memoryview(mmap.mmap(-1, 4096)).cast("q")
        self.tables = [memory(Layout(rows=256, holds=1024)) for _ in range(NODES)]
        self._url = url
        self._takes = [Amount("tpm", spec, 0), Amount("usd", BUDGET, 0)]
        self._sliced = sliced
        self._seconds = seconds
        self.pids = [self._begin(node) for node in range(NODES)]

    def total(self, word: int) -> int:
        return sum(self.done[node * WORDS + word] for node in range(NODES))

    def kill(self, node: int) -> None:
        os.kill(self.pids[node], signal.SIGKILL)

    def at_work(self) -> float:
        """Wait until every node has settled something; when that was."""
        end_s = time.monotonic() + PATIENCE_S
        while not all(self.done[node * WORDS + SETTLED] for node in range(NODES)):
            assert time.monotonic() < end_s, "a node does nothing"
            time.sleep(0.001)
        return time.monotonic()

    def wait(self) -> list[int]:
        """The exit codes, once all have ended."""
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in self.pids]

    def _begin(self, node: int) -> int:
        pid = os.fork()
        if not pid:
            try:
                uvloop.run(asyncio.wait_for(self._node(node), WITHIN_S))
                os._exit(0)
            finally:
                os._exit(1)
        return pid

    async def _node(self, node: int) -> None:
        await asyncio.gather(*(self._worker(node, worker) for worker in range(WORKERS)))

    async def _worker(self, node: int, worker: int) -> None:
        store = Store(parse(self._url), deadline_s=PATIENT_S, node=f"n{node}")
        store.start()
        while not store.there:  # noqa: ASYNC110  # it is watched from outside
            await asyncio.sleep(0.001)
        table = QuickTable(self.tables[node], max_end_users=1, on_full=OnFull.OTHER)
        engine: Engine = store
        if self._sliced:
            sliced = SlicedEngine(store, table, f"n{node}", nodes=NODES, epoch=store.epoch)
            sliced.start()
            engine = sliced
        until_s = time.monotonic() + self._seconds
        callers = [self._caller(engine, node, f"{node}-{worker}-{number}", until_s) for number in range(CALLERS)]
        await asyncio.gather(*callers)
        await engine.close()

    async def _caller(self, engine: Engine, node: int, name: str, until_s: float) -> None:
        chance, number, done = random.Random(name), 0, self.done
        while time.monotonic() < until_s:
            number += 1
            cost = chance.randrange(1, 2_000)
            hold = f"{name}-{number}".ljust(32, "-")
            try:
                answer = await engine.reserve(hold, self._of(cost), owner=node, lease_ms=LEASE_MS)
            except Unavailable:
                continue
            if answer.outcome is not Outcome.ADMITTED:
                await asyncio.sleep(0.02)
                continue
            done[node * WORDS + ADMITTED] += 1
            done[node * WORDS + RESERVED] += cost
            await asyncio.sleep(chance.random() * 0.02)
            used = int(cost * chance.choice((0.2, 0.2, 1, 1.5)))
            engine.settle(hold, self._of(used))
            done[node * WORDS + RESERVED] -= cost
            done[node * WORDS + SETTLED] += used

    def _of(self, amount: int) -> Sequence[Amount]:
        return [Amount(take.bucket, take.spec, amount) for take in self._takes]


BEGAN_MS = time.time_ns() // 1_000_000
BUDGET = window(10**12, BEGAN_MS - 1_000, BEGAN_MS + 86_400_000)
ROOMY = rate(10**11, 1, 86_400_000)
SCARCE = rate(400_000, 400_000, 1_000)  # a third of what is wanted


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with running() as server:
        yield server


def used(server: StoreServer, bucket: str) -> int:
    """What the row of a bucket says is used."""
    kind = "w" if bucket == "usd" else "r"
    with server.connect() as connection:
        row = connection.ask("GET", f"{{gw:main}}:1:{kind}:{bucket}")
    assert isinstance(row, bytes)
    return int(row.split()[0])


def calls(server: StoreServer) -> int:
    """How many scripts the server has run."""
    with server.connect() as connection:
        told = connection.ask("INFO", "commandstats")
    assert isinstance(told, bytes)
    found = re.search(rb"cmdstat_evalsha:calls=(\d+)", told)
    return int(found[1]) if found is not None else 0


def test_the_store_is_asked_seldom_and_has_charged_what_was_settled(server: StoreServer) -> None:
    per_request = []
    for sliced in (False, True):
        before = calls(server)
        charged = used(server, "usd") if before else 0
        fleet = Fleet(server.url, ROOMY, sliced=sliced, seconds=4)
        assert fleet.wait() == [0] * NODES
        assert fleet.total(RESERVED) == 0
        assert used(server, "usd") - charged == fleet.total(SETTLED)
        per_request.append((calls(server) - before) / fleet.total(ADMITTED))
    without, with_slices = per_request
    assert without > 1.9
    assert with_slices < 0.5


def test_a_rate_holds_over_all_nodes(server: StoreServer) -> None:
    began_s = time.monotonic()
    fleet = Fleet(server.url, SCARCE, sliced=True, seconds=4)
    while time.monotonic() - began_s < 4:
        time.sleep(0.02)
        in_use = fleet.total(SETTLED) + fleet.total(RESERVED)
        allowed = SCARCE.limit + SCARCE.amount * (time.monotonic() - began_s)
        assert in_use <= allowed * 1.02 + 100_000  # what was used beyond the reservations is owed, and waited out
    assert fleet.wait() == [0] * NODES
    assert fleet.total(SETTLED) >= 0.7 * SCARCE.limit


def test_a_node_that_is_killed_leaves_at_most_its_slice_charged(server: StoreServer) -> None:
    fleet = Fleet(server.url, ROOMY, sliced=True, seconds=3)
    began_s = fleet.at_work()
    time.sleep(1.5)
    fleet.kill(0)
    took_s = time.monotonic() - began_s
    assert fleet.wait() == [-signal.SIGKILL, 0, 0]
    lost = used(server, "usd") - fleet.total(SETTLED) - fleet.total(RESERVED)
    in_a_second = fleet.done[SETTLED] / took_s  # of that node
    assert abs(lost) < 2 * in_a_second


def test_a_worker_takes_over_what_another_has_left(server: StoreServer) -> None:
    """The whole node is killed, but for its memory: the next workers find its slices, and give them back."""
    fleet = Fleet(server.url, ROOMY, sliced=True, seconds=2 * PATIENCE_S)
    fleet.at_work()
    time.sleep(1.0)
    for node in range(NODES):
        fleet.kill(node)
    assert fleet.wait() == [-signal.SIGKILL] * NODES
    uvloop.run(asyncio.wait_for(take_over(server.url, fleet), WITHIN_S))
    in_use = fleet.total(SETTLED) + fleet.total(RESERVED)
    assert abs(used(server, "usd") - in_use) <= NODES * WORKERS * CALLERS * 3_000  # one step each, of which nobody told


async def take_over(url: str, fleet: Fleet) -> None:
    before = fleet.total(SETTLED)
    assert before > 0
    for node, words in enumerate(fleet.tables):
        store = Store(parse(url), deadline_s=PATIENT_S, node=f"n{node}")
        store.start()
        while not store.there:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        table = QuickTable(words, max_end_users=1, on_full=OnFull.OTHER)
        engine = SlicedEngine(store, table, f"n{node}", nodes=NODES, epoch=store.epoch)
        await engine.keeper.tick()
        assert engine.keeper.accounts.keys() == {"tpm", "usd"}
        await engine.close()
