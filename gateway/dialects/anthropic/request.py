"""What a request of an Anthropic surface asks: the model, the stream, and the provider's objects it names.

Members and shapes as in the OpenAI dialect's request.py, which tells the method. Objects are named by `container`
(the vendor's own skills inside it are public), by sources of type `file`, and by blocks that carry a `file_id`. A tool
use's `input` is the callers' own JSON: never searched, but its depth counts.
"""

from typing import Final

import msgspec

from gateway.dialects import jsonguard, stored
from gateway.dialects.base import RequestFacts, Surface
from gateway.dialects.events import ABSENT
from gateway.dialects.facts import required_model
from gateway.dialects.jsonguard import ANY, BOOL, OBJECT, STRING, TEXT_OR_OBJECT, WHOLE, Kinds, Rules, Values, plain

_COUNTED: Final[Kinds] = {"model": STRING, "messages": ANY, "system": ANY, "tools": ANY}
_RULES: Final = {
    "messages": Rules(
        {
            **_COUNTED,
            "stream": BOOL,
            "max_tokens": WHOLE,
            "metadata": OBJECT,
            "service_tier": STRING,
            "container": TEXT_OR_OBJECT,
            "user_profile_id": STRING,
        }
    ),
    "messages.count_tokens": Rules({**_COUNTED, "user_profile_id": STRING}),
}
_REFERRING: Final = ("messages", "system", "tools", "container", "user_profile_id")
_METADATA: Final = Rules({"user_id": STRING})


class _CacheControl(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str
    ttl: str | None = None


class _Source(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None


class _Block(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    source: _Source | None = None
    cache_control: _CacheControl | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    title: str | None = None
    context: str | None = None
    # of tool use and its result
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    content: "str | list[_Result] | None" = None
    is_error: bool | None = None


class _Result(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    type: str
    text: str | None = None
    source: _Source | None = None
    cache_control: _CacheControl | None = None


class _Message(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    role: str
    content: str | list[_Block]


_plain_messages: Final = msgspec.json.Decoder(list[_Message])
_plain_system: Final = msgspec.json.Decoder(str | list[_Result])


def read(surface: Surface, body: bytes) -> RequestFacts:
    """Facts of a JSON body. Raises InvalidRequest naming the member and the fix."""
    document = jsonguard.read_object(body)
    values = jsonguard.check(document, _RULES[surface.name])
    model = required_model(values)
    members = document.members
    proven = {
        name for name, decoder in _PLAIN if (raw := members.get(name)) is not None and plain(decoder, raw) is not None
    }
    jsonguard.check_depth(document)
    start, end = document.span("model")
    return RequestFacts(
        model,
        stream=values.get("stream") == b"true",
        model_start=start,
        model_end=end,
        members_at=document.behind_brace,
        names=document.names.every,
        stored=_references(members, proven),
        end_user=_end_user(values),
    )


_PLAIN: Final = (("messages", _plain_messages), ("system", _plain_system))


def _references(members: dict[str, msgspec.Raw], proven: set[str]) -> tuple[str, ...]:
    found: tuple[str, ...] = ()
    for name in _REFERRING:
        raw = members.get(name)
        if raw is not None and name not in proven:
            found += stored.named(bytes(raw), name)
    return found


def _end_user(values: Values) -> str:
    metadata = values.get("metadata")
    if metadata is None:
        return ""
    return jsonguard.text(jsonguard.check(jsonguard.read_object(metadata), _METADATA), "user_id")
