"""However a limited request ends, it is settled once, and what is left of its limits is what the journal says.

Nodes here lose providers, callers, workers and their configuration in the middle of requests. Each test ends with the
balance: the capacity, less what outcomes settled, less what is held without an outcome, is what the headers tell.
"""

import http.client
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tests.fakes.gateway_node import PROVIDER_KEY, GatewayNode, chat_body
from tests.fakes.limited_node import (
    CHAT,
    ask,
    balance,
    begun,
    caller,
    ended,
    limited,
    recorded,
    refused_by,
    rewritten,
    rule,
    secret,
    settled,
    statuses,
    together,
)
from tests.fakes.patience import PATIENCE_S
from tests.fakes.wire_client import Answer, Call

pytestmark = pytest.mark.slow

CAPACITY = 1_000_000
SLOW = "sim-m+tokens=900+token-ms=20"
QUICK = {"connect_s": 1, "first_byte_s": 0.3, "first_content_s": 0.5, "idle_s": 0.5, "total_s": 3}
CONFIG: dict[str, Any] = {
    "providers": {
        "sim2": {"kind": "openai", "base_url": "@SIM@/v1", "api_key": PROVIDER_KEY},
        "dead": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "api_key": PROVIDER_KEY},
    },
    "models": {
        "broken-first": {
            "targets": [
                {"provider": "sim", "model": "bad+status=500", "weight": 1},
                {"provider": "sim2", "model": "good+tokens=7", "weight": 0},
            ]
        },
        "slow-first": {
            "targets": [
                {"provider": "sim", "model": "bad+stall=before", "weight": 1},
                {"provider": "sim2", "model": "good+tokens=7", "weight": 0},
            ],
            "timeouts": QUICK,
        },
        "dead-first": {
            "targets": [
                {"provider": "dead", "model": "m", "weight": 1},
                {"provider": "sim2", "model": "good+tokens=7", "weight": 0},
            ]
        },
        "quick/*": {"targets": [{"provider": "sim", "model": "*"}], "timeouts": QUICK},
        "nowhere": {"targets": [{"provider": "dead", "model": "m"}]},
    },
}
RULES = [
    rule("all", per=["key"], tokens=CAPACITY, budget=True),
    rule("count", per=["key"], requests=1_000, budget=True),
    rule("at", per=["key", "provider"], tokens=2 * CAPACITY, budget=True, match={"key": "crossing"}),
    rule("count-at", per=["key", "provider"], requests=1_000, budget=True, match={"key": "crossing"}),
]


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    keys = [caller("crossing"), caller("plain"), caller("leaver"), caller("one", max_in_flight=1)]
    with limited(rules=RULES, keys=keys, workers=2, **CONFIG) as running_node:
        yield running_node


def total(answer: Answer) -> int:
    used: int = answer.json["usage"]["total_tokens"]
    return used


# --- complete ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [1, 40, 3_000])
@pytest.mark.parametrize("stream", [False, True])
def test_a_whole_answer_costs_what_the_provider_says(node: GatewayNode, tokens: int, stream: bool) -> None:
    """Less than was reserved, about as much, and thrice as much: the difference comes back, or is owed."""
    answer = ask(node, "plain", f"sim-m+tokens={tokens}", max_tokens=None, stream=stream)
    told = settled(node, answer)
    assert told.outcome is not None
    assert told.outcome.usage is not None
    used = told.outcome.usage.input_tokens + told.outcome.usage.output_tokens
    assert told.outcome.usage.output_tokens == tokens
    assert told.held["count"] == 1
    assert told.settled == {"all": used, "count": 1}
    balance(node, "plain", "all", CAPACITY)


def test_an_answer_without_usage_costs_what_was_reserved(node: GatewayNode) -> None:
    told = settled(node, ask(node, "plain", "sim-m+nousage", max_tokens=300))
    assert told.settled == told.held
    assert told.held["all"] == 310
    balance(node, "plain", "all", CAPACITY)


# --- failed -----------------------------------------------------------------------------------------------------------

FAILED = {  # model → status, what is settled of 110 tokens that were reserved
    "sim-m+status=400": (400, 0, 1),
    "sim-m+status=500": (500, 0, 1),
    "sim-m+status=429": (429, 0, 1),
    "quick/m+stall=before": (504, 110, 1),  # the provider may have worked on it
    "sim-m+reset=before": (502, 0, 1),
    "nowhere": (502, 0, 0),  # no byte of it went anywhere
}


@pytest.mark.parametrize("model", FAILED)
def test_what_a_failure_costs(node: GatewayNode, model: str) -> None:
    status, tokens, requests = FAILED[model]
    answer = ask(node, "plain", model, max_tokens=100)
    assert (answer.status, refused_by(answer) if status != 429 else "") == (status, "")
    assert settled(node, answer).settled == {"all": tokens, "count": requests}
    balance(node, "plain", "all", CAPACITY)


ATTEMPTS = {  # model → what the provider that failed is charged
    "broken-first": {"at@sim": 0, "count-at@sim": 1},
    "slow-first": {"at@sim": 110, "count-at@sim": 1},
    "dead-first": {"at@dead": 0, "count-at@dead": 0},
}


