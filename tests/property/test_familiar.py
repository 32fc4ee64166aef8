"""A message that is known by its head's bytes is told as the parser would tell it, whatever was done to its bytes.

Two readers hear the same connection. One is given each message in one read, so that it may know the head; the other is
given byte after byte, so that it never does.
"""

from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.listener.head import Head
from gateway.listener.reader import Fault, RequestReader
from gateway.relay.answer import AnswerParser

MAX = 8192
LINES = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer k\r\nContent-Length: %d\r\n"
    b"Content-Type: application/json\r\n\r\n"
)


MORE = (
    b"",
    b"",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 2\r\n",
    b"Expect: 100-continue\r\n",
    b"traceparent: t\r\n",
)


class Heard:
    """An owner that writes down what it is told, in words that do not depend on which way it was told."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.whole = 0
        self._body = b""

    def head_read(self, head: Head, length: int, error: GatewayError | None) -> None:
        said = (head.method, head.path, head.query, head.key_digest, head.content_type, head.encoding, head.chunked)
        self.said.append((said, length, error is not None))
        self._body = b""

    def body_read(self, data: bytes) -> None:
        self._body += data

    def request_read(self) -> None:
        self.said.append(self._body)

    def whole_read(self, head: Head, body: bytes) -> None:
        self.whole += 1
        self.head_read(head, len(body), None)
        self.body_read(body)
        self.request_read()


def request(body: bytes) -> bytes:
    return LINES % len(body) + body


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """A request with perhaps a line more, and some bytes replaced: by anything, or by what a parser knows."""
    data = request(draw(st.binary(max_size=30))).replace(b"Host", draw(st.sampled_from(MORE)) + b"Host", 1)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        put = draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\r\n", b"\n", b" ", b"0", b"7", b":", b"\t"])))
        data = data[:at] + put + data[at + draw(st.integers(0, 3)) :]
    return data


@given(st.lists(spoilt(), min_size=1, max_size=4))
def test_known_or_parsed_a_request_is_the_same(requests: list[bytes]) -> None:
    known, parsed = Heard(), Heard()
    one, other = RequestReader(known), RequestReader(parsed)
    for data in [request(b"{}"), request(b"{}"), *requests]:
        fault = one.feed(data, MAX)
        byte_by_byte = next((told for byte in data if (told := other.feed(bytes([byte]), MAX)) is not Fault.NONE), None)
        assert known.said == parsed.said
        assert (fault is not Fault.NONE) == (byte_by_byte is not None)
        if byte_by_byte is not None:
            return  # told faults are final
        assert (one.in_head, one.keep_alive, one.traceparent) == (other.in_head, other.keep_alive, other.traceparent)
    assert parsed.whole == 0


def test_the_third_of_its_kind_is_known() -> None:
    heard = Heard()
    reader = RequestReader(heard)
    for count in range(5):
        reader.feed(request(b"x" * count), MAX)
    assert heard.whole == 3


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nDate: now\r\n\r\n"
ANSWERED_MORE = (
    b"",
    b"",
    b"Connection: close\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 2\r\n",
    b"Retry-After: 2\r\n",
)


def answer(body: bytes) -> bytes:
    return ANSWER % len(body) + body


@st.composite
def spoilt_answer(draw: st.DrawFn) -> bytes:
    """An answer with perhaps a line more, and some bytes replaced."""
    data = answer(draw(st.binary(max_size=30))).replace(b"Date", draw(st.sampled_from(ANSWERED_MORE)) + b"Date", 1)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        put = draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"\r\n", b"\n", b" ", b"0", b"1", b":", b"\t"])))
        data = data[:at] + put + data[at + draw(st.integers(0, 3)) :]
    return data


@given(st.lists(spoilt_answer(), min_size=1, max_size=4))
def test_known_or_parsed_an_answer_is_the_same(answers: list[bytes]) -> None:
    one, other = AnswerParser(), AnswerParser()
    for data in [answer(b"{}"), answer(b"{}"), *answers]:
        one.begin(bodiless=False)
        other.begin(bodiless=False)
        fault, body, parsed = one.feed(data), one.take(), b""
        byte_by_byte = ""
        for byte in data:
            byte_by_byte = byte_by_byte or other.feed(bytes([byte]))
            parsed += other.take()
        assert (one.head, body, one.ended, bool(fault)) == (other.head, parsed, other.ended, bool(byte_by_byte))
        if fault or not one.ended or one.head is None or not one.head.keep_alive:
            return  # the connection serves no other
