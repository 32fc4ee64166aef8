"""The body contract on the running thing: what the caller sent is what the provider reads, and the reverse.

`mirror` is a provider that answers with the request as it arrived (sim's /echo), so a request's bytes are compared
with what was sent, and with the one splice that a route may need. The way back is in test_stream_contract.py.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import zstandard

from tests.fakes.gateway_node import PROVIDER_KEY, GatewayNode, running
from tests.fakes.wire_client import Answer

pytestmark = pytest.mark.slow

MB = 1024 * 1024
CONFIG: dict[str, Any] = {
    "max_body_bytes": "40MB",
    "spool_bytes": "64KB",
    "providers": {
        "shy": {"kind": "openai", "base_url": "@SIM@/echo", "api_key": PROVIDER_KEY, "usage_flag": "never"},
        "fixed": {
            "kind": "openai",
            "base_url": "@SIM@/echo",
            "api_key": PROVIDER_KEY,
            "headers": {"X-Account": "ours"},
        },
    },
    "models": {
        "same-m": {"targets": [{"provider": "mirror", "model": "same-m"}]},
        "shy-m": {"targets": [{"provider": "shy", "model": "shy-m"}]},
        "dressed": {
            "targets": [
                {
                    "provider": "fixed",
                    "model": "dressed",
                    "defaults": {"temperature": 0.5, "top_p": 0.25},
                    "headers": {"X-Target": "one"},
                }
            ]
        },
    },
}


@pytest.fixture(scope="module")
def node() -> Iterator[GatewayNode]:
    with running(CONFIG) as running_node:
        yield running_node


@pytest.fixture(autouse=True)
def _fresh(node: GatewayNode) -> None:
    node.sim.reset()


def arrived(answer: Answer) -> bytes:
    """The body the mirror says it was sent."""
    assert answer.status == 200, answer
    return base64.b64decode(answer.json["body_b64"])


def changed(answer: Answer) -> list[str]:
    return answer.header("x-gateway-changed").split(", ") if answer.has("x-gateway-changed") else []


# --- requests -------------------------------------------------------------------------------------------------------

BODIES = {
    "plain": b'{"model": "NAME", "messages": [{"role": "user", "content": "hi"}]}',
    "odd spacing": b' \r\n\t{ "messages" :[ ] ,\n\n"model"\t:\r\n "NAME"  , "n":1 } \n ',
    "no spacing": b'{"messages":[],"model":"NAME"}',
    "model last, keys out of order": b'{"z":1,"y":[],"messages":[],"a":{"b":{"c":null}},"model":"NAME"}',
    "unknown fields": b'{"model":"NAME","messages":[],"x_new":{"deep":[1,{"er":true}]},"x-other":false}',
    "unknown fields twice": b'{"model":"NAME","messages":[],"x_new":1,"x_new":2}',
    "numbers": b'{"model":"NAME","messages":[],"seed":1e2,"x":[1.0,1.00000000000000000001,-0,1E400,0.1e-7]}',
    "unicode": '{"model":"NAME","messages":[{"role":"user","content":"žluť 漢字 🎈 \u2028"}]}'.encode(),
    "escapes": rb'{"model":"NAME","messages":[{"role":"user","content":"\u00e9\/\ud83c\udf88\n\u0000"}]}',
    "a lone surrogate": rb'{"model":"NAME","messages":[{"role":"user","content":"\ud83c!"}]}',
    "escaped key": rb'{"model":"NAME","messages":[],"x\u00e9":"y","\u0078":"z"}',
    "nested": b'{"model":"NAME","messages":[],"x":' + b"[" * 100 + b"]" * 100 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_needs_no_change_arrives_as_sent(node: GatewayNode, body: bytes) -> None:
    body = body.replace(b"NAME", b"same-m")
    answer = node.post("/v1/chat/completions", body)
    assert arrived(answer) == body
    assert changed(answer) == []


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_models_name_is_spliced_and_nothing_else_moves(node: GatewayNode, body: bytes) -> None:
    answer = node.post("/v1/chat/completions", body.replace(b"NAME", b"mirror/other name"))
    assert arrived(answer) == body.replace(b"NAME", b"other name")
    assert changed(answer) == ["model"]


def test_a_model_spelled_with_escapes_is_the_same_model(node: GatewayNode) -> None:
    answer = node.post("/v1/chat/completions", rb'{"model":"\u006dirror\/n","messages":[]}')
    assert arrived(answer) == b'{"model":"n","messages":[]}'


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/moderations"])
def test_other_surfaces_splice_alike(node: GatewayNode, path: str) -> None:
    body = b'{ "input":"a",  "prompt":"a","model" :"NAME","store":false, "x":1}'.replace(
        b'  "prompt":"a",' if path == "/v1/responses" else b"", b""
    )
    answer = node.post(path, body.replace(b"NAME", b"mirror/m"))
    assert arrived(answer) == body.replace(b"NAME", b"m")


@pytest.mark.parametrize("size", [256 * 1024 - 100, 300 * 1024, 1 * MB, 8 * MB])
def test_large_bodies_arrive_byte_for_byte(node: GatewayNode, size: int) -> None:
    filler = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    body = b'{"messages":[{"role":"user","content":"%b"}],"model":"NAME"}' % filler
    expected = body.replace(b"NAME", b"big")
    answer = node.post("/v1/chat/completions", body.replace(b"NAME", b"mirror/big"))
    assert (answer.json["body_len"], answer.json["body_sha256"]) == (len(expected), sha(expected))


def test_usage_is_asked_for_by_one_named_insertion(node: GatewayNode) -> None:
    asked = b'"stream_options":{"include_usage":true}'
    cases = {
        b'{"stream":true,"model":"same-m"}': b"{" + asked + b',"stream":true,"model":"same-m"}',
        b'{"stream":true,"stream_options":{ },"model":"same-m"}': None,
        b'{"stream":true,"stream_options": {"x":1},"model":"same-m"}': (
            b'{"stream":true,"stream_options": {"include_usage":true,"x":1},"model":"same-m"}'
        ),
        b'{"stream":true,"stream_options":null,"model":"same-m"}': b'{"stream":true,' + asked + b',"model":"same-m"}',
    }
    for body, expected in cases.items():
        answer = node.post("/v1/chat/completions", body)
        got = arrived(answer)
        assert json.loads(got)["stream_options"]["include_usage"] is True
        assert expected is None or got == expected
        assert changed(answer) == ["stream_options.include_usage"]


def test_usage_is_not_asked_for_where_the_caller_did_or_the_provider_refuses_it(node: GatewayNode) -> None:
    for body in (
        b'{"stream":true,"stream_options": {"include_usage" : true},"model":"same-m"}',
        b'{"stream":true,"model":"shy-m"}',
        b'{"stream":false,"model":"same-m"}',
    ):
        answer = node.post("/v1/chat/completions", body)
        assert arrived(answer) == body
        assert changed(answer) == []


def test_defaults_and_headers_of_a_target_are_named(node: GatewayNode) -> None:
    answer = node.post(
        "/v1/chat/completions",
        b'{"top_p":1, "model":"dressed"}',
        {"x-account": "theirs", "x-target": "theirs", "x-kept": "yes"},
    )
    assert arrived(answer) == b'{"temperature":0.5,"top_p":1, "model":"dressed"}'
    assert changed(answer) == ["temperature", "header:x-target"]
    sent = dict(answer.json["headers"])
    assert (sent["x-account"], sent["x-target"], sent["x-kept"]) == ("ours", "one", "yes")


def test_bad_bodies_are_refused_and_never_forwarded(node: GatewayNode) -> None:
    for body in (
        b"",
        b"[]",
        b'{"model":"same-m"',
        b'{"model":"same-m","model":"same-x"}',
        b'{"model":"same-m","Model":"same-x"}',
        b'{"model":3}',
        b'{"messages":[]}',
        b'{"model":"same-m","stream":"yes"}',
        b'{"model":"same-m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"same-m","x":' + b"[" * 200 + b"]" * 200 + b"}",
    ):
        answer = node.post("/v1/chat/completions", body)
        assert answer.status == 400, body
        assert answer.json["error"]["type"] == "invalid_request_error"
    assert node.sim.requests() == []


# --- headers --------------------------------------------------------------------------------------------------------


def test_what_is_about_this_connection_or_the_caller_stays_here(node: GatewayNode) -> None:
    given = {
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Proxy-Authorization": "Basic x",
        "Cookie": "session=1",
        "X-Gateway-Route": "mine",
        "X-Gateway-Anything": "mine",
        "X-Forwarded-For": "203.0.113.9",
        "Forwarded": "for=203.0.113.9",
        "Accept-Encoding": "gzip, br",
        "OpenAI-Organization": "org-else",
        "User-Agent": "an-app/1",
        "X-Custom": "kept, as it is",
        "Anthropic-Beta": "kept-too",
    }
    answer = node.post("/v1/chat/completions", {"model": "same-m"}, given)
    sent = answer.json["headers"]
    names = [name for name, _ in sent]
    assert len(names) == len(set(names))
    for name in ("x-hop", "keep-alive", "te", "proxy-authorization", "cookie", "x-forwarded-for", "forwarded"):
        assert name not in names
    assert not [name for name in names if name.startswith("x-gateway-")]
    values = dict(sent)
    assert values["accept-encoding"] == "identity"
    assert values["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert values["host"] == node.sim.url.removeprefix("http://")
    assert "openai-organization" not in values
    assert (values["user-agent"], values["x-custom"], values["anthropic-beta"]) == (
        "an-app/1",
        "kept, as it is",
        "kept-too",
    )


# --- encodings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 900_000])
@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_encoded_requests_arrive_decoded(node: GatewayNode, coding: str, size: int) -> None:
    body = b'{"model":"mirror/m","x":"%b"}' % bytes(97 + (at * at) % 26 for at in range(size))
    packed = gzip.compress(body) if coding == "gzip" else zstandard.compress(body)
    answer = node.post("/v1/chat/completions", packed, {"content-encoding": coding})
    expected = body.replace(b"mirror/m", b"m")
    assert (answer.json["body_len"], answer.json["body_sha256"]) == (len(expected), sha(expected))
    assert "content-encoding" not in dict(answer.json["headers"])


def test_what_cannot_be_decoded_is_refused(node: GatewayNode) -> None:
    body = b'{"model":"mirror/m"}'
    bomb = gzip.compress(b'{"model":"mirror/m","x":"' + bytes(45 * MB))
    for packed, coding, status in (
        (zlib.compress(body), "deflate", 415),
        (body, "br", 415),
        (gzip.compress(body), "gzip, gzip", 415),
        (b"not gzip at all", "gzip", 415),
        (gzip.compress(body)[:-6], "gzip", 415),
        (bomb, "gzip", 413),
    ):
        answer = node.post("/v1/chat/completions", packed, {"content-encoding": coding})
        assert answer.status == status, (coding, answer)
        assert answer.json["error"]["message"]
    assert node.sim.requests() == []


# --- forms and uploads ----------------------------------------------------------------------------------------------


def form(fields: list[tuple[str, bytes]], boundary: bytes = b"xYz42") -> bytes:
    """A multipart body; a field called `file` gets a file's head."""
    parts = []
    for name, value in fields:
        head = b'Content-Disposition: form-data; name="%b"' % name.encode()
        if name == "file":
            head += b'; filename="a.wav"\r\nContent-Type: audio/wav'
        parts.append(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value))
    return b"".join(parts) + b"--%b--\r\n" % boundary


