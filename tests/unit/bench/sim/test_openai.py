"""The OpenAI dialect, judged by OpenAI's own client: what it parses, the sim may say."""

import base64
import io
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import openai
import pytest

from tests.unit.bench.sim.harness import Sim, ending, with_sim

HELLO: list[Any] = [{"role": "user", "content": "Say hello"}]
USE: list[Any] = [{"role": "user", "content": "Please use the tool."}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
TOOLS: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}]
FLAT_TOOLS: list[Any] = [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}]
ARGUMENTS = {"city": "example", "days": 1}


def with_client(scenario: Callable[[openai.AsyncOpenAI], Awaitable[None]]) -> None:
    async def run(sim: Sim) -> None:
        async with openai.AsyncOpenAI(base_url=sim.server.url + "/v1", api_key="k", max_retries=0) as client:
            await scenario(client)

    with_sim(run)


def test_chat_whole() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        got = await client.chat.completions.with_raw_response.create(model="gpt-4o", messages=HELLO, n=2)
        assert got.headers["x-request-id"].startswith("req_")
        assert int(got.headers["openai-processing-ms"]) > 0
        parsed = got.parse()
        assert [choice.index for choice in parsed.choices] == [0, 1]
        assert "“Say hello”" in (parsed.choices[1].message.content or "")
        assert parsed.choices[0].finish_reason == "stop"
        assert parsed.usage is not None
        assert parsed.usage.total_tokens == parsed.usage.prompt_tokens + parsed.usage.completion_tokens

    with_client(scenario)


@pytest.mark.parametrize("told", [True, False])
def test_chat_streamed(*, told: bool) -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        options: Any = {"include_usage": told}
        stream = await client.chat.completions.create(
            model="m+reasoning=7+cached=2", messages=HELLO, stream=True, n=2, stream_options=options
        )
        chunks = [chunk async for chunk in stream]
        said = ["", ""]
        for chunk in chunks:
            for choice in chunk.choices:
                said[choice.index] += choice.delta.content or ""
        assert said[0] == said[1]
        assert said[0].startswith("You said: “Say hello”.")
        usages = [chunk.usage for chunk in chunks if chunk.usage]
        assert bool(usages) is told
        if told:
            assert chunks[-1].choices == []
            usage = usages[0]
            assert usage.completion_tokens_details is not None
            assert usage.completion_tokens_details.reasoning_tokens == 7
            assert usage.prompt_tokens_details is not None
            assert usage.prompt_tokens_details.cached_tokens == 2

    with_client(scenario)


def test_chat_limits_and_stops() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        for limit in ({"max_tokens": 2}, {"max_completion_tokens": 2}):
            cut = await client.chat.completions.create(model="m", messages=HELLO, **limit)  # type: ignore[call-overload]
            assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 2)
        stopped = await client.chat.completions.create(model="m", messages=HELLO, stop="hello")
        assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("You said: “Say ", "stop")

    with_client(scenario)


def test_chat_tools() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        required = await client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS, tool_choice="required")
        assert required.choices[0].finish_reason == "tool_calls"
        call = (required.choices[0].message.tool_calls or [])[0]
        assert call.type == "function"
        assert (call.function.name, json.loads(call.function.arguments)) == ("weather", ARGUMENTS)
        result = {"role": "tool", "tool_call_id": call.id, "content": "sun"}
        answered: list[Any] = [*USE, required.choices[0].message, result]
        after = await client.chat.completions.create(model="m", messages=answered, tools=TOOLS)
        assert after.choices[0].finish_reason == "stop"
        plain = await client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS)
        assert plain.choices[0].message.tool_calls is None
        with pytest.raises(openai.BadRequestError, match="not found among the tools"):
            await client.chat.completions.create(
                model="m",
                messages=HELLO,
                tools=TOOLS,
                tool_choice={"type": "function", "function": {"name": "other"}},
            )

    with_client(scenario)


