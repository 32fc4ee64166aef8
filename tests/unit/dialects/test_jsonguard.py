"""The corpus (conformance/test_json.py) says what is read and refused; here are places, depth and cost."""

import json
import time
from collections.abc import Callable
from contextlib import suppress

import msgspec
import pytest

from gateway.dialects import jsonguard
from gateway.dialects.jsonguard import (
    ANY,
    BOOL,
    STRING,
    Bulk,
    Rules,
    check,
    check_depth,
    plain,
    read_object,
    replace_surrogates,
    too_deep,
)
from gateway.errors import InvalidRequest

MIB = 1 << 20
GENEROUS = 12  # times a plain json.loads of the same bytes


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","x":[1,2],"z":{"model":"b"}}',
        b'{"model": "a", "x": [1, 2], "z": {"model": "b"}}',
        b' {\n "model" : "a" ,"x":[1,2]\t, "z":{"model":"b"}}\n',
        '{"größe":1,"model":"a","x":"ü","z":"é"}'.encode(),
        '{"größe": 1, "model": "a", "x": "ü", "z": "é"}'.encode(),
        b'{"x":"\\ud800","model":"a","z":"\\udfff\\ud83d\\ude00"}',
        b'{"a\\"b": 1, "model": "a", "x\\\\": 2, "x": 3, "z": 4}',
    ],
)
def test_spans_are_the_values_as_sent(body: bytes) -> None:
    document = read_object(body)
    start, end = document.span("model")
    assert body[start:end] == b'"a"'
    wanted = json.loads(body)
    for name in ("x", "z"):
        start, end = document.span(name)
        assert json.loads(body[start:end]) == wanted[name]
    assert body[: document.behind_brace].strip() == b"{"


@pytest.mark.parametrize("body", [b'{"a":1}', b'{"a": 1}', b'{"a" :1}'])
def test_a_missing_member_has_no_span(body: bytes) -> None:
    with pytest.raises(KeyError):
        read_object(body).span("b")


@pytest.mark.parametrize("body", [b"{}", b" { } "])
def test_an_empty_object_has_no_members(body: bytes) -> None:
    assert read_object(body).members == {}


def test_check_returns_decision_values_without_nulls() -> None:
    rules = Rules({"a": STRING, "b": BOOL, "c": ANY, "d": STRING})
    values = check(read_object(b'{"a":"x","b":null,"c":[1],"e":2}'), rules)
    assert values == {"a": b'"x"'}


def test_what_is_remembered_of_names_depends_on_the_rules_and_never_on_values() -> None:
    text, flag = Rules({"a": STRING, "b": STRING}), Rules({"a": BOOL})
    for _ in range(2):  # ruled, then known
        assert check(read_object(b'{"a":"x","b":"y"}'), text) == {"a": b'"x"', "b": b'"y"'}
        assert check(read_object(b'{"a":true,"b":"y"}'), flag) == {"a": b"true"}
        assert check(read_object(b'{"a":"x","b":null}'), text) == {"a": b'"x"'}
        with pytest.raises(InvalidRequest, match="`a` must be a string"):
            check(read_object(b'{"a":true,"b":"y"}'), text)
        with pytest.raises(InvalidRequest, match="only in case"):
            check(read_object(b'{"a":"x","B":"y"}'), text)
        assert check(read_object(b'{"a":true,"B":"y"}'), flag) == {"a": b"true"}


def test_the_names_that_callers_can_make_us_remember_are_few_and_short() -> None:
    for number in range(2 * jsonguard._MAX_KNOWN):
        read_object(b'{"name-%d":1}' % number)
    read_object(b'{"%b":1}' % (b"x" * jsonguard._MAX_KNOWN_CHARS))
    read_object(b"{" + b",".join([b'"%d":1' % number for number in range(jsonguard._MAX_KNOWN_MEMBERS + 1)]) + b"}")
    assert len(jsonguard._known) <= jsonguard._MAX_KNOWN
    assert max(known.framing for known in jsonguard._known.values()) <= jsonguard._MAX_KNOWN_CHARS
    assert max(map(len, jsonguard._known)) <= jsonguard._MAX_KNOWN_MEMBERS


