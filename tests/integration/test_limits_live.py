"""Limits on a running gateway: whom they are for, what is taken and given back, and what a reload changes.

Usage is counted in the node's own shared memory here; `test_limits_store_live.py` has the store. What callers are told
is in `test_limits_told.py`, how every request ends in `fault/test_limits_faults.py`.
"""

import base64
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.fakes.gateway_node import PROVIDER_KEY, GatewayNode, chat_body
from tests.fakes.limited_node import (
    CHAT,
    MESSAGES,
    Step,
    ask,
    balance,
    begun,
    caller,
    ended,
    left,
    limited,
    play,
    refused_by,
    rewritten,
    rule,
    secret,
    settled,
    statuses,
    together,
)
from tests.fakes.wire_client import Answer

pytestmark = pytest.mark.slow

PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)

CAPACITY = 1_000_000

# --- whom a rule is for -----------------------------------------------------------------------------------------------

SCOPES = ["org", "team", "key", "user", "label:app"]
KEYS = [
    caller("ann", org="acme", team="search", user="ann", labels={"app": "ui"}),
    caller("bob", org="acme", team="search", user="bob", labels={"app": "ui"}),
    caller("ads", org="acme", team="ads", user="ann"),
    caller("bolt", org="bolt", team="search", user="ann", labels={"app": "api"}),
    caller("nobody"),
    caller("rpm", rpm=1),
    caller("duo1", team="duo"),
    caller("duo2", team="duo"),
    caller("few", max_in_flight=2),
    caller("poor", usd_per_month=0.002),
    caller("shadowed"),
    caller("fresh", tpm=100_000),
    caller("learner", org="dense"),
    caller("exact"),
    caller("headed"),
    caller("odd"),
]
PAIR = [{"provider": "sim", "model": "pair", "weight": 1}, {"provider": "sim2", "model": "pair", "weight": 0}]
RULES = [
    *[
        rule(f"by-{scope.partition(':')[0]}", per=[scope], requests=1, match={"model": f"sim-{scope}"})
        for scope in SCOPES
    ],
    rule("by-route", per=["route"], requests=1, match={"model": "sim-route"}),
    rule("by-end-user", per=["key", "end_user"], requests=1, match={"model": "sim-end-user"}),
    rule("by-nothing", requests=1, match={"model": "sim-nothing"}),
    rule("by-provider", per=["provider"], requests=1, match={"model": "pair"}),
    rule("crossed", per=["team", "model"], requests=1, match={"model": "cross*", "key": "ann"}),
    rule("matched", requests=1, match={"org": "ac*", "label": {"app": "ui"}, "model": "sim-matched"}),
    rule("burst", per=["key"], requests=60, every="minute", capacity=3, match={"model": "sim-burst"}),
    rule("shady", per=["key"], requests=2, shadow=True, match={"key": "shadowed"}),
    rule("learning", per=["key"], tokens=10_000_000, match={"key": "learner"}),
    rule("exact", per=["key"], tokens=100_000, budget=True, match={"key": "exact"}),
    rule("odd", per=["key"], tokens=100_000, budget=True, match={"key": "odd"}),
    rule("head-tokens", per=["key"], tokens=100_000, budget=True, match={"key": "headed"}),
    rule("head-output", per=["key"], output_tokens=60_000, budget=True, match={"key": "headed"}),
]
CONFIG: dict[str, Any] = {
    "providers": {"sim2": {"kind": "openai", "base_url": "@SIM@/v1", "api_key": PROVIDER_KEY}},
    "models": {
        "pair": {"targets": PAIR},
        "plain": {"targets": [{"provider": "sim", "model": "plain"}]},
        "cross/*": {"targets": [{"provider": "sim", "model": "*"}]},
        "cross-one": {"targets": [{"provider": "sim", "model": "one"}]},
        "priced": {"targets": [{"provider": "sim", "model": "priced"}], "price": {"input": 1, "output": 10}},
        "dense": {"targets": [{"provider": "sim", "model": "dense"}]},
    },
    "routes": [{"name": "messages", "match": {"path": MESSAGES}}],
    "teams": {"duo": {"rpm": 2}},
}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with limited(rules=RULES, keys=KEYS, **CONFIG) as running_node:
        yield running_node


