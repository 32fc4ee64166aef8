"""A node as far as limits go: its journal, control's part in them, and an engine, through several lives."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from gateway.control.limits_keeper import LimitsKeeper
from gateway.control.readers.budgets import BudgetReader
from gateway.control.readers.runner import Runner, Source
from gateway.limiter.engine import Amount
from gateway.limiter.spec import Spec
from gateway.record import Kind, Record
from tests.fakes.forgetful_engine import ForgetfulEngine
from tests.fakes.limit_records import BUDGET, NOON_MS, decision, outcome
from tests.fakes.written_journal import WrittenJournal

Bucket = tuple[str, Spec]
USD: Bucket = ("budget|org=a", BUDGET)
SECOND_US = 1_000_000


class LimitsNode:
    """A node's state directory through several lives of its processes, and an engine."""

    def __init__(self, state_dir: Path, *, marked: bool = False, chains: Sequence[str] = ("w0",)) -> None:
        self.chains = chains
        self.now_us = NOON_MS * 1000
        self.journal = WrittenJournal(state_dir)
        self.engine = ForgetfulEngine(NOON_MS, marked=marked)
        self.live()

    def live(self) -> None:
        """All processes begin: a worker with a segment of its own, and control."""
        self.pass_us(SECOND_US)
        self.began_us = self.now_us
        for name in self.chains:
            self.journal.chain(name).segment(self.now_us)
        self.start_control()

    def start_control(self) -> None:
        journal = self.journal
        self.reader = BudgetReader(journal.state_dir, journal.path, journal.node, lambda: self.now_us)
        source = Source(journal.path, journal.node, journal.signed, journal.heads)
        self.runner = Runner(self.reader, source, journal.state_dir)
        memory = self.engine.memory
        self.keeper = LimitsKeeper(self.reader, memory, journal.node, self.began_us, lambda: self.now_us)

    def worker_dies(self, chain: str = "w0") -> None:
        """Another takes its chain over, in the segment that is there."""
        self.write(Record(Kind.CHECKPOINT, "", self.now_us, action="began"), chain=chain)

    def pass_us(self, us: int) -> None:
        self.now_us += us
        self.engine.now_ms = self.now_us // 1000

    def reserves(self, hold: str, amount: int, bucket: Bucket = USD, chain: str = "w0") -> None:
        self.engine.reserve(hold, [Amount(*bucket, amount)])
        self.write(decision(hold, self.now_us // 1000, {bucket: amount}), chain=chain)

    def settles(self, hold: str, amount: int, bucket: Bucket = USD, chain: str = "w0") -> None:
        self.engine.settle(hold, (Amount(*bucket, amount),))
        self.write(outcome(hold, self.now_us // 1000, {bucket: amount}), chain=chain)

    def write(self, *records: Record, chain: str = "w0") -> None:
        self.journal.chain(chain).add(*records)

    @property
    def used(self) -> int:
        return self.engine.used(*USD)


def run(node: LimitsNode, *, turns: int = 1) -> None:
    """Control begins where it has not, follows the journal and looks around."""

    async def all_of_it() -> None:
        if not node.keeper.ready:
            await node.keeper.begin()
        for _ in range(turns):
            node.runner.step()
            await node.keeper.turn()

    asyncio.run(all_of_it())