def test_a_half_surrogate_matters_in_a_decision_string_only() -> None:
    assert check(read_object(b'{"a":"x","b":"\\ud800"}'), Rules({"a": STRING})) == {"a": b'"x"'}
    with pytest.raises(InvalidRequest, match="surrogate"):
        check(read_object(b'{"a":"x\\udc00"}'), Rules({"a": STRING}))


def test_replacing_surrogates_keeps_every_offset() -> None:
    data = b'{"a":"\\ud800\\uDFFF\\u0041\\\\ud800"}'
    assert len(replace_surrogates(data)) == len(data)
    assert replace_surrogates(b'"\\u0041"') == b'"\\u0041"'


class Shape(msgspec.Struct, forbid_unknown_fields=True):
    a: str


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        (b'{"a":"x"}', Shape("x")),
        (b'{"a":"x","b":1}', None),
        (b'{"a":1,"a":"x"}', None),
        (b'{"a":[],"a":"x"}', None),
        (b"{}", None),
        (b"[" * 2000, None),
    ],
)
def test_what_is_plain_is_decoded(value: bytes, decoded: Shape | None) -> None:
    assert plain(msgspec.json.Decoder(Shape), msgspec.Raw(value)) == decoded


TEXTS = Bulk("x", msgspec.json.Decoder(list[str]))


@pytest.mark.parametrize(
    ("value", "decoded"),
    [
        ('["ü"]', ["ü"]),
        ('["\\ud800"]', ["\ufffd"]),
        ("[1]", None),
        ('"ü"', None),
    ],
)
@pytest.mark.parametrize("body", ['{"a":1,"x":%s}', '{"a": 1, "x": %s}', ' {"a":"é","x":%s}'])
def test_the_bulk_is_decoded_where_it_has_its_shape(body: str, value: str, decoded: list[str] | None) -> None:
    document = read_object((body % value).encode(), TEXTS)
    assert document.decoded == decoded
    assert read_object((body % value).encode()).decoded is None
    assert read_object(b'{"a":1}', TEXTS).decoded is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"x":["\xff"]}',
        b'{"x":["\xed\xa0\x80"]}',  # half of a surrogate pair, as no UTF-8 has it
        b'{"x":["\xc0\x80"]}',  # longer than need be
        b'{"x":["\xe2\x82"]}',
        b'{"x":["\xc3\xa9"],"y":"\xff"}',
        b'{"y":"\xff","x":["\xc3\xa9"]}',
        b'{"\xff":1,"x":["\xc3\xa9"]}',
        b'{"x":["\xff"],"x":["\xc3\xa9"]}',
        b'{"y":"\xff","y":"a","x":["\xc3\xa9"]}',
        b'{"y": "\xff", "x": ["\xc3\xa9"]}',
        b'{"x":["\xc3\xa9"]}\xff',
    ],
)
def test_what_is_not_utf_8_is_refused_inside_and_beside_the_bulk(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="not valid") as told:
        read_object(body, TEXTS)
    with pytest.raises(InvalidRequest) as without:
        read_object(body)
    assert str(told.value) == str(without.value)


@pytest.mark.parametrize("depth", [1, 2, 9, 10, 64, 127, 128, 129, 300])
@pytest.mark.parametrize(
    "shape",
    [
        lambda depth: b"[" * depth + b"]" * depth,
        lambda depth: b'{"a":' * depth + b"1" + b"}" * depth,
        lambda depth: b"[" + b"{}," * 400 + b"[" * (depth - 1) + b"]" * (depth - 1) + b"]" if depth > 1 else b"[]",
        lambda depth: (
            b"[" + b'"[[[{{{]",' * 90 + b"[" * (depth - 1) + b"]" * (depth - 1) + b"]" if depth > 1 else b"[]"
        ),
        lambda depth: b'["\\"[[\\\\","]]]]]",' * depth + b"1" + b"]" * depth,
        lambda depth: b'[[],{},"}{",' * depth + b"1" + b"]" * depth,
    ],
)
def test_depth_is_exact(shape: Callable[[int], bytes], depth: int) -> None:
    value = shape(depth)
    for limit in (1, 5, 20, 127, 128, 200):
        assert too_deep(value, limit) == (_depth(json.loads(value)) > limit)


def _depth(value: object) -> int:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, list | dict)]:
        depth += 1
        level = [below for item in level for below in (item.values() if isinstance(item, dict) else item)]
    return depth


