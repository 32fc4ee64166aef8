"""What goes to a provider: the caller's bytes, the changes a target must make, and their names."""

import json
from typing import Any

import pytest

from gateway.providers.headers import forwarded
from gateway.relay.outgoing import Outgoing, Target
from tests.fakes.forms import read_form
from tests.fakes.provider import FakeProvider, ask, body_of

PLAIN = b'{ "model" : "gpt", "messages":[], "own": 1e400 }'
STREAM = b'{"model":"gpt","messages":[],"stream":true}'
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ngpt\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n--b--\r\n'
)


def lines(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")


def form() -> Outgoing:
    facts = read_form(b"multipart/form-data; boundary=b", FORM)
    return ask(FORM, "passthrough", raw=False, path="/audio/transcriptions", facts=facts)


# --- bodies ---------------------------------------------------------------------------------------------------------


def test_a_body_that_needs_no_change_is_the_callers_own_object() -> None:
    out = ask(PLAIN)
    encoded = FakeProvider().target("gpt").encode(out)
    assert encoded.body is out.body
    assert (encoded.changed, encoded.withhold_usage) == ((), False)


def test_the_model_is_replaced_and_nothing_else_moves() -> None:
    encoded = FakeProvider().target("gpt-real").encode(ask(PLAIN))
    assert encoded.body == PLAIN.replace(b'"gpt"', b'"gpt-real"')
    assert encoded.changed == ("model",)
    assert b"content-length: %d\r\n" % len(encoded.body) in encoded.head


@pytest.mark.parametrize(
    ("pattern", "star", "asked_star", "name"),
    [
        ("gpt-real", "", "", "gpt-real"),
        ("*", "", "4o", "4o"),
        ("gpt-*", "", "4o", "gpt-4o"),
        ("gpt-*", "mini", "4o", "gpt-mini"),
    ],
)
def test_the_providers_name_of_a_model(pattern: str, star: str, asked_star: str, name: str) -> None:
    target = FakeProvider(name="p").target(pattern, star=star)
    assert (target.name(asked_star), target.model(asked_star)) == (f"p/{name}", name)
    encoded = target.encode(ask(PLAIN, star=asked_star))
    assert json.loads(encoded.body.replace(b"1e400", b"1"))["model"] == name


def test_a_model_that_the_body_need_not_name_is_added() -> None:
    encoded = FakeProvider().target("mod-2").encode(ask(b'{"input":"x"}', "moderations"))
    assert json.loads(encoded.body) == {"model": "mod-2", "input": "x"}
    assert encoded.changed == ("model",)


def test_a_forms_model_is_replaced_bare() -> None:
    encoded = FakeProvider().target("whisper").encode(form())
    assert encoded.body == FORM.replace(b"gpt", b"whisper")
    assert encoded.changed == ("model",)


@pytest.mark.parametrize(
    ("options", "asked", "withheld"),
    [
        (b"", b'{"include_usage":true}', True),
        (b',"stream_options":null', b'{"include_usage":true}', True),
        (b',"stream_options":{"include_usage":false}', b'{"include_usage":true}', True),
        (b',"stream_options":{"x":1}', b'{"include_usage":true,"x":1}', True),
        (b',"stream_options":{"include_usage":true}', b'{"include_usage":true}', False),
    ],
)
def test_usage_is_asked_for_where_the_caller_did_not(options: bytes, asked: bytes, *, withheld: bool) -> None:
    body = STREAM[:-1] + options + b"}"
    encoded = FakeProvider().target("gpt", ask_usage=True).encode(ask(body))
    assert json.loads(encoded.body)["stream_options"] == json.loads(asked)
    assert encoded.body.count(b"stream_options") == 1
    assert encoded.withhold_usage == withheld
    assert encoded.changed == (("stream_options.include_usage",) if withheld else ())


@pytest.mark.parametrize(
    ("body", "name", "ask_usage"),
    [(PLAIN, "chat.completions", True), (STREAM, "chat.completions", False), (STREAM, "responses", True)],
    ids=["no stream", "never", "no such flag"],
)
def test_usage_is_not_asked_for(body: bytes, name: str, *, ask_usage: bool) -> None:
    encoded = FakeProvider().target("gpt", ask_usage=ask_usage).encode(ask(body, name))
    assert (encoded.body, encoded.withhold_usage) == (body, False)


def test_defaults_are_added_where_the_caller_says_nothing_and_named() -> None:
    target = FakeProvider().target("gpt", defaults={"temperature": 0.5, "own": 2, "seed": [1, {"a": None}]})
    encoded = target.encode(ask(b'{"model":"gpt","messages":[],"own":1}'))
    body = json.loads(encoded.body)
    assert (body["temperature"], body["own"], body["seed"]) == (0.5, 1, [1, {"a": None}])
    assert encoded.changed == ("temperature", "seed")


def test_defaults_of_stream_options_are_the_operators_word_on_usage() -> None:
    target = FakeProvider().target("gpt", ask_usage=True, defaults={"stream_options": {"include_usage": False}})
    encoded = target.encode(ask(STREAM))
    assert encoded.body.count(b"stream_options") == 1
    assert (encoded.withhold_usage, encoded.changed) == (False, ("stream_options",))


def test_a_form_takes_no_defaults() -> None:
    encoded = FakeProvider().target("gpt", defaults={"temperature": 0.5}).encode(form())
    assert (encoded.body, encoded.changed) == (FORM, ())


def test_every_change_at_once() -> None:
    target = FakeProvider().target(
        "gpt-real", headers=((b"x-team", b"a"),), ask_usage=True, defaults={"temperature": 1}
    )
    encoded = target.encode(ask(STREAM))
    assert json.loads(encoded.body) == {
        "model": "gpt-real",
        "messages": [],
        "stream": True,
        "temperature": 1,
        "stream_options": {"include_usage": True},
    }
    assert encoded.changed == ("model", "stream_options.include_usage", "temperature", "header:x-team")


# --- heads ----------------------------------------------------------------------------------------------------------


def test_a_head_in_full() -> None:
    out = ask(PLAIN, headers=forwarded([(b"x-own", b"1")]), query="a=b", trace_lines=b"traceparent: t\r\n")
    head = FakeProvider().target("gpt").encode(out).head
    assert lines(head) == [
        b"POST /v1/chat/completions?a=b HTTP/1.1",
        b"host: provider.test",
        b"authorization: Bearer sk-own",
        b"accept-encoding: identity",
        b"x-own: 1",
        b"traceparent: t",
        b"content-length: %d" % len(PLAIN),
        b"",
        b"",
    ]


def test_what_changes_from_request_to_request_is_made_anew() -> None:
    target, headers = FakeProvider().target("gpt"), forwarded([])
    for number in range(3):
        body = PLAIN + b" " * number
        head = target.encode(ask(body, headers=headers, trace_lines=b"traceparent: %d\r\n" % number)).head
        assert b"traceparent: %d\r\n" % number in head
        assert b"content-length: %d\r\n" % len(body) in head


def test_targets_do_not_share_a_head() -> None:
    headers = forwarded([(b"x-own", b"1")])
    heads = {
        FakeProvider(api_key=f"sk-{n}")
        .target("gpt", headers=((b"x-team", b"%d" % n),))
        .encode(ask(PLAIN, headers=headers))
        .head
        for n in range(20)
    }
    assert len(heads) == 20


def test_a_targets_header_wins_over_the_callers() -> None:
    out = ask(PLAIN, headers=forwarded([(b"x-team", b"caller"), (b"x-other", b"1")]))
    encoded = FakeProvider().target("gpt", headers=((b"x-team", b"target"),)).encode(out)
    assert (encoded.head.count(b"x-team"), encoded.head.count(b"x-other")) == (1, 1)
    assert b"x-team: target\r\n" in encoded.head
    assert encoded.changed == ("header:x-team",)


def test_the_callers_own_credential_goes_only_where_it_is_meant_to() -> None:
    out = ask(PLAIN, credential=b"sk-caller")
    assert b"sk-caller" not in FakeProvider().target("gpt").encode(out).head
    theirs = FakeProvider(caller_credential=True).target("gpt").encode(ask(PLAIN, credential=b"sk-caller")).head
    assert b"authorization: Bearer sk-caller\r\n" in theirs
    assert b"sk-own" not in theirs


@pytest.mark.parametrize(
    ("method", "length", "framing"),
    [
        ("GET", 0, b""),
        ("HEAD", 0, b""),
        ("DELETE", 0, b""),
        ("POST", 0, b"content-length: 0\r\n"),
        ("PUT", 5, b"content-length: 5\r\n"),
        ("DELETE", 5, b"content-length: 5\r\n"),
        ("POST", -1, b"transfer-encoding: chunked\r\n"),
    ],
)
def test_framing(method: str, length: int, framing: bytes) -> None:
    out = ask(b"", "passthrough", path="/x", method=method, length=length)
    head = FakeProvider().target().encode(out).head
    assert head.endswith(framing + b"\r\n")
    assert head.count(b"content-length") + head.count(b"transfer-encoding") == bool(framing)


def test_what_has_arrived_of_an_upload_of_unknown_length_is_its_first_chunk() -> None:
    for body in (b"", b"hello"):
        encoded = FakeProvider().target().encode(ask(body, "passthrough", path="/x", length=-1))
        assert body_of(encoded.head + encoded.body) == body


@pytest.mark.parametrize(
    ("base_url", "path", "target"),
    [
        ("http://provider.test/v1", "/v1/files", b"/v1/files"),
        ("http://provider.test/v1", "/files", b"/v1/files"),
        ("http://provider.test", "/v1/files", b"/v1/files"),
        ("http://provider.test/base/", "/v1/files", b"/base/v1/files"),
    ],
)
def test_a_raw_path_stands_behind_the_accounts(base_url: str, path: str, target: bytes) -> None:
    head = FakeProvider(base_url=base_url).target().encode(ask(b"", "passthrough", path=path)).head
    assert lines(head)[0] == b"POST " + target + b" HTTP/1.1"


def test_a_raw_body_is_never_changed() -> None:
    out = ask(PLAIN, "passthrough", path="/x")
    encoded = FakeProvider().target("other", defaults={"a": 1}).encode(out)
    assert (encoded.body, encoded.changed) == (PLAIN, ())


def test_a_proxy_of_plain_http_is_asked_in_absolute_form() -> None:
    options: dict[str, Any] = {"proxy": "http://proxy.test:3128"}
    head = FakeProvider(**options).target("gpt").encode(ask(PLAIN)).head
    assert lines(head)[0] == b"POST http://provider.test/v1/chat/completions HTTP/1.1"


def test_a_target_shows_no_credential() -> None:
    target = FakeProvider().target("gpt-*")
    assert repr(target) == "Target(fake/gpt-*)"


def test_a_targets_price_is_asked_for_by_the_providers_name_of_the_model() -> None:
    asked: list[str] = []
    target = Target(account=FakeProvider().account, pool=FakeProvider().pool, model="gpt-*", price=asked.append)
    assert target.price("4o") is None
    assert asked == ["gpt-4o"]
    assert Target(account=target.account, pool=target.pool, model="m").price() is None
