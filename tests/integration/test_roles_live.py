"""Roles and classes of data on a running gateway: whom they join under a limit, and what the journal says of them."""

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.journal import layout
from gateway.journal.read import entries
from gateway.record import Kind, Record
from tests.fakes.gateway_node import GatewayNode
from tests.fakes.limited_node import (
    MESSAGES,
    Step,
    ask,
    caller,
    left,
    limited,
    play,
    refused_by,
    rewritten,
    rule,
    secret,
    settled,
)
from tests.fakes.wire_client import Answer

pytestmark = pytest.mark.slow

KEYS = [
    caller("ann", org="acme", role="analyst", data_class="internal"),
    caller("bob", org="bolt", role="analyst", data_class="internal"),
    caller("eve", org="acme", role="intern", data_class="public"),
    caller("nobody"),
]
RULES = [
    rule("by-role", per=["role"], requests=2, every="hour", match={"model": "sim-role"}),
    rule("crossed", per=["role", "model"], requests=2, every="hour", match={"model": "cross*"}),
    rule("by-class", per=["data_class"], requests=2, every="hour", match={"model": "sim-class"}),
    rule("interns", per=["key"], requests=1, every="hour", match={"role": "intern", "model": "sim-match"}),
    rule("secrets", requests=1, every="hour", match={"data_class": "sec*", "model": "sim-match"}),
]
CONFIG: dict[str, Any] = {
    "models": {
        "cross/*": {"targets": [{"provider": "sim", "model": "*"}]},
        "cross-one": {"targets": [{"provider": "sim", "model": "one"}]},
    },
    "routes": [{"name": "messages", "match": {"path": MESSAGES}, "data_class": "secret"}],
}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with limited(rules=RULES, keys=KEYS, workers=2, **CONFIG) as running_node:
        yield running_node


SEQUENCES: dict[str, list[Step]] = {
    "keys of one role, in whichever org": [
        ("ann", "sim-role", {}, ""),
        ("bob", "sim-role", {}, ""),
        ("ann", "sim-role", {}, "by-role"),
        ("bob", "sim-role", {}, "by-role"),
        ("eve", "sim-role", {}, ""),
        *[("nobody", "sim-role", {}, "")] * 3,  # has no role: outside of the rule
    ],
    "roles, crossed with entries of models": [
        ("ann", "cross/a", {}, ""),
        ("bob", "cross/b", {}, ""),  # the same entry
        ("ann", "cross/a", {}, "crossed"),
        ("ann", "cross-one", {}, ""),
        ("eve", "cross/a", {}, ""),
    ],
    "classes of data, of keys and of a route": [
        ("ann", "sim-class", {}, ""),
        ("bob", "sim-class", {}, ""),
        ("ann", "sim-class", {}, "by-class"),
        ("eve", "sim-class", {}, ""),
        ("ann", "sim-class", {"path": MESSAGES}, ""),  # the route says another, and wins
        ("nobody", "sim-class", {"path": MESSAGES}, ""),
        ("eve", "sim-class", {"path": MESSAGES}, "by-class"),
        *[("nobody", "sim-class", {}, "")] * 3,
    ],
    "whom a rule is for": [
        ("ann", "sim-match", {}, ""),
        ("ann", "sim-match", {}, ""),
        ("eve", "sim-match", {}, ""),
        ("eve", "sim-match", {}, "interns"),
        ("ann", "sim-match", {"path": MESSAGES}, ""),
        ("bob", "sim-match", {"path": MESSAGES}, "secrets"),
    ],
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_whom_a_limit_joins_and_whom_it_keeps_apart(node: GatewayNode, name: str) -> None:
    play(node, SEQUENCES[name])


def test_a_refusal_names_the_role_and_why_foretells_it(node: GatewayNode) -> None:
    asked = "/v1/limits/explain?key=ann&model=cross-one&tokens=1"
    assert node.admin(asked).json["key"]["role"] == "analyst"
    answer = node.until(lambda: _refused(ask(node, "ann", "cross-one")), "the limit's end")
    whom = "for role analyst and model cross-one"
    assert whom in answer.json["error"]["message"]
    document = node.admin(asked).json
    assert (document["data_class"], document["refused"]["rule"]) == ("internal", "crossed")
    assert whom in document["refused"]["message"]
    told = node.command("why", "--key", "ann", "--model", "cross-one", "--set", f"admin.port={node.admin_port}")
    assert told.returncode == 1
    assert "key      ann (org acme, role analyst)\n" in told.stdout
    assert "; route default; data class internal\n" in told.stdout
    assert "bucket crossed|role=analyst|model=cross-one; " in told.stdout


def _refused(answer: Answer) -> Answer | None:
    return answer if refused_by(answer) == "crossed" else None


def test_the_journal_names_them(node: GatewayNode) -> None:
    assert classed(node, ask(node, "bob", "sim-m")) == {("analyst", "internal")}
    assert classed(node, ask(node, "bob", "sim-m", path=MESSAGES)) == {("analyst", "secret")}
    assert classed(node, ask(node, "nobody", "sim-m")) == {("", "")}
    raw = node.post("/passthrough/sim/v1/embeddings", {"model": "e", "input": "x"}, key=secret("eve"))
    assert raw.status == 200, raw
    assert classed(node, raw) == {("intern", "public")}


def classed(node: GatewayNode, answer: Answer) -> set[tuple[str, str]]:
    """Role and class of data by the decision and the outcome of an exchange, once there are both."""
    name = answer.header("x-request-id")
    found = node.until(lambda: _both(records(node, name)), f"the outcome of {name}")
    return {(record.role, record.data_class) for record in found}


def records(node: GatewayNode, exchange_id: str) -> list[Record]:
    journal = layout.journal_of(node.directory / "state")
    told = (entry.record for chain in layout.chains(journal) for entry in entries(journal, chain))
    return [record for record in told if record.exchange_id == exchange_id]


def _both(found: list[Record]) -> list[Record] | None:
    return found if {record.kind for record in found} == {Kind.DECISION, Kind.OUTCOME} else None


def test_a_key_of_another_role_is_under_its_limits_from_then_on() -> None:
    """What it has used stays with the role it had."""
    keys = [caller("ann", role="analyst"), caller("bob", role="analyst"), caller("eve", role="intern")]
    with limited(rules=[rule("by-role", per=["role"], requests=5)], keys=keys, workers=2) as node:
        assert [left(ask(node, who), "requests") for who in ("ann", "bob", "eve")] == [4, 3, 4]
        changed = {**caller("ann"), "role": "intern", "data_class": "internal"}
        rewritten(node, keys=[changed, *keys[1:]])
        answer = ask(node, "ann")
        assert left(answer, "requests") == 3
        assert list(settled(node, answer).held) == ["by-role"]
        assert classed(node, answer) == {("intern", "internal")}
        assert left(ask(node, "bob"), "requests") == 2
        rewritten(node, keys=[caller("ann"), *keys[1:]])
        outside = ask(node, "ann")
        assert not outside.has("x-ratelimit-limit-requests")
        assert classed(node, outside) == {("", "")}
