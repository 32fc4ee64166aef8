"""One limit table under many processes, some of which are killed: no bound is broken and nothing leaks.

Real processes, clocks and SIGKILLs at moments nobody chose. Each process counts for itself what it was admitted and
what it settled; the two can differ from the table by one operation for each kill.
"""

import mmap
import os
import random
import signal
import time

import pytest

from gateway.limiter.check import problems
from gateway.limiter.engine import Amount, Outcome
from gateway.limiter.layout import Counter, Layout
from gateway.limiter.mutex import MutexBusy
from gateway.limiter.quick import QuickTable
from gateway.limiter.rows import OnFull
from gateway.limiter.spec import rate, slots, window
from gateway.limiter.sweep import lapsed, owner_of, sweep
from gateway.limiter.table import Table
from tests.fakes.limit_table import memory

WORKERS = 4
SECONDS = 3.0
KILL_EVERY_S = 0.03
KILLS = 5  # at least, however slowly processes come back on a busy machine
LEASE_MS = 3_600_000  # nothing lapses but by the sweep
RESERVED, USED = 5, 3
CAPACITY, PER_S = 500, 1_000
RPS = rate(CAPACITY * 1_000, PER_S * 1_000, 1_000)
USD = window(10**12, 1, 2**47)
FLIGHTS = slots(2)
TAKES = [Amount("rps", RPS, 1_000), Amount("usd", USD, RESERVED), Amount("flights", FLIGHTS, 1)]
ACTUALS = [Amount("rps", RPS, 1_000), Amount("usd", USD, USED), Amount("flights", FLIGHTS, 0)]

pytestmark = pytest.mark.slow


class Crew:
    """Processes that reserve and settle as fast as they can, and what they have done."""

    def __init__(self) -> None:
        self.words = memory(Layout(rows=32, holds=512))
        self.table = self._table()
        self.done = memoryview(mmap.mmap(-1, 4096)).cast("q")  # two words for each slot: admitted, settled
        self.pids: dict[int, int] = {}
        self.births = dict.fromkeys(range(WORKERS), 0)
        self.kills = 0

    def _table(self) -> Table:
        return QuickTable(self.words, max_end_users=1, on_full=OnFull.OTHER)

    def begin(self, slot: int) -> None:
        self.births[slot] += 1
        pid = os.fork()
        if not pid:
            self._work(slot, self.births[slot])
        self.pids[slot] = pid

    def _work(self, slot: int, birth: int) -> None:
        table, number = self._table(), 0
        while True:
            number += 1
            hold = f"{slot}-{birth}-{number}"
            try:
                admitted = table.reserve(hold, TAKES, owner=owner_of(slot, birth), lease_ms=LEASE_MS)
                if admitted.outcome is Outcome.ADMITTED:
                    self.done[2 * slot] += 1
                    table.settle(hold, ACTUALS)
                    self.done[2 * slot + 1] += 1
            except MutexBusy:  # two processes are checking after two deaths
                number -= 1
            except BaseException:  # noqa: BLE001 - seen by the parent: a worker that ends by itself
                os._exit(1)

    def kill(self, slot: int) -> None:
        pid = self.pids.pop(slot)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the worker ended by itself"
        self.kills += 1

    def sweep(self) -> None:
        dead = {owner_of(slot, birth) for slot, birth in self.births.items() if slot not in self.pids}
        while not sweep(self.table, dead.__contains__).complete:
            time.sleep(0.001)

    @property
    def admitted(self) -> int:
        return sum(self.done[0 : 2 * WORKERS : 2])

    @property
    def settled(self) -> int:
        return sum(self.done[1 : 2 * WORKERS : 2])


def test_bounds_hold_and_nothing_leaks_whoever_is_killed() -> None:
    crew, chance = Crew(), random.Random(1)
    began = time.monotonic()
    for slot in range(WORKERS):
        crew.begin(slot)
    while time.monotonic() - began < SECONDS or crew.kills < KILLS:
        time.sleep(KILL_EVERY_S)
        slot = chance.randrange(WORKERS)
        crew.kill(slot)
        crew.sweep()
        crew.begin(slot)
    for slot in list(crew.pids):
        crew.kill(slot)
    most = CAPACITY + PER_S * (time.monotonic() - began) + 1
    crew.sweep()

    assert problems(crew.table.rows, crew.table.holds) == []
    rps, usd, flights = crew.table.peek([Amount(take.bucket, take.spec, 0) for take in TAKES])
    assert flights.level == FLIGHTS.limit, "every slot of the dead is free"
    assert crew.admitted <= most + crew.kills
    assert crew.admitted >= PER_S * SECONDS / 2, "they were held up by the limit, not by each other"
    unsettled = len(lapsed(crew.table))
    assert unsettled <= crew.kills
    beyond = USD.limit - usd.level - USED * crew.settled - RESERVED * unsettled
    assert beyond in range(0, USED * crew.kills + 1, USED), "settled, and killed before it could say so"
    assert rps.level <= RPS.limit
    assert crew.table.count(Counter.SWEPT) == unsettled
