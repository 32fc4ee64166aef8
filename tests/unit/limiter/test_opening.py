"""A worker's limiter from the config: the table alone, or a store with the table behind it."""

import asyncio
from pathlib import Path

import pytest

from gateway.config.limits import Limits, Rule
from gateway.config.schema import Config, Key, Model, Provider, Target
from gateway.config.secrets import Secret
from gateway.limiter.breaker import MAX_REST_S
from gateway.limiter.opening import OnChange, WorkerLimits, open_store, open_worker_limits
from gateway.limiter.reservation import Origin
from gateway.limiter.rules import Rules, Subject
from gateway.limiter.shared import Caretaker, sections
from gateway.limiter.store import DEADLINE_S
from gateway.limiter.tokens import TokenizerUnusable
from gateway.limiter.use import UNREAD
from gateway.nodestate import NODE, NodeState
from gateway.segment import Segment
from tests.fakes.shim_store import ShimStore

RPM = Rule(name="rpm", per=("key",), requests=1, every="minute")
KEY = b"key of the tests"
TABLE = Limits(max_buckets=64, max_holds=32, rules=(RPM,))


def worker_limits_of(limits: Limits, on_change: OnChange = lambda _there, _why: None) -> WorkerLimits:
    node = NodeState(Segment.create([NODE, *sections(limits)], 6))
    Caretaker(limits).open(node)
    return open_worker_limits(limits, node.segment, node, 0, on_change, name_key=KEY)


def config_of(limits: Limits, tokenizer: str = "") -> Config:
    return Config(
        limits=limits,
        providers={"p": Provider(kind="openai", api_key=Secret("k"))},
        models={"m": Model(targets=(Target(provider="p", model="gpt-x"),), tokenizer=tokenizer)},
        keys=(Key(id="demo", secret=Secret("s")),),
    )


def test_without_a_store_usage_is_counted_in_the_table() -> None:
    async def story() -> None:
        worker_limits = worker_limits_of(TABLE)
        worker_limits.start()
        limits = worker_limits.rules(config_of(TABLE)).limits(Subject("demo"))
        assert limits is not None
        hold = await worker_limits.limiter.reserve(limits, "h", UNREAD)
        assert (hold.origin, hold.levels, worker_limits.store) == (Origin.TABLE, (0,), None)
        await worker_limits.close()

    asyncio.run(story())


def test_names_of_people_are_digested_with_the_key_of_the_start_whatever_a_reload_says() -> None:
    people = Rule(name="people", per=("key", "end_user"), requests=1, every="minute")
    reloaded = Limits(max_buckets=64, max_holds=32, rules=(people,), secret=Secret("another secret of the config"))
    limits = worker_limits_of(TABLE).rules(config_of(reloaded)).limits(Subject("demo"))
    wanted = Rules(reloaded, name_key=KEY).limits(Subject("demo"))
    assert limits is not None
    assert wanted is not None
    (found,) = limits.lines(0, "ann").lines
    assert found.bucket == wanted.lines(0, "ann").lines[0].bucket


def test_a_store_that_is_away_leaves_this_nodes_share() -> None:
    limits = Limits(store=Secret("redis://127.0.0.1:1"), nodes=2, max_buckets=64, max_holds=32, rules=(RPM,))

    async def story() -> None:
        worker_limits = worker_limits_of(limits)
        worker_limits.start()
        found = worker_limits.rules(config_of(limits)).limits(Subject("demo"))
        assert found is not None
        hold = await worker_limits.limiter.reserve(found, "h", UNREAD)
        assert (hold.origin, worker_limits.limiter.degraded) == (Origin.SHARE, 1)
        assert worker_limits.store is not None
        assert not worker_limits.store.there
        await worker_limits.close()

    asyncio.run(story())


