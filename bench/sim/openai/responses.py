"""POST /v1/responses: one output item (a message, or a function call), whole or as its full sequence of events.

Events are named and numbered: created, in_progress, output_item.added, then for a message content_part.added, the
text deltas, text.done, content_part.done, for a call the argument deltas and their done; output_item.done; and the
whole response again in completed (or incomplete, when the caller's limit cut the text). There is no [DONE].
Nothing is stored: a `previous_response_id` is echoed, not looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from bench.sim import text
from bench.sim.ask import Ask, Tool, arguments, chosen, fragments, new_id
from bench.sim.openai.chat import structured
from bench.sim.wire import Event, Kind, Reply, json_reply, sse, sse_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ECHOED: dict[str, object] = {  # request fields a response repeats → their value when absent
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


class Output(NamedTuple):
    """The one item a response consists of."""

    item_id: str
    answer: text.Answer
    tool: str = ""
    call_id: str = ""

    def item(self, status: str, said: str) -> dict[str, object]:
        """The item as it stands once it has said that much."""
        if self.tool:
            call = {"call_id": self.call_id, "name": self.tool, "arguments": said}
            return {"id": self.item_id, "type": "function_call", "status": status, **call}
        content = [part(said)] if status != "in_progress" else []
        return {"id": self.item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def part(said: str) -> dict[str, object]:
    """A content part holding text."""
    return {"type": "output_text", "text": said, "annotations": [], "logprobs": []}


def create(ask: Ask) -> Reply:
    """Answer a Responses request."""
    given = ask.require("input", str, list)
    output = _output(ask, given)
    asked = text.prompt_tokens(given, ask.body.get("instructions"))
    if isinstance(given, str):
        asked += text.MESSAGE_TOKENS + text.estimate(len(given))
    frame = _frame(ask)
    ended = _ended(ask, frame, output, asked)
    return sse_reply(_events(frame, ended, output)) if ask.stream else json_reply(ended)


def _output(ask: Ask, given: object) -> Output:
    prompt = given if isinstance(given, str) else text.prompt_of(given)
    last = {} if isinstance(given, str) else text.mapping((text.items(given) or [{}])[-1])
    choice = ask.body.get("tool_choice")
    forbidden = choice == "none" or last.get("type") == "function_call_output"
    named = text.string(text.mapping(choice).get("name"))
    tool = chosen(_tools(ask), named, prompt, forced=choice == "required", forbidden=forbidden)
    limit = ask.limit("max_output_tokens")
    if tool is not None:
        call = arguments(tool)
        return Output(new_id("fc_"), text.Answer(call, text.count(call)), tool.name, new_id("call_"))
    value = structured(text.mapping(text.mapping(ask.body.get("text")).get("format")))
    said = ask.answer(prompt, limit) if value is None or ask.said is not None else ask.spoken(value, limit)
    return Output(new_id("msg_"), said)


def _tools(ask: Ask) -> list[Tool]:
    offered = map(text.mapping, text.items(ask.body.get("tools")))
    return [
        Tool(text.string(tool.get("name")), text.mapping(tool.get("parameters")))
        for tool in offered
        if tool.get("type") == "function" and tool.get("name")
    ]


def _frame(ask: Ask) -> dict[str, object]:
    echoed = {name: ask.body.get(name, absent) for name, absent in ECHOED.items()}
    offered = map(text.mapping, text.items(echoed["tools"]))
    echoed["tools"] = [{"strict": True, **tool} if tool.get("type") == "function" else tool for tool in offered]
    return {
        "id": new_id("resp_"),
        "object": "response",
        "created_at": ask.created,
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": ask.model,
        "output": [],
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "store": bool(ask.body.get("store", True)),
        "usage": None,
        **echoed,
    }


def _ended(ask: Ask, frame: Mapping[str, object], output: Output, asked: int) -> dict[str, object]:
    cut = output.answer.finish == "length"
    status = "incomplete" if cut else "completed"
    ended = {
        "status": status,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": [output.item(status, output.answer.text)],
        "usage": None if ask.behaviour.nousage else _usage(ask, asked, output.answer.tokens),
    }
    return {**frame, **ended} if cut else {**frame, **ended, "completed_at": ask.created}


def _usage(ask: Ask, asked: int, said: int) -> dict[str, object]:
    hidden = ask.behaviour.reasoning
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": min(ask.behaviour.cached, asked), "cache_write_tokens": 0},
        "output_tokens": said + hidden,
        "output_tokens_details": {"reasoning_tokens": hidden},
        "total_tokens": asked + said + hidden,
    }


def _events(frame: Mapping[str, object], ended: Mapping[str, object], output: Output) -> Iterator[Event]:
    """The unnumbered sequence, numbered."""
    for number, (kind, payload) in enumerate(_sequence(frame, ended, output)):
        yield Event(kind, sse({**payload, "sequence_number": number}, str(payload["type"])))


def _sequence(
    frame: Mapping[str, object], ended: Mapping[str, object], output: Output
) -> Iterator[tuple[Kind, dict[str, object]]]:
    status = str(ended["status"])
    yield Kind.OPENING, {"type": "response.created", "response": frame}
    yield Kind.OPENING, {"type": "response.in_progress", "response": frame}
    added = output.item("in_progress", "")
    yield Kind.CONTENT, {"type": "response.output_item.added", "output_index": 0, "item": added}
    yield from _call(output) if output.tool else _message(output)
    item = output.item(status, output.answer.text)
    yield Kind.CLOSING, {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield Kind.DONE, {"type": f"response.{status}", "response": ended}


def _message(output: Output) -> Iterator[tuple[Kind, dict[str, object]]]:
    place: dict[str, object] = {"item_id": output.item_id, "output_index": 0, "content_index": 0}
    yield Kind.CONTENT, {"type": "response.content_part.added", **place, "part": part("")}
    for piece in output.answer.deltas():
        yield Kind.CONTENT, {"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []}
    said = output.answer.text
    yield Kind.CLOSING, {"type": "response.output_text.done", **place, "text": said, "logprobs": []}
    yield Kind.CLOSING, {"type": "response.content_part.done", **place, "part": part(said)}


def _call(output: Output) -> Iterator[tuple[Kind, dict[str, object]]]:
    place: dict[str, object] = {"item_id": output.item_id, "output_index": 0}
    for fragment in fragments(output.answer.text):
        yield Kind.CONTENT, {"type": "response.function_call_arguments.delta", **place, "delta": fragment}
    done = {"name": output.tool, "arguments": output.answer.text}
    yield Kind.CLOSING, {"type": "response.function_call_arguments.done", **place, **done}
