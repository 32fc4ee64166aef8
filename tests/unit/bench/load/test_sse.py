"""A stream's times are those of its tokens, and whatever is wrong with it is told."""

import json

import pytest

from bench.load.sse import Reading


def token(text: str = "a", **more: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}, **more}]}).encode()


STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}'
DONE = b"data: [DONE]"


def read(*lines: bytes) -> Reading:
    reading = Reading(10.0)
    for number, line in enumerate(lines):
        reading.line(line, 11.0 + number)
    return reading


def test_times_are_those_of_tokens_alone() -> None:
    role = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}'
    reading = read(role, b"", b": ping", token(), b"", token(), STOP, USAGE, DONE)
    assert reading.ttft_ms == 4000
    assert list(reading.gaps_ms()) == [2000]
    assert reading.problem() == ""


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ((DONE,), "no token came"),
        ((token(), DONE), "no finish_reason came"),
        ((token(), STOP), "it ended without data: [DONE]"),
        ((token(), STOP, DONE, token()), "1 events behind data: [DONE]"),
        ((token(), b"data: {nonsense", STOP, DONE), "an event is not JSON: b'{nonsense'"),
        ((token(), b'data: {"error":{"code":"gone"}}', DONE), "an error inside the stream: {'code': 'gone'}"),
        ((), "no token came"),
    ],
)
def test_what_is_wrong_is_told(lines: tuple[bytes, ...], problem: str) -> None:
    assert read(*lines).problem() == problem


def test_a_stream_without_a_token_has_no_first_one() -> None:
    assert read(STOP).ttft_ms is None
    assert list(read(token()).gaps_ms()) == []
