"""The `openai` Python SDK, pointed at the gateway by nothing but its base URL, drives every surface.

What the SDK raises is as much a part of the contract as what it parses: applications catch these types.
"""

import base64
import io
import time
from collections.abc import Iterator

import httpx2
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionStreamOptionsParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam

from tests.fakes.gateway_node import DISABLED_KEY, EXPIRED_KEY, LIMITED_KEY, GatewayNode, running
from tests.fakes.patience import PATIENCE_S

pytestmark = pytest.mark.slow

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]
PIXEL = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SOUND = b"RIFF\x24\x40\x1f\x00WAVEfmt " + bytes(range(256)) * 400  # a real upload: 100 KB, every byte value
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
FLAT_WEATHER: FunctionToolParam = {"type": "function", "name": "get_weather", "strict": False, "parameters": {}}
WITH_USAGE: ChatCompletionStreamOptionsParam = {"include_usage": True}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running() as running_node:
        yield running_node


@pytest.fixture(autouse=True)
def _fresh(node: GatewayNode) -> None:
    node.sim.reset()


@pytest.fixture(scope="module")
def client(node: GatewayNode) -> Iterator[OpenAI]:
    with client_with(node, node.key) as made:
        yield made


def client_with(node: GatewayNode, key: str) -> OpenAI:
    return OpenAI(api_key=key, base_url=node.url + "/v1", max_retries=0, timeout=PATIENCE_S)


# --- chat -----------------------------------------------------------------------------------------------------------


def test_chat(client: OpenAI, node: GatewayNode) -> None:
    answer = client.chat.completions.create(model="sim-m+tokens=5", messages=HELLO)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length" or answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert node.sim.last()["path"] == "/v1/chat/completions"


def test_chat_streamed_has_the_same_text_and_no_usage_nobody_asked_for(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="sim-m", messages=HELLO).choices[0].message.content
    with client.chat.completions.create(model="sim-m", messages=HELLO, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole
    assert [chunk for chunk in chunks if not chunk.choices or chunk.usage is not None] == []
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_chat_streamed_with_usage_asked_for(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="sim-m+tokens=7", messages=HELLO, stream=True, stream_options=WITH_USAGE
    ) as stream:
        *_, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 7


def test_chat_calls_a_tool_and_takes_its_result(client: OpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "use the tool"}]
    answer = client.chat.completions.create(model="sim-m", messages=asked, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    message = answer.choices[0].message
    assert message.tool_calls is not None
    call = message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in call.function.arguments
    said: list[ChatCompletionMessageParam] = [
        *asked,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    final = client.chat.completions.create(model="sim-m", messages=said, tools=[WEATHER])
    assert final.choices[0].message.content


def test_chat_streams_a_tool_call(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="sim-m", messages=HELLO, tools=[WEATHER], tool_choice="required"
    ) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"


def test_chat_sees_pictures(client: OpenAI, node: GatewayNode) -> None:
    url = "data:image/png;base64," + base64.b64encode(PIXEL * 2000).decode()
    parts: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": url, "detail": "low"}},
            ],
        }
    ]
    answer = client.chat.completions.create(model="sim-m", messages=parts)
    assert "what is this?" in (answer.choices[0].message.content or "")
    assert node.sim.last()["body_len"] > len(url)


def test_chat_answers_in_a_schema(client: OpenAI) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
    answer = client.chat.completions.create(
        model="sim-m",
        messages=HELLO,
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema}},
    )
    assert '"city"' in (answer.choices[0].message.content or "")


def test_several_choices(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="sim-m", messages=HELLO, n=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    with client.chat.completions.create(model="sim-m", messages=HELLO, n=3, stream=True) as stream:
        finished = [c.index for chunk in stream for c in chunk.choices if c.finish_reason]
    assert finished == [0, 1, 2]


# --- errors ---------------------------------------------------------------------------------------------------------

RAISED: list[tuple[str, type[openai.APIStatusError], int]] = [
    ("sim-m+status=400", openai.BadRequestError, 400),
    ("sim-m+status=422", openai.UnprocessableEntityError, 422),
    ("no-such-model", openai.NotFoundError, 404),
    ("sim-m+status=429+retry-after=3", openai.RateLimitError, 429),
    ("sim-m+status=500", openai.InternalServerError, 500),
    ("sim-m+status=503", openai.InternalServerError, 503),
    ("sim-m+status=401", openai.InternalServerError, 502),
    ("sim-m+status=403", openai.InternalServerError, 502),
    ("sim-m+status=404", openai.InternalServerError, 502),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "kind", "status"), RAISED)
