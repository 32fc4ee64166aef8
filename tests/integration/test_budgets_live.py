"""Budgets of a running gateway: what was used survives whatever is killed or flushed, and thresholds are heard once.

What limits count is asked of the admin port, what was used is summed up here from the journal's records: both must
agree, to the unit, from the first moment on in which the node says that it is ready.
"""

import base64
import hashlib
import hmac
import itertools
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

import pytest

from gateway.journal import layout
from gateway.journal.read import entries
from gateway.limiter.changes import CheckpointFiles
from gateway.limiter.checkpoint import path_of
from gateway.record import Record
from tests.fakes.gateway_node import ADMIN_TOKEN, GatewayNode
from tests.fakes.limited_node import ask, begun, caller, limited, recorded, rewritten, rule, secret
from tests.fakes.patience import PATIENCE_S
from tests.fakes.store_server import StoreServer
from tests.fakes.store_server import running as store_running
from tests.fakes.wire_client import Answer, Call, request

pytestmark = pytest.mark.slow

RULES = [rule("spend", per=["org"], usd=1_000), rule("words", per=["key"], tokens=10**9, budget=True)]
NAMES = ("spend", "words", "key.usd_per_month")
KEYS = [caller("ann", org="acme", usd_per_month=1_000)]
PRICED: dict[str, Any] = {
    "sim-*": {"targets": [{"provider": "sim", "model": "*"}], "price": {"input": 10, "output": 100}}
}
RETRY_S = 0.02
HELD, USED = 19, 13  # tokens of a request of the load
CALLERS = 4


# --- what is used -----------------------------------------------------------------------------------------------------


def told(node: GatewayNode) -> Counter[str]:
    """What the journal says was used, by rule: what was settled, and of the dead what they held."""
    total = Counter[str]()
    for exchange in recorded(node).values():
        total.update(exchange.held if exchange.settled is None else exchange.settled)
    return total


def spent(node: GatewayNode, of: str = "") -> dict[str, int]:
    """What limits count, by rule, or this part of it; as soon as a store is there, and not late."""

    def explained() -> Answer | None:
        found = node.admin("/v1/limits/explain?key=ann&model=sim-m")
        return None if found.status == 503 else found

    answer = node.until(explained, "what limits count")
    assert answer.status == 200, answer
    return {row["rule"]: row[of] if of else row["capacity"] - row["level"] for row in answer.json["limits"]}


def bounded(node: GatewayNode) -> bool:
    """Every outcome is counted, and of the dead what they reserved, as an estimate, or what they lived to settle.

    A worker may die between a reservation and its decision, and between a settlement and its outcome: so there may be
    estimates that the journal knows nothing of, and settlements of exchanges that have no outcome there.
    """
    ended = Counter[str]()
    for exchange in recorded(node).values():
        ended.update(exchange.settled or {})
    counts, estimates, all_held = spent(node), spent(node, "estimated"), told(node)
    return all(ended[name] <= counts[name] - estimates[name] <= all_held[name] for name in NAMES)


def ready(node: GatewayNode) -> None:
    """Wait until the node may be sent traffic."""
    node.until(lambda: node.admin("/readyz").status == 200, "readyz", alive=True)


def agreed(node: GatewayNode) -> None:
    """Limits count what the journal says, once requests have ended; and that is something."""
    seen = list[tuple[dict[str, int], dict[str, int]]]()

    def same() -> bool:
        seen[:] = [(spent(node), told(node))]
        return seen[0][0] == seen[0][1]

    try:
        node.until(same, "what is counted to be what the journal says")
    except AssertionError as error:
        raise AssertionError(f"counted and told: {seen}") from error
    assert all(told(node)[name] > 0 for name in NAMES)


def counted(node: GatewayNode, family: str, number: int, **labels: str) -> None:
    """A metric comes to this number, which it shows within a tick."""
    node.until(lambda: node.metrics(family, **labels) == number, f"{family} to be {number}")


