"""Heads: what one says, and that whatever two parsers could read differently is refused."""

import pytest

from gateway.config.keys import digest
from gateway.dialects.base import BodyMode
from gateway.errors import (
    GatewayError,
    InvalidCredential,
    MalformedHTTP,
    MethodNotAllowed,
    MissingCredential,
    NotFound,
    UnsupportedEncoding,
    UriTooLong,
)
from gateway.listener.head import Head, Headers, lower, read_head, read_target, value_of

HOST = (b"Host", b"gw")
KEY = (b"Authorization", b"Bearer gw-x")
JSON = (b"Content-Type", b"application/json")
CHAT = b"/v1/chat/completions"
FORM = b"/v1/audio/transcriptions"


def read(url: bytes = CHAT, headers: Headers | None = None, *, method: str = "POST", version_11: bool = True) -> Head:
    head = Head(method, version_11=version_11)
    read_head(head, url, [HOST, KEY, JSON] if headers is None else headers)
    return head


# --- the target -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "query"),
    [
        (b"/v1/models", "/v1/models", ""),
        (b"/v1/x?api-version=1&a=b?c", "/v1/x", "api-version=1&a=b?c"),
        (b"http://gw:80/v1/models?x", "/v1/models", "x"),
        (b"HTTPS://gw", "/", ""),
        (b"/v1/%2e%2e/x", "/v1/%2e%2e/x", ""),
    ],
)
def test_targets(url: bytes, path: str, query: str) -> None:
    assert read_target(url) == (path, query)


@pytest.mark.parametrize(
    "url", [b"*", b"gw:443", b"ftp://x/", b"/a b", b"/a#b", b"/\xc3\xa4", b"/a\x00", b"/a\\b", b'/"', b"/<x>", b""]
)
def test_other_targets_are_refused(url: bytes) -> None:
    with pytest.raises(MalformedHTTP):
        read_target(url)


def test_a_long_target_has_its_own_answer() -> None:
    with pytest.raises(UriTooLong):
        read_target(b"/" + b"a" * 9000)


# --- an ordinary head -----------------------------------------------------------------------------------------------


def test_an_ordinary_head() -> None:
    agent, state = (b"User-Agent", b"sdk/1"), (b"tracestate", b"a=1")
    head = read(CHAT + b"?a=1", [HOST, KEY, JSON, agent, state, (b"X-Own", b"v")])
    assert (head.path, head.query, head.method) == ("/v1/chat/completions", "a=1", "POST")
    assert head.surface is not None
    assert (head.surface.name, head.dialect.name, head.mode) == ("chat.completions", "openai", BodyMode.BUFFERED)
    assert (head.key_digest, head.provider_credential) == (digest(b"gw-x"), b"gw-x")
    assert (head.user_agent, head.tracestate, head.forwarded_for) == ("sdk/1", b"a=1", b"")
    assert (head.chunked, head.expects_continue, head.encoding) == (False, False, b"")
    assert head.forwarded.block == b"content-type: application/json\r\nuser-agent: sdk/1\r\nx-own: v\r\n"


def test_what_is_said_twice_is_joined_where_that_is_what_it_means() -> None:
    named = [
        (b"tracestate", b"a=1"),
        (b"TraceState", b"b=2"),
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"X-Forwarded-For", b"2.2.2.2"),
    ]
    head = read(headers=[HOST, KEY, JSON, *named])
    assert (head.tracestate, head.forwarded_for) == (b"a=1,b=2", b"1.1.1.1,2.2.2.2")


def test_framing() -> None:
    head = read(headers=[HOST, KEY, JSON, (b"Transfer-Encoding", b"Chunked"), (b"Expect", b"100-Continue")])
    assert (head.chunked, head.expects_continue) == (True, True)
    old = read(headers=[KEY, JSON, (b"expect", b"100-continue")], version_11=False)
    assert not old.expects_continue


def test_a_named_header_goes_no_further() -> None:
    head = read(headers=[HOST, KEY, JSON, (b"Connection", b"X-Own"), (b"x-own", b"1"), (b"x-other", b"2")])
    assert b"x-own" not in head.forwarded.names
    assert b"x-other" in head.forwarded.names


# --- refused: two readings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [HOST, HOST],
        [HOST, (b"host", b"other")],
        [HOST, (b"transfer-encoding", b"gzip, chunked")],
        [HOST, (b"transfer-encoding", b"identity")],
        [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [HOST, (b"expect", b"miracles")],
        [HOST, JSON, (b"content-type", b"text/plain")],
        [HOST, (b"content-encoding", b"gzip"), (b"content-encoding", b"identity")],
    ],
)
def test_heads_with_two_readings_are_refused(headers: Headers) -> None:
    with pytest.raises(MalformedHTTP):
        read(headers=[*headers, KEY])


def test_http_10_knows_no_chunks_and_needs_no_host() -> None:
    with pytest.raises(MalformedHTTP):
        read(headers=[KEY, JSON, (b"transfer-encoding", b"chunked")], version_11=False)
    assert read(headers=[KEY, JSON], version_11=False).surface is not None


