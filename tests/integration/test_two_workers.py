"""Two workers, one node: counts are exact over both and over a death, and a revoked key is out of both at once.

Every request goes on a connection of its own, so the kernel spreads them over the workers.
"""

import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.fakes.gateway_node import REVOCABLE_KEY, ROOT, GatewayNode, chat_body, running

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
HASHED_KEY = "gw-hashed" + "0" * 37
ROUNDS = 12


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running(workers=2) as running_node:
        yield running_node


FAMILIES = re.compile(
    r"^(gateway_(?:requests|attempts|tokens|streams_truncated|abandoned|refusals)_total"
    r"|gateway_(?:request|time_to_first_token)_seconds_count)\{(.*)\} (\d+)$",
    re.MULTILINE,
)


def counts(node: GatewayNode) -> Counter[str]:
    """Every sample of these families: name and labels as the page spells them, less the gateway_ and the _total."""
    page = node.admin("/metrics").body.decode()
    return Counter(
        {f"{name[8:].removesuffix('_total')} {said}": int(value) for name, said, value in FAMILIES.findall(page)}
    )


def labels(**values: str) -> str:
    return ",".join(f'{name}="{value}"' for name, value in values.items())


def request_of(model: str, code: int, surface: str = "chat.completions", route: str = "default") -> str:
    return "requests " + labels(route=route, model=model, surface=surface, code=str(code))


def attempt_at(target: str, cause: str = "ok") -> str:
    return "attempts " + labels(target=target, cause=cause)


def of_each_kind(node: GatewayNode) -> None:
    """One request of each kind; what they add to the counts is `EACH`."""
    assert node.chat("sim-m+tokens=5").status == 200
    assert node.chat("sim-m+tokens=5", stream=True).status == 200
    assert node.chat("first/m+status=500").status == 200
    assert node.chat("sim-m+status=503").status == 503
    assert node.chat("sim-m+status=422").status == 422
    assert node.message("sim-m+tokens=5").status == 200
    assert node.chat("sim-m+tokens=9+truncate=4", stream=True).ended == "cut"
    assert node.get("/v1/models").status == 200
    assert node.get("/passthrough/raw/v1/models").status == 200
    assert node.post(CHAT, b"{").status == 400
    assert node.post(CHAT, b"{}", key="gw-nobody").status == 401
    assert node.chat("no-such-model").status == 404
    with node.open(node.request(CHAT, chat_body("sim-m+tokens=500+token-ms=20", stream=True))) as call:
        call.head()  # and leave


EACH = Counter(
    {
        request_of("sim-*", 200): 4,  # one of them broke off, one was left
        request_of("first/*", 200): 1,
        request_of("sim-*", 503): 1,
        request_of("sim-*", 422): 1,
        request_of("sim-*", 200, "messages"): 1,
        request_of("unknown", 200, "models"): 1,
        request_of("unknown", 200, "passthrough"): 1,
        request_of("unknown", 400, route="unknown"): 1,
        request_of("unknown", 401, route="unknown"): 1,
        request_of("unknown", 404, route="unknown"): 1,
        attempt_at("sim/*"): 2,
        attempt_at("sim/*", "upstream_status"): 2,
        attempt_at("sim/*", "status_422"): 1,
        attempt_at("sim/*", "upstream_reset"): 1,
        attempt_at("sim/*", "caller_gone"): 1,
        attempt_at("sim/backup"): 1,
        attempt_at("claude/*"): 1,
        attempt_at("raw/*"): 1,
        "tokens " + labels(model="sim-*", direction="input"): 21,
        "tokens " + labels(model="sim-*", direction="output"): 15,
        "tokens " + labels(model="first/*", direction="input"): 7,
        "tokens " + labels(model="first/*", direction="output"): 26,
        "streams_truncated " + labels(model="sim-*"): 1,
        "abandoned " + labels(model="sim-*"): 1,
        "refusals " + labels(reason="invalid_request"): 1,
        "refusals " + labels(reason="invalid_api_key"): 1,
        "refusals " + labels(reason="model_not_found"): 1,
        "request_seconds_count " + labels(model="sim-*"): 7,
        "request_seconds_count " + labels(model="first/*"): 1,
        "request_seconds_count " + labels(model="unknown"): 5,
        "time_to_first_token_seconds_count " + labels(model="sim-*"): 5,
        "time_to_first_token_seconds_count " + labels(model="first/*"): 1,
        "time_to_first_token_seconds_count " + labels(model="unknown"): 1,
    }
)


def times(each: Counter[str], rounds: int) -> Counter[str]:
    return Counter({name: number * rounds for name, number in each.items()})


def settle(node: GatewayNode, expected: Counter[str]) -> None:
    """Wait until the counts are as expected: each outcome is counted just behind its answer's last byte, bit by bit."""
    try:
        node.until(lambda: counts(node) == expected, "the counts")
    except AssertionError:
        assert counts(node) == expected  # which of them is told
        raise


def test_counts_are_what_was_sent_over_both_workers_and_over_a_death(node: GatewayNode) -> None:
    expected = counts(node)
    for _ in range(ROUNDS):
        of_each_kind(node)
    expected += times(EACH, ROUNDS)
    settle(node, expected)

    (victim, other) = node.until_workers(2)
    node.kill_child(victim)
    assert other in node.until_workers(2)
    assert counts(node) == expected  # what the dead one counted is not lost, and nothing is counted twice

    for _ in range(ROUNDS):
        of_each_kind(node)
    expected += times(EACH, ROUNDS)
    settle(node, expected)
    assert node.metrics("gateway_metric_series_dropped_total") == 0


def test_labels_come_from_the_config_only(node: GatewayNode) -> None:
    node.chat("sim-a-name-that-a-caller-made-up")
    node.chat("a-model-nobody-has")
    page = node.until(
        lambda: page if 'model="sim-*"' in (page := node.admin("/metrics").body.decode()) else "", "the metrics"
    )
    assert "made-up" not in page
    assert "a-model-nobody-has" not in page


def test_a_revoked_key_is_out_of_both_workers_within_a_second(node: GatewayNode) -> None:
    assert {node.post(CHAT, chat_body("sim-m"), key=REVOCABLE_KEY).status for _ in range(20)} == {200}
    assert node.command("keys", "revoke", "no-such-key").returncode == 1
    revoked = node.command("keys", "revoke", "revocable")
    done = time.monotonic()
    assert revoked.returncode == 0, revoked.stderr
    late: list[int] = []
    while len(late) < 20:  # by both workers
        at = time.monotonic() - done
        status = node.post(CHAT, chat_body("sim-m"), key=REVOCABLE_KEY).status
        late += [status] if at > 1 else []
    assert set(late) == {403}
    assert node.post(CHAT, chat_body("sim-m")).status == 200


def test_a_key_may_stand_in_the_config_as_a_hash() -> None:
    command = [sys.executable, "-m", "gateway", "keys", "hash", HASHED_KEY]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert HASHED_KEY not in said
    config = {"keys": [{"id": "hashed", "secret": said, "org": "acme"}]}
    with running(config) as node:
        assert node.post(CHAT, chat_body("sim-m"), key=HASHED_KEY).status == 200
        assert node.post(CHAT, chat_body("sim-m"), key=said).status == 401
        assert node.post(CHAT, chat_body("sim-m")).status == 401
