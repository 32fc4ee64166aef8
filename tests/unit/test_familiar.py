"""A head is known by its bytes where a parser would read it again as it did, and nowhere else."""

import pytest

from gateway.familiar import MAX_BYTES, Familiar, learn

LINES = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gw\r\nContent-Length: %d\r\nAuthorization: Bearer k\r\n\r\n"
HEAD = object()


def request(body: bytes, lines: bytes = LINES) -> bytes:
    return lines % len(body) + body


@pytest.fixture
def familiar() -> Familiar[object]:
    learnt = learn(request(b"{}"), HEAD, 2)
    assert learnt is not None
    return learnt


@pytest.mark.parametrize("body", [b"{}", b'{"model":"m"}', b"x" * 123_456, b""])
def test_the_same_head_with_another_length_gives_its_body(familiar: Familiar[object], body: bytes) -> None:
    assert familiar.head is HEAD
    assert familiar.body_of(request(body)) == body


@pytest.mark.parametrize(
    "data",
    [
        request(b"{}")[:-1],
        request(b"{}") + b"G",
        request(b"{}") * 2,
        request(b"{}").replace(b"Bearer k", b"Bearer l"),
        request(b"{}").replace(b"Bearer k", b"Bearer k\r\nx: 1"),
        request(b"{}").replace(b"Host: gw", b"host: gw"),
        request(b"{}").replace(b": 2", b":  2"),
        request(b"{}").replace(b": 2", b": 2 "),
        request(b"{}").replace(b": 2", b": +2"),
        request(b"{}").replace(b": 2", b": "),
        request(b"{}").replace(b": 2", b": 0x2"),
        request(b"{}").replace(b": 2", b": 2,2"),
        request(b"{}").replace(b": 2", b": 0000000002"),
        request(b"{}").replace(b": 2", b": \xb2"),
        request(b"{}").replace(b": 2\r\n", b": 2\n"),
        request(b"{}")[:60],
        b"",
    ],
)
def test_whatever_else_is_left_to_the_parser(familiar: Familiar[object], data: bytes) -> None:
    assert familiar.body_of(data) is None


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (request(b"{}")[:-1], 2),
        (request(b"{}") * 2, 2),
        (request(b"{}") + request(b"{}", LINES.replace(b"gw", b"gx")), 2),
        (request(b"{}"), 3),
        (request(b"{}").replace(b": 2", b": 2 "), 2),
        (b"GET / HTTP/1.1\r\nHost: gw\r\n\r\n", 0),
        (request(b"{}").replace(b": gw", b": " + b"g" * MAX_BYTES), 2),
        (request(b"{}").replace(b"Host", b"Content-Length: 2\r\nHost"), 2),
    ],
)
def test_only_one_whole_request_with_one_plain_length_is_remembered(data: bytes, length: int) -> None:
    assert learn(data, HEAD, length) is None
