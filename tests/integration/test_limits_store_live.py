"""Limits that nodes share in a store: counted together, through its absence, its pauses, and callers who leave.

The store is a redis-server of the test's own, since it is stopped, killed and asked how much it had to do.
"""

import threading
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from gateway.journal import layout
from gateway.journal.read import entries
from gateway.record import Kind
from tests.fakes import store_server
from tests.fakes.gateway_node import GatewayNode, chat_body
from tests.fakes.limited_node import (
    CHAT,
    Told,
    ask,
    balanced,
    begun,
    caller,
    ended,
    left,
    limited,
    recorded,
    refused_by,
    rule,
    secret,
    statuses,
    together,
)
from tests.fakes.store_server import StoreServer
from tests.fakes.wire_client import Answer

pytestmark = pytest.mark.slow

CAPACITY = 1_000_000
TINY = chat_body("sim-m+tokens=1", max_tokens=1)
MODES = ["closed", "open", "share"]


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    with store_server.running() as server:
        yield server


def at(store: StoreServer, **limits: Any) -> dict[str, Any]:
    """What a config says of this store; each test has a domain of its own."""
    return {"store": store.url, **limits}


def there(node: GatewayNode) -> None:
    """Wait until every worker asks the store."""
    workers = node.config["listen"]["workers"]
    node.until(lambda: node.metrics("gateway_limit_store_up") == workers, "the store")


def gone(node: GatewayNode) -> None:
    """Wait until no worker asks the store any more, each having met that itself."""

    def noticed() -> bool:
        ask(node, "prober")
        return node.metrics("gateway_limit_store_up") == 0

    node.until(noticed, "the store to be missed")


# --- together ---------------------------------------------------------------------------------------------------------