class Load:
    """Callers that go on through anything.

    No two bodies are the same: one that two workers were reading when they were killed would be refused.
    """

    def __init__(self, node: GatewayNode, model: str = "sim-m+tokens=3", callers: int = CALLERS) -> None:
        self.node = node
        self.model = model
        self.answered = 0
        self._seeds = itertools.count()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def serves(self, number: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answered + number
        self.node.until(lambda: self.answered >= wanted, f"{number} answers")

    def _call(self) -> None:
        while not self._over.is_set():
            try:
                answer = ask(self.node, "ann", self.model, max_tokens=9, seed=next(self._seeds))
            except (OSError, AssertionError, ValueError):
                time.sleep(RETRY_S)
                continue
            self.answered += answer.status == 200


# --- killed -----------------------------------------------------------------------------------------------------------


def test_a_node_that_is_killed_whole_has_what_was_used_before_it_is_ready() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED, workers=2) as node:
        for _ in range(3):
            with Load(node) as load:
                load.serves(60)
                node.kill()
            node.start()
            ready(node)
            assert spent(node) == told(node)
        agreed(node)
        counted(node, "gateway_limits_given_back_total", 1)  # in this life


def test_a_node_that_was_stopped_has_what_was_used_when_it_begins_again() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED) as node:
        with Load(node) as load:
            load.serves(20)
        assert node.stop() == 0
        node.start()
        ready(node)
        assert spent(node) == told(node)
        (node.directory / "state" / "limits" / "checkpoint.json").unlink()
        node.kill()
        node.start()
        ready(node)
        assert spent(node) == told(node)  # the journal alone is enough


def test_workers_and_control_that_are_killed_lose_nothing_and_count_nothing_twice() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED, workers=2) as node:
        with Load(node) as load:
            for turn in range(4):
                load.serves(40)
                node.kill_child(node.until_workers(2)[-1])
                if turn % 2:
                    node.kill_child(node.control())
            load.serves(40)
        node.until_workers(2)
        node.until(lambda: bounded(node), "every outcome to be counted")
        counted(node, "gateway_limits_given_back_total", 1)
        node.kill()
        node.start()
        ready(node)
        assert spent(node) == told(node)


def test_a_control_that_is_replaced_takes_no_traffic_from_the_node() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED) as node:
        ready(node)
        with Load(node) as load:
            load.serves(20)
            node.until(lambda: known(node, "words") > 0, "a checkpoint")
            before = node.control()
            node.kill_child(before)
            said = readiness(node, before)
        assert {status for status, _ in said} == {200}, said
        agreed(node)


def test_a_control_that_is_replaced_counts_where_the_workers_do_whatever_the_config_says_since() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED) as node:
        assert ask(node, "ann").status == 200
        agreed(node)
        rewritten(node, limits={"store": "redis://127.0.0.1:1", "rules": RULES})
        node.kill_child(node.control())
        node.control()
        ready(node)
        assert ask(node, "ann").status == 200
        agreed(node)
        assert "away" not in node.log()


def readiness(node: GatewayNode, before: int) -> list[tuple[int, bytes]]:
    """What readyz says, whenever somebody is there to say it, until another control has said it for a while."""
    said = list[tuple[int, bytes]]()
    asked = request("GET", "/readyz", b"", {})

    def asks() -> bool:
        with Call(node.admin_port, asked, "GET") as call:
            answer = call.answer()
        said.append((answer.status, answer.body))
        return len(said) >= 100

    node.until(asks, "answers")
    assert node.control() != before
    return said


def test_an_upgrade_keeps_what_was_used() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED) as node:
        with Load(node) as load:
            load.serves(20)
            os.kill(node.pid, signal.SIGUSR2)
            node.until(lambda: node.admin("/v1/status").json["upgrades"] == 1, "the upgrade")
            load.serves(20)
        ready(node)
        agreed(node)
        counted(node, "gateway_limits_given_back_total", 1)


def test_a_stream_whose_worker_was_killed_stays_charged_as_it_was_held() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED) as node:
        call = begun_by(node)
        node.until(lambda: len(recorded(node)) == 1, "the decision")
        (exchange,) = recorded(node).values()
        node.kill_child(node.workers()[0])
        call.close()
        node.until(lambda: spent(node) == exchange.held, "what was held")
        node.kill()
        node.start()
        ready(node)
        assert spent(node) == exchange.held
        assert exchange.settled is None