@pytest.mark.parametrize("model", ATTEMPTS)
def test_each_provider_is_charged_its_own_attempt_and_the_caller_once(node: GatewayNode, model: str) -> None:
    answer = ask(node, "crossing", model, max_tokens=100)
    assert (answer.status, answer.header("x-gateway-target")) == (200, "sim2/good+tokens=7")
    used, told = total(answer), settled(node, answer)
    assert told.settled == {
        "all": used,
        "count": 1,
        "at@sim2": used,
        "count-at@sim2": 1,
        **ATTEMPTS[model],
    }
    balance(node, "crossing", "all", CAPACITY)


# --- cut short --------------------------------------------------------------------------------------------------------


def test_a_stream_that_breaks_off_costs_what_had_passed(node: GatewayNode) -> None:
    answer = ask(node, "plain", "sim-m+tokens=200+truncate=60", max_tokens=500, stream=True)
    assert answer.ended == "cut"
    told = settled(node, answer)
    assert told.settled is not None
    assert 40 <= told.settled["all"] < 150, told
    assert told.settled["count"] == 1
    balance(node, "plain", "all", CAPACITY)


def test_a_caller_who_leaves_pays_for_what_had_passed(node: GatewayNode) -> None:
    with begun(node, "leaver", SLOW, max_tokens=900) as call:
        for _ in range(10):
            next(call.pieces())
    (told,) = ended(node, "leaver", 1)
    assert told.outcome is not None
    assert told.outcome.ending == "abandoned"
    assert told.held["all"] == 910
    assert told.settled is not None
    assert 15 <= told.settled["all"] < 300, told
    balance(node, "leaver", "all", CAPACITY)


def test_a_caller_who_leaves_before_an_answer_that_is_not_streamed_pays_what_was_reserved(node: GatewayNode) -> None:
    body = chat_body("sim-alone+ttft-ms=9000", max_tokens=200)
    with node.open(node.request(CHAT, body, key=secret("one"))):
        node.until(lambda: node.sim.requests("sim-alone+ttft-ms=9000"), "the provider to be asked")
    (told,) = ended(node, "one", 1)
    assert told.settled == told.held
    assert told.held["all"] == 210
    node.until(lambda: ask(node, "one").status == 200, "the slot")


# --- reload, and workers that die -------------------------------------------------------------------------------------


def test_a_reload_in_the_middle_of_a_stream_settles_it_once() -> None:
    def rules(tokens: int) -> dict[str, Any]:
        return {"rules": [rule("all", per=["key"], tokens=tokens, budget=True)]}

    with limited(rules=rules(5_000)["rules"], keys=[caller("ann", max_in_flight=1)], workers=2) as node:
        with begun(node, "ann", "sim-m+tokens=130+token-ms=5", max_tokens=2_000) as call:
            with node.sim.standing_still():
                rewritten(node, limits=rules(9_000))
                assert refused_by(ask(node, "ann")) == "key.max_in_flight"
            assert b"".join(call.pieces()).endswith(b"data: [DONE]\n\n")
        (told,) = ended(node, "ann", 1)
        assert told.held["all"] == 2_010
        assert told.settled is not None
        assert 130 < told.settled["all"] < 150
        assert balance(node, "ann", "all", 9_000) == 9_000 - told.settled["all"]


def test_an_upgrade_in_the_middle_of_a_stream_keeps_what_is_used_and_who_is_in_flight() -> None:
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    with limited(rules=rules, keys=[caller("ann", max_in_flight=1)], workers=2) as node:
        assert ask(node, "ann").status == 200
        with begun(node, "ann", "sim-m+tokens=130+token-ms=5", max_tokens=2_000) as call:
            with node.sim.standing_still():
                os.kill(node.pid, signal.SIGUSR2)
                node.until(lambda: node.admin("/v1/status").json["upgrades"] == 1, "the upgrade")
                assert refused_by(ask(node, "ann")) == "key.max_in_flight"
            assert b"".join(call.pieces()).endswith(b"data: [DONE]\n\n")
        assert len(ended(node, "ann", 2)) == 2
        assert balance(node, "ann", "all", CAPACITY) < CAPACITY - 130


def test_a_drain_lets_streams_end_and_settles_them() -> None:
    with limited(rules=[rule("all", per=["key"], tokens=CAPACITY, budget=True)], keys=[caller("ann")]) as node:
        with begun(node, "ann", "sim-m+tokens=50+token-ms=20", max_tokens=2_000) as call:
            os.kill(node.pid, signal.SIGTERM)
            assert b"".join(call.pieces()).endswith(b"data: [DONE]\n\n")
        assert node.process is not None
        node.process.wait(PATIENCE_S)
        (told,) = recorded(node).values()
        assert told.outcome is not None
        assert told.outcome.usage is not None
        assert told.outcome.usage.output_tokens == 50
        assert told.settled == {"all": told.outcome.usage.input_tokens + 50}
        node.start()
        assert balance(node, "ann", "all", CAPACITY) == CAPACITY - told.settled["all"]


