"""The Anthropic dialect, judged by Anthropic's own client."""

from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import pytest

from tests.unit.bench.sim.harness import Sim, with_sim

HELLO: list[Any] = [{"role": "user", "content": "Say hello"}]
USE: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "Please use the tool."}]}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS: list[Any] = [{"name": "weather", "input_schema": SCHEMA}]


def with_client(scenario: Callable[[anthropic.AsyncAnthropic], Awaitable[None]]) -> None:
    async def run(sim: Sim) -> None:
        async with anthropic.AsyncAnthropic(base_url=sim.server.url, api_key="k", max_retries=0) as client:
            await scenario(client)

    with_sim(run)


def test_a_whole_message() -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        raw = await client.messages.with_raw_response.create(model="claude+cached=2", max_tokens=100, messages=HELLO)
        assert raw.headers["request-id"].startswith("req_")
        assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
        message = await raw.parse()
        assert message.content[0].type == "text"
        assert "“Say hello”" in message.content[0].text
        assert message.stop_reason == "end_turn"
        counted = await client.messages.count_tokens(model="claude", messages=HELLO)
        assert message.usage.cache_read_input_tokens == 2
        assert message.usage.input_tokens + 2 == counted.input_tokens

    with_client(scenario)


def test_a_streamed_message() -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        stream = await client.messages.create(model="m+tokens=2", max_tokens=100, messages=HELLO, stream=True)
        events: list[Any] = [event async for event in stream]
        assert [event.type for event in events] == [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
        assert events[0].message.usage.input_tokens > 0
        assert events[5].usage.output_tokens == 2
        assert events[5].delta.stop_reason == "end_turn"

    with_client(scenario)


def test_limits_and_stop_sequences() -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        cut = await client.messages.create(model="m", max_tokens=2, messages=HELLO)
        assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
        stopped = await client.messages.create(model="m", max_tokens=99, messages=HELLO, stop_sequences=["hello"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "hello")

    with_client(scenario)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "weather"}, {"type": "auto"}])
def test_tools_and_thinking_through_the_clients_own_accumulator(choice: dict[str, str]) -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        asked: dict[str, Any] = {
            "model": "m",
            "max_tokens": 2048,
            "messages": USE,
            "tools": TOOLS,
            "tool_choice": choice,
            "thinking": {"type": "enabled", "budget_tokens": 1024},
        }
        async with client.messages.stream(**asked) as stream:
            streamed = await stream.get_final_message()
        whole = await client.messages.create(**asked)
        for message in (streamed, whole):
            assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
            thought, call = (message.content[at].model_dump() for at in (0, 2))
            assert thought["signature"]
            assert call["input"] == {"city": "example"}
            assert message.stop_reason == "tool_use"
        assert streamed.usage.output_tokens == whole.usage.output_tokens

    with_client(scenario)


def test_an_answered_tool_is_not_called_again() -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        result = {"type": "tool_result", "tool_use_id": "t", "content": "sun"}
        call = {"type": "tool_use", "id": "t", "name": "weather", "input": {}}
        answered: list[Any] = [*USE, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
        message = await client.messages.create(
            model="m", max_tokens=99, messages=answered, tools=TOOLS, tool_choice={"type": "any"}
        )
        assert message.stop_reason == "end_turn"

    with_client(scenario)


def test_errors_become_the_clients_own() -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        kinds: list[tuple[int, type[anthropic.APIStatusError]]] = [
            (400, anthropic.BadRequestError),
            (401, anthropic.AuthenticationError),
            (403, anthropic.PermissionDeniedError),
            (429, anthropic.RateLimitError),
            (529, anthropic.InternalServerError),
        ]
        for status, kind in kinds:
            with pytest.raises(kind) as raised:
                await client.messages.create(model=f"m+status={status}", max_tokens=9, messages=HELLO)
            assert raised.value.request_id is not None
        stream = await client.messages.create(model="m+error=2", max_tokens=9, messages=HELLO, stream=True)
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            [event async for event in stream]

    with_client(scenario)


@pytest.mark.parametrize("behaviour", ["split=1", "cr", "ping=3", "gzip", "nousage"])
def test_the_client_reads_every_harmless_behaviour(behaviour: str) -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        stream = await client.messages.create(model=f"m+{behaviour}", max_tokens=9, messages=HELLO, stream=True)
        deltas = [event.delta async for event in stream if event.type == "content_block_delta"]
        assert "".join(delta.text for delta in deltas if delta.type == "text_delta").startswith("You said")

    with_client(scenario)


def test_models() -> None:
    async def scenario(client: anthropic.AsyncAnthropic) -> None:
        assert "sim-echo" in [model.id async for model in client.models.list()]

    with_client(scenario)