def begun_by(node: GatewayNode) -> Call:
    return begun(node, "ann", "sim-m+tokens=500+token-ms=50", max_tokens=500)


def test_a_budget_that_is_used_up_stays_so() -> None:
    rules = [rule("little", per=["key"], tokens=40, budget=True)]
    with limited(rules=rules, keys=KEYS, models=PRICED) as node:
        while (answer := ask(node, "ann")).status == 200:
            pass
        assert answer.status == 429
        node.kill()
        node.start()
        ready(node)
        again = ask(node, "ann")
        assert again.status == 429
        assert again.json["error"]["message"].startswith("the limit little")


# --- taken out of the config ------------------------------------------------------------------------------------------

LIVELY = [rule("pace", per=["key"], requests=10, every="day"), *RULES]


def amounts(node: GatewayNode) -> dict[str, int]:
    """What limits count by rule, in whole; the rate gives a request back in an hour or two."""
    return {name: round(used) for name, used in spent(node).items()}


def forgotten(node: GatewayNode) -> set[str]:
    """What the journal says was forgotten."""
    found = entries(layout.journal_of(node.directory / "state"), layout.CONTROL)
    return {entry.record.subject for entry in found if entry.record.action == "limit.forgotten"}


def known(node: GatewayNode, name: str) -> int:
    """What control has counted from the journal, by what it keeps."""
    state = node.directory / "state"
    found = CheckpointFiles(path_of(state), layout.node_id(layout.journal_of(state))).load()
    accounts = {} if found is None else found.checkpoint.ledger.accounts
    return sum(account.row[0] for key, account in accounts.items() if key.bucket.startswith(f"{name}|"))


Said = Sequence[Mapping[str, Any]]


def reloaded(node: GatewayNode, rules: Said, keys: Said, *forgets: str) -> None:
    """These rules and callers instead, and wait until all is forgotten that is gone."""
    rewritten(node, limits={**node.config["limits"], "rules": rules}, keys=[*node.config["keys"][:-1], *keys])
    node.until(lambda: forgotten(node) == set(forgets), f"{forgets} to be forgotten, that is {forgotten(node)}")


@pytest.mark.parametrize("where", ["table", "store"])
def test_a_limit_that_is_removed_is_forgotten_and_one_that_is_changed_is_not(where: str) -> None:
    with store_running() as store:
        place = {"store": store.url, "domain": "shop"} if where == "store" else {}
        with limited(rules=LIVELY, keys=KEYS, models=PRICED, workers=2, limits=place) as node:
            ready(node)
            for _ in range(4):
                assert ask(node, "ann").status == 200
            node.until(lambda: amounts(node)["words"] == 32, "the requests to be settled")
            node.until(lambda: known(node, "words") == 32, "control to know what is in a store")
            used = amounts(node)
            assert (used["pace"], used["spend"], used["key.usd_per_month"]) == (4, 680, 680)
            changed = [rule("pace", per=["key"], requests=20, every="day"), *RULES]
            reloaded(node, changed, [caller("ann", org="acme", usd_per_month=500)])
            assert amounts(node) == used
            gone = ("key.usd_per_month", "pace", "words")
            reloaded(node, [RULES[0]], [caller("ann", org="acme")], *gone)
            reloaded(node, LIVELY, KEYS, *gone)
            left = {"pace": 0, "spend": used["spend"], "words": 0, "key.usd_per_month": 0}
            assert amounts(node) == left
            node.kill()
            if where == "store":
                flush(store)
            node.start()
            ready(node)
            node.until(lambda: amounts(node) == left, "as before")
            assert ask(node, "ann").status == 200
            node.until(lambda: amounts(node)["words"] == 8, "the next request to be settled")
            assert node.command("audit", "verify").returncode == 0


