"""The Anthropic dialect: messages, token counts, models, errors.

A streamed message is message_start (usage so far), for each block content_block_start, its deltas and
content_block_stop, then message_delta (stop reason, final usage) and message_stop. Blocks come in the order
thinking, text, tool_use. A ping follows the first block's start, as the real service sends one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

import orjson

from bench.sim import text
from bench.sim.ask import Ask, Tool, arguments, chosen, fragments, new_id
from bench.sim.wire import Dialect, Event, Headers, Kind, Refused, Reply, json_reply, sse, sse_reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PING = sse({"type": "ping"}, "ping")
THOUGHT = "The request asks for thinking, so here is a thought: repeating the words is the honest thing to do."
SIGNATURE = "c2ltdWxhdGVkLXNpZ25hdHVyZQ=="
MODELS = ("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5", "sim-echo")
_ERRORS: dict[int, tuple[str, str]] = {  # status → type, message
    400: ("invalid_request_error", "The request is not valid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "The requested resource could not be found."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "Number of requests has exceeded your per-minute rate limit."),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_API_ERROR = ("api_error", "Internal server error")


class Block(NamedTuple):
    """One content block: as it stands when whole, as it starts, and its deltas."""

    whole: dict[str, object]
    start: dict[str, object]
    deltas: Callable[[], Iterator[dict[str, object]]]


def error_object(status: int, message: str | None, code: str | None) -> dict[str, object]:
    """The object under `error` that goes with a status."""
    kind, usual = _ERRORS.get(status, _API_ERROR if status >= 500 else _ERRORS[400])  # noqa: PLR2004
    return {"type": code or kind, "message": message or usual}


def error_body(status: int, message: str | None, code: str | None, param: str | None, request_id: str) -> bytes:
    """The body of an error answer. The dialect has no codes: one that names a status's type replaces it."""
    del param
    known = {kind for kind, _ in _ERRORS.values()} | {"api_error"}
    error = error_object(status, message, code if code in known else None)
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def error_event(path: str, message: str | None, code: str | None, request_id: str) -> bytes:
    """An error in the middle of a stream; overloaded unless another type is given."""
    del path
    error = error_object(529, message, code)
    return sse({"type": "error", "error": error, "request_id": request_id}, "error")


def headers(request_id: str, remaining: int, limit: int, processing_ms: int) -> Headers:
    """The headers Anthropic puts on its answers."""
    del processing_ms
    reset = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() // 60 * 60 + 60))
    pairs = [("request-id", request_id), ("anthropic-organization-id", "00000000-0000-4000-8000-000000000000")]
    for name, scale in (("requests", 1), ("tokens", 200), ("input-tokens", 160), ("output-tokens", 40)):
        front = f"anthropic-ratelimit-{name}"
        pairs.append((f"{front}-limit", str(limit * scale)))
        pairs.append((f"{front}-remaining", str(remaining * scale)))
        pairs.append((f"{front}-reset", reset))
    return pairs