def test_errors_are_the_types_an_application_catches(
    client: OpenAI, model: str, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    with pytest.raises(kind) as raised:
        client.chat.completions.create(model=model, messages=HELLO, stream=stream)
    assert raised.value.status_code == status
    assert raised.value.request_id
    if status == 502:
        assert raised.value.code == "provider_configuration"
    if status == 429:
        assert raised.value.response.headers["retry-after"] == "3"


@pytest.mark.parametrize(
    ("key", "kind", "code"),
    [
        ("gw-" + "x" * 43, openai.AuthenticationError, "invalid_api_key"),
        (EXPIRED_KEY, openai.AuthenticationError, "expired_api_key"),
        (DISABLED_KEY, openai.PermissionDeniedError, "disabled_api_key"),
        (LIMITED_KEY, openai.PermissionDeniedError, "model_not_allowed"),
    ],
)
def test_keys_are_refused_by_type(node: GatewayNode, key: str, kind: type[openai.APIStatusError], code: str) -> None:
    with client_with(node, key) as stranger, pytest.raises(kind) as raised:
        stranger.chat.completions.create(model="sim-m", messages=HELLO)
    assert raised.value.code == code
    assert node.sim.requests() == []


def test_a_broken_stream_raises(client: OpenAI) -> None:
    texts: list[str] = []

    def read() -> None:
        with client.chat.completions.create(model="sim-m+truncate=4", messages=HELLO, stream=True) as stream:
            for chunk in stream:
                texts.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - also those before the error

    with pytest.raises(openai.APIError, match="broke off") as raised:
        read()
    assert len(texts) == 4
    assert raised.value.code == "upstream_truncated"


def test_closing_a_stream_aborts_the_provider_within_100_ms(client: OpenAI, node: GatewayNode) -> None:
    took_ms = []
    for attempt in range(3):  # the best of three: the bound is the gateway's, the scheduling is the machine's
        model = f"sim-gone{attempt}+tokens=2000+token-ms=10"
        stream = client.chat.completions.create(model=model, messages=HELLO, stream=True)
        for _, _chunk in zip(range(3), stream, strict=False):
            pass
        left_ms = time.monotonic() * 1000
        stream.close()
        entry = node.sim.ended(model)
        assert entry["aborted_by_peer"]
        took_ms.append(entry["started_monotonic_ms"] + entry["aborted_ms"] - left_ms)
    assert min(took_ms) <= 100, took_ms


# --- the other surfaces ---------------------------------------------------------------------------------------------


def test_completions(client: OpenAI) -> None:
    whole = client.completions.create(model="sim-m", prompt="say it")
    with client.completions.create(model="sim-m", prompt="say it", stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text != ""
    assert whole.usage is not None
    assert all(chunk.usage is None for chunk in chunks)


def test_responses(client: OpenAI) -> None:
    whole = client.responses.create(model="sim-m", input="say it")
    assert "say it" in whole.output_text
    with client.responses.create(model="sim-m", input="say it", stream=True) as stream:
        events = list(stream)
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_responses_call_tools_and_give_structure(client: OpenAI) -> None:
    called = client.responses.create(model="sim-m", input="use the tool", tools=[FLAT_WEATHER], store=False)
    assert [item.type for item in called.output] == ["function_call"]
    schema: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
    shaped = client.responses.create(
        model="sim-m",
        input="where?",
        text={"format": {"type": "json_schema", "name": "place", "schema": schema}},
    )
    assert '"city"' in shaped.output_text


def test_embeddings_as_numbers_and_as_base64(client: OpenAI) -> None:
    packed = client.embeddings.create(model="sim-m", input=["one", "two"], dimensions=8)  # the SDK asks for base64
    plain = client.embeddings.create(model="sim-m", input=["one", "two"], dimensions=8, encoding_format="float")
    assert [len(item.embedding) for item in plain.data] == [8, 8]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_moderations(client: OpenAI) -> None:
    results = client.moderations.create(model="sim-m", input=["hurt", "love"]).results
    assert [result.flagged for result in results] == [True, False]


def test_images(client: OpenAI, node: GatewayNode) -> None:
    generated = client.images.generate(model="sim-m", prompt="a hat", n=2)
    assert generated.data is not None
    assert [bool(image.b64_json) for image in generated.data] == [True, True]
    edited = client.images.edit(model="sim-m", image=("hat.png", PIXEL), mask=("mask.png", PIXEL), prompt="a red hat")
    assert edited.data
    assert node.sim.last()["upload_bytes"] == 2 * len(PIXEL)
    with pytest.deprecated_call():  # as long as the SDK has it, it works
        varied = client.images.create_variation(model="sim-m", image=("hat.png", PIXEL))
    assert varied.data
    assert node.sim.last()["upload_bytes"] == len(PIXEL)


def test_images_streamed(client: OpenAI) -> None:
    with client.images.generate(model="sim-m", prompt="a hat", stream=True, partial_images=2) as stream:
        kinds = [event.type for event in stream]
    assert kinds == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]


def test_speech(client: OpenAI) -> None:
    whole = client.audio.speech.create(model="sim-m", voice="alloy", input="a sentence to say").content
    assert whole.startswith(b"RIFF")
    with client.audio.speech.with_streaming_response.create(
        model="sim-m", voice="alloy", input="a sentence to say"
    ) as streamed:
        assert streamed.headers["content-type"] == "audio/wav"
        pieces = list(streamed.iter_bytes())
    assert b"".join(pieces) == whole
    with client.audio.speech.with_streaming_response.create(
        model="sim-m", voice="alloy", input="a sentence to say", stream_format="sse"
    ) as streamed:
        lines = [line for line in streamed.iter_lines() if line.startswith("data: ")]
    assert "speech.audio.delta" in lines[0]
    assert "speech.audio.done" in lines[-1]


def test_transcriptions(client: OpenAI, node: GatewayNode) -> None:
    heard = client.audio.transcriptions.create(model="sim-m", file=("speech.wav", SOUND))
    assert f"{len(SOUND)} bytes" in heard.text
    assert node.sim.last()["upload_bytes"] == len(SOUND)
    text = client.audio.transcriptions.create(model="sim-m", file=("speech.wav", SOUND), response_format="text")
    assert str(text).strip() == heard.text
    verbose = client.audio.transcriptions.create(
        model="sim-m", file=("speech.wav", io.BytesIO(SOUND)), response_format="verbose_json"
    )
    assert verbose.text == heard.text
    with client.audio.transcriptions.create(model="sim-m", file=("speech.wav", SOUND), stream=True) as stream:
        events = list(stream)
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == heard.text


def test_translations(client: OpenAI) -> None:
    with pytest.deprecated_call():
        said = client.audio.translations.create(model="sim-m", file=("speech.wav", SOUND))
    assert f"{len(SOUND)} bytes" in said.text


def test_models_come_from_the_config_and_the_key(client: OpenAI, node: GatewayNode) -> None:
    assert [model.id for model in client.models.list()] == ["second", "renamed"]
    assert client.models.retrieve("renamed").id == "renamed"
    assert client.models.retrieve("sim-anything").id == "sim-anything"
    with client_with(node, LIMITED_KEY) as limited:
        assert [model.id for model in limited.models.list()] == ["renamed"]
        with pytest.raises(openai.NotFoundError):
            limited.models.retrieve("second")
    assert node.sim.requests() == []


# --- raw answers and other clients ----------------------------------------------------------------------------------


def test_the_headers_an_application_can_read(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="sim-m", messages=HELLO)
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert raw.headers["x-gateway-target"] == "sim/m"
    assert raw.headers["x-gateway-route"] == "default"


def test_an_azure_client_is_known_by_its_header(node: GatewayNode) -> None:
    """The Azure client of the SDK sends `api-key`; its deployment paths are another surface."""
    with httpx2.Client() as plain:
        answer = plain.post(
            node.url + "/v1/chat/completions",
            json={"model": "sim-m", "messages": HELLO},
            headers={"api-key": node.key},
        )
    assert answer.status_code == 200
    sent = {name for name, _ in node.sim.last()["headers"]}
    assert "api-key" not in sent
