"""Control's part in limits as a whole: which memory, when the node is ready, and what runs while it lives."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.config.keys import KeyRecord
from gateway.config.limits import Allowance, Limits, Rule
from gateway.config.schema import Config
from gateway.config.secrets import Secret
from gateway.control import limiting as module
from gateway.control.limiting import Counted, Limiting, NodeLimits, capacities, warn_unkept
from gateway.control.readers.runner import Source
from gateway.journal import layout
from gateway.journal.opening import open_journal
from gateway.journal.read import entries
from gateway.limiter.engine import Amount
from gateway.limiter.spec import rate, window
from gateway.nodestate import Order, SlotPhase
from gateway.telemetry import families
from gateway.telemetry.directory import METRICS
from gateway.telemetry.metrics import Metrics
from tests.fakes.control_context import LIMITS, FakeContext, fake_context
from tests.fakes.limit_records import DAY_MS, outcome
from tests.fakes.limits_node import Bucket
from tests.fakes.patience import PATIENCE_S
from tests.fakes.written_journal import WrittenJournal

GONE, BACK = (False, "it went"), (True, "")  # as a store tells it
MINUTE_US = 60_000_000
SPEND = Rule(name="spend", per=("org",), usd=1, every="day")


def now_us() -> int:
    return time.time_ns() // 1_000


def budget() -> Bucket:
    now_ms = now_us() // 1_000
    return "spend|org=a", window(10_000, now_ms - DAY_MS, now_ms + DAY_MS)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[FakeContext]:
    made = fake_context(tmp_path)
    made.state.recounting = 1
    yield made
    made.close()


def config(context: FakeContext, limits: Limits = LIMITS) -> Config:
    return Config(state_dir=str(context.settings.state_dir), limits=limits)


def begins(context: FakeContext) -> NodeLimits:
    """A control process takes its slot."""
    context.state.slot(context.slot).begin(Order.SERVE, time.monotonic_ns())
    return NodeLimits(context, lambda: None)


def used(counted: Counted, bucket: Bucket) -> int:
    async def ask() -> int:
        (standing,) = await counted.engine.peek([Amount(*bucket, 0)])
        return bucket[1].limit - standing.level

    return asyncio.run(ask())


# --- which memory ---------------------------------------------------------------------------------------------------


def test_without_a_store_limits_count_in_the_memory_of_the_node(context: FakeContext) -> None:
    node, bucket = begins(context), budget()
    counted = node.open(config(context))

    async def use() -> None:
        await counted.there()
        await counted.engine.settle("h", (Amount(*bucket, 7),))
        await counted.engine.close()
        assert (await counted.memory.epoch("", 0)).fresh
        other = begins(context).open(config(context)).memory
        assert (await counted.memory.epoch("", 0)).id == (await other.epoch("", 0)).id

    asyncio.run(use())
    assert used(begins(context).open(config(context)), bucket) == 7
    assert not counted.memory.marked


def test_limits_count_where_the_node_was_started_to_count_them(context: FakeContext) -> None:
    stored = Limits(store=Secret("redis://127.0.0.1:1"), slices=True, domain="shop")

    async def use() -> None:
        for started, later in ((LIMITS, stored), (stored, LIMITS)):
            node = NodeLimits(context, lambda: None, started)
            counted = node.open(config(context, later))
            assert (counted.memory.marked, counted.memory.sliced) == (started is stored, started is stored)
            assert node.as_counted(config(context, later)).domain == started.domain
            await counted.engine.close()

    asyncio.run(use())


def test_a_store_that_cannot_be_reached_is_not_waited_for_long(
    context: FakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STORE_WAIT_S", 0.01)
    limits = Limits(store=Secret("redis://127.0.0.1:1"))

    async def wait() -> None:
        counted = begins(context).open(config(context, limits))
        await asyncio.wait_for(counted.there(), PATIENCE_S)
        assert counted.memory.marked
        await counted.engine.close()

    asyncio.run(wait())


def test_a_store_that_is_back_is_looked_at_at_once(context: FakeContext) -> None:
    limits = Limits(store=Secret("redis://127.0.0.1:1"))

    async def wait() -> None:
        counted = begins(context).open(config(context, limits))
        store, pause = counted.memories.store, counted.memory.pause
        assert store is not None
        await pause(0.01)
        store._on_change(*GONE)
        await pause(0.01)
        store._on_change(*BACK)
        await asyncio.wait_for(pause(2 * PATIENCE_S), PATIENCE_S)
        await pause(0.01)  # once
        await store.close()

    asyncio.run(wait())


def test_a_store_whose_files_are_gone_says_which(context: FakeContext) -> None:
    limits = Limits(store=Secret("rediss://:hidden@127.0.0.1:1"), ca_file="/nowhere/ca.pem")

    async def use() -> None:
        begins(context).open(config(context, limits))

    with pytest.raises(OSError, match=r"limits\.store cannot be used: ca_file /nowhere/ca\.pem") as caught:
        asyncio.run(use())
    assert "hidden" not in str(caught.value)


def test_what_workers_could_not_deliver_is_known_whoever_they_were(context: FakeContext) -> None:
    async def count() -> int:
        limits = Limits(store=Secret("redis://127.0.0.1:1"))
        return begins(context).open(config(context, limits)).memory.undelivered()

    before = asyncio.run(count())
    for slot in range(2):
        Metrics(context.segment.slot(METRICS, slot)).counter(families.LIMITS_UNDELIVERED).add(slot + 1)
    assert asyncio.run(count()) == before + 3
    context.worker(1)  # in place of one that died, perhaps before it could say
    assert asyncio.run(count()) == before + 4


def test_what_living_workers_still_owe_is_known(context: FakeContext) -> None:
    for slot in range(3):  # of two that live
        Metrics(context.segment.slot(METRICS, slot)).gauge(families.LIMIT_OWED).set(5)

    async def owed() -> int:
        return begins(context).open(config(context, Limits(store=Secret("redis://127.0.0.1:1")))).memory.owed()

    assert asyncio.run(owed()) == 10


@pytest.mark.parametrize("recounting", [0, 1])
def test_a_control_that_is_replaced_leaves_a_ready_node_ready(context: FakeContext, recounting: int) -> None:
    context.state.recounting = recounting
    assert begins(context).given_back is not bool(recounting)


def test_a_snapshot_is_adopted_when_every_worker_that_serves_has_it(context: FakeContext) -> None:
    context.state.generation = 3
    generation = [3]
    node = NodeLimits(context, lambda: None, None, lambda: generation[0])
    for slot, phase in enumerate((SlotPhase.READY, SlotPhase.DRAINING)):
        context.worker(slot, phase)
        context.state.slot(slot).generation = 2
    assert not node.adopted()
    context.state.slot(0).generation = 3  # who drains begins nothing any more
    assert node.adopted()
    generation[0] = 4  # and is about to be published
    assert not node.adopted()
    context.state.slot(0).generation = 4
    assert node.adopted()


# --- while it lives -------------------------------------------------------------------------------------------------


class Life:
    """Control's part in limits over a journal that a worker of an earlier life has left."""

    def __init__(self, context: FakeContext, journal: WrittenJournal, rules: tuple[Rule, ...] = (SPEND,)) -> None:
        self.config = config(context, replace(LIMITS, rules=rules))
        self.node = begins(context)
        self.counted = self.node.open(config(context))
        self.journal = journal
        source = Source(journal.path, journal.node, journal.signed, journal.heads)
        self.chain = open_journal(self.config, (layout.CONTROL,))
        self.limiting = Limiting(self.config, self.node, self.counted, self.chain, source)

    async def lived(self, until: Callable[[], bool]) -> None:
        self.chain.start(asyncio.get_running_loop())
        running = asyncio.create_task(self.limiting.run())
        async with asyncio.timeout(10):
            while not until():  # noqa: ASYNC110 - what is waited for happens in a thread
                await asyncio.sleep(0.005)
        self.limiting.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self.limiting.close()
        await self.chain.close()


