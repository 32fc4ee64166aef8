"""What a 429 must say, as rows: one thing wrong at a time."""

import pytest

from bench.load import refusals

HEADERS = {"retry-after-ms": "1200", "retry-after": "2", "x-ratelimit-remaining-requests": "0"}
CONTENT = (
    b'{"error":{"code":"rate_limit_exceeded","message":"the limit bench-quota (600 requests a minute) is used up"}}'
)


def test_a_refusal_as_it_should_be() -> None:
    assert refusals.problem(HEADERS, CONTENT, "bench-quota") == ""
    assert refusals.wait_ms(HEADERS) == 1200


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ({"retry-after-ms": None}, "retry-after-ms: None"),
        ({"retry-after-ms": "0"}, "retry-after-ms: '0'"),
        ({"retry-after-ms": "1.5"}, "retry-after-ms: '1.5'"),
        ({"retry-after": "1"}, "retry-after '1' beside 1200 ms"),
        ({"retry-after": None}, "retry-after None"),
        ({"x-ratelimit-remaining-requests": "3"}, "refused with '3' requests remaining"),
        ({"x-ratelimit-remaining-requests": None}, "refused with None"),
    ],
)
def test_its_headers_must_agree(headers: dict[str, str | None], said: str) -> None:
    given = {name: value for name, value in {**HEADERS, **headers}.items() if value is not None}
    assert refusals.problem(given, CONTENT, "bench-quota").startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"slow down", "no error object: b'slow down'"),
        (b'{"error":"slow down"}', "no error object"),
        (CONTENT.replace(b"rate_limit_exceeded", b"overloaded"), "the error's code is 'overloaded'"),
        (CONTENT.replace(b"bench-quota", b"another"), "the message does not name the limit bench-quota"),
    ],
)
def test_its_error_must_name_the_limit(content: bytes, said: str) -> None:
    assert refusals.problem(HEADERS, content, "bench-quota").startswith(said)
