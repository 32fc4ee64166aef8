"""Which headers cross the gateway: what is private to one side never reaches the other."""

import pytest

from gateway.providers import headers
from gateway.providers.headers import caller_lines, forwarded, passes

PRIVATE = [
    b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings",
    b"proxy-authorization", b"proxy-connection", b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key",
    b"cookie", b"host", b"content-length", b"expect", b"accept-encoding", b"traceparent", b"tracestate", b"forwarded",
    b"via", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-proto", b"x-gateway-key", b"x-gateway-anything",
    b"x-request-id", b"sec-fetch-mode", b"cf-ray", b"openai-organization", b"openai-project",
]  # fmt: skip


@pytest.mark.parametrize("name", PRIVATE)
def test_private_headers_stay(name: bytes) -> None:
    assert not passes(name)
    assert forwarded([(name, b"1")]).block == b""


@pytest.mark.parametrize(
    "name",
    [b"content-type", b"accept", b"user-agent", b"anthropic-version", b"anthropic-beta", b"x-own", b"idempotency-key"],
)
def test_all_others_pass(name: bytes) -> None:
    assert passes(name)
    assert forwarded([(name, b"v")]).block == name + b": v\r\n"


def test_order_and_repetition_are_the_callers() -> None:
    given = forwarded([(b"b", b"1"), (b"host", b"x"), (b"a", b"2"), (b"b", b"3")])
    assert given.block == b"b: 1\r\na: 2\r\nb: 3\r\n"
    assert given.names == {b"a", b"b"}


def test_what_connection_names_stays() -> None:
    given = forwarded([(b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")], b"close, X-A ,x-c")
    assert given.block == b"x-b: 2\r\n"


def test_what_is_overridden_is_left_out() -> None:
    given = forwarded([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])
    assert given.without(frozenset({b"a", b"z"})) == b"b: 2\r\n"
    assert given.without(frozenset({b"z"})) is given.block
    assert given.without(frozenset()) is given.block


def test_to_a_caller_only_a_list_passes() -> None:
    answer = [
        (b"content-type", b"application/json"),
        (b"set-cookie", b"a=1"),
        (b"openai-organization", b"ours"),
        (b"x-ratelimit-remaining-requests", b"5"),
        (b"server", b"cloudflare"),
        (b"retry-after", b"3"),
        (b"content-length", b"5"),
        (b"content-encoding", b"gzip"),
        (b"x-request-id", b"theirs"),
        (b"x-gateway-target", b"forged"),
        (b"openai-processing-ms", b"12"),
    ]
    told = b"content-type: application/json\r\nretry-after: 3\r\nopenai-processing-ms: 12\r\n"
    assert caller_lines(answer) == told


def test_names_are_remembered_in_a_bounded_number() -> None:
    for number in range(3000):
        assert passes(b"x-%d" % number)
        assert not passes(b"sec-%d" % number)
    assert len(headers._known_names) <= 1024
