"""What a request of an OpenAI surface asks: the model, the stream, and the provider's objects it names.

Each surface is a row of `_KINDS` (decision members and their JSON types) and a few members where references to stored
objects can stand, as the published API description has them. Most chat bodies hold nothing but text, pictures and
tool calls; one typed decode (`_PLAIN`) proves that, and that they are shallow, for every occurrence of a key, so the
exact walk (`stored.named`) is paid only by what is not plain.

`store: true` is passed: it creates an object and names none. `background: true` is refused like a stored object,
because its answer can only be fetched by an id later.
"""

from typing import Final

import msgspec

from gateway.dialects import jsonguard, stored
from gateway.dialects.base import RequestFacts, Surface
from gateway.dialects.facts import required_model
from gateway.dialects.jsonguard import (
    ANY,
    BOOL,
    OBJECT,
    STRING,
    TEXT_OR_OBJECT,
    WHOLE,
    Bulk,
    Document,
    Kinds,
    Rules,
    Values,
)

_COMMON: Final[Kinds] = {
    "model": STRING,
    "user": STRING,
    "safety_identifier": STRING,
    "metadata": OBJECT,
    "service_tier": STRING,
    "store": BOOL,
}
_STREAMED: Final[Kinds] = {**_COMMON, "stream": BOOL, "stream_options": OBJECT}
_KINDS: Final[dict[str, Kinds]] = {
    "chat.completions": {
        **_STREAMED,
        "messages": ANY,
        "tools": ANY,
        "max_tokens": WHOLE,
        "max_completion_tokens": WHOLE,
        "n": WHOLE,
        "audio": OBJECT,
    },
    "completions": {
        **_STREAMED,
        "prompt": ANY,
        "max_tokens": WHOLE,
        "n": WHOLE,
        "best_of": WHOLE,
    },
    "responses": {
        **_STREAMED,
        "input": ANY,
        "instructions": ANY,
        "tools": ANY,
        "max_output_tokens": WHOLE,
        "max_tool_calls": WHOLE,
        "background": BOOL,
        "previous_response_id": STRING,
        "conversation": TEXT_OR_OBJECT,
        "prompt": OBJECT,
    },
    "embeddings": {**_COMMON, "input": ANY},
    "moderations": {**_COMMON, "input": ANY},
    "images.generations": {**_STREAMED, "prompt": ANY, "n": WHOLE},
    "images.edits": {**_STREAMED, "prompt": ANY, "n": WHOLE, "images": ANY, "mask": ANY},
    "audio.speech": {**_COMMON, "input": ANY, "voice": TEXT_OR_OBJECT, "stream_format": STRING},
}
_RULES: Final = {surface: Rules(kinds) for surface, kinds in _KINDS.items()}
_OTHER: Final = Rules(_COMMON)
_REFERRING: Final[dict[str, tuple[str, ...]]] = {  # members inside of which a stored object can be named
    "chat.completions": ("messages", "audio"),
    "responses": ("input", "tools", "prompt", "conversation", "previous_response_id"),
    "images.edits": ("images", "mask"),
    "audio.speech": ("voice",),
}
_NO_SPAN: Final = (-1, -1)
_OPTIONS: Final = Rules({"include_usage": BOOL})
_SSE_SPEECH: Final = "sse"


# --- shapes that name nothing: every key an API message or part of it may have, but those that hold references ------


