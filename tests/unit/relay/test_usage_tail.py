"""Usage at the end of a long answer, and errors in the clothes of a success."""

import pytest

from gateway.dialects.registry import find
from gateway.record import Usage
from gateway.relay import usage_tail
from tests.fakes.provider import surface

OPENAI = find("openai")
EMBEDDINGS = surface("embeddings")
USAGE = b'"usage":{"prompt_tokens":3,"total_tokens":3}'


def read(tail: bytes) -> Usage | None:
    return usage_tail.read(OPENAI, EMBEDDINGS, tail)


@pytest.mark.parametrize(
    "tail",
    [
        b"0.1,0.2]}]," + USAGE + b"}",
        b"]," + USAGE + b',"model":"m"}',
        b'"usage" : {"prompt_tokens" : 3, "total_tokens":3, "details": {"cached_tokens": 0}}}',
        b'"usage":{"prompt_tokens":1},"x":1,' + USAGE + b"}\n",
    ],
)
def test_usage_is_found(tail: bytes) -> None:
    found = read(tail)
    assert found is not None
    assert found.input_tokens == 3


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"0.1,0.2]}]}",
        b'"usage":',
        b'"usage":{"prompt_tokens":3',
        b'"usage":null}',
        b'"usage":null,"other":{"prompt_tokens":9}}',
        b'sage":{"prompt_tokens":3}}',
    ],
)
def test_what_is_absent_or_cut_is_no_usage(tail: bytes) -> None:
    assert read(tail) is None


def test_the_tail_that_is_kept_holds_any_usage_object() -> None:
    assert 4 * len(USAGE) <= usage_tail.BYTES


@pytest.mark.parametrize(
    "body",
    [
        b'{"error":{"message":"no"}}',
        b' {\n "error" : {"code": 1}}',
        b'{"error":"no"}',
        b'{"object":"error","error":{"message":"no"}}',
    ],
)
def test_an_error_is_recognised(body: bytes) -> None:
    assert usage_tail.looks_like_error(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"error":null,"choices":[]}',
        b'{"choices":[{"message":{"content":"an \\"error\\""}}]}',
        b'{"note":"error","choices":[]}',
        b'{"a":{"error":{"message":"deep"}}}',
        b'["error",{"error":{}}]',
        b'{"error":{"message":"cut',
        b'{"error":{"message":"no"},"x":' + b"[" * 50_000,
        b'{"padding":"' + b"x" * 100 + b'","error":{"message":"late"}}',
    ],
)
def test_what_is_no_error_is_not_taken_for_one(body: bytes) -> None:
    assert not usage_tail.looks_like_error(body)
