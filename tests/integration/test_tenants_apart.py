"""Limits on a running gateway, with a tenant who asks for too much, or is asked about: what others notice of it."""

from hashlib import blake2b

import pytest

from tests.fakes.gateway_node import GatewayNode, chat_body
from tests.fakes.limited_node import CHAT, ask, begun, caller, limited, rewritten, rule, secret, settled

pytestmark = pytest.mark.slow

PRICE = {"input": 1.0, "output": 1.0}
SLOW = "sim-m+tokens=400+token-ms=20"
PRIOR = 1_024
MILLI, MICRO = 1_000, 1_000_000


def test_a_stream_under_a_small_budget_leaves_the_orgs_to_others() -> None:
    """It asks for a billion tokens, and takes of the org's budget no more than its own has."""
    keys = [caller("ann", org="acme", usd_per_month=1), caller("bob", org="acme")]
    models = {"gpt": {"targets": [{"provider": "sim", "model": SLOW}], "price": PRICE}}
    with limited(rules=[rule("org", per=["org"], usd=100)], keys=keys, models=models) as node:
        stream = begun(node, "ann", "gpt", max_tokens=10**9)
        answer = ask(node, "bob", "gpt")
        assert answer.status == 200, answer
        node.until(lambda: reserved(node) == MICRO, "bob's dollars to be given back")
        stream.close()


def reserved(node: GatewayNode) -> int:
    """What requests under way have taken of the org's budget, in micro-USD."""
    (row,) = node.admin("/v1/limits/explain?key=bob&model=gpt&tokens=1").json["limits"]
    return int(row["reserved"])


def test_long_answers_of_one_org_are_not_expected_of_another() -> None:
    keys = [caller(name, org=name, tpm=10_000_000) for name in ("talker", "other")]
    with limited(keys=keys) as node:
        for _ in range(60):
            node.post(CHAT, chat_body("sim-m+tokens=3000"), key=secret("talker"))
        held = {
            name: settled(node, node.post(CHAT, chat_body("sim-m+tokens=3000"), key=secret(name))).held["key.tpm"]
            for name in ("talker", "other")
        }
        assert held["talker"] > 3_000 * MILLI
        assert PRIOR * MILLI <= held["other"] < (PRIOR + 100) * MILLI


def used(node: GatewayNode) -> tuple[str, int]:
    """The bucket of the one who is counted by name, and how many requests it has had."""
    (row,) = node.admin("/v1/limits/explain?key=ann&model=sim-m&tokens=1").json["limits"]
    return row["bucket"], row["capacity"] - row["level"]


def test_people_are_counted_under_names_that_nobody_can_guess_and_that_last() -> None:
    people = rule("people", per=["org", "user"], requests=1_000, budget=True)
    keys = [caller("ann", org="acme", user="ann@example.org")]
    with limited(rules=[people], keys=keys, workers=2) as node:
        for _ in range(3):
            ask(node, "ann")
        bucket, requests = used(node)
        assert requests == 3, "control counts her under another name than workers do"
        guess = blake2b(b"acme\0ann@example.org", digest_size=10, key=b"main").hexdigest()
        assert bucket.startswith("people|org=acme|user=")
        assert guess not in bucket

        rewritten(node, limits={"rules": [people], "secret": "one-secret-of-the-fleet"})
        assert ask(node, "ann").status == 200
        assert used(node) == (bucket, 4), "another secret acts after a restart"

        rewritten(node, limits={"rules": [people]})
        node.kill()
        node.start()
        assert ask(node, "ann").status == 200
        assert used(node) == (bucket, 5)

        node.stop()
        node.config = {**node.config, "limits": {"rules": [people], "secret": "one-secret-of-the-fleet"}}
        node.start()
        assert ask(node, "ann").status == 200
        renamed, requests = used(node)
        assert (renamed != bucket, requests) == (True, 1)