def test_chat_tools_streamed() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(model="m", messages=USE, tools=TOOLS, stream=True)
        deltas = [chunk.choices[0] async for chunk in stream]
        calls = [call for choice in deltas for call in choice.delta.tool_calls or []]
        assert calls[0].id is not None
        assert len([call for call in calls if call.id]) == 1
        assert json.loads("".join(call.function.arguments or "" for call in calls if call.function)) == ARGUMENTS
        assert deltas[-1].finish_reason == "tool_calls"

    with_client(scenario)


def test_chat_structured_and_vision() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        form: Any = {"type": "json_schema", "json_schema": {"name": "w", "schema": SCHEMA}}
        shaped = await client.chat.completions.create(model="m", messages=HELLO, response_format=form)
        assert json.loads(shaped.choices[0].message.content or "") == ARGUMENTS
        free = await client.chat.completions.create(model="m", messages=HELLO, response_format={"type": "json_object"})
        assert isinstance(json.loads(free.choices[0].message.content or ""), dict)
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
        seen: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, image]}]
        looked = await client.chat.completions.create(model="m", messages=seen)
        assert "“what is this?”" in (looked.choices[0].message.content or "")

    with_client(scenario)


def test_errors_become_the_clients_own() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        kinds: list[tuple[int, type[openai.APIStatusError]]] = [
            (401, openai.AuthenticationError),
            (404, openai.NotFoundError),
            (429, openai.RateLimitError),
            (503, openai.InternalServerError),
        ]
        for status, kind in kinds:
            with pytest.raises(kind) as raised:
                await client.chat.completions.create(model=f"m+status={status}", messages=HELLO)
            assert raised.value.body is not None
        stream = await client.chat.completions.create(model="m+error=2", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="had an error"):
            [chunk async for chunk in stream]

    with_client(scenario)


def test_a_cancelled_stream_is_noticed() -> None:
    async def run(sim: Sim) -> None:
        async with openai.AsyncOpenAI(base_url=sim.server.url + "/v1", api_key="k", max_retries=0) as client:
            stream = await client.chat.completions.create(model="m+stall=content", messages=HELLO, stream=True)
            await anext(stream)
            await stream.close()
        assert (await ending(sim)).aborted_by_peer

    with_sim(run)


@pytest.mark.parametrize("stream", [False, True])
def test_text_completions(*, stream: bool) -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        if not stream:
            got = await client.completions.create(model="m", prompt=["one", "two"], max_tokens=50)
            assert ["“one”" in got.choices[0].text, "“two”" in got.choices[1].text] == [True, True]
            return
        chunks = [
            chunk
            async for chunk in await client.completions.create(
                model="m", prompt="one", stream=True, stream_options={"include_usage": True}
            )
        ]
        assert "“one”" in "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
        assert chunks[-1].usage is not None

    with_client(scenario)


def test_responses_whole() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        got = await client.responses.create(model="m+reasoning=5", input="Say hello")
        assert got.status == "completed"
        assert "“Say hello”" in got.output_text
        assert got.usage is not None
        assert got.usage.output_tokens_details.reasoning_tokens == 5
        cut = await client.responses.create(model="m", input=HELLO, max_output_tokens=2)
        assert cut.status == "incomplete"
        called = await client.responses.create(model="m", input=USE, tools=FLAT_TOOLS)
        item = called.output[0]
        assert item.type == "function_call"
        assert json.loads(item.arguments) == ARGUMENTS
        shaped = await client.responses.create(
            model="m", input="x", text={"format": {"type": "json_schema", "name": "w", "schema": dict(SCHEMA)}}
        )
        assert json.loads(shaped.output_text) == ARGUMENTS

    with_client(scenario)


MESSAGE_EVENTS = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


def test_responses_streamed() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        events: list[Any] = [
            event async for event in await client.responses.create(model="m+tokens=2", input="x", stream=True)
        ]
        assert [event.type for event in events] == MESSAGE_EVENTS
        assert [event.sequence_number for event in events] == list(range(len(MESSAGE_EVENTS)))
        assert events[-1].response.output_text == events[6].text
        assert events[-1].response.usage.output_tokens == 2

    with_client(scenario)


def test_responses_tools_streamed_with_the_clients_own_accumulator() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        async with client.responses.stream(model="m", input=USE, tools=FLAT_TOOLS) as stream:
            final = await stream.get_final_response()
        item = final.output[0]
        assert item.type == "function_call"
        assert json.loads(item.arguments) == ARGUMENTS

    with_client(scenario)


