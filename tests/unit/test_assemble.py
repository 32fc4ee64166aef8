"""From a config to wired stages: what a snapshot brings, what outlives it, and what a bad one may not touch."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.assemble import Assembly, NodeGuard
from gateway.config.boot import boot_snapshot
from gateway.config.keys import digest
from gateway.config.limits import Limits
from gateway.config.revocations import Revocations
from gateway.config.schema import Config
from gateway.errors import InvalidCredential, KeyDisabled
from gateway.journal.opening import ensure_journal, open_desk
from gateway.journal.read import entries
from gateway.limiter.opening import open_worker_limits
from gateway.limiter.shared import Caretaker, sections
from gateway.nodestate import NODE, NodeState, body_mark
from gateway.pipeline import Gateway
from gateway.record import Ending, Kind, Record
from gateway.relay.outgoing import Outgoing, Target
from gateway.segment import Segment
from gateway.telemetry.directory import METRICS
from gateway.telemetry.lines import LineSink
from gateway.telemetry.scrape import scrape
from tests.fakes.patience import PATIENCE_S
from tests.fakes.provider import ask
from tests.fakes.transfer import run

CONFIG = """
admin: {token: "0123456789abcdef"}
state_dir: ./state
providers:
  one: {kind: openai, base_url: "http://127.0.0.1:1/v1", api_key: sk-one, headers: {X-Team: a}}
  two: {kind: anthropic, base_url: "http://127.0.0.1:2", api_key: sk-two, dedicated_to: acme, max_connections: 7}
  three: {kind: openai, base_url: "http://127.0.0.1:1/other", credential: caller}
models:
  gpt:
    targets:
      - {provider: one, model: gpt-1, weight: 3, headers: {X-Own: b}, defaults: {temperature: 0.5}}
      - {provider: three, model: gpt-3, weight: 0}
    fallbacks: [spare]
  spare: {targets: [{provider: one, model: gpt-0}], context_tokens: 9000, price: {input: 1, output: 2}}
  claude: {targets: [{provider: two, model: claude-2}]}
  "open/*": {targets: [{provider: one, model: "*"}]}
keys: [{id: demo, secret: gw-demo, org: acme}]
routes: [{name: agents, match: {path: /v1/responses}}]
log: {requests: all, format: json}
"""
SLOT = 1
LIMITS = Limits(max_buckets=64, max_holds=64)


class Worker:
    """What a worker is given, and a pipe for its log."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "gateway.yaml"
        self.state_dir = directory / "state"
        self.segment = Segment.create([NODE, METRICS, *sections(LIMITS)], 6)
        self.state = NodeState(self.segment)
        Caretaker(LIMITS).open(self.state)
        self.reader, self.writer = os.pipe()
        self.sink = LineSink(self.writer, lambda count: b"dropped %d\n" % count)
        self.limits = open_worker_limits(
            LIMITS, self.segment, self.state, SLOT, lambda _there, _why: None, name_key=b"k"
        )
        self.assembly = Assembly(self.segment, self.state, SLOT, self.state_dir, self.sink, None, self.limits)

    def published(self, text: str) -> Config:
        """The config as the supervisor reads it."""
        self.path.write_text(text)
        return boot_snapshot(self.path).config

    def load(self, text: str = CONFIG) -> Gateway:
        """Publish a config, and load it as a worker does."""
        self.path.write_text(text)
        return self.assembly.load(boot_snapshot(self.path).generation)

    def lines(self) -> list[dict[str, Any]]:
        """The request log so far."""
        self.sink.flush()
        os.set_blocking(self.reader, False)
        try:
            return [orjson.loads(line) for line in os.read(self.reader, 1 << 20).splitlines()]
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.sink.close()
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.close()


def targets(gateway: Gateway, name: str, dialect: str = "openai") -> list[Target]:
    found = gateway.catalogue.find(name)
    assert found is not None
    return list(found.entry.order(dialect, lambda: 0.0))


def head_of(target: Target, **fields: Any) -> bytes:
    out: Outgoing = ask(**fields)
    return target.encode(out).head


# --- one snapshot ---------------------------------------------------------------------------------------------------


def test_targets_are_what_the_config_says(worker: Worker) -> None:
    gateway = worker.load()
    first, second, third = targets(gateway, "gpt")
    assert (first.name(), second.name(), third.name()) == ("one/gpt-1", "three/gpt-3", "one/gpt-0")
    head = head_of(first)
    for line in (b"authorization: Bearer sk-one\r\n", b"x-team: a\r\n", b"x-own: b\r\n", b"host: 127.0.0.1:1\r\n"):
        assert line in head
    assert b'"temperature":0.5' in first.encode(ask()).body
    assert b"authorization: Bearer sk-theirs\r\n" in head_of(second, credential=b"sk-theirs")
    assert targets(gateway, "gpt", "anthropic") == []
    assert targets(gateway, "open/x")[0].name("x") == "one/x"
    assert (first.context_tokens, first.price(), third.context_tokens) == (None, None, 9_000)
    price = third.price()
    assert price is not None
    assert price.context_tokens == 9_000
    assert first.account.dedicated_to == frozenset()
    assert targets(gateway, "claude", "anthropic")[0].account.dedicated_to == {"acme"}