class _Url(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    url: str
    detail: str | None = None


class _Sound(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    data: str
    format: str | None = None


class _CacheControl(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str | None = None
    ttl: str | None = None


class _Part(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    image_url: _Url | str | None = None
    detail: str | None = None
    input_audio: _Sound | None = None
    refusal: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    cache_control: _CacheControl | None = None


class _Function(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str | None = None
    arguments: str | None = None
    input: str | None = None


class _Call(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    id: str | None = None
    type: str | None = None
    index: int | None = None
    function: _Function | None = None
    custom: _Function | None = None


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: str
    content: str | list[_Part] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None
    function_call: _Function | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    audio: None = None


class _Item(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """An item of a response's input; one with an `id` is looked at exactly."""

    type: str | None = None
    role: str | None = None
    content: str | list[_Part] | None = None
    status: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[_Part] | None = None


_PLAIN: Final = {  # the member that holds the text, and the shapes of it that name nothing
    "chat.completions": Bulk("messages", msgspec.json.Decoder(list[_Message])),
    "completions": Bulk("prompt", msgspec.json.Decoder(str | list[str])),
    "responses": Bulk("input", msgspec.json.Decoder(str | list[_Item])),
    "embeddings": Bulk("input", msgspec.json.Decoder(str | list[str])),
}
_TELLING: Final = {  # members, besides model, stream and the text, that make a difference to the facts
    surface: frozenset({"stream_options", "safety_identifier", "user", "store", "background"})
    .union(_REFERRING.get(surface, ()))
    .difference({bulk.name})
    for surface, bulk in _PLAIN.items()
}


def read(surface: Surface, body: bytes) -> RequestFacts:
    """Facts of a JSON body. Raises InvalidRequest naming the member and the fix."""
    name = surface.name
    bulk = _PLAIN.get(name)
    document = jsonguard.read_object(body, bulk)
    members, text = document.members, document.decoded
    values = jsonguard.check(document, _RULES.get(name, _OTHER))
    model = surface.default_model if surface.default_model and "model" not in values else required_model(values)
    proven = bulk.name if bulk is not None and text is not None else ""  # to be shallow, and to name nothing
    jsonguard.check_depth(document, proven)
    start, end = document.span("model") if "model" in members else _NO_SPAN
    talk = (text, values) if isinstance(text, list) and proven == "messages" else None
    if proven and _TELLING[name].isdisjoint(document.names.every):
        # Most requests: model, stream, the text, and numbers.
        streams, names, stores = values.get("stream") == b"true", document.names.every, _stores(name, values)
        at = document.behind_brace
        return RequestFacts(model, streams, start, end, at, names=names, stores=stores, talk=talk)
    return RequestFacts(
        model,
        stream=_streams(name, values),
        model_start=start,
        model_end=end,
        members_at=document.behind_brace,
        names=document.names.every,
        usage_asked=asks_usage(values),
        stream_options=document.span("stream_options") if "stream_options" in members else None,
        stored=_references(name, document, values, proven),
        end_user=jsonguard.text(values, "safety_identifier") or jsonguard.text(values, "user"),
        stores=_stores(name, values),
        talk=talk,
    )


def asks_usage(values: Values) -> bool:
    """Whether `stream_options` asks for usage. Raises InvalidRequest where that could be read two ways."""
    options = values.get("stream_options")
    if options is None:
        return False
    return jsonguard.check(jsonguard.read_object(options), _OPTIONS).get("include_usage") == b"true"


def _streams(surface: str, values: Values) -> bool:
    if surface == "audio.speech":
        return jsonguard.text(values, "stream_format") == _SSE_SPEECH
    return values.get("stream") == b"true"


def _stores(surface: str, values: Values) -> bool:
    """Whether the provider keeps the answer: said so, or a response's default."""
    said = values.get("store")
    return said == b"true" or (surface == "responses" and said is None)


def _references(surface: str, document: Document, values: Values, proven: str) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for name in _REFERRING.get(surface, ()):
        raw = document.members.get(name)
        if raw is not None and name != proven:
            found += _named(name, bytes(raw))
    if surface == "responses" and values.get("background") == b"true":
        found = (*found, "background")
    return found


def _named(name: str, value: bytes) -> tuple[str, ...]:
    if value == b"null":
        return ()
    if name == "prompt":
        return ("prompt.id",)  # a response's `prompt` is nothing but the name of a stored template
    return stored.named(value, name)
