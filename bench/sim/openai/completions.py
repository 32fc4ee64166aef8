"""POST /v1/completions: the older text endpoint, whole and streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from bench.sim import text
from bench.sim.ask import Ask, new_id
from bench.sim.openai.common import DONE, FINGERPRINT, usage
from bench.sim.wire import Event, Kind, Reply, json_reply, sse_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def create(ask: Ask) -> Reply:
    """Answer a text completion request; each prompt of an array, `n` times, is a choice."""
    prompts = text.strings(ask.require("prompt", str, list)) or ["(a prompt given as tokens)"]
    copies = text.integer(ask.body.get("n")) or 1
    limit, stops = ask.limit("max_tokens"), text.strings(ask.body.get("stop"))
    answers = [ask.answer(prompt, limit, stops) for prompt in prompts for _ in range(max(1, copies))]
    asked = max(1, sum(text.estimate(len(prompt)) for prompt in prompts))
    figures = usage(ask, asked, sum(answer.tokens for answer in answers))
    frame: dict[str, object] = {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": ask.created,
        "model": ask.model,
        "system_fingerprint": FINGERPRINT,
    }
    if ask.stream:
        return sse_reply(_events(ask, frame, answers, figures))
    choices = [_choice(index, answer.text, _finish(answer)) for index, answer in enumerate(answers)]
    told = {} if ask.behaviour.nousage else {"usage": figures}
    return json_reply({**frame, "choices": choices, **told})


def _finish(answer: text.Answer) -> str:
    return "length" if answer.finish == "length" else "stop"


def _choice(index: int, said: str, finish: str | None) -> dict[str, object]:
    return {"text": said, "index": index, "logprobs": None, "finish_reason": finish}


def _events(
    ask: Ask, frame: Mapping[str, object], answers: list[text.Answer], figures: Mapping[str, object]
) -> Iterator[Event]:
    told = bool(text.mapping(ask.body.get("stream_options")).get("include_usage")) and not ask.behaviour.nousage
    front = b"data: " + orjson.dumps(frame)[:-1] + b',"choices":['
    back = b'],"usage":null}\n\n' if told else b"]}\n\n"
    for index, answer in enumerate(answers):
        for piece in answer.deltas():
            yield Event(Kind.CONTENT, front + orjson.dumps(_choice(index, piece, None)) + back)
        yield Event(Kind.CLOSING, front + orjson.dumps(_choice(index, "", _finish(answer))) + back)
    if told:
        yield Event(Kind.CLOSING, front + b'],"usage":' + orjson.dumps(figures) + b"}\n\n")
    yield DONE
