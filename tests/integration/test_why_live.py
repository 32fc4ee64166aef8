"""`gateway why` and `GET /v1/limits/explain` on a running gateway: what they say is what callers then meet."""

import json
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.fakes.gateway_node import ADMIN_TOKEN, KEY, PROVIDER_KEY, GatewayNode, chat_body
from tests.fakes.limited_node import CHAT, ask, caller, left, limited, rule, secret, settled
from tests.fakes.store_server import StoreServer
from tests.fakes.wire_client import Answer

if TYPE_CHECKING:
    from subprocess import CompletedProcess

pytestmark = pytest.mark.slow

RULES = [
    rule("monthly", per=["key"], tokens=1_000, budget=True, match={"org": "acme"}),
    rule("money", per=["key"], usd=5, match={"key": "ann"}),
    rule("look", per=["key"], requests=1, every="hour", shadow=True, match={"key": "ann"}),
    rule("at-sim", per=["provider"], tokens=600, budget=True, match={"provider": "sim", "org": "acme", "key": "eve"}),
]
KEYS = [
    *(caller(name, org="acme", team="search", max_in_flight=3) for name in ("ann", "bob", "eve")),
    caller("gone"),
    caller("free"),
]
PASSWORD = "password-of-the-store-71"
PRICE = {"input": 1.0, "output": 2.0}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with limited(rules=RULES, keys=KEYS, workers=2, models={"sim-*": {"price": PRICE}}) as running_node:
        yield running_node


def why(node: GatewayNode, key: str, model: str = "sim-m", **words: Any) -> Answer:
    return node.admin(f"/v1/limits/explain?{urlencode({'key': key, 'model': model, **words})}")


def told(node: GatewayNode, key: str, **words: Any) -> dict[str, Any]:
    answer = why(node, key, **words)
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json
    return document