def test_usage_is_asked_for_as_the_provider_allows(worker: Worker) -> None:
    streamed = b'{"model":"gpt","messages":[],"stream":true}'
    for flag, asked in (("auto", True), ("never", False)):
        gateway = worker.load(CONFIG.replace("kind: openai,", f"kind: openai, usage_flag: {flag},"))
        assert targets(gateway, "gpt")[0].encode(ask(streamed)).withhold_usage == asked


def test_every_provider_is_passed_through_to_by_its_name(worker: Worker) -> None:
    gateway = worker.load()
    assert set(gateway.passthrough) == {"one", "two", "three"}
    head = gateway.passthrough["two"].encode(ask(b"", "passthrough", path="/v1/files")).head
    assert head.startswith(b"POST /v1/files HTTP/1.1\r\nhost: 127.0.0.1:2\r\nx-api-key: sk-two\r\n")


def test_keys_and_routes_are_the_snapshots(worker: Worker) -> None:
    gateway = worker.load()
    assert gateway.identity.authenticate(digest(b"gw-demo"), 0).key_id == "demo"
    with pytest.raises(InvalidCredential):
        gateway.identity.authenticate(digest(b"gw-other"), 0)
    assert gateway.router.match("/v1/responses", "", {}).name == "agents"
    assert abs(gateway.loaded_s - time.time()) < 5


def test_a_revoked_key_is_noticed_by_a_poll(worker: Worker) -> None:
    gateway = worker.load()
    Revocations(worker.state_dir).add("demo", 1)
    gateway.poll()
    with pytest.raises(KeyDisabled):
        gateway.identity.authenticate(digest(b"gw-demo"), 0)


# --- records --------------------------------------------------------------------------------------------------------


def record(**fields: Any) -> Record:
    return Record(Kind.OUTCOME, "req_1", 1_700_000_000_000_000, ending=Ending.COMPLETE.value, status=200, **fields)


def test_a_record_is_counted_and_logged(worker: Worker) -> None:
    gateway = worker.load()
    gateway.record(record(surface="chat.completions"), "agents", "gpt")
    gateway.record(record(), "invented", "open/*")
    text = scrape(worker.segment, live=[SLOT])
    assert 'route="agents",model="gpt",surface="chat.completions",code="200"} 1' in text
    assert 'route="unknown",model="open/*",surface="unknown",code="200"} 1' in text
    assert [line["id"] for line in worker.lines()] == ["req_1", "req_1"]


def test_logging_and_labels_follow_the_snapshot_and_counts_stay(worker: Worker) -> None:
    worker.load().record(record(), "agents", "gpt")
    gateway = worker.load(CONFIG.replace("requests: all", "requests: none").replace("name: agents", "name: robots"))
    gateway.record(record(), "robots", "gpt")
    text = scrape(worker.segment, live=[SLOT])
    assert 'route="agents",model="gpt"' in text
    assert 'route="robots",model="gpt"' in text
    assert len(worker.lines()) == 1


def test_a_tick_shows_streams_connections_and_pools(worker: Worker) -> None:
    gateway = worker.load()
    gateway.tick(3, 9)
    text = scrape(worker.segment, live=[SLOT])
    assert "gateway_open_streams 3" in text
    assert 'gateway_upstream_connections{provider="one",state="busy"} 0' in text


# --- one snapshot after another -------------------------------------------------------------------------------------


def test_what_did_not_change_is_handed_on(worker: Worker) -> None:
    old = worker.load()
    new = worker.load(CONFIG.replace("sk-one", "sk-new"))
    assert new is not old
    assert (new.wheel, new.random_bytes, new.guard) == (old.wheel, old.random_bytes, old.guard)
    assert targets(new, "gpt")[0].pool is targets(old, "gpt")[0].pool
    assert b"sk-new" in head_of(targets(new, "gpt")[0])
    assert new.plans is not old.plans


def test_providers_at_one_address_share_their_connections(worker: Worker) -> None:
    gateway = worker.load()
    assert gateway.passthrough["one"].pool is gateway.passthrough["three"].pool
    assert gateway.passthrough["one"].pool is not gateway.passthrough["two"].pool