# --- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_checks_need_no_key(path: bytes, method: str) -> None:
    head = read(path, [HOST], method=method)
    assert (head.surface, head.key_digest) == (None, b"")


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("POST", b"/healthz", NotFound),
        ("POST", b"/v1/nothing", NotFound),
        ("POST", b"/v1/chat/completions/", NotFound),
        ("POST", b"//v1/chat/completions", NotFound),
        ("GET", CHAT, MethodNotAllowed),
        ("DELETE", b"/v1/models", MethodNotAllowed),
        ("POST", b"/v1/models/x", MethodNotAllowed),
        ("POST", b"/passthrough/openai/../x", NotFound),
        ("POST", b"/passthrough/openai/%2e%2e/x", NotFound),
    ],
)
def test_other_paths(method: str, path: bytes, error: type[GatewayError]) -> None:
    with pytest.raises(error):
        read(path, method=method)


def test_parameters_of_a_path() -> None:
    head = read(b"/passthrough/openai/v1/files?x=1", [HOST, KEY], method="DELETE")
    assert head.params == {"provider": "openai", "rest": "v1/files"}
    assert head.mode is BodyMode.RAW


@pytest.mark.parametrize(
    ("method", "path", "headers", "dialect"),
    [
        ("POST", b"/v1/messages", [], "anthropic"),
        ("POST", b"/v1/messages/batches", [], "anthropic"),
        ("GET", b"/v1/models", [(b"anthropic-version", b"2023-06-01")], "anthropic"),
        ("GET", b"/v1/models", [], "openai"),
        ("POST", CHAT, [(b"anthropic-version", b"2023-06-01")], "openai"),
    ],
)
def test_the_dialect_is_known_even_where_the_path_is_not(
    method: str, path: bytes, headers: Headers, dialect: str
) -> None:
    head = Head(method, version_11=True)
    try:
        read_head(head, path, [HOST, JSON, *headers])
    except (NotFound, MissingCredential):
        assert head.dialect.name == dialect
    else:
        raise AssertionError("a key is missing")


# --- credentials ----------------------------------------------------------------------------------------------------


def test_a_key_is_needed_and_one_only() -> None:
    with pytest.raises(MissingCredential):
        read(headers=[HOST, JSON])
    with pytest.raises(InvalidCredential):
        read(headers=[HOST, JSON, KEY, (b"x-api-key", b"another")])


def test_a_gateway_key_of_its_own_leaves_the_other_for_the_provider() -> None:
    head = read(headers=[HOST, JSON, KEY, (b"X-Gateway-Key", b"gw-own")])
    assert (head.key_digest, head.provider_credential) == (digest(b"gw-own"), b"gw-x")
    assert b"gw-" not in head.forwarded.block


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "content_type", "mode"),
    [
        (CHAT, b"application/json; charset=utf-8", BodyMode.BUFFERED),
        (CHAT, b"Application/JSON", BodyMode.BUFFERED),
        (CHAT, b"application/vnd.own+json", BodyMode.BUFFERED),
        (CHAT, b"", BodyMode.BUFFERED),
        (b"/v1/images/edits", b"application/json", BodyMode.BUFFERED),
        (b"/v1/images/edits", b'multipart/form-data; boundary="x"', BodyMode.MULTIPART),
        (FORM, b"Multipart/Form-Data; boundary=x", BodyMode.MULTIPART),
        (b"/passthrough/openai/files", b"anything/atall", BodyMode.RAW),
    ],
)
def test_body_modes(path: bytes, content_type: bytes, mode: BodyMode) -> None:
    assert read(path, [HOST, KEY, (b"content-type", content_type)]).mode is mode


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        (CHAT, b"text/plain"),
        (CHAT, b"multipart/form-data; boundary=x"),
        (FORM, b"application/json"),
        (FORM, b""),
        (b"/v1/images/edits", b"application/x-www-form-urlencoded"),
    ],
)
def test_other_content_types_are_refused(path: bytes, content_type: bytes) -> None:
    with pytest.raises(UnsupportedEncoding):
        read(path, [HOST, KEY, (b"content-type", content_type)])


def test_an_encoding_is_undone_on_the_way_or_passed_on_unread() -> None:
    gzip = (b"Content-Encoding", b"gzip")
    decoded = read(headers=[HOST, KEY, JSON, gzip])
    assert decoded.encoding == b"gzip"
    assert b"content-encoding" not in decoded.forwarded.names
    raw = read(b"/passthrough/openai/x", [HOST, KEY, gzip])
    assert b"content-encoding: gzip\r\n" in raw.forwarded.block
    plain = read(headers=[HOST, KEY, JSON, (b"content-encoding", b"Identity")])
    assert plain.encoding == b""
    with pytest.raises(UnsupportedEncoding):
        read(FORM, [HOST, KEY, (b"content-type", b"multipart/form-data; boundary=x"), gzip])


# --- helpers --------------------------------------------------------------------------------------------------------


def test_names_are_lowered_and_values_found() -> None:
    assert lower(b"Content-TYPE") == b"content-type"
    assert value_of([(b"a", b"1"), (b"a", b"2")], b"a") == b"1"
    assert value_of([], b"a") == b""


def test_spellings_are_remembered_in_a_bounded_number() -> None:
    for number in range(3000):
        assert lower(b"X-%d" % number) == b"x-%d" % number
