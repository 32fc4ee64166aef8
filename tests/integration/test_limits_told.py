"""What callers of a running gateway are told of their limits, in their own dialect, and which requests count at all."""

import json
import re
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.gateway_node import GatewayNode, chat_body
from tests.fakes.limited_node import CHAT, MESSAGES, ask, caller, left, limited, refused_by, rule, secret
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

KEYS = [caller("headed"), caller("passer"), caller("piper"), caller("free")]
RULES = [
    rule("passes", per=["key"], requests=2, match={"key": "passer"}),
    rule("pipes", per=["key"], requests=1_000, match={"key": "piper"}),
    rule("head-requests", per=["key"], requests=100, match={"key": "headed"}),
    rule("head-tokens", per=["key"], tokens=100_000, budget=True, match={"key": "headed"}),
    rule("head-more-tokens", per=["key"], tokens=200_000, budget=True, match={"key": "headed"}),
    rule("head-input", per=["key"], input_tokens=50_000, budget=True, match={"key": "headed"}),
    rule("head-output", per=["key"], output_tokens=60_000, budget=True, match={"key": "headed"}),
]


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with limited(rules=RULES, keys=KEYS) as running_node:
        assert ask(running_node, "headed").status == 200  # from here on nothing is full
        yield running_node


# --- what callers are told --------------------------------------------------------------------------------------------

OPENAI_HEADERS = {
    f"x-ratelimit-{what}-{kind}" for what in ("limit", "remaining", "reset") for kind in ("requests", "tokens")
}
KINDS = {"requests": 100, "tokens": 100_000, "input-tokens": 50_000, "output-tokens": 60_000}


@pytest.mark.parametrize("stream", [False, True])
def test_headers_in_the_words_of_openai(node: GatewayNode, stream: bool) -> None:
    answer = ask(node, "headed", stream=stream)
    names = {name for name, _ in answer.headers if "ratelimit" in name}
    assert names == OPENAI_HEADERS
    assert answer.header("x-ratelimit-limit-requests") == "100"
    assert answer.header("x-ratelimit-limit-tokens") == "100000"  # the tighter of two
    assert re.fullmatch(r"\d+h\d+m[\d.]+s", answer.header("x-ratelimit-reset-tokens"))
    refused = ask(node, "headed", max_tokens=60_000, stream=stream)
    assert refused.status == 429
    assert {name for name, _ in refused.headers if "ratelimit" in name} == OPENAI_HEADERS
    wait_ms, wait_s = int(refused.header("retry-after-ms")), int(refused.header("retry-after"))
    assert 0 <= wait_s * 1000 - wait_ms < 1000


@pytest.mark.parametrize("stream", [False, True])
def test_headers_in_the_words_of_anthropic(node: GatewayNode, stream: bool) -> None:
    expected = {f"anthropic-ratelimit-{kind}-{what}" for kind in KINDS for what in ("limit", "remaining", "reset")}
    for answer in (
        ask(node, "headed", path=MESSAGES, stream=stream),
        ask(node, "headed", path=MESSAGES, max_tokens=60_000),
    ):
        assert {name for name, _ in answer.headers if "ratelimit" in name} == expected
        for kind, limit in KINDS.items():
            assert answer.header(f"anthropic-ratelimit-{kind}-limit") == str(limit)
            assert 0 <= int(answer.header(f"anthropic-ratelimit-{kind}-remaining")) < limit
            assert answer.header(f"anthropic-ratelimit-{kind}-reset").endswith("Z")
    assert answer.status == 429
    assert answer.json["error"]["type"] == "rate_limit_error"


def test_nothing_is_told_where_nothing_limits(node: GatewayNode) -> None:
    answer = ask(node, "free")
    assert answer.status == 200
    assert not [name for name, _ in answer.headers if "ratelimit" in name]


def test_sdks_see_their_own_errors(node: GatewayNode) -> None:
    message: Any = {"role": "user", "content": "hello"}
    with openai.OpenAI(api_key=secret("headed"), base_url=node.url + "/v1", max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            client.chat.completions.create(model="sim-m", messages=[message], max_tokens=60_000)
        assert refused.value.code == "rate_limit_exceeded"
        assert int(refused.value.response.headers["retry-after-ms"]) > 0
        assert "head-output" in refused.value.message
        told = client.chat.completions.with_raw_response.create(model="sim-m", messages=[message])
        assert int(told.headers["x-ratelimit-remaining-tokens"]) > 0
    with anthropic.Anthropic(api_key=secret("headed"), base_url=node.url, max_retries=0) as claude:
        with pytest.raises(anthropic.RateLimitError) as held:
            claude.messages.create(model="sim-m", messages=[message], max_tokens=60_000, timeout=PATIENCE_S)
        assert int(held.value.response.headers["retry-after"]) > 0
        assert held.value.response.headers["anthropic-ratelimit-output-tokens-limit"] == "60000"


# --- what is no chat --------------------------------------------------------------------------------------------------


def test_what_passes_unread_is_limited_by_the_request(node: GatewayNode) -> None:
    path = "/passthrough/mirror/v1/anything"
    answers = [node.get(path, key=secret("passer"), headers={"x": str(at)}) for at in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert left(answers[1], "requests") == 0
    assert refused_by(answers[2]) == "passes"
    assert node.get("/v1/models", key=secret("passer")).status == 200
    assert not node.get("/v1/models", key=secret("passer")).has("x-ratelimit-limit-requests")
    head = node.post(path, b"", key=secret("passer"), method="HEAD")
    assert (head.status, head.body) == (429, b"")


def test_uploads_are_limited_by_the_request(node: GatewayNode) -> None:
    before = left(ask(node, "headed"), "requests")
    parts = [
        b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nsim-m',
        b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF' + bytes(50_000),
        b"--b--\r\n",
    ]
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = node.post("/v1/audio/transcriptions", b"\r\n".join(parts), headers, key=secret("headed"))
    assert answer.status == 200
    assert left(answer, "requests") == before - 1


def test_requests_behind_each_other_on_one_connection_are_counted_each(node: GatewayNode) -> None:
    before = left(ask(node, "piper"), "requests")
    body = chat_body("sim-m+tokens=1", max_tokens=1)
    raw = node.request(CHAT, body, key=secret("piper"))
    with node.open(raw * 2 + node.request(CHAT, body, {"connection": "close"}, key=secret("piper"))) as call:
        told = b"".join(iter(lambda: call.socket.recv(65_536), b""))
    remaining = [int(found) for found in re.findall(rb"x-ratelimit-remaining-requests: (\d+)", told)]
    assert remaining == [before - 1, before - 2, before - 3]


def test_who_waits_for_continue_is_counted_once(node: GatewayNode) -> None:
    before = left(ask(node, "piper"), "requests")
    body = json.dumps(chat_body("sim-m+tokens=1", max_tokens=1)).encode()
    given = {"expect": "100-continue", "content-length": str(len(body))}
    with node.open(node.request(CHAT, b"", given, key=secret("piper"))) as call:
        assert call.socket.recv(64).startswith(b"HTTP/1.1 100 ")
        call.send(body)
        assert left(call.answer(), "requests") == before - 1