Asked = tuple[str, str, dict[str, Any], str]
"""Who asks, for which model, with what in the body, and which limit refuses."""

SEQUENCES: dict[str, list[Step]] = {
    "orgs": [
        ("ann", "sim-org", {}, ""),
        ("ads", "sim-org", {}, "by-org"),
        ("bolt", "sim-org", {}, ""),
        ("nobody", "sim-org", {}, ""),  # has no org: outside of the rule
        ("nobody", "sim-org", {}, ""),
    ],
    "teams belong to their org": [
        ("ann", "sim-team", {}, ""),
        ("bob", "sim-team", {}, "by-team"),
        ("ads", "sim-team", {}, ""),
        ("bolt", "sim-team", {}, ""),
        ("bolt", "sim-team", {}, "by-team"),
        ("nobody", "sim-team", {}, ""),
        ("nobody", "sim-team", {}, ""),
    ],
    "keys": [
        ("ann", "sim-key", {}, ""),
        ("ann", "sim-key", {}, "by-key"),
        ("bob", "sim-key", {}, ""),
        ("nobody", "sim-key", {}, ""),
        ("nobody", "sim-key", {}, "by-key"),
    ],
    "users belong to their org": [
        ("ann", "sim-user", {}, ""),
        ("ads", "sim-user", {}, "by-user"),
        ("bob", "sim-user", {}, ""),
        ("bolt", "sim-user", {}, ""),
        ("nobody", "sim-user", {}, ""),
        ("nobody", "sim-user", {}, ""),
    ],
    "labels": [
        ("ann", "sim-label:app", {}, ""),
        ("bob", "sim-label:app", {}, "by-label"),
        ("bolt", "sim-label:app", {}, ""),
        ("ads", "sim-label:app", {}, ""),
        ("ads", "sim-label:app", {}, ""),
    ],
    "end users, under any name, of one key": [
        ("ann", "sim-end-user", {"user": "eve"}, ""),
        ("ann", "sim-end-user", {"safety_identifier": "eve"}, "by-end-user"),
        ("ann", "sim-end-user", {"path": MESSAGES, "metadata": {"user_id": "eve"}}, "by-end-user"),
        ("ann", "sim-end-user", {"user": "\u202eevé|x=%25\u0000"}, ""),
        ("ann", "sim-end-user", {"user": "\u202eevé|x=%25\u0000"}, "by-end-user"),
        ("ann", "sim-end-user", {}, ""),
        ("ann", "sim-end-user", {"user": ""}, "by-end-user"),  # nobody named is a value like another
        ("bob", "sim-end-user", {"user": "eve"}, ""),
    ],
    "nothing is the whole gateway": [
        ("ann", "sim-nothing", {}, ""),
        ("bolt", "sim-nothing", {}, "by-nothing"),
        ("nobody", "sim-nothing", {}, "by-nothing"),
    ],
    "routes": [
        ("ann", "sim-route", {}, ""),
        ("bolt", "sim-route", {}, "by-route"),
        ("bolt", "sim-route", {"path": MESSAGES}, ""),
        ("ann", "sim-route", {"path": MESSAGES}, "by-route"),
    ],
    "entries of models, crossed with teams": [
        ("ann", "cross/a", {}, ""),
        ("ann", "cross/b", {}, "crossed"),  # both are the entry cross/*
        ("ann", "cross-one", {}, ""),
        ("ann", "cross-one", {}, "crossed"),
    ],
    "whom a rule is for": [
        ("bolt", "sim-matched", {}, ""),
        ("ads", "sim-matched", {}, ""),
        ("ann", "sim-matched", {}, ""),
        ("bob", "sim-matched", {}, "matched"),
        ("bolt", "sim-matched", {}, ""),
    ],
    "the short forms of keys": [
        ("rpm", "sim-m", {}, ""),
        ("rpm", "renamed", {}, "key.rpm"),
    ],
    "the short forms of teams": [
        ("duo1", "sim-m", {}, ""),
        ("duo2", "sim-m", {}, ""),
        ("duo1", "sim-m", {}, "team.rpm"),
    ],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_whom_a_limit_joins_and_whom_it_keeps_apart(node: GatewayNode, name: str) -> None:
    play(node, SEQUENCES[name])


def test_a_provider_whose_limit_is_used_up_is_skipped(node: GatewayNode) -> None:
    first, second, third = (ask(node, "ann", "pair") for _ in range(3))
    assert [first.header("x-gateway-target"), second.header("x-gateway-target")] == ["sim/pair", "sim2/pair"]
    assert second.header("x-gateway-attempts").startswith("1; ")  # the first was not even tried
    assert refused_by(third) == "by-provider"
    assert "for provider sim)" in third.json["error"]["message"]


def test_people_are_not_named_in_what_is_recorded(node: GatewayNode) -> None:
    answer = ask(node, "bolt", "sim-end-user", user="mallory")
    (name,) = [name for name in hold_names(node, answer) if name.startswith("by-end-user")]
    assert "key=bolt|end_user=" in name
    assert "mallory" not in name


def hold_names(node: GatewayNode, answer: Answer) -> list[str]:
    outcome = settled(node, answer).outcome
    assert outcome is not None
    return list(outcome.settled_amounts)


# --- how much ---------------------------------------------------------------------------------------------------------


def test_what_may_come_at_once_is_apart_from_the_rate(node: GatewayNode) -> None:
    """Three at once, and then one a second: refused just before the told moment, admitted just after it."""
    assert any(_is_burst(node) for _ in range(5)), "this machine never was in time"
    assert any(_is_exact(node) for _ in range(5)), "this machine never was in time"


def _is_burst(node: GatewayNode) -> bool:
    """Take all three at once; False when that took so long that there was a fourth, and there are three again."""
    began = time.monotonic()
    answers = [ask(node, "nobody", "sim-burst") for _ in range(3)]
    at_once = time.monotonic() - began < 1
    if at_once:
        assert [(answer.status, left(answer, "requests")) for answer in answers] == [(200, 2), (200, 1), (200, 0)]
    else:
        time.sleep(3)
    return at_once


def _is_exact(node: GatewayNode) -> bool:
    """Try both sides of the moment that a refusal tells; False when the early one came too late to say anything."""
    asked_at = time.monotonic()
    refused = ask(node, "nobody", "sim-burst")
    told_at = time.monotonic()
    assert refused_by(refused) == "burst"
    wait_s = int(refused.header("retry-after-ms")) / 1000
    assert 0 < wait_s <= 1
    assert refused.header("retry-after") == "1"
    time.sleep(max(0.0, asked_at + wait_s - 0.03 - time.monotonic()))
    early = ask(node, "nobody", "sim-burst")
    in_time = time.monotonic() < asked_at + wait_s
    if in_time:
        assert refused_by(early) == "burst"
    time.sleep(max(0.0, told_at + wait_s - time.monotonic()))
    assert in_time is False or ask(node, "nobody", "sim-burst").status == 200
    return in_time


def test_a_shadow_counts_and_reports_and_refuses_nobody(node: GatewayNode) -> None:
    answers = [ask(node, "shadowed") for _ in range(5)]
    assert statuses(answers) == {200: 5}
    assert not answers[-1].has("x-ratelimit-limit-requests")
    node.until(lambda: node.metrics("gateway_limit_shadowed_total", rule="shady") == 3, "three that would be refused")
    assert node.metrics("gateway_limit_refusals_total", rule="shady") == 0


def test_slots_are_free_when_their_requests_are_over(node: GatewayNode) -> None:
    slow = "sim-m+tokens=900+token-ms=20"
    with begun(node, "few", slow), begun(node, "few", slow):
        refused = ask(node, "few")
        assert refused_by(refused) == "key.max_in_flight"
        assert refused.header("retry-after") == "1"
    node.until(lambda: ask(node, "few").status == 200, "a free slot")


def test_money_is_counted_by_the_price_of_the_target(node: GatewayNode) -> None:
    """1 USD for a million tokens of prompt and 10 USD for as many of answer: micro-USD, to the unit."""
    first = ask(node, "poor", "priced", max_tokens=100, messages=[{"role": "user", "content": "x" * 300}])
    told, usage = settled(node, first), first.json["usage"]
    cost = usage["prompt_tokens"] + 10 * usage["completion_tokens"]
    assert usage["completion_tokens"] > 50
    assert told.settled == {"key.usd_per_month": cost}
    assert told.outcome is not None
    assert told.outcome.cost_microusd == cost
    fits = (2_000 - cost - 20) // 10  # 10 tokens of prompt, a little room
    assert refused_by(ask(node, "poor", "priced", max_tokens=fits + 5)) == "key.usd_per_month"
    assert ask(node, "poor", "priced", max_tokens=fits).status == 200
    unpriced = ask(node, "poor", "sim-m")
    assert (unpriced.status, unpriced.json["error"]["code"]) == (403, "model_not_priced")


def test_a_refusal_takes_nothing(node: GatewayNode) -> None:
    """One limit has room and another has not: the first is not charged, however often it is tried."""
    before = balance(node, "headed", "head-tokens", 100_000)
    for _ in range(5):
        refused = ask(node, "headed", max_tokens=60_000)
        assert refused_by(refused) == "head-output"
        assert left(refused) == before - 8
    assert balance(node, "headed", "head-tokens", 100_000) == before - 8  # the probe of before, and nothing else


def test_what_can_never_fit_is_no_429(node: GatewayNode) -> None:
    before = balance(node, "exact", "exact", 100_000)
    answer = ask(node, "exact", messages=[{"role": "user", "content": "word " * 90_000}])
    assert (answer.status, answer.json["error"]["code"]) == (400, "request_too_large_for_limit")
    assert "exact (100000 tokens a month for key exact)" in answer.json["error"]["message"]
    assert not answer.has("retry-after")
    assert balance(node, "exact", "exact", 100_000) == before - 8


# --- the estimate -----------------------------------------------------------------------------------------------------


def test_a_fresh_key_without_a_maximum_is_admitted_and_its_body_goes_on_as_it_was(node: GatewayNode) -> None:
    body = json.dumps(
        {"messages": [{"content": "hello", "role": "user"}], "odd": {"x": [1e400, "é"]}, "model": "plain"}
    )
    raw = body.replace("Infinity", "1e400").encode()
    answer = node.post(CHAT, raw, key=secret("fresh"))
    assert answer.status == 200
    assert node.sim.last("plain")["body_sha256"] == hashlib.sha256(raw).hexdigest()
    assert left(answer) > 98_000  # the prior of an answer, not the 128 thousand that models can do
    assert settled(node, answer).settled == {"key.tpm": answer.json["usage"]["total_tokens"] * 1000}


def test_a_picture_is_not_text(node: GatewayNode) -> None:
    url = "data:image/png;base64," + base64.b64encode(PIXEL + bytes(300_000)).decode()
    content = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    answer = ask(node, "odd", messages=[{"role": "user", "content": content}])
    assert answer.status == 200
    assert settled(node, answer).held["odd"] < 1_000  # as text it would be a hundred thousand


def test_a_form_of_images_takes_for_each_that_it_asks_for(node: GatewayNode) -> None:
    kind = {"content-type": "multipart/form-data; boundary=x"}
    picture = b'--x\r\ncontent-disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + PIXEL + b"\r\n"
    held = {}
    for n in (1, 3):
        fields = b"".join(
            b'--x\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % named
            for named in ((b"model", b"sim-image"), (b"prompt", b"a hat"), (b"n", b"%d" % n))
        )
        answer = node.post("/v1/images/edits", fields + picture + b"--x--\r\n", kind, key=secret("odd"))
        assert answer.status == 200, answer.body
        held[n] = settled(node, answer).held["odd"]
    assert held[3] - held[1] == 2 * 1_024


def test_what_was_used_teaches_the_next_estimate(node: GatewayNode) -> None:
    """A model whose tokens are of two bytes: each estimate is nearer than the one before."""
    usage = {"prompt_tokens": 3_007, "completion_tokens": 1, "total_tokens": 3_008}
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    said = {"id": "1", "object": "chat.completion", "created": 1, "model": "dense", "choices": [choice], "usage": usage}
    node.sim.script({"match": {"model": "dense"}, "reply": {"status": 200, "body": said}})
    held = []
    for _ in range(4):
        answer = ask(node, "learner", "dense", messages=[{"role": "user", "content": "ab cde" * 1_000}])
        told = settled(node, answer)
        held.append(told.held["learning"] // 1000)
        assert told.settled == {"learning": 3_008_000}
    node.sim.reset()
    assert held[0] == 1_508
    assert held == sorted(set(held))
    assert 3_008 - held[1] < (3_008 - held[0]) / 3
    assert 3_008 - held[3] < 100


ODD_NUMBERS: dict[str, tuple[dict[str, Any], int, int | None]] = {
    "no maximum is no number": ({"max_tokens": None}, 200, 1_034),
    "the larger of two names": ({"max_tokens": 50, "max_completion_tokens": 70}, 200, 80),
    "each answer counts": ({"max_tokens": 50, "n": 3}, 200, 160),
    "n alone": ({"max_tokens": None, "n": 3}, 200, 10 + 3 * 1_024),
    "less than nothing is no limit": ({"max_tokens": -(10**14)}, 400, 1_034),
    "n below one is one": ({"n": -5}, 400, 11),
    "too many digits": ({"max_tokens": 10**15}, 400, None),
    "a fraction": ({"max_tokens": 1.5}, 400, None),
    "text": ({"max_tokens": "5"}, 400, None),
    "true": ({"max_tokens": True}, 400, None),
    "n is a list": ({"n": [1]}, 400, None),
    "another spelling": ({"MAX_TOKENS": 5}, 400, None),
    "no text at all": ({"messages": [{"role": "user", "content": None}]}, 200, 8),
}


@pytest.mark.parametrize("name", ODD_NUMBERS)
def test_numbers_that_callers_may_think_of(node: GatewayNode, name: str) -> None:
    """What is refused by the gateway takes nothing; what is refused by the provider costs the request."""
    fields, status, held = ODD_NUMBERS[name]
    answer = ask(node, "odd", **fields)
    assert answer.status == status, answer.body
    if held is None:
        assert answer.json["error"]["code"] == "invalid_request"
        assert not answer.has("x-gateway-attempts")
        return
    told = settled(node, answer)
    assert told.held["odd"] == held
    assert told.settled == {"odd": answer.json["usage"]["total_tokens"] if status == 200 else 0}


@pytest.mark.parametrize(
    "fields", [{"max_tokens": 10**14}, {"n": 10**9}, {"max_completion_tokens": 10**12, "n": 10**6}]
)
def test_what_no_limit_has_room_for_takes_all_there_is_and_gives_it_back(fields: dict[str, Any]) -> None:
    with limited(rules=[rule("all", per=["key"], tokens=1_000, budget=True)], keys=[caller("ann")]) as node:
        answer = ask(node, "ann", **fields)
        assert left(answer) == 0
        told = settled(node, answer)
        assert told.held["all"] == 1_000
        assert balance(node, "ann", "all", 1_000) == 1_000 - (told.settled or {})["all"]


# --- workers ----------------------------------------------------------------------------------------------------------


def test_workers_count_together(many: GatewayNode) -> None:
    raw = many.request(CHAT, chat_body("sim-m+tokens=1", max_tokens=1), key=secret("crowd"))
    answers = together(many, [raw] * 60)
    assert statuses(answers) == {200: 25, 429: 35}
    assert len(by_worker(answers)) == 2, "both workers had to do with it"
    assert {refused_by(answer) for answer in answers if answer.status == 429} == {"crowd"}
    assert sorted(left(answer, "requests") for answer in answers if answer.status == 200) == list(range(25))


def by_worker(answers: list[Answer]) -> set[str]:
    """The workers that answered, by how the ids begin that they give."""
    return {answer.header("x-request-id")[:14] for answer in answers}


def test_slots_are_never_more_than_there_are(many: GatewayNode) -> None:
    raw = many.request(CHAT, chat_body("sim-m+ttft-ms=700+tokens=1", max_tokens=1), key=secret("slots"))
    answers = together(many, [raw] * 24)
    assert statuses(answers) == {200: 5, 429: 19}
    assert statuses(together(many, [raw] * 5)) == {200: 5}


@pytest.fixture(scope="module")
def many() -> Iterator[GatewayNode]:
    rules = [rule("crowd", per=["key"], requests=25, match={"key": "crowd"})]
    with limited(rules=rules, keys=[caller("crowd"), caller("slots", max_in_flight=5)], workers=2) as running_node:
        yield running_node


# --- a table that is too small ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_full", ["other", "refuse"])
def test_a_table_that_is_full(on_full: str) -> None:
    """End users and keys want more rows than there are: with `other` no tenant is refused for it but by its own use."""
    limits = {"max_buckets": 16, "on_table_full": on_full}
    rules = [
        rule("people", per=["key", "end_user"], requests=2),
        rule("all-of-a-key", per=["key"], requests=1_000),
    ]
    keys = [caller("flood"), *[caller(f"quiet{at}") for at in range(20)]]
    with limited(rules=rules, keys=keys, limits=limits) as node:
        flood = [ask(node, "flood", user=f"u{at}") for at in range(40)]
        quiet = [ask(node, f"quiet{at}") for at in range(20)]
        if on_full == "other":
            assert statuses(quiet) == {200: 20}
            assert {refused_by(answer) for answer in flood} == {"", "people"}  # those without a row share one
        else:
            assert {answer.json["error"]["code"] for answer in quiet if answer.status != 200} == {"limits_unavailable"}
            assert statuses(flood).keys() == {200, 503}
        assert node.metrics("gateway_limits_unavailable_total") == 0 or on_full == "refuse"


@pytest.mark.parametrize("on_full", ["other", "refuse"])
def test_room_for_requests_under_way_that_one_key_has_taken(on_full: str) -> None:
    """With `other` the rest goes on uncounted, and every balance is right when all is over."""
    limits = {"max_holds": 16, "on_table_full": on_full}
    rules = [rule("all", per=["key"], tokens=CAPACITY, budget=True)]
    slow = "sim-m+tokens=900+token-ms=20"
    with limited(rules=rules, keys=[caller("flood"), caller("quiet")], limits=limits) as node, ExitStack() as open_:
        for _ in range(16):
            open_.enter_context(begun(node, "flood", slow, max_tokens=900))
        if on_full == "refuse":
            assert ask(node, "quiet").json["error"]["code"] == "limits_unavailable"
            return
        open_.enter_context(begun(node, "flood", slow, max_tokens=900))
        assert ask(node, "quiet").status == 200
        open_.close()
        assert len(ended(node, "flood", 17)) == 17
        assert balance(node, "flood", "all", CAPACITY) < CAPACITY - 17 * 10
        assert balance(node, "quiet", "all", CAPACITY) == CAPACITY - 8


def test_end_users_above_the_cap_are_counted_together() -> None:
    rules = [rule("people", per=["key", "end_user"], requests=1)]
    with limited(rules=rules, keys=[caller("a"), caller("b")], limits={"max_end_users": 5}) as node:
        answers = [ask(node, "a", user=f"u{at}") for at in range(12)]
        assert [answer.status for answer in answers] == [200] * 6 + [429] * 6
        assert refused_by(ask(node, "a", user="u0")) == "people"  # who has a row keeps it
        assert [ask(node, "b", user=f"u{at}").status for at in range(5)] == [200] * 5


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_changed_limit_and_a_changed_key_keep_what_was_used() -> None:
    def rules(requests: int, *more: str) -> list[dict[str, Any]]:
        return [rule("mine", per=["key"], requests=requests), *[rule(name, per=["key"], requests=2) for name in more]]

    with limited(rules=rules(10, "gone"), keys=[caller("ann")], workers=2) as node:
        assert [left(ask(node, "ann"), "requests") for _ in range(2)] == [1, 0]
        assert refused_by(ask(node, "ann")) == "gone"
        rewritten(node, limits={"rules": rules(10)})
        assert left(ask(node, "ann"), "requests") == 7
        rewritten(node, limits={"rules": rules(20)})
        assert left(ask(node, "ann"), "requests") == 16
        rewritten(node, limits={"rules": rules(3)})
        below = ask(node, "ann")
        assert refused_by(below) == "mine"
        assert left(below, "requests") == 0
        rewritten(node, limits={"rules": rules(5)})
        assert left(ask(node, "ann"), "requests") == 0
        new = {**caller("ann"), "secret": secret("changed"), "user": "ann", "labels": {"app": "ui"}}
        rewritten(node, keys=[new], limits={"rules": rules(6, "gone")})
        assert ask(node, "ann").status == 401
        again = ask(node, "changed")
        assert left(again, "requests") == 0