def test_a_debt_beyond_reason_is_cleared_by_taking_the_limit_out_and_putting_it_back() -> None:
    rules = [rule("words", per=["key"], tokens=60, every="hour", budget=True)]
    with limited(rules=rules, keys=KEYS, models=PRICED) as node:
        with begun(node, "ann", "sim-m+tokens=5000+token-ms=200") as call:
            reloaded(node, [], KEYS, "words")
            call.close()
        node.until(lambda: all(told.settled is not None for told in recorded(node).values()), "the outcome")
        reloaded(node, rules, KEYS, "words")
        node.until(lambda: ask(node, "ann").status == 200, "a request that fits")


# --- a store ----------------------------------------------------------------------------------------------------------


@contextmanager
def stored() -> Iterator[tuple[GatewayNode, StoreServer]]:
    """A node that counts in a redis-server."""
    with store_running() as store:
        limits = {"store": store.url, "domain": "shop"}
        with limited(rules=RULES, keys=KEYS, models=PRICED, workers=2, limits=limits) as node:
            yield node, store


def test_a_store_that_was_flushed_has_what_was_used_again() -> None:
    with stored() as (node, store):
        ready(node)
        with Load(node) as load:
            load.serves(60)
            flush(store)
            load.serves(60)
        agreed(node)
        counted(node, "gateway_limits_given_back_total", 2)  # once when the node began


def test_a_store_that_was_killed_under_load_has_what_was_used_again() -> None:
    with stored() as (node, store):
        ready(node)
        with Load(node) as load:
            load.serves(60)
            store.kill()
            load.serves(60)
            store.start()
            load.serves(60)
        agreed(node)


def test_a_store_and_a_control_that_die_again_and_again_count_nothing_twice() -> None:
    with stored() as (node, store):
        ready(node)
        with Load(node) as load:
            for what in ("flush", "control", "store", "store", "control", "flush", "control", "store"):
                load.serves(40)
                if what == "flush":
                    flush(store)
                elif what == "store":
                    store.kill()
                    load.serves(20)
                    store.start()
                else:
                    node.kill_child(node.control())
            load.serves(40)
        agreed(node)


@pytest.mark.parametrize("flush_first", [True, False])
def test_what_killed_workers_held_is_there_again_after_a_store_lost_its_data(*, flush_first: bool) -> None:
    with stored() as (node, store):
        ready(node)
        calls = [begun_by(node) for _ in range(4)]
        node.until(lambda: len(recorded(node)) == 4, "the decisions")
        if flush_first:
            flush(store)
        for pid in node.until_workers(2):
            node.kill_child(pid)
        if not flush_first:
            flush(store)
        for call in calls:
            call.close()
        node.until_workers(2)
        with Load(node) as load:
            load.serves(20)
        agreed(node)
        assert [told.settled for told in recorded(node).values()].count(None) == 4


def test_a_storm_of_killed_workers_and_lost_stores_leaves_nothing_out() -> None:
    dice, turns = random.Random(7), 3
    with stored() as (node, store):
        ready(node)
        with Load(node, "sim-m+tokens=3+ttft-ms=300") as load:
            acts = [partial(flush, store), partial(kill_one, node)]
            for turn in range(turns):
                load.serves(8)
                for act in reversed(acts) if turn % 2 else acts:
                    act()
                    time.sleep(dice.random() * 0.2)
                node.until_workers(2)
            load.serves(8)
        node.until(lambda: none_left_out(node, turns), "all that was used")


def flush(store: StoreServer) -> None:
    with store.connect() as connection:
        connection.ask("FLUSHALL")


def kill_one(node: GatewayNode) -> None:
    node.kill_child(node.until(node.workers, "a worker")[-1])


def none_left_out(node: GatewayNode, kills: int) -> bool:
    """Every outcome counts, and so does what the dead held.

    A worker may die between a reservation and its decision: of those the journal knows nothing. And one may die between
    a settlement and its outcome: that counts as it was settled, which is less.
    """
    journal = told(node)["words"]
    return journal - kills * (HELD - USED) <= spent(node)["words"] <= journal + kills * CALLERS * HELD


def test_a_node_and_its_store_that_both_died_agree_before_it_is_ready() -> None:
    with stored() as (node, store):
        with Load(node) as load:
            load.serves(60)
            node.kill()
        store.kill()
        store.start()
        node.start()
        ready(node)
        assert spent(node) == told(node)


