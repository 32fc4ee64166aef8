"""POST /v1/chat/completions: whole and streamed, several choices, tools, structured output.

A streamed choice is: the role, its deltas, its finish reason. Choices take turns delta by delta, as they do when
they are sampled together. With `include_usage` every chunk carries `usage: null` and one more, without choices,
carries the figures; then [DONE]. The part of a chunk that never changes is encoded once per stream.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

import orjson

from bench.sim import text
from bench.sim.ask import Ask, Tool, arguments, chosen, fragments, new_id
from bench.sim.openai.common import DONE, FINGERPRINT, usage
from bench.sim.wire import Event, Kind, Refused, Reply, json_reply, sse_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_CHOICES = 128


class Turn(NamedTuple):
    """What one choice says: a text, or a call of a tool with its arguments."""

    answer: text.Answer
    tool: str = ""
    call_id: str = ""

    @property
    def finish(self) -> str:
        """The finish reason."""
        if self.tool:
            return "tool_calls"
        return "length" if self.answer.finish == "length" else "stop"


def create(ask: Ask) -> Reply:
    """Answer a chat completion request."""
    messages = ask.require("messages", list)
    if not messages:
        raise Refused(400, "Invalid 'messages': empty array.", code="empty_array", param="messages")
    wanted = text.integer(ask.body.get("n"))
    if wanted is not None and not 1 <= wanted <= MAX_CHOICES:
        raise Refused(400, f"Invalid 'n': from 1 to {MAX_CHOICES} expected.", param="n")
    turns = [_turn(ask, messages) for _ in range(wanted or 1)]
    prompt = text.prompt_tokens(messages, ask.body.get("tools"))
    figures = usage(ask, prompt, sum(turn.answer.tokens for turn in turns))
    if ask.stream:
        return sse_reply(_events(ask, turns, figures))
    return json_reply(_whole(ask, turns, figures))


def tools_of(ask: Ask) -> list[Tool]:
    """The functions offered, from `tools` or the older `functions`."""
    offered = [text.mapping(text.mapping(tool).get("function")) for tool in text.items(ask.body.get("tools"))]
    offered += map(text.mapping, text.items(ask.body.get("functions")))
    return [
        Tool(text.string(function["name"]), text.mapping(function.get("parameters")))
        for function in offered
        if function.get("name")
    ]


def structured(response_format: Mapping[str, object]) -> object | None:
    """A value of the shape that was asked for, or None where plain text was."""
    kind = response_format.get("type")
    if kind == "json_object":
        return {"answer": "This is a simulated answer.", "simulated": True}
    if kind != "json_schema":
        return None
    inner = text.mapping(response_format.get("json_schema")) or response_format
    return text.sample(text.mapping(inner.get("schema")))


def _turn(ask: Ask, messages: object) -> Turn:
    prompt = text.prompt_of(messages)
    last = text.mapping(text.items(messages)[-1])
    choice = ask.body.get("tool_choice")
    named = text.string(text.mapping(text.mapping(choice).get("function")).get("name"))
    answered = last.get("role") in ("tool", "function")
    tool = chosen(tools_of(ask), named, prompt, forced=choice == "required", forbidden=choice == "none" or answered)
    limit = ask.limit("max_completion_tokens", "max_tokens")
    if tool is not None:
        call = arguments(tool)
        return Turn(text.Answer(call, text.count(call)), tool.name, new_id("call_"))
    value = structured(text.mapping(ask.body.get("response_format")))
    if value is not None and ask.said is None:
        return Turn(ask.spoken(value, limit))
    return Turn(ask.answer(prompt, limit, text.strings(ask.body.get("stop"))))


def _message(turn: Turn) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if turn.tool:
        function = {"name": turn.tool, "arguments": turn.answer.text}
        return {**message, "tool_calls": [{"id": turn.call_id, "type": "function", "function": function}]}
    return {**message, "content": turn.answer.text}


def _whole(ask: Ask, turns: list[Turn], figures: Mapping[str, object]) -> dict[str, object]:
    choices = [
        {"index": index, "message": _message(turn), "logprobs": None, "finish_reason": turn.finish}
        for index, turn in enumerate(turns)
    ]
    whole = {**_frame(ask, "chat.completion"), "choices": choices}
    return whole if ask.behaviour.nousage else {**whole, "usage": figures}


def _frame(ask: Ask, kind: str) -> dict[str, object]:
    return {
        "id": new_id("chatcmpl-"),
        "object": kind,
        "created": ask.created,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": FINGERPRINT,
    }


def _events(ask: Ask, turns: list[Turn], figures: Mapping[str, object]) -> Iterator[Event]:
    told = bool(text.mapping(ask.body.get("stream_options")).get("include_usage")) and not ask.behaviour.nousage
    front = b"data: " + orjson.dumps(_frame(ask, "chat.completion.chunk"))[:-1] + b',"choices":['
    null_usage = b',"usage":null}\n\n' if told else b"}\n\n"

    def chunk(kind: Kind, index: int, delta: bytes, finish: bytes = b"null") -> Event:
        choice = b'{"index":%d,"delta":%b,"logprobs":null,"finish_reason":%b}]' % (index, delta, finish)
        return Event(kind, front + choice + null_usage)

    for index, turn in enumerate(turns):
        yield chunk(Kind.OPENING, index, _opening(turn))
    for round_ in zip_longest(*map(_deltas, turns)):
        for index, delta in enumerate(round_):
            if delta is not None:
                yield chunk(Kind.CONTENT, index, delta)
    for index, turn in enumerate(turns):
        yield chunk(Kind.CLOSING, index, b"{}", orjson.dumps(turn.finish))
    if told:
        yield Event(Kind.CLOSING, front + b'],"usage":' + orjson.dumps(figures) + b"}\n\n")
    yield DONE


def _opening(turn: Turn) -> bytes:
    role: dict[str, object] = {"role": "assistant", "content": None if turn.tool else "", "refusal": None}
    return orjson.dumps(role)


def _deltas(turn: Turn) -> Iterator[bytes]:
    if not turn.tool:
        return (b'{"content":' + orjson.dumps(piece) + b"}" for piece in turn.answer.deltas())
    return _call_deltas(turn)


def _call_deltas(turn: Turn) -> Iterator[bytes]:
    """The call's id and name first, then its arguments in fragments."""
    first = {"index": 0, "id": turn.call_id, "type": "function", "function": {"name": turn.tool, "arguments": ""}}
    yield orjson.dumps({"tool_calls": [first]})
    for fragment in fragments(turn.answer.text):
        yield orjson.dumps({"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]})
