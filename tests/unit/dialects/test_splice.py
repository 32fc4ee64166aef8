"""Edits change their span and no other byte."""

import json

import pytest

from gateway.dialects import splice
from gateway.dialects.base import Edit, RequestFacts
from gateway.dialects.openai.request import read
from gateway.dialects.surfaces import match
from tests.fakes.forms import read_form

FOUND = match("POST", "/v1/chat/completions")
assert FOUND is not None
CHAT = FOUND.surface


def facts_of(body: bytes) -> RequestFacts:
    return read(CHAT, body)


def test_edits_apply_in_any_order() -> None:
    edits = [Edit(8, 9, b"XY"), Edit(0, 0, b"<"), Edit(2, 4, b""), Edit(10, 10, b">")]
    assert splice.apply(b"0123456789", edits) == b"<014567XY9>"


def test_insertions_at_one_place_keep_their_order() -> None:
    assert splice.apply(b"ab", [Edit(1, 1, b"1"), Edit(1, 1, b"2")]) == b"a12b"


def test_no_edit_is_the_same_body() -> None:
    assert splice.apply(b"abc", []) == b"abc"


@pytest.mark.parametrize(
    "edits",
    [
        [Edit(0, 2, b""), Edit(1, 3, b"")],
        [Edit(0, 4, b"")],
        [Edit(-1, 1, b"")],
        [Edit(2, 1, b"")],
        [Edit(0, 1, b""), Edit(2, 9, b"")],
        [Edit(-2, -1, b""), Edit(1, 1, b"")],
    ],
)
def test_edits_that_are_not_this_body_s_raise(edits: list[Edit]) -> None:
    with pytest.raises(ValueError, match="edit"):
        splice.apply(b"abc", edits)


def test_one_edit_is_made_alone() -> None:
    assert splice.replace(b"0123", 1, 3, b"-") == b"0-3"
    for start, end in ((-1, 1), (2, 1), (0, 5)):
        with pytest.raises(ValueError, match="edit"):
            splice.replace(b"0123", start, end, b"")


@pytest.mark.parametrize("name", ["gpt", 'a"b\\c', "modèle", "line\nfeed"])
def test_set_model_writes_json(name: str) -> None:
    body = b'{"x": 1, "model": "m", "y": [1.50]}'
    changed = splice.apply(body, [splice.set_model(facts_of(body), name)])
    assert json.loads(changed)["model"] == name
    assert changed.startswith(b'{"x": 1, "model": ')
    assert changed.endswith(b', "y": [1.50]}')


def test_set_model_in_a_form_writes_the_bare_value() -> None:
    body = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm-1\r\n--b--\r\n'
    facts = read_form(b"multipart/form-data; boundary=b", body)
    changed = splice.apply(body, [splice.set_model(facts, "gröβer")])
    assert changed == body.replace(b"m-1", "gröβer".encode())
    with pytest.raises(ValueError, match="form"):
        splice.insert_members(facts, {"a": b"1"})


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (b"", b'"stream_options":{"include_usage":true},'),
        (b',"stream_options":null', b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":{}', b',"stream_options":{"include_usage":true}'),
        (b',"stream_options":{ }', b',"stream_options":{"include_usage":true }'),
        (b',"stream_options":{"x": 1}', b',"stream_options":{"include_usage":true,"x": 1}'),
        (b',"stream_options":{"include_usage" : false}', b',"stream_options":{"include_usage" : true}'),
        (b',"stream_options":{"include_usage":null,"x":1}', b',"stream_options":{"include_usage":true,"x":1}'),
        (b',"stream_options":{"x":"\\ud800"}', b',"stream_options":{"include_usage":true,"x":"\\ud800"}'),
    ],
)
def test_ask_usage_adds_one_flag(options: bytes, wanted: bytes) -> None:
    body = b'{"model":"m"' + options + b"}"
    changed = splice.apply(body, [splice.ask_usage(body, facts_of(body))])
    assert changed == (b'{"model":"m"' + wanted + b"}" if options else b"{" + wanted + b'"model":"m"}')
    assert facts_of(changed).usage_asked


def test_members_go_in_front_together_with_other_edits() -> None:
    body = b' {"model":"m","stream":true}'
    facts = facts_of(body)
    edits = [
        splice.set_model(facts, "n"),
        splice.ask_usage(body, facts),
        splice.insert_members(facts, {"temperature": b"0.1", "ü": b"null"}),
    ]
    changed = splice.apply(body, edits)
    assert json.loads(changed) == {
        "model": "n",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.1,
        "ü": None,
    }


def test_an_empty_object_takes_members_without_a_comma() -> None:
    facts = RequestFacts("", members_at=1, empty=True)
    assert splice.apply(b"{}", [splice.insert_members(facts, {"a": b"1", "b": b"2"})]) == b'{"a":1,"b":2}'