def test_a_store_that_stays_away_keeps_the_node_from_nothing() -> None:
    with stored() as (node, store):
        with Load(node) as load:
            load.serves(20)
        agreed(node)
        node.kill()
        store.kill()
        node.start()
        ready(node)
        assert ask(node, "ann").status == 200  # `share`: this node's part
        store.start()
        agreed(node)


# --- heard ------------------------------------------------------------------------------------------------------------


class Came(NamedTuple):
    """One event as it was sent."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Somebody who is sent events, and takes the first one at the second try."""

    def __init__(self) -> None:
        self.came: list[Came] = []
        came = self.came

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                came.append(Came({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(503 if len(came) == 1 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def crossings(node: GatewayNode) -> list[Record]:
    """What the journal tells of thresholds."""
    found = entries(layout.journal_of(node.directory / "state"), layout.CONTROL)
    return [entry.record for entry in found if entry.record.action == "budget.crossed"]


def signed(came: Came, key: str) -> bool:
    base = f"{came.id}.{came.headers['webhook-timestamp']}.".encode() + came.body
    mac = base64.b64encode(hmac.new(key.encode(), base, hashlib.sha256).digest()).decode()
    return came.headers["webhook-signature"] == f"v1,{mac}"


def test_a_threshold_is_heard_once_a_window_over_everything_that_dies() -> None:
    with Receiver() as receiver:
        hook = {"name": "ops", "url": receiver.url, "secret": "hook-secret-77", "allow_private": True}
        rules = [rule("words", per=["key"], tokens=100, budget=True)]
        with limited(rules=rules, keys=KEYS, models=PRICED, webhooks=[hook], workers=2) as node:
            for _ in range(8):
                assert ask(node, "ann").status == 200  # 8 tokens each
            node.until(lambda: spent(node)["words"] == 64, "the requests to be settled")
            time.sleep(2)
            assert (receiver.came, crossings(node)) == ([], [])
            assert ask(node, "ann").status == 200
            node.until(lambda: len(receiver.came) == 2, "the event, twice since it was refused once")
            first, second = receiver.came
            assert (first.id, first.body) == (second.id, second.body)
            assert all(signed(came, "hook-secret-77") for came in receiver.came)
            event = json.loads(first.body)
            assert (event["type"], event["data"]["rule"], event["data"]["bucket"]) == (
                "budget.crossed",
                "words",
                "words|key=ann",
            )
            assert (event["data"]["percent"], event["data"]["used"], event["data"]["limit"]) == (70, 72, 100)
            (record,) = crossings(node)
            assert json.loads(record.detail) == event["data"]
            counted(node, "gateway_webhooks_total", 1, webhook="ops", result="sent")
            counted(node, "gateway_webhooks_total", 1, webhook="ops", result="failed")
            node.kill_child(node.control())
            assert ask(node, "ann").status == 200
            node.kill()
            node.start()
            ready(node)
            assert ask(node, "ann").status == 200
            node.until(lambda: spent(node)["words"] == 88, "the requests to be settled")
            time.sleep(2)
            assert (len(receiver.came), len(crossings(node))) == (2, 1)
            assert "hook-secret-77" not in node.log()
            rewritten(node, limits={"rules": [rule("words", per=["key"], tokens=110, budget=True, alerts=[70, 80])]})
            node.until(lambda: len(receiver.came) == 3, "the new threshold")
            assert json.loads(receiver.came[2].body)["data"]["percent"] == 80
            counted(node, "gateway_budget_crossings_total", 1, rule="words")  # in this life


def test_without_a_journal_the_node_is_ready_and_says_what_that_costs() -> None:
    with limited(rules=RULES, keys=KEYS, models=PRICED, journal={"enabled": False}) as node:
        ready(node)
        assert ask(node, "ann").status == 200
        node.until(lambda: spent(node)["spend"] > 0, "what was spent")
        node.until(lambda: "budgets begin anew at each start" in node.log(), "the warning")
        assert "(spend, words, key ann)" in node.log()
        assert ADMIN_TOKEN not in node.log()
        assert secret("ann") not in node.log()