@pytest.mark.parametrize("change", [("max_connections: 7", "max_connections: 8"), (':2"', ':3"')])
def test_a_pool_whose_origin_changed_is_made_anew_and_the_old_one_closed(
    worker: Worker, change: tuple[str, str]
) -> None:
    closed: list[str] = []
    old = worker.load()
    pools = {name: target.pool for name, target in old.passthrough.items()}
    for name, pool in pools.items():
        _note(pool, lambda name=name: closed.append(name))  # type: ignore[misc]
    new = worker.load(CONFIG.replace(*change))
    assert closed == [], "the old snapshot still serves"
    old.retire(new)
    assert closed == ["two"]
    assert new.passthrough["two"].pool is not pools["two"]
    assert new.passthrough["one"].pool is pools["one"]


def test_at_the_end_every_pool_is_closed(worker: Worker) -> None:
    closed: list[str] = []
    gateway = worker.load()
    for name in ("one", "two"):
        _note(gateway.passthrough[name].pool, lambda name=name: closed.append(name))  # type: ignore[misc]
    run(gateway.close())
    assert sorted(closed) == ["one", "two"]


def test_a_snapshot_that_cannot_be_used_changes_nothing(worker: Worker, tmp_path: Path) -> None:
    good = worker.load()
    cert = tmp_path / "ca.pem"
    cert.write_text("-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n")
    worker.path.write_text(
        CONFIG.replace("log: {requests: all", "log: {requests: none").replace(
            'base_url: "http://127.0.0.1:2"', f'base_url: "https://127.0.0.1:2", ca_file: {cert}'
        )
    )
    generation = boot_snapshot(worker.path).generation
    with pytest.raises(ValueError, match="ca_file"):
        worker.assembly.load(generation)
    good.record(record(), "agents", "gpt")
    assert len(worker.lines()) == 1, "the old log settings hold"


# --- the journal ----------------------------------------------------------------------------------------------------


def test_a_worker_without_a_desk_keeps_no_journal(worker: Worker) -> None:
    assert worker.load().scribe is None


def test_a_worker_writes_its_own_chain_and_gives_it_back(worker: Worker) -> None:
    async def main() -> None:
        config = worker.published(CONFIG)
        ensure_journal(worker.state_dir)
        desk = open_desk(config, SLOT, 6)
        assert desk is not None
        desk.journal.start(asyncio.get_running_loop())
        worker.assembly = Assembly(
            worker.segment, worker.state, SLOT, worker.state_dir, worker.sink, desk, worker.limits
        )
        gateway = worker.load(CONFIG + "journal: {refusals_per_s: 3, segment_bytes: 100KiB}\n")
        assert gateway.scribe is desk.scribe
        for _ in range(2):
            gateway.scribe.outcome(Record(Kind.OUTCOME, "x", 1_000_000, error="invalid_api_key", ending="refused"))
        async with asyncio.timeout(PATIENCE_S):
            page = ""
            while "gateway_journal_lines_total 3\n" not in page:  # where it begins, who writes it, and the count
                gateway.tick(0, 0)
                gateway.poll()
                page = scrape(worker.segment, live={SLOT})
                await asyncio.sleep(0.001)
        await gateway.close()
        (counted,) = [entry.record for entry in entries(worker.state_dir / "journal", "w1") if entry.record.count == 2]
        assert (counted.action, counted.error) == ("refusals", "invalid_api_key")
        again = open_desk(config, SLOT, 6)
        assert again is not None
        assert again.journal.chain == "w1", "it is free"
        await again.close(0)

    run(main())


# --- the guard ------------------------------------------------------------------------------------------------------


def test_a_body_is_marked_on_the_board_while_it_is_read(worker: Worker) -> None:
    guard, words = NodeGuard(worker.state, SLOT), worker.state.slot(SLOT)
    assert guard.enter(b"body")
    assert words.reading == body_mark(b"body")
    guard.leave()
    assert words.reading == 0


def test_a_body_that_has_killed_twice_is_refused(worker: Worker) -> None:
    guard, now_ns = NodeGuard(worker.state, SLOT), time.monotonic_ns()
    for _ in range(2):
        worker.state.count_death(body_mark(b"deadly"), now_ns)
    assert not guard.enter(b"deadly")
    assert worker.state.slot(SLOT).reading == 0
    assert guard.enter(b"harmless")


def test_a_gateway_serves_on_a_loop(worker: Worker) -> None:
    async def main() -> None:
        gateway = worker.load()
        gateway.wheel.start()
        pool = gateway.passthrough["one"].pool
        with pytest.raises(Exception, match=r"provider"):
            await pool.connect(1)  # nobody listens on port 1
        gateway.wheel.stop()
        await gateway.close()
        await asyncio.sleep(0)

    run(main())


def _note(pool: Any, call: Callable[[], None]) -> None:  # noqa: ANN401 - a Pool with another `close`
    close = pool.close

    def noted() -> None:
        call()
        close()

    pool.close = noted