def row(document: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [row for row in document["limits"] if row["rule"] == name]
    return dict(found)


def command(node: GatewayNode, *words: str) -> "CompletedProcess[str]":
    return node.command("why", *words, "--set", f"admin.port={node.admin_port}")


def test_what_is_left_is_what_callers_are_told(node: GatewayNode) -> None:
    answer = ask(node, "ann")
    used = settled(node, answer).settled
    assert used is not None
    document = told(node, "ann", tokens=100)
    assert (document["admitted"], document["route"], document["model"]) == (True, "default", "sim-*")
    monthly = row(document, "monthly")
    assert monthly["level"] == 1_000 - used["monthly"]
    assert (monthly["capacity"], monthly["asked"], monthly["unit"], monthly["reserved"]) == (1_000, 100, "tokens", 0)
    again = ask(node, "ann")
    held = settled(node, again).held["monthly"]
    assert left(again) == monthly["level"] - held
    money = row(document, "money")
    assert (money["capacity"], money["asked"], money["unit"]) == (5_000_000, 100, "microusd")
    assert money["level"] == 5_000_000 - used["money"]
    look = row(told(node, "ann"), "look")
    assert look["shadow"]
    assert look["level"] < 0
    assert document["targets"][0]["price"]["usd_per_mtok"]["input"] == PRICE["input"]


def test_a_refusal_is_foretold_word_for_word(node: GatewayNode) -> None:
    settled(node, ask(node, "bob", "sim-m+tokens=1200", max_tokens=1200))
    document = told(node, "bob", tokens=10, output_tokens=1)
    refused = document["refused"]
    met = ask(node, "bob")
    assert met.status == 429
    said = met.json["error"]["message"]
    assert refused["message"].partition("; retry in")[0].partition(": ")[0] == said.partition(": ")[0]
    assert (refused["status"], refused["rule"]) == (429, "monthly")
    assert 0 <= refused["retry_after_ms"] - int(met.header("retry-after-ms")) < 60_000
    first = document["limits"][0]
    assert (first["rule"], first["refuses"], first["debt"]) == ("monthly", True, -first["level"])
    assert first["debt"] > 0


def test_what_is_in_flight_is_reserved_until_it_ends(node: GatewayNode) -> None:
    before = row(told(node, "eve", tokens=1), "monthly")["level"]
    stream = chat_body("sim-m+tokens=8+token-ms=100", stream=True, max_tokens=200)
    with node.open(node.request(CHAT, stream, key=secret("eve"))) as call:
        name = call.head().header("x-request-id")
        document = told(node, "eve", tokens=1)
        monthly, slots = row(document, "monthly"), row(document, "key.max_in_flight")
        assert monthly["level"] == before - monthly["reserved"]
        assert monthly["reserved"] > 200
        assert (slots["level"], slots["reserved"]) == (2, 1)
        for _ in call.pieces():
            pass
    used = settled(node, name).settled
    assert used is not None
    monthly = row(told(node, "eve", tokens=1), "monthly")
    assert (monthly["reserved"], monthly["level"]) == (0, before - used["monthly"])


def test_the_limits_of_one_provider_leave_the_others(node: GatewayNode) -> None:
    both = told(node, "eve", tokens=650)
    assert row(both, "at-sim")["provider"] == "sim"
    assert not told(node, "eve", tokens=650, provider="sim")["admitted"]
    assert row(both, "at-sim")["wait_ms"] == -1


def test_the_command_says_the_same_and_its_code_is_the_verdict(node: GatewayNode) -> None:
    fits = command(node, "--key", "ann", "--model", "sim-m", "--tokens", "10")
    assert (fits.returncode, fits.stderr) == (0, "")
    assert "\nadmitted: " in fits.stdout
    assert "monthly: 1000 tokens a month for key ann" in fits.stdout
    never = command(node, "--key", "ann", "--model", "sim-m", "--tokens", "5000")
    assert never.returncode == 1
    assert "\nrefused: 400 request_too_large_for_limit: this request needs 5000, and the limit monthly" in never.stdout
    document = json.loads(command(node, "--key", "ann", "--model", "sim-m", "--tokens", "5000", "--json").stdout)
    assert row(document, "monthly") == row(told(node, "ann", tokens=5000), "monthly")
    wrong = command(node, "--key", "ann", "--model", "sim-m", "--tokens", "many")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--tokens: 'many' is no whole number" in wrong.stderr
    unknown = command(node, "--key", "anne", "--model", "sim-m")
    assert unknown.returncode == 1
    assert unknown.stderr == "gateway: there is no key with the id 'anne'; did you mean \"ann\"?\n"


def test_keys_that_may_not(node: GatewayNode) -> None:
    limited_key = told(node, "limited")
    assert limited_key["refused"]["code"] == "model_not_allowed"
    assert told(node, "disabled")["refused"]["code"] == "disabled_api_key"
    assert told(node, "expired")["refused"]["code"] == "expired_api_key"
    assert told(node, "gone")["admitted"]
    assert node.command("keys", "revoke", "gone").returncode == 0
    node.until(lambda: not told(node, "gone")["admitted"], "the revocation")
    assert told(node, "gone")["refused"]["message"] == "key 'gone' was revoked"


def test_a_key_that_nothing_limits(node: GatewayNode) -> None:
    assert (told(node, "free")["limits"], told(node, "free")["admitted"]) == ([], True)
    assert "no limits apply to key free there" in command(node, "--key", "free", "--model", "sim-m").stdout


def test_no_secret_is_told(node: GatewayNode) -> None:
    document = why(node, "ann").body
    for text in (PROVIDER_KEY, ADMIN_TOKEN, KEY, secret("ann"), node.sim.url):
        assert text.encode() not in document


def test_a_store_that_is_away_is_said_with_the_mode_of_each_limit() -> None:
    with closing(StoreServer("--requirepass", PASSWORD)) as store:
        store.start()
        limits = {"store": store.url.replace("//", f"//:{PASSWORD}@"), "on_store_failure": "closed"}
        keys = [caller("ann", org="acme", tpm=100), caller("free")]
        with limited(rules=[rule("look", per=["key"], requests=5, shadow=True)], keys=keys, limits=limits) as node:
            node.until(lambda: why(node, "ann").status == 200, "the store")
            node.until(lambda: ask(node, "ann").status == 200, "a request for which it was not late")
            document = told(node, "ann", tokens=10)
            assert document["counted"] == "store"
            tpm = row(document, "key.tpm")
            assert tpm["level"] < 100
            assert tpm["reserved"] is None
            store.kill()
            answer = node.until(lambda: _with_status(why(node, "ann"), 503), "the store's absence")
            error = answer.json["error"]
            assert error["code"] == "limits_unavailable"
            assert {limit["rule"]: limit["on_store_failure"] for limit in error["limits"]} == {
                "look": "shadow",
                "key.tpm": "closed",
            }
            asked = command(node, "--key", "ann", "--model", "sim-m")
            assert asked.returncode == 1
            assert "key.tpm refuses (closed)" in asked.stderr
            assert PASSWORD not in asked.stderr + answer.body.decode()
            store.start()
            node.until(lambda: why(node, "ann").status == 200, "the store's return")


def _with_status(answer: Answer, status: int) -> Answer | None:
    return answer if answer.status == status else None