def test_a_store_that_is_let_go_of_is_not_away() -> None:
    limits = Limits(store=Secret("redis://127.0.0.1:1"), max_buckets=64, max_holds=32, rules=(RPM,))
    told: list[bool] = []

    async def story() -> None:
        server, changed = ShimStore(), asyncio.Event()

        def hear(there: bool, _why: str) -> None:
            told.append(there)
            changed.set()

        with server.serving():
            for breaks in (True, False):
                worker_limits = worker_limits_of(limits, hear)
                worker_limits.start()
                await changed.wait()
                changed.clear()
                if breaks:
                    server.break_all()
                    await changed.wait()
                    changed.clear()
                await worker_limits.close()

    asyncio.run(asyncio.wait_for(story(), 10))
    assert told == [True, False, True]


def test_what_is_owed_is_delivered_when_the_store_is_back() -> None:
    """At once, and not at the next renewal of leases: requests that are over must not be taken for ones in flight."""
    limits = Limits(store=Secret("redis://127.0.0.1:1"), max_buckets=64, max_holds=32, rules=(RPM,))

    async def story() -> None:
        server = ShimStore()
        worker_limits = worker_limits_of(limits)
        found = worker_limits.rules(config_of(limits)).limits(Subject("demo"))
        assert found is not None
        assert worker_limits.store is not None
        hold = await worker_limits.limiter.reserve(found, "h", UNREAD)
        hold.settle(hold.reserved.full)
        await asyncio.sleep(0)
        assert worker_limits.limiter.owed.keys() == {"h"}
        with server.serving():
            worker_limits.store.start()  # and no keeping of leases
            while worker_limits.limiter.owed:  # noqa: ASYNC110  # nothing else tells
                await asyncio.sleep(0.001)
            assert any(b"h" in word for words in server.commands for word in words)
            await worker_limits.close()

    asyncio.run(asyncio.wait_for(story(), 10))


def test_slices_are_leased_where_the_config_says_so() -> None:
    limits = Limits(store=Secret("redis://127.0.0.1:1"), slices=True, max_buckets=64, max_holds=32, rules=(RPM,))

    async def story() -> None:
        worker_limits = worker_limits_of(limits)
        worker_limits.start()
        assert worker_limits.slices is not None
        assert worker_limits.limiter.engine is worker_limits.slices
        assert worker_limits_of(TABLE).slices is None
        await worker_limits.close()

    asyncio.run(story())


def test_a_store_is_opened_for_a_node_that_can_wait() -> None:
    limits = Limits(store=Secret("redis://127.0.0.1:1"))

    async def story() -> None:
        patient, usual = open_store(limits, _unheard, node="n", deadline_s=1.0), open_store(limits, _unheard)
        assert (patient._node, patient._deadline_s) == ("n", 1.0)
        assert (usual._node, usual._deadline_s) == ("", DEADLINE_S)
        eager = open_store(limits, _unheard, max_rest_s=0.5)
        for store, longest_s in ((eager, 0.5), (usual, MAX_REST_S)):
            store.breaker._failures = 20
            assert longest_s / 2 <= store.breaker.rest_s(0.0) <= store.breaker.rest_s(1.0) == longest_s

    asyncio.run(story())


def _unheard(_there: bool, _why: str) -> None:
    """Nobody listens."""


def test_only_a_store_can_be_opened_as_one() -> None:
    with pytest.raises(ValueError, match="names no store"):
        open_store(TABLE, lambda _there, _why: None)


def test_a_tokenizer_is_read_once_while_its_file_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    loads: list[str] = []

    def load(asked: str) -> object:
        loads.append(asked)
        return object()

    monkeypatch.setattr("gateway.limiter.opening.tokens.load", load)
    worker_limits = worker_limits_of(TABLE)
    for _ in range(2):
        worker_limits.estimator(config_of(TABLE, str(path)), {"p": "openai"})
    assert loads == [str(path)]
    path.write_text('{"changed": 1}')
    worker_limits.estimator(config_of(TABLE, str(path)), {"p": "openai"})
    assert loads == [str(path)] * 2


def test_a_tokenizer_that_is_not_there_is_said() -> None:
    with pytest.raises(TokenizerUnusable, match="nowhere"):
        worker_limits_of(TABLE).estimator(config_of(TABLE, "/nowhere/tokenizer.json"), {"p": "openai"})
