"""The `anthropic` Python SDK, pointed at the gateway by nothing but its base URL."""

import base64
import time
from collections.abc import Iterator

import anthropic
import pytest
from anthropic import Anthropic
from anthropic.types import MessageParam, ToolParam

from tests.fakes.gateway_node import DISABLED_KEY, EXPIRED_KEY, LIMITED_KEY, PROVIDER_KEY, GatewayNode, running
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

HELLO: list[MessageParam] = [{"role": "user", "content": "hello there"}]
WEATHER: ToolParam = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running() as running_node:
        yield running_node


@pytest.fixture(autouse=True)
def _fresh(node: GatewayNode) -> None:
    node.sim.reset()


@pytest.fixture(scope="module")
def client(node: GatewayNode) -> Iterator[Anthropic]:
    with client_with(node, node.key) as made:
        yield made


def client_with(node: GatewayNode, key: str) -> Anthropic:
    return Anthropic(api_key=key, base_url=node.url, max_retries=0, timeout=PATIENCE_S)


def test_a_message(client: Anthropic, node: GatewayNode) -> None:
    answer = client.messages.create(model="sim-m+tokens=5", max_tokens=100, messages=HELLO, system="be brief")
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens == 5
    entry = node.sim.last()
    assert entry["path"] == "/v1/messages"
    sent = dict(entry["headers"])
    assert sent["x-api-key"] == PROVIDER_KEY
    assert sent["anthropic-version"]  # whichever this SDK speaks


def test_a_bearer_token_is_as_good_as_x_api_key(node: GatewayNode) -> None:
    with Anthropic(auth_token=node.key, base_url=node.url, max_retries=0) as bearer:
        assert bearer.messages.create(model="sim-m", max_tokens=100, messages=HELLO).stop_reason == "end_turn"
    sent = dict(node.sim.last()["headers"])
    assert sent["x-api-key"] == PROVIDER_KEY
    assert "authorization" not in sent


def test_streamed_it_says_the_same(client: Anthropic) -> None:
    whole = client.messages.create(model="sim-m", max_tokens=100, messages=HELLO)
    with client.messages.stream(model="sim-m", max_tokens=100, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == whole.stop_reason


def test_every_event_of_a_stream_arrives(client: Anthropic) -> None:
    with client.messages.create(model="sim-m+tokens=2", max_tokens=100, messages=HELLO, stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_tools(client: Anthropic) -> None:
    asked: list[MessageParam] = [{"role": "user", "content": "use the tool"}]
    answer = client.messages.create(model="sim-m", max_tokens=100, messages=asked, tools=[WEATHER])
    assert answer.stop_reason == "tool_use"
    (use,) = [block for block in answer.content if block.type == "tool_use"]
    assert use.name == "get_weather"
    result: MessageParam = {
        "role": "user",
        "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "rain"}],
    }
    said: list[MessageParam] = [*asked, {"role": "assistant", "content": answer.content}, result]
    assert (
        client.messages.create(model="sim-m", max_tokens=100, messages=said, tools=[WEATHER]).stop_reason != "tool_use"
    )


def test_tools_streamed(client: Anthropic) -> None:
    with client.messages.stream(
        model="sim-m", max_tokens=100, messages=HELLO, tools=[WEATHER], tool_choice={"type": "any"}
    ) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use"]


def test_thinking_is_content(client: Anthropic) -> None:
    with client.messages.stream(
        model="sim-m", max_tokens=2000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
    ) as stream:
        final = stream.get_final_message()
    assert final.content[0].type == "thinking"
    assert final.content[0].signature
    whole = client.messages.create(
        model="sim-m", max_tokens=2000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
    )
    assert [block.type for block in whole.content] == ["thinking", "text"]


def test_pictures(client: Anthropic, node: GatewayNode) -> None:
    data = base64.b64encode(bytes(range(256)) * 400).decode()
    shown: list[MessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
                {"type": "text", "text": "what is this?"},
            ],
        }
    ]
    answer = client.messages.create(model="sim-m", max_tokens=100, messages=shown)
    assert answer.content[0].type == "text"
    assert "what is this?" in answer.content[0].text
    assert node.sim.last()["body_len"] > len(data)