def test_nodes_count_together(store: StoreServer) -> None:
    """What the store did not answer in time is refused (closed), given back, and asked for again: 25 in the end."""
    rules = [rule("crowd", per=["key"], requests=25), rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    given: dict[str, Any] = {"rules": rules, "keys": [caller("ann"), caller("bob", max_in_flight=4)], "workers": 2}
    limits = at(store, domain="together", nodes=2, on_store_failure="closed")
    with limited(**given, limits=limits) as one, limited(**given, limits=limits) as two:
        there(one)
        there(two)
        found = statuses(_at_both(one, two, "ann", TINY, 30))
        assert found.keys() <= {200, 429, 503}
        admitted = found.get(200, 0)

        def all_in() -> bool:
            nonlocal admitted
            admitted += _until_refused(one, "ann", "crowd") + _until_refused(two, "ann", "crowd")
            return admitted >= 25 and _owes_nothing(one) and _owes_nothing(two)

        one.until(all_in, "what was given back to be asked for again")
        assert admitted == 25
        assert _until_refused(one, "ann", "crowd") + _until_refused(two, "ann", "crowd") == 0
        slow = chat_body("sim-m+ttft-ms=900+tokens=1", max_tokens=1)
        assert statuses(_at_both(one, two, "bob", slow, 6)).get(200, 0) <= 4
        one.until(lambda: ask(one, "bob").status == 200, "a slot at one")
        for node in (one, two):
            node.until(partial(_is_idle, node), "all to be settled")
        used = sum((told.settled or {})["all"] for node in (one, two) for told in _of(node, "bob"))
        node.until(lambda: _level(two, "bob") == CAPACITY - used, "what both have used")


def _until_refused(node: GatewayNode, key: str, by: str) -> int:
    """Ask until that limit refuses; how many were admitted before."""
    admitted = 0

    def refused() -> bool:
        nonlocal admitted
        answer = ask(node, key)
        admitted += answer.status == 200
        return refused_by(answer) == by and left(answer, "requests") == 0

    node.until(refused, "the limit to be used up")
    return admitted


def _owes_nothing(node: GatewayNode) -> bool:
    return node.metrics("gateway_limit_owed") == 0


def _is_idle(node: GatewayNode) -> bool:
    return node.metrics("gateway_limit_holds") == 0


def _is_admitted(node: GatewayNode, key: str) -> bool:
    return ask(node, key).status == 200


def _of(node: GatewayNode, key: str) -> list[Told]:
    return [told for told in recorded(node).values() if told.key == key]


def _level(node: GatewayNode, key: str) -> int:
    """What was left of its tokens before a request that is refused for want of the rest."""
    answer = ask(node, key, max_tokens=CAPACITY)
    return left(answer) if answer.status == 429 else -1


def _at_both(one: GatewayNode, two: GatewayNode, key: str, body: object, each: int) -> list[Answer]:
    """So many requests at each of two nodes, at the same moment."""
    answers: list[Answer] = []
    threads = [
        threading.Thread(
            target=lambda node=node: answers.extend(together(node, [node.request(CHAT, body, key=secret(key))] * each))
        )
        for node in (one, two)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 2 * each
    return answers


# --- away -------------------------------------------------------------------------------------------------------------


def test_each_limit_does_as_it_says_while_the_store_is_away_and_what_was_used_is_counted_when_it_is_back() -> None:
    """A store that stands still keeps what it knows, so that afterwards every balance must be what the journal says."""
    rules = [
        rule(mode, per=["key"], tokens=CAPACITY, budget=True, match={"key": mode}, on_store_failure=mode)
        for mode in MODES
    ]
    rules.append(rule("half", per=["key"], requests=6, match={"key": "half"}))
    keys = [caller(name) for name in (*MODES, "half", "prober")]
    with (
        store_server.running() as server,
        limited(rules=[*rules, PROBED], keys=keys, limits=at(server, nodes=2)) as node,
    ):
        there(node)
        for mode in MODES:
            node.until(partial(_is_admitted, node, mode), f"the first request of {mode}")
        with begun(node, "open", "sim-m+tokens=100+token-ms=20", max_tokens=500) as call:
            server.pause()
            gone(node)
            closed = ask(node, "closed")
            assert (closed.status, closed.json["error"]["code"]) == (503, "limits_unavailable")
            assert closed.header("retry-after") == "1"
            assert "closed" in closed.json["error"]["message"]
            assert [ask(node, "open").status for _ in range(5)] == [200] * 5
            assert [ask(node, "share").status for _ in range(5)] == [200] * 5
            half = [ask(node, "half") for _ in range(5)]
            assert [answer.status for answer in half] == [200] * 3 + [429] * 2  # this node's part of 6, of 2 nodes
            assert refused_by(half[-1]) == "half"
            assert b"".join(call.pieces()).endswith(b"data: [DONE]\n\n")
        assert len(ended(node, "open", 7)) == 7
        node.until(lambda: node.metrics("gateway_limit_owed") > 0, "what is owed to the store")
        server.resume()
        there(node)
        node.until(lambda: node.metrics("gateway_limit_owed") == 0, "what was owed to be delivered")
        verdicts = {told.outcome.limits_verdict for told in recorded(node).values() if told.outcome is not None}
        assert verdicts == {"store", "open", "share"}
        for mode in MODES:
            balanced(node, mode, mode, CAPACITY)
        node.until(lambda: left(ask(node, "half"), "requests") < 2, "the store's own count of what was used here")
        assert node.metrics("gateway_limits_degraded_total") >= 13
        assert node.metrics("gateway_limits_unavailable_total") >= 1
        assert "the limit store is back" in node.log()
        node.stop()
        modes = _modes(node)  # a busy machine may miss the store more often than this test makes it
        assert len(modes) >= 3
        assert modes == [("limit_store_back", "limit_store_away")[index % 2] for index in range(len(modes))]


PROBED = rule("probed", per=["key"], requests=100_000, match={"key": "prober"}, on_store_failure="open")


def _modes(node: GatewayNode) -> list[str]:
    journal = layout.journal_of(node.directory / "state")
    found = [entry.record for chain in layout.chains(journal) for entry in entries(journal, chain)]
    return [record.action for record in found if record.kind is Kind.MODE and "limit_store" in record.action]


def test_a_gateway_that_never_met_its_store_serves_by_the_modes_of_its_limits() -> None:
    rules = [rule("open", requests=5, on_store_failure="open", match={"key": "open"})]
    rules.append(rule("closed", requests=5, on_store_failure="closed", match={"key": "closed"}))
    server = StoreServer()
    try:
        with limited(rules=rules, keys=[caller("open"), caller("closed")], limits=at(server)) as node:
            assert statuses(ask(node, "open") for _ in range(8)) == {200: 8}
            assert ask(node, "closed").status == 503
            node.until(lambda: node.metrics("gateway_limit_owed") == 8, "what is owed to the store")
            server.start()
            there(node)
            node.until(lambda: ask(node, "closed").status == 200, "the closed limit to be checked")
            node.until(lambda: node.metrics("gateway_limit_owed") == 0, "what was owed to be delivered")
            node.until(lambda: ask(node, "open").status == 429, "the open limit to know what was used meanwhile")
    finally:
        server.close()


# --- paused -----------------------------------------------------------------------------------------------------------


def test_callers_who_leave_while_the_store_is_asked_leave_nothing_behind(store: StoreServer) -> None:
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    keys = [caller("ann", max_in_flight=30)]
    with limited(rules=rules, keys=keys, limits=at(store, domain="leaving")) as node:
        there(node)
        assert ask(node, "ann").status == 200
        raw = node.request(CHAT, {**TINY, "model": "sim-m+ttft-ms=300+tokens=1"}, key=secret("ann"))
        for _ in range(6):
            store.pause()
            calls = [node.open(raw) for _ in range(10)]
            for call in calls:
                call.reset()
            store.resume()
            there(node)
        node.until(lambda: node.metrics("gateway_limit_holds") + node.metrics("gateway_limit_owed") == 0, "the end")
        balanced(node, "ann", "all", CAPACITY)
        slow = node.request(CHAT, {**TINY, "model": "sim-m+ttft-ms=500+tokens=1"}, key=secret("ann"))
        assert statuses(together(node, [slow] * 30)) == {200: 30}  # every slot is free


@pytest.mark.parametrize("mode", MODES)
def test_a_store_that_stutters_under_load_counts_everything_once(store: StoreServer, mode: str) -> None:
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    limits = at(store, domain=f"stutter-{mode}", on_store_failure=mode)
    with limited(rules=rules, keys=[caller("ann", max_in_flight=12)], limits=limits, workers=2) as node:
        there(node)
        over, answered = threading.Event(), list[int]()
        callers = [threading.Thread(target=_call_until, args=(node, over, answered)) for _ in range(12)]
        for thread in callers:
            thread.start()
        try:
            for _ in range(12):
                store.pause()
                time.sleep(0.04)  # longer than a call's deadline, shorter than patience
                store.resume()
                before = len(answered)
                node.until(partial(_have_come, answered, before + 4), "answers between two stops")
            node.until(lambda: answered.count(200) >= 10, "requests to be served")
        finally:
            store.resume()
            over.set()
            for thread in callers:
                thread.join()
        there(node)
        node.until(lambda: node.metrics("gateway_limit_holds") + node.metrics("gateway_limit_owed") == 0, "the end")
        assert set(answered) <= {200, 429, 503}
        balanced(node, "ann", "all", CAPACITY)


def _have_come(answered: list[int], number: int) -> bool:
    return len(answered) >= number


def _call_until(node: GatewayNode, over: threading.Event, answered: list[int]) -> None:
    raw = node.request(CHAT, {**TINY, "model": "sim-m+ttft-ms=20+tokens=3", "max_tokens": 9}, key=secret("ann"))
    while not over.wait(0.02):
        with node.open(raw) as call:
            answered.append(call.answer().status)


# --- denied -----------------------------------------------------------------------------------------------------------


def test_a_flood_over_a_used_up_limit_does_not_reach_the_store(store: StoreServer) -> None:
    rules = [
        rule("spent", per=["key"], requests=2),
        rule("tokens", per=["key"], tokens=1_000, match={"key": "saver"}),
    ]
    keys = [caller("flooder"), caller("saver")]
    with limited(
        rules=rules, keys=keys, limits=at(store, domain="denied", on_store_failure="closed"), workers=2
    ) as node:
        there(node)
        assert _until_refused(node, "flooder", "spent") == 2
        node.until(lambda: node.metrics("gateway_limit_holds") == 0, "both to be settled")
        started, before = time.monotonic(), _asked(store)
        refused = [answer for answer in _asked_until_refused(node, "flooder", 150) if refused_by(answer) == "spent"]
        took_s = time.monotonic() - started
        assert {left(answer, "requests") for answer in refused} == {0}
        waits = [int(answer.header("retry-after-ms")) for answer in refused]
        assert all(later <= earlier + 60 for earlier, later in pairwise(waits))
        # each worker asks when it knows nothing, and again each second at the latest; and each renews and probes
        assert _asked(store) - before <= 2 * (2 + took_s) * 2, "the store was asked"


def _asked_until_refused(node: GatewayNode, key: str, times: int) -> list[Answer]:
    """The answers, of which so many are refusals by a limit; a question to a store that is late is a 503."""
    answers = list[Answer]()

    def refused_often() -> bool:
        answers.append(ask(node, key))
        assert answers[-1].status in {429, 503}
        return len([answer for answer in answers if answer.status == 429]) >= times

    node.until(refused_often, f"{times} refusals")
    return answers


def test_a_small_request_is_not_refused_for_a_large_ones_sake(store: StoreServer) -> None:
    rules = [rule("tokens", per=["key"], tokens=1_000)]
    with limited(
        rules=rules, keys=[caller("saver")], limits=at(store, domain="saving", on_store_failure="closed")
    ) as node:
        there(node)
        node.until(lambda: ask(node, "saver").status == 200, "the first request")
        for _ in range(20):
            node.until(lambda: refused_by(ask(node, "saver", max_tokens=985)) == "tokens", "a refusal")
            assert ask(node, "saver", max_tokens=5).status in {200, 503}


def _asked(store: StoreServer) -> int:
    """How often the store has run a script."""
    with store.connect() as connection:
        told = connection.ask("INFO", "commandstats")
    assert isinstance(told, bytes)
    rows = [row for row in told.decode().splitlines() if row.startswith("cmdstat_evalsha:")]
    return int(rows[0].split("calls=")[1].split(",")[0]) if rows else 0


# --- killed -----------------------------------------------------------------------------------------------------------


def test_a_node_that_is_killed_frees_its_slots_within_ten_seconds(store: StoreServer) -> None:
    limits = at(store, domain="killed", nodes=2, on_store_failure="closed")
    given: dict[str, Any] = {"keys": [caller("ann", max_in_flight=1)], "limits": limits}
    with limited(**given) as two:
        there(two)
        with limited(**given) as one:
            there(one)
            with begun(one, "ann", "sim-m+tokens=900+token-ms=20", max_tokens=900):
                two.until(lambda: refused_by(ask(two, "ann")) == "key.max_in_flight", "the slot to be taken")
                one.kill()
                killed = time.monotonic()
                refused_until = _until_admitted(two, "ann")
                assert refused_until - killed <= 10
            one.start()
            there(one)


def _until_admitted(node: GatewayNode, key: str) -> float:
    """Ask until it is; when it asked what a limit refused at last. A store that was late refuses too, by no limit."""
    refused_at = 0.0

    def admitted() -> bool:
        nonlocal refused_at
        asked_at, answer = time.monotonic(), ask(node, key)
        refused_at = asked_at if refused_by(answer) else refused_at
        return answer.status == 200

    node.until(admitted, "the slot")
    return refused_at


def test_a_store_that_loses_its_data_is_given_it_back_from_the_journal() -> None:
    """Killed in the middle of a stream, and empty when it is back: what was used is what the journal says."""
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    with store_server.running() as server, limited(rules=rules, keys=[caller("ann")], limits=at(server)) as node:
        there(node)
        for _ in range(5):
            assert ask(node, "ann", "sim-m+tokens=20", max_tokens=20).status == 200
        with begun(node, "ann", "sim-m+tokens=60+token-ms=20", max_tokens=500) as call:
            server.kill()
            assert ask(node, "ann").status == 200
            assert b"".join(call.pieces()).endswith(b"data: [DONE]\n\n")
        server.start()
        there(node)
        balanced(node, "ann", "all", CAPACITY)
