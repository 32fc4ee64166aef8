"""Which surface decides on what; single bodies are in corpus/json."""

from collections.abc import Iterator

import msgspec
import msgspec.inspect
import pytest

from gateway.dialects.base import BodyMode, Surface
from gateway.dialects.openai.request import _PLAIN, read
from gateway.dialects.surfaces import SURFACES
from gateway.errors import InvalidRequest

SURFACE = {surface.name: surface for surface in SURFACES}
JSON = [s for s in SURFACES if s.dialect == "openai" and (s.body is BodyMode.BUFFERED or s.json_or_multipart)]
CHAT = SURFACE["chat.completions"]


@pytest.mark.parametrize("surface", JSON, ids=lambda surface: surface.name)
def test_every_json_surface_reads_the_model_and_refuses_a_second(surface: Surface) -> None:
    facts = read(surface, b'{"model":"m","user":"u"}')
    assert (facts.model, facts.end_user, facts.names) == ("m", "u", frozenset({"model", "user"}))
    with pytest.raises(InvalidRequest, match="stands twice"):
        read(surface, b'{"model":"m","model":"m"}')
    assert read(surface, b'{"model":"m","":1}').names == frozenset({"model", ""})


@pytest.mark.parametrize("surface", JSON, ids=lambda surface: surface.name)
def test_references_are_found_where_they_can_stand_and_depth_everywhere(surface: Surface) -> None:
    with pytest.raises(InvalidRequest, match="deeper"):
        read(surface, b'{"model":"m","x":' + b"[" * 400 + b"]" * 400 + b"}")
    with pytest.raises(InvalidRequest, match="deeper"):
        read(surface, b'{"model":"m","input":' + b"[" * 400 + b"]" * 400 + b"}")


def test_where_the_api_documents_a_default_a_body_may_name_no_model() -> None:
    moderations = SURFACE["moderations"]
    for body, span in [(b'{"input":"x"}', (-1, -1)), (b'{"model":null,"input":"x"}', (9, 13))]:
        facts = read(moderations, body)
        assert (facts.model, facts.model_start, facts.model_end) == ("omni-moderation-latest", *span)
    assert read(moderations, b'{"model":"m","input":"x"}').model == "m"
    with pytest.raises(InvalidRequest, match="model"):
        read(CHAT, b'{"messages":[]}')


def test_a_plain_body_of_many_messages_is_not_taken_for_deep() -> None:
    message = b'{"role":"user","content":[{"type":"text","text":"[[[{{{"}]}'
    assert read(CHAT, b'{"model":"m","messages":[' + b",".join([message] * 500) + b"]}").stored == ()


def test_members_go_behind_the_brace() -> None:
    assert read(CHAT, b'{"model":"m"}').members_at == 1
    assert read(CHAT, b'\n { "model":"m"}').members_at == 3


def test_stream_options_are_spanned_also_when_null() -> None:
    body = b'{"model":"m","stream_options":null}'
    span = read(CHAT, body).stream_options
    assert span is not None
    assert body[slice(*span)] == b"null"
    assert read(CHAT, b'{"model":"m"}').stream_options is None


def test_of_a_chat_that_holds_only_text_the_talk_is_kept_and_its_numbers() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9,"n":null,"temperature":1}'
    talk = read(CHAT, body).talk
    assert talk is not None
    (message,), numbers = talk
    assert (message.content, dict(numbers)) == ("hi", {"model": b'"m"', "max_tokens": b"9"})
    named = body.replace(b'"temperature":1', b'"user":"ann"')
    assert read(CHAT, named).talk is not None
    assert read(CHAT, body.replace(b'"role"', b'"file_id":"f","role"')).talk is None
    assert read(SURFACE["embeddings"], b'{"model":"m","input":["hi"]}').talk is None


def kinds(of: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    """A type and all that it is made of."""
    yield of
    inner = [field.type for field in of.fields] if isinstance(of, msgspec.inspect.StructType) else []
    inner += of.types if isinstance(of, msgspec.inspect.UnionType) else ()
    inner += [of.item_type] if isinstance(of, msgspec.inspect.ListType) else []
    for each in inner:
        yield from kinds(each)


@pytest.mark.parametrize("surface", _PLAIN)
def test_a_plain_shape_steps_over_nothing(surface: str) -> None:
    """What it decodes has then been looked at to the last byte."""
    found = list(kinds(msgspec.inspect.type_info(_PLAIN[surface].decoder.type)))
    assert any(isinstance(kind, msgspec.inspect.StrType) for kind in found)
    assert all(kind.forbid_unknown_fields for kind in found if isinstance(kind, msgspec.inspect.StructType))
    assert {type(kind).__name__ for kind in found} <= {
        *("StructType", "UnionType", "ListType", "StrType", "IntType", "NoneType")
    }
