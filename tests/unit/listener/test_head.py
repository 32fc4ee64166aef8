"""Heads that two parsers could read differently are refused."""

import pytest

from gateway.dialects.base import BodyMode
from gateway.dialects.surfaces import match
from gateway.errors import MalformedHTTP, UnsupportedEncoding, UriTooLong
from gateway.listener.head import Framing, body_mode, lower, read_framing, read_target, value_of

HOST = (b"host", b"gw")


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


def test_framing_of_ordinary_heads() -> None:
    assert read_framing([HOST], version_11=True) == Framing(0, False, b"", b"", b"")
    heads = [HOST, (b"content-length", b"12"), (b"content-type", b"a/b"), (b"expect", b"100-Continue")]
    assert read_framing(heads, version_11=True) == Framing(12, True, b"", b"a/b", b"")
    chunked = [HOST, (b"transfer-encoding", b"Chunked"), (b"content-encoding", b"gzip"), (b"connection", b"x-a")]
    assert read_framing(chunked, version_11=True) == Framing(-1, False, b"gzip", b"", b"x-a")
    assert read_framing([], version_11=False).length == 0
    assert read_framing([HOST, (b"content-encoding", b"identity")], version_11=True).encoding == b""


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [HOST, HOST],
        [HOST, (b"transfer-encoding", b"gzip, chunked")],
        [HOST, (b"transfer-encoding", b"identity")],
        [HOST, (b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")],
        [HOST, (b"expect", b"miracles")],
    ],
)
def test_heads_with_two_readings_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(MalformedHTTP):
        read_framing(headers, version_11=True)


def test_http_10_knows_no_chunks() -> None:
    with pytest.raises(MalformedHTTP):
        read_framing([(b"transfer-encoding", b"chunked")], version_11=False)


def _mode(path: str, content_type: bytes) -> BodyMode:
    found = match("POST", path)
    assert found is not None
    return body_mode(found.surface, Framing(1, False, b"", content_type, b""))


def test_body_modes() -> None:
    assert _mode("/v1/chat/completions", b"application/json; charset=utf-8") is BodyMode.BUFFERED
    assert _mode("/v1/chat/completions", b"") is BodyMode.BUFFERED
    assert _mode("/v1/images/edits", b"application/json") is BodyMode.BUFFERED
    assert _mode("/v1/images/edits", b'multipart/form-data; boundary="x"') is BodyMode.MULTIPART
    assert _mode("/passthrough/openai/files", b"anything/atall") is BodyMode.RAW
    for path, content_type in [
        ("/v1/chat/completions", b"text/plain"),
        ("/v1/audio/transcriptions", b"application/json"),
        ("/v1/images/edits", b"application/x-www-form-urlencoded"),
    ]:
        with pytest.raises(UnsupportedEncoding):
            _mode(path, content_type)


def test_names_are_lowered_and_values_found() -> None:
    assert lower(b"Content-TYPE") == b"content-type"
    assert value_of([(b"a", b"1"), (b"a", b"2")], b"a") == b"1"
    assert value_of([], b"a") == b""