def test_a_deep_member_cannot_hide_behind_an_equal_name() -> None:
    body = b'{"a":' + b"[" * 128 + b"]" * 128 + b',"a":1}'
    with pytest.raises(InvalidRequest, match="deeper than 128"):
        check_depth(read_object(body))
    assert read_object(body.replace(b"[[", b"[", 1).replace(b"]]", b"]", 1)).odd == {"a"}


def test_a_member_proven_shallow_is_not_counted() -> None:
    body = b'{"a":' + b"[" * 128 + b"]" * 128 + b"}"
    check_depth(read_object(body), "a")
    with pytest.raises(InvalidRequest, match="deeper than 128"):
        check_depth(read_object(body))


ADVERSARIES = {
    "many members": b"{" + b",".join(b'"k%d":%d' % (i, i) for i in range(70_000)) + b"}",
    "many members, spaced": b"{" + b", ".join(b'"k%d": %d' % (i, i) for i in range(70_000)) + b"}",
    "many members, odd space": b"{" + b" ,".join(b'"k%d":%d' % (i, i) for i in range(70_000)) + b"}",
    "one member many times": b"{" + b",".join([b'"model":1'] * 100_000) + b"}",
    "escaped names": b"{" + b",".join(b'"\\u006b%d":1' % i for i in range(60_000)) + b"}",
    "surrogates": b'{"x":"' + b"\\ud800" * (MIB // 6) + b'"}',
    "backslashes": b'{"x":"' + b"\\\\" * (MIB // 2) + b'"}',
    "quotes": b'{"x":["' + b'\\"' * (MIB // 2) + b'"]}',
    "empty strings": b'{"x":[' + b'"",' * (MIB // 3) + b"1]}",
    "shallow arrays": b'{"x":[' + b"[]," * (MIB // 3) + b"1]}",
    "staircases": b'{"x":[' + (b"[" * 100 + b"]" * 100 + b",") * (MIB // 201) + b"1]}",
    "white space": b'{"x"' + b" " * MIB + b":1}",
    "white space behind": b'{"x":1' + b"\n" * MIB + b"}",
    "one long key": b'{"' + b"k" * MIB + b'": 1 }',
    "one long number": b'{"a":1 ,"x":' + b"9" * MIB + b"}",
    "open strings": b'{"x":' + b'"\\",' * (MIB // 4),
    "open brackets": b'{"x":' + b"[" * MIB,
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_no_body_costs_more_than_a_few_plain_parses(name: str) -> None:
    body = ADVERSARIES[name]

    def ours() -> None:
        document = read_object(body)
        check(document, Rules({"model": ANY}))
        check_depth(document)

    # long numbers are quadratic for json.loads itself: its parse of as many digits as text is the measure
    plain = _cost(lambda: json.loads(body.replace(b"9" * MIB, b'"' + b"9" * MIB + b'"')))
    assert _cost(ours) < GENEROUS * max(plain, 0.004)


def _cost(work: Callable[[], object]) -> float:
    best = 1e9
    for _ in range(2):
        started = time.process_time()
        with suppress(InvalidRequest, ValueError, RecursionError):
            work()
        best = min(best, time.process_time() - started)
    return best


@pytest.mark.parametrize("join", [b",", b", ", b" ,"])
def test_the_number_of_members_is_bounded(join: bytes) -> None:
    members = [b'"k%d":1' % i for i in range(jsonguard.MAX_MEMBERS)]
    assert len(read_object(b"{" + join.join(members) + b"}").members) == jsonguard.MAX_MEMBERS
    for more in (b'"x":1', b'"k0":1'):
        with pytest.raises(InvalidRequest, match="more than 1000 members"):
            read_object(b"{" + join.join([*members, more]) + b"}")


def test_nothing_is_made_of_the_names_of_too_many_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the caller's to choose, millions of them."""
    monkeypatch.delattr(jsonguard, "_named")
    for text in (b'"a"', b'"\xc3\xa9"', b'"\\ud800"'):
        members = [b'"k%d":%b' % (number, text) for number in range(jsonguard.MAX_MEMBERS + 1)]
        with pytest.raises(InvalidRequest, match="more than 1000 members"):
            read_object(b"{" + b",".join(members) + b"}", TEXTS)