def test_embeddings_and_moderations() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        packed = await client.embeddings.create(model="m", input=["a", "b"], dimensions=8)  # the client asks for base64
        plain = await client.embeddings.create(model="m", input="a", dimensions=8, encoding_format="float")
        assert packed.data[0].embedding == pytest.approx(plain.data[0].embedding, rel=1e-6)
        assert packed.data[1].embedding != packed.data[0].embedding
        judged = await client.moderations.create(input=["fine", "I will kill it"])
        assert [result.flagged for result in judged.results] == [False, True]
        assert judged.results[1].categories.violence

    with_client(scenario)


def test_images() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        made = await client.images.generate(model="m", prompt="p", n=2)
        assert made.data is not None
        assert len(made.data) == 2
        assert base64.b64decode(made.data[0].b64_json or "").startswith(b"\x89PNG")
        edited = await client.images.edit(model="m", prompt="p", image=("i.png", b"png"))
        with pytest.warns(DeprecationWarning, match="deprecated"):  # the client's opinion; applications still call it
            varied = await client.images.create_variation(model="m", image=("i.png", b"png"), n=1)
        assert edited.data
        assert varied.data
        events = [
            event.type
            async for event in await client.images.generate(model="m", prompt="p", stream=True, partial_images=2)
        ]
        assert events == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]

    with_client(scenario)


def test_speech() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        async with client.audio.speech.with_streaming_response.create(model="m", input="hello", voice="alloy") as got:
            assert (await got.read()).startswith(b"RIFF")
        async with client.audio.speech.with_streaming_response.create(
            model="m", input="hello", voice="alloy", stream_format="sse"
        ) as got:
            lines = [line async for line in got.iter_lines() if line]
        assert json.loads(lines[-1].removeprefix("data: "))["type"] == "speech.audio.done"

    with_client(scenario)


def test_transcriptions() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        def recording() -> io.BytesIO:
            sound = io.BytesIO(bytes(32_000))
            sound.name = "a.wav"
            return sound

        heard = await client.audio.transcriptions.create(model="m", file=recording())
        assert "32000 bytes" in heard.text
        verbose = await client.audio.transcriptions.create(model="m", file=recording(), response_format="verbose_json")
        assert verbose.duration == 2.0
        forms: list[tuple[Literal["text", "srt", "vtt"], str]] = [
            ("text", "You said"),
            ("srt", "1\n00:00:00,000 --> 00:00:02,000"),
            ("vtt", "WEBVTT"),
        ]
        for form, start in forms:
            got = await client.audio.transcriptions.create(model="m", file=recording(), response_format=form)
            assert got.startswith(start)
        events: list[Any] = [
            event async for event in await client.audio.transcriptions.create(model="m", file=recording(), stream=True)
        ]
        assert "".join(event.delta for event in events[:-1]) == events[-1].text
        with pytest.warns(DeprecationWarning, match="deprecated"):
            translated = await client.audio.translations.create(model="m", file=recording())
        assert "32000 bytes" in translated.text

    with_client(scenario)


def test_models() -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        assert "gpt-4o" in [model.id async for model in client.models.list()]
        assert (await client.models.retrieve("any")).id == "any"

    with_client(scenario)


@pytest.mark.parametrize("behaviour", ["split=1", "split=random", "cr", "ping=3", "gzip", "http10"])
def test_the_client_reads_every_harmless_behaviour(behaviour: str) -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(model=f"m+tokens=4+{behaviour}", messages=HELLO, stream=True)
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
        assert said == "You said: “Say hello”."[: len(said)]
        assert said

    with_client(scenario)


@pytest.mark.parametrize(
    "behaviour", ["reset=before", "reset=headers", "reset=3", "truncate=3", "garbage=head", "garbage=chunk"]
)
def test_the_client_sees_every_broken_connection(behaviour: str) -> None:
    async def scenario(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.APIConnectionError):
            async for _ in await client.chat.completions.create(model=f"m+{behaviour}", messages=HELLO, stream=True):
                pass

    with_client(scenario)