FORM = {"content-type": "multipart/form-data; boundary=xYz42"}


@pytest.mark.parametrize("first", ["model", "file"])
def test_a_forms_model_is_spliced(node: GatewayNode, first: str) -> None:
    sound = bytes(range(256)) * 100
    fields = [("model", b"mirror/whisper"), ("file", sound), ("prompt", "zvuk \u00e9".encode())]
    if first == "file":
        fields = [fields[1], fields[2], fields[0]]
    body = form(fields)
    answer = node.post("/v1/audio/transcriptions", body, FORM)
    assert arrived(answer) == body.replace(b"mirror/whisper", b"whisper")
    assert changed(answer) == ["model"]
    assert dict(answer.json["headers"])["content-type"] == FORM["content-type"]


def test_a_form_comes_without_content_encoding(node: GatewayNode) -> None:
    packed = gzip.compress(form([("model", b"mirror/m"), ("file", b"x")]))
    assert node.post("/v1/audio/transcriptions", packed, {**FORM, "content-encoding": "gzip"}).status == 415
    assert node.sim.requests() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_an_upload_larger_than_the_spool_streams_through(node: GatewayNode, chunked: bool) -> None:
    body = form([("model", b"mirror/whisper"), ("file", bytes(range(256)) * (30 * MB // 256))])
    raw = node.request("/v1/audio/transcriptions", body, FORM)
    if chunked:
        head = node.request("/v1/audio/transcriptions", b"", {**FORM, "Transfer-Encoding": "chunked"})
        step = 700_001
        pieces = [body[at : at + step] for at in range(0, len(body), step)]
        raw = head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    answer = node.call(raw)
    expected = body.replace(b"mirror/whisper", b"whisper")
    assert answer.status == 200, answer
    assert (answer.json["body_len"], answer.json["body_sha256"]) == (len(expected), sha(expected))
    assert ("content-length" in dict(answer.json["headers"])) is not chunked
    assert node.metrics("gateway_worker_rss_bytes", slot="0") < 200 * MB


def test_a_form_that_hides_its_model_behind_the_spool_is_told_so(node: GatewayNode) -> None:
    answer = node.post("/v1/audio/transcriptions", form([("file", bytes(MB)), ("model", b"mirror/m")]), FORM)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "model"
    assert node.sim.requests() == []


def test_a_second_model_behind_an_upload_that_has_begun_is_refused(node: GatewayNode) -> None:
    fields = [("model", b"mirror/one"), ("file", bytes(4 * MB)), ("model", b"mirror/other")]
    answer = node.post("/v1/audio/transcriptions", form(fields), FORM)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "model"
    assert node.sim.requests() == []  # what had gone up was broken off


def test_uploads_together_are_bounded_and_the_rest_is_asked_to_wait() -> None:
    body = form([("file", bytes(150_000)), ("model", b"mirror/m")])
    with running({"spool_total_bytes": "200KB", "spool_bytes": "200KB"}) as small:
        raw = small.request("/v1/audio/transcriptions", body, FORM)
        with small.open(raw[:-10]):  # the last bytes do not come: this one stays spooled
            refused = small.until(lambda: answer if (answer := small.call(raw)).status != 200 else None, "a refusal")
            assert (refused.status, refused.json["error"]["code"]) == (503, "overloaded")
            assert refused.header("retry-after") == "1"
        for _ in range(5):  # it has left: nothing of it stays taken
            small.until(lambda: small.call(raw).status == 200, "room for the upload")


def test_a_body_above_the_limit_is_refused_by_its_announced_length(node: GatewayNode) -> None:
    with node.open(node.request("/v1/chat/completions", b"", {"Content-Length": str(41 * MB)})) as call:
        answer = call.answer()
        assert answer.status == 413
        assert answer.json["error"]["code"] == "body_too_large"
        assert call.closed()


def test_a_body_above_the_limit_is_refused_while_it_arrives() -> None:
    with running({"max_body_bytes": "1MB"}) as small:
        head = small.request("/v1/chat/completions", b"", {"Transfer-Encoding": "chunked"})
        with small.open(head) as call:
            call.send(b"%x\r\n%b\r\n" % (MB, b" " * MB))
            call.send(b"%x\r\n%b\r\n" % (100_000, b" " * 100_000))  # and no last chunk: the body never ends
            answer = call.answer()
        assert answer.status == 413
        assert small.sim.requests() == []


def test_a_caller_that_waits_to_be_asked_is_asked(node: GatewayNode) -> None:
    body = b'{"model":"mirror/m"}'
    with node.open(
        node.request("/v1/chat/completions", b"", {"Expect": "100-continue", "Content-Length": "20"})
    ) as call:
        assert call.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        call.send(body)
        assert arrived(call.answer()) == b'{"model":"m"}'


def test_a_caller_that_would_be_refused_is_not_asked(node: GatewayNode) -> None:
    head = {"Expect": "100-continue", "Content-Length": "20"}
    with node.open(node.request("/v1/chat/completions", b"", head, key="gw-nobody")) as call:
        assert call.answer().status == 401


# --- passthrough ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_passthrough_changes_nothing(node: GatewayNode, method: str) -> None:
    body = b"" if method == "GET" else b'  {"not":"json' + bytes(range(256))
    path = "/passthrough/raw/echo/v9/things/a%20b;c?x=1&&y=%zz&x=2"
    headers = {"content-type": "application/x-own", "content-encoding": "own"} if body else {}
    answer = node.post(path, body, headers, method=method)
    told = answer.json
    assert (told["method"], told["path"]) == (method, "/echo/v9/things/a%20b;c")
    assert told["query"] == "x=1&&y=%zz&x=2"
    assert base64.b64decode(told["body_b64"]) == body
    assert dict(told["headers"])["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert changed(answer) == []
    assert answer.header("x-gateway-target") == "raw/*"


def test_passthrough_streams_large_bodies_up(node: GatewayNode) -> None:
    body = bytes(range(256)) * (4 * MB // 256)
    answer = node.post("/passthrough/raw/echo/upload", body, {"content-type": "application/octet-stream"})
    assert (answer.json["body_len"], answer.json["body_sha256"]) == (len(body), sha(body))


def test_passthrough_returns_the_providers_statuses_as_they_are(node: GatewayNode) -> None:
    for status in (301, 401, 404, 429, 500, 503):
        body = {"model": f"m+status={status}", "messages": [{}]}
        answer = node.post("/passthrough/raw/v1/chat/completions", body)
        assert answer.status == status
    assert node.get("/passthrough/nobody/echo").status == 404


def test_passthrough_head(node: GatewayNode) -> None:
    answer = node.post("/passthrough/raw/echo", b"", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert node.sim.last()["method"] == "HEAD"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