def test_a_drain_that_runs_out_of_time_charges_what_had_passed() -> None:
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    with limited(rules=rules, keys=[caller("ann")], drain_s=0.5) as node:
        with begun(node, "ann", SLOW, max_tokens=2_000) as call:
            assert node.stop() == 0
            assert b"[DONE]" not in b"".join(_pieces(call))
        (told,) = recorded(node).values()
        assert told.settled is not None
        assert 10 < told.settled["all"] < 2_010
        node.start()
        assert balance(node, "ann", "all", CAPACITY) == CAPACITY - told.settled["all"]


def _pieces(call: Call) -> Iterator[bytes]:
    with suppress(OSError, http.client.HTTPException):  # however it is cut
        yield from call.pieces()


def test_a_worker_that_is_killed_frees_its_slots_and_leaves_its_charge() -> None:
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    with limited(rules=rules, keys=[caller("ann", max_in_flight=2)], workers=2) as node:
        with begun(node, "ann", SLOW, max_tokens=900), begun(node, "ann", SLOW, max_tokens=900):
            assert refused_by(ask(node, "ann")) == "key.max_in_flight"
            for worker in node.until_workers(2):
                node.kill_child(worker)
            killed = time.monotonic()
            node.until(lambda: _answers(node, "ann") == {200: 2}, "both slots")
            assert time.monotonic() - killed <= 10
        node.until(lambda: _unended(node) == [910, 910], "the outcomes of all but those two")
        balance(node, "ann", "all", CAPACITY)  # which counts what is held and has no outcome


def _unended(node: GatewayNode) -> list[int]:
    return [told.held["all"] for told in recorded(node).values() if told.outcome is None]


def _answers(node: GatewayNode, key: str, number: int = 2) -> dict[int, int]:
    try:
        raw = node.request(CHAT, chat_body("sim-m+ttft-ms=100+tokens=1", max_tokens=1), key=secret(key))
        return statuses(together(node, [raw] * number))
    except OSError:
        return {}


def test_requests_in_flight_are_never_too_many_while_workers_die() -> None:
    """Twelve callers want four slots, and one worker after the other is killed: the provider never sees a fifth."""
    slow = chat_body("sim-m+ttft-ms=250+tokens=1", max_tokens=1)
    with limited(keys=[caller("ann", max_in_flight=4)], workers=2) as node:
        over, killed_ms = threading.Event(), []
        callers = [threading.Thread(target=_call_until, args=(node, slow, over)) for _ in range(12)]
        for thread in callers:
            thread.start()
        for _ in range(3):
            served = len(node.sim.requests())
            node.until(partial(_has_served, node, served + 6), "requests between two deaths")
            victim = node.until(node.workers, "a worker")[0]
            killed_ms.append(time.monotonic() * 1000)
            node.kill_child(victim)
        node.until_workers(2)
        over.set()
        for thread in callers:
            thread.join()
        assert 3 <= _most_at_once(node, killed_ms) <= 4
        killed = time.monotonic()
        node.until(lambda: _answers(node, "ann", 4) == {200: 4}, "all slots")
        assert time.monotonic() - killed <= 10


def _has_served(node: GatewayNode, number: int) -> bool:
    return len(node.sim.requests()) >= number


def _call_until(node: GatewayNode, body: object, over: threading.Event) -> None:
    """Ask again and again, also when the worker dies that should answer."""
    raw = node.request(CHAT, body, key=secret("ann"))
    while not over.is_set():
        with suppress(OSError, http.client.HTTPException, ValueError), node.open(raw) as call:
            over.wait(0.01 if call.answer().status == 200 else 0.03)


def _most_at_once(node: GatewayNode, killed_ms: list[float]) -> int:
    """The most requests that were at the provider at a time; what a death has cut was over with that, not when seen."""
    moments = []
    for entry in node.sim.requests():
        began_ms = entry["started_monotonic_ms"]
        over_ms = began_ms + entry["ended_ms"]
        if entry["aborted_by_peer"]:
            over_ms = max(moment_ms for moment_ms in killed_ms if moment_ms <= began_ms + entry["aborted_ms"])
        moments += [(began_ms, 1), (max(began_ms, over_ms), -1)]
    at_once = most = 0
    for _, change in sorted(moments):
        at_once += change
        most = max(most, at_once)
    return most


def test_a_stream_longer_than_a_lease_keeps_its_slot() -> None:
    """11 seconds of stream, a lease of 9: one slot, and nobody else has it meanwhile, on neither worker."""
    with limited(keys=[caller("ann", max_in_flight=1)], workers=2) as node:
        with begun(node, "ann", "sim-m+tokens=220+token-ms=5") as call:
            with node.sim.standing_still():
                until = time.monotonic() + 10.5
                while time.monotonic() < until:
                    assert refused_by(ask(node, "ann")) == "key.max_in_flight"
                    time.sleep(0.2)
            assert b"".join(call.pieces()).endswith(b"data: [DONE]\n\n")
        node.until(lambda: ask(node, "ann").status == 200, "the slot")