def test_counting_tokens(client: Anthropic) -> None:
    counted = client.messages.count_tokens(model="sim-m", messages=HELLO).input_tokens
    assert counted == client.messages.create(model="sim-m", max_tokens=9, messages=HELLO).usage.input_tokens


def test_models(client: Anthropic, node: GatewayNode) -> None:
    assert [model.id for model in client.models.list()] == ["second", "renamed"]
    assert client.models.retrieve("second").id == "second"
    with pytest.raises(anthropic.NotFoundError):
        client.models.retrieve("nobody")
    assert node.sim.requests() == []


RAISED: list[tuple[str, type[anthropic.APIStatusError], int, str]] = [
    ("sim-m+status=400", anthropic.BadRequestError, 400, "invalid_request_error"),
    ("sim-m+status=413", anthropic.RequestTooLargeError, 413, "request_too_large"),
    ("no-such-model", anthropic.NotFoundError, 404, "not_found_error"),
    ("sim-m+status=429", anthropic.RateLimitError, 429, "rate_limit_error"),
    ("sim-m+status=500", anthropic.InternalServerError, 500, "api_error"),
    ("sim-m+status=529", anthropic.OverloadedError, 529, "overloaded_error"),
    ("sim-m+status=401", anthropic.InternalServerError, 502, "api_error"),
    ("sim-m+status=403", anthropic.InternalServerError, 502, "api_error"),
    ("sim-m+status=404", anthropic.InternalServerError, 502, "api_error"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "kind", "status", "said"), RAISED)
def test_errors_are_the_types_an_application_catches(
    client: Anthropic, model: str, kind: type[anthropic.APIStatusError], status: int, said: str, stream: bool
) -> None:
    with pytest.raises(kind) as raised:
        client.messages.create(model=model, max_tokens=9, messages=HELLO, stream=stream)
    assert raised.value.status_code == status
    assert raised.value.body["error"]["type"] == said  # type: ignore[index]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("gw-" + "x" * 43, anthropic.AuthenticationError),
        (EXPIRED_KEY, anthropic.AuthenticationError),
        (DISABLED_KEY, anthropic.PermissionDeniedError),
        (LIMITED_KEY, anthropic.PermissionDeniedError),
    ],
)
def test_keys_are_refused_by_type(node: GatewayNode, key: str, kind: type[anthropic.APIStatusError]) -> None:
    with client_with(node, key) as stranger, pytest.raises(kind) as raised:
        stranger.messages.create(model="sim-m", max_tokens=9, messages=HELLO)
    assert raised.value.body["type"] == "error"  # type: ignore[index]
    assert node.sim.requests() == []


def read(client: Anthropic, model: str, kinds: list[str]) -> None:
    """Stream one message and note its events' types as they come."""
    with client.messages.create(model=model, max_tokens=99, messages=HELLO, stream=True) as stream:
        for event in stream:
            kinds.append(event.type)  # noqa: PERF401 - what came before an error is wanted too


def test_a_broken_stream_raises(client: Anthropic) -> None:
    kinds: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="broke off"):
        read(client, "sim-m+truncate=4", kinds)
    assert kinds == ["message_start", "content_block_start", "content_block_delta"]


def test_an_error_inside_the_stream_behind_content_arrives_as_it_was_said(client: Anthropic) -> None:
    kinds: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match="too many friends"):
        read(client, "sim-m+error=4+message=too many friends", kinds)
    assert kinds[:2] == ["message_start", "content_block_start"]


def test_closing_a_stream_aborts_the_provider_within_100_ms(client: Anthropic, node: GatewayNode) -> None:
    took_ms = []
    for attempt in range(3):  # the best of three: the bound is the gateway's, the scheduling is the machine's
        model = f"sim-gone{attempt}+tokens=2000+token-ms=10"
        stream = client.messages.create(model=model, max_tokens=4000, messages=HELLO, stream=True)
        for _, _event in zip(range(5), stream, strict=False):
            pass
        left_ms = time.monotonic() * 1000
        stream.close()
        entry = node.sim.ended(model)
        assert entry["aborted_by_peer"]
        took_ms.append(entry["started_monotonic_ms"] + entry["aborted_ms"] - left_ms)
    assert min(took_ms) <= 100, took_ms