@pytest.fixture
def journal(context: FakeContext) -> WrittenJournal:
    state_dir = context.settings.state_dir
    return WrittenJournal(state_dir, node=layout.node_id(layout.journal_of(state_dir)))


def test_what_was_used_is_counted_before_it_is_ready_and_followed_after(
    context: FakeContext, journal: WrittenJournal
) -> None:
    bucket = budget()
    earlier_us = now_us() - MINUTE_US
    chain = journal.chain("w0")
    chain.segment(earlier_us, outcome("a", earlier_us // 1_000, {bucket: 42}))
    life = Life(context, journal)
    limiting = life.limiting
    assert limiting.reason == "what was used of limits is being read from the journal"

    def told_more() -> bool:
        if limiting.keeper.ready and chain.number == 1:
            chain.segment(now_us(), outcome("b", now_us() // 1_000, {bucket: 8}))
        return chain.number == 2 and limiting.places().get("w0") == chain.end

    asyncio.run(life.lived(told_more))
    assert limiting.reason == ""
    assert [found.used for found in limiting.reader.standing().used] == [50]
    assert used(life.counted, bucket) == 42


def test_what_was_used_of_a_limit_that_is_gone_is_forgotten(context: FakeContext, journal: WrittenJournal) -> None:
    bucket = budget()
    earlier_us = now_us() - MINUTE_US
    journal.chain("w0").segment(earlier_us, outcome("a", earlier_us // 1_000, {bucket: 42}))
    life = Life(context, journal, ())
    asyncio.run(life.lived(lambda: life.limiting.forgetting.forgotten == 1))
    assert (used(life.counted, bucket), life.limiting.reader.standing().used) == (0, [])
    told = [entry.record for entry in entries(journal.path, layout.CONTROL)]
    assert [record.subject for record in told if record.action == "limit.forgotten"] == ["spend"]


@pytest.mark.parametrize("stored", [False, True])
def test_end_users_are_counted_one_by_one_as_far_as_the_table_does(
    context: FakeContext, journal: WrittenJournal, *, stored: bool
) -> None:
    earlier_us = now_us() - MINUTE_US
    people = [(f"people|key=k|end_user={number:x}", budget()[1]) for number in range(9)]
    journal.chain("w0").segment(
        earlier_us, *(outcome(name, earlier_us // 1_000, {(name, spec): 2}) for name, spec in people)
    )
    store = Secret("redis://127.0.0.1:1") if stored else None
    limits = replace(LIMITS, max_end_users=3, store=store)

    async def count() -> list[tuple[str, int]]:
        node = NodeLimits(context, lambda: None, limits)
        counted = node.open(config(context, limits))
        source = Source(journal.path, journal.node, journal.signed, journal.heads)
        chain = open_journal(config(context, limits), (layout.CONTROL,))
        limiting = Limiting(config(context, limits), node, counted, chain, source)
        limiting.reader.rebuild(node.began_us)
        await counted.engine.close()
        await chain.close()
        return [(found.bucket, found.used) for found in limiting.reader.standing().used]

    alone = [(name, 2) for name, _ in people]
    assert asyncio.run(count()) == (alone if stored else [*alone[:3], ("people|key=k|end_user=*", 12)])


def test_why_it_is_not_ready_yet(context: FakeContext, journal: WrittenJournal) -> None:
    earlier_us = now_us() - MINUTE_US
    journal.chain("w0").segment(earlier_us, outcome("a", earlier_us // 1_000, {budget(): 42}))
    life = Life(context, journal)
    life.limiting.reader.path.parent.mkdir()
    life.limiting.reader.path.mkdir()  # no file

    asyncio.run(life.lived(lambda: bool(life.limiting.keeper.failing)))
    assert life.limiting.reason.startswith("what was used of limits is being read from the journal: ")
    assert "checkpoint.json cannot be read" in life.limiting.reason


def test_a_reload_is_passed_on(context: FakeContext, journal: WrittenJournal) -> None:
    life = Life(context, journal)
    changed = Config()
    asyncio.run(life.chain.close())
    life.limiting.follow(changed)
    assert life.limiting.alerting._config is changed
    assert life.limiting.forgetting._config is changed


# --- without a journal ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (Config(limits=Limits(rules=(Rule(name="spend", usd=1, every="day"),))), "(spend, key rich)"),
        (Config(teams={"search": Allowance(usd_per_month=1)}), "(team search, key rich)"),
        (Config(), "(key rich)"),
        (
            Config(
                limits=Limits(rules=tuple(Rule(name=f"r{n}", tokens=1, every="day", budget=True) for n in range(9)))
            ),
            "(r0, r1, r2, …)",
        ),
    ],
)
def test_budgets_that_are_not_kept_are_said(config: Config, named: str, caplog: pytest.LogCaptureFixture) -> None:
    keys = [KeyRecord(b"", "poor"), KeyRecord(b"", "rich", allowance=Allowance(usd_per_month=1))]
    with caplog.at_level(logging.WARNING):
        warn_unkept(config, keys)
    assert named in caplog.text


def test_rates_alone_need_no_journal(caplog: pytest.LogCaptureFixture) -> None:
    rules = (Rule(name="rate", requests=5, every="minute"), Rule(name="flight", in_flight=3, per=("key",)))
    with caplog.at_level(logging.WARNING):
        warn_unkept(Config(limits=Limits(rules=rules)), None)
    assert caplog.text == ""


def test_a_rates_capacity_is_its_rules_own_or_a_periods_amount() -> None:
    rules = (
        Rule(name="burst", requests=60, every="minute", capacity=5),
        Rule(name="plain", tokens=60, every="minute"),
        Rule(name="budget", usd=1, every="month"),
        Rule(name="slots", in_flight=3),
    )
    capacity_of = capacities(Limits(rules=rules))
    spec = rate(10**12, 7, 1_000)
    found = [capacity_of(bucket, spec) for bucket in ("burst|key=a", "plain", "key.rpm|key=a", "gone|key=a")]
    assert found == [5_000, 60_000, 7, 7]
