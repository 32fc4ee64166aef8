"""Whatever is killed whenever: before a node is ready, what is spent equals the sum of its journal.

The sum is naive: every line read from the files, and for each hold what it settled, or else what it reserved.
"""

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.journal import layout
from gateway.limiter.spec import window
from tests.fakes.limit_engines import TimedEngine
from tests.fakes.limit_model import LimitModel
from tests.fakes.limit_records import BUDGET
from tests.fakes.limit_table import TimedTable
from tests.fakes.limits_node import SECOND_US, Bucket, LimitsNode, run

HUGE = window(10**12, BUDGET.start_ms, BUDGET.end_ms)
BUCKETS: list[Bucket] = [(f"budget|org={org}", HUGE) for org in "abc"]
CHAINS = ("w0", "w1")
HISTORIES = 40
STEPS = 80


def sum_of(journal: Path) -> dict[str, int]:
    """What a journal comes to, by nobody's cleverness."""
    reserved: dict[str, dict[str, int]] = {}
    settled: dict[str, dict[str, int]] = {}
    for chain in layout.chains(journal):
        for segment in layout.segments(journal, chain):
            for line in layout.segment_path(journal, chain, segment).read_text().splitlines():
                told = json.loads(line)
                if told["kind"] == "decision":
                    reserved[told["hold_id"]] = told["hold_amounts"]
                elif told["kind"] == "outcome":
                    settled[told["hold_id"]] = told["settled_amounts"]
    sums: dict[str, int] = {}
    for amounts in (reserved | settled).values():
        for name, amount in amounts.items():
            bucket = name.rpartition("|")[0]
            sums[bucket] = sums.get(bucket, 0) + amount
    return sums


class Story:
    """A history of one node, from a seed."""

    def __init__(self, state_dir: Path, seed: int, make: Callable[[], TimedEngine], *, marked: bool) -> None:
        self.dice = random.Random(seed)
        self.node = LimitsNode(state_dir, marked=marked, chains=CHAINS)
        self.node.engine.make = make
        self.node.engine.forget()
        self.open: list[tuple[str, Bucket, str]] = []
        self.count = 0
        run(self.node)

    def step(self) -> None:
        acts = [self.reserve, self.settle, self.settle, self.look, self.kill_worker, self.kill_control, self.kill_all]
        self.dice.choices(acts, weights=[8, 4, 4, 3, 0.5, 1, 0.7])[0]()
        self.node.pass_us(self.dice.choice([0, 1_000, SECOND_US // 4]))

    def reserve(self) -> None:
        self.count += 1
        hold, bucket, chain = f"h{self.count}", self.dice.choice(BUCKETS), self.dice.choice(CHAINS)
        self.node.reserves(hold, self.dice.randrange(1_000), bucket, chain)
        self.open.append((hold, bucket, chain))

    def settle(self) -> None:
        if self.open:
            hold, bucket, chain = self.open.pop(self.dice.randrange(len(self.open)))
            self.node.settles(hold, self.dice.randrange(2_000), bucket, chain)

    def look(self) -> None:
        run(self.node)

    def kill_worker(self) -> None:
        """Its requests end with it; another takes its chain."""
        chain = self.dice.choice(CHAINS)
        self.open = [found for found in self.open if found[2] != chain]
        self.node.worker_dies(chain)

    def kill_control(self) -> None:
        """At any moment: what it has not saved is gone."""
        if self.dice.random() < 0.5:
            self.node.runner.step()
        self.node.start_control()
        if self.dice.random() < 0.5:
            run(self.node)

    def flush(self) -> None:
        """A store loses its data."""
        self.node.engine.forget()

    def kill_all(self) -> None:
        self.die()
        if self.dice.random() < 0.3:
            self.die()  # again, before anything was given back
        self.begin()

    def die(self) -> None:
        self.open.clear()
        self.node.engine.forget()
        self.node.live()
        if self.dice.random() < 0.5:  # a request comes before anything was given back
            self.reserve()

    def begin(self) -> None:
        asyncio.run(self.node.keeper.begin())

    def check(self) -> None:
        expected = sum_of(self.node.journal.path)
        assert {name: self.node.engine.used(name, spec) for name, spec in BUCKETS} == {
            name: expected.get(name, 0) for name, _ in BUCKETS
        }


@pytest.mark.parametrize("make", [LimitModel, TimedTable])
@pytest.mark.parametrize("seed", range(HISTORIES))
def test_spent_equals_the_sum_of_the_journal_before_a_node_is_ready(
    tmp_path: Path, seed: int, make: Callable[[], TimedEngine]
) -> None:
    story = Story(tmp_path, seed, make, marked=False)
    for _ in range(STEPS):
        story.step()
    story.kill_all()
    story.check()


@pytest.mark.parametrize("seed", range(HISTORIES // 2))
def test_a_store_that_lost_its_data_has_the_sum_within_two_looks(tmp_path: Path, seed: int) -> None:
    """Whoever dies: what lives settles in the end, and what a dead worker held counts as it was reserved."""
    story = Story(tmp_path, seed, LimitModel, marked=True)
    acts = [story.reserve, story.settle, story.look, story.look, story.kill_worker, story.kill_control, story.flush]
    for _ in range(STEPS):
        story.dice.choices(acts, weights=[4, 3, 3, 3, 0.7, 0.4, 0.3])[0]()
        story.node.pass_us(story.dice.choice([0, 1_000, SECOND_US]))
    story.flush()
    while story.open:
        story.settle()
        if story.dice.random() < 0.1:
            story.dice.choice([story.look, story.kill_worker])()
    run(story.node, turns=2)
    story.check()