def models() -> dict[str, object]:
    """The list of models; other names answer just as well."""
    return {"data": [model(name) for name in MODELS], "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def model(name: str) -> dict[str, object]:
    """One model, whatever its name."""
    shown = name.replace("-", " ").title()
    created = "2025-01-01T00:00:00Z"
    return {"type": "model", "id": name, "display_name": shown, "created_at": created, "lifecycle": "active"}


def count_tokens(ask: Ask) -> Reply:
    """Answer a count_tokens request with the number `messages` would report."""
    return json_reply({"input_tokens": _input_tokens(ask)})


def create(ask: Ask) -> Reply:
    """Answer a messages request."""
    asked = _input_tokens(ask)
    ask.require("max_tokens", int)
    limit = ask.limit("max_tokens")
    tool = _tool(ask)
    answer = ask.answer(text.prompt_of(ask.body["messages"]), limit, text.strings(ask.body.get("stop_sequences")))
    blocks = _blocks(ask, answer, tool)
    call_tokens = text.count(arguments(tool)) if tool else 0
    thought_tokens = text.count(THOUGHT) if _thinks(ask) else 0
    usage = _usage(ask, asked, answer.tokens + call_tokens + thought_tokens + ask.behaviour.reasoning)
    ended = _ended(answer, tool)
    frame: dict[str, object] = {"id": new_id("msg_"), "type": "message", "role": "assistant", "model": ask.model}
    told = {} if ask.behaviour.nousage else {"usage": usage}
    if ask.stream:
        return sse_reply(_events(frame, blocks, ended, told))
    return json_reply({**frame, "content": [block.whole for block in blocks], **ended, **told})


def _input_tokens(ask: Ask) -> int:
    messages = ask.require("messages", list)
    if not messages:
        raise Refused(400, "messages: at least one message is required", param="messages")
    return text.prompt_tokens(messages, ask.body.get("system"), ask.body.get("tools"))


def _thinks(ask: Ask) -> bool:
    return text.mapping(ask.body.get("thinking")).get("type") in ("enabled", "adaptive")


def _tool(ask: Ask) -> Tool | None:
    messages = text.items(ask.body["messages"])
    last = text.items(text.mapping(messages[-1]).get("content"))
    choice = text.mapping(ask.body.get("tool_choice"))
    offered = [
        Tool(text.string(tool.get("name")), text.mapping(tool.get("input_schema")))
        for tool in map(text.mapping, text.items(ask.body.get("tools")))
        if tool.get("name")
    ]
    answered = any(text.mapping(part).get("type") == "tool_result" for part in last)
    named = text.string(choice.get("name")) if choice.get("type") == "tool" else ""
    forced, forbidden = choice.get("type") == "any", choice.get("type") == "none" or answered
    return chosen(offered, named, text.prompt_of(messages), forced=forced, forbidden=forbidden)


def _blocks(ask: Ask, answer: text.Answer, tool: Tool | None) -> list[Block]:
    blocks = [_thinking()] if _thinks(ask) else []
    blocks.append(_text(answer))
    if tool is not None:
        blocks.append(_tool_use(tool))
    return blocks


def _text(answer: text.Answer) -> Block:
    return Block(
        {"type": "text", "text": answer.text},
        {"type": "text", "text": ""},
        lambda: ({"type": "text_delta", "text": piece} for piece in answer.deltas()),
    )


def _thinking() -> Block:
    def deltas() -> Iterator[dict[str, object]]:
        for piece in text.pieces(THOUGHT):
            yield {"type": "thinking_delta", "thinking": piece}
        yield {"type": "signature_delta", "signature": SIGNATURE}

    return Block(
        {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
        {"type": "thinking", "thinking": "", "signature": ""},
        deltas,
    )


def _tool_use(tool: Tool) -> Block:
    call = arguments(tool)
    block: dict[str, object] = {"type": "tool_use", "id": new_id("toolu_"), "name": tool.name}
    parts = ["", *fragments(call)]  # the service opens with an empty fragment
    return Block(
        {**block, "input": orjson.loads(call)},
        {**block, "input": {}},
        lambda: ({"type": "input_json_delta", "partial_json": piece} for piece in parts),
    )


def _ended(answer: text.Answer, tool: Tool | None) -> dict[str, object]:
    reasons = {"stop": "end_turn", "length": "max_tokens", "stop_sequence": "stop_sequence"}
    if tool is not None:
        return {"stop_reason": "tool_use", "stop_sequence": None}
    return {"stop_reason": reasons[answer.finish], "stop_sequence": answer.stop}


def _usage(ask: Ask, asked: int, said: int) -> dict[str, object]:
    cached = min(ask.behaviour.cached, asked)
    caches = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
    return {"input_tokens": asked - cached, **caches, "output_tokens": said, "service_tier": "standard"}


def _events(
    frame: Mapping[str, object],
    blocks: Sequence[Block],
    ended: Mapping[str, object],
    told: Mapping[str, Mapping[str, object]],
) -> Iterator[Event]:
    """`told` holds the usage, or nothing: at the start with one token out, at the end with them all."""
    first = {name: {**usage, "output_tokens": 1} for name, usage in told.items()}
    last = {name: {"output_tokens": usage["output_tokens"]} for name, usage in told.items()}
    started = {**frame, "content": [], "stop_reason": None, "stop_sequence": None, **first}
    yield Event(Kind.OPENING, sse({"type": "message_start", "message": started}, "message_start"))
    for index, block in enumerate(blocks):
        yield from _block_events(index, block)
    yield Event(Kind.CLOSING, sse({"type": "message_delta", "delta": ended, **last}, "message_delta"))
    yield Event(Kind.DONE, sse({"type": "message_stop"}, "message_stop"))


def _block_events(index: int, block: Block) -> Iterator[Event]:
    start = {"type": "content_block_start", "index": index, "content_block": block.start}
    yield Event(Kind.CONTENT, sse(start, "content_block_start"))
    if index == 0:
        yield Event(Kind.OPENING, PING)
    front = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % index
    for delta in block.deltas():
        yield Event(Kind.CONTENT, front + orjson.dumps(delta) + b"}\n\n")
    yield Event(Kind.CLOSING, sse({"type": "content_block_stop", "index": index}, "content_block_stop"))


DIALECT = Dialect(error_body, error_event, headers, models, model, PING, ping_at=1)
