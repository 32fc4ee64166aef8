"""The reader tells the same story at every split, bounds what the parser is silent about, and tells faults apart."""

import pytest

from gateway.config.keys import digest
from gateway.errors import GatewayError, HeadersTooLarge
from gateway.listener.head import Head
from gateway.listener.reader import Fault, RequestReader, head_too_large

MAX = 4096
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: gw\r\nAuthorization: Bearer k\r\n"
PLAIN = HEAD + b"Content-Length: 2\r\ntraceparent: t\r\n\r\n{}"
SMALL = HEAD + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Trailer: 1\r\n\r\n"


class Listening:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.heads: list[tuple[Head, int, GatewayError | None]] = []
        self.body = b""
        self.complete = 0
        self.wholes: list[tuple[Head, bytes]] = []

    def head_read(self, head: Head, length: int, error: GatewayError | None) -> None:
        self.heads.append((head, length, error))

    def body_read(self, data: bytes) -> None:
        self.body += data

    def request_read(self) -> None:
        self.complete += 1

    def whole_read(self, head: Head, body: bytes) -> None:
        self.wholes.append((head, body))


def _fed(*pieces: bytes) -> tuple[RequestReader, Listening, list[Fault]]:
    owner = Listening()
    reader = RequestReader(owner)
    return reader, owner, [reader.feed(piece, MAX) for piece in pieces]


@pytest.mark.parametrize(("request_bytes", "length"), [(PLAIN, 2), (CHUNKED, -1)])
def test_every_split_tells_the_same(request_bytes: bytes, length: int) -> None:
    for at in range(1, len(request_bytes)):
        _, owner, faults = _fed(request_bytes[:at], request_bytes[at:])
        assert faults == [Fault.NONE, Fault.NONE]
        assert [(size, error) for _, size, error in owner.heads] == [(length, None)]
        assert (owner.body, owner.complete) == (b"{}", 1)


@pytest.mark.parametrize("length", [b"0" * 5000 + b"2", b"2" + b" " * 5000])
def test_a_length_may_be_written_at_length(length: bytes) -> None:
    _, owner, faults = _fed(SMALL.replace(b"Length: 2", b"Length: " + length))
    assert (faults, owner.heads[0][1], owner.body, owner.complete) == ([Fault.NONE], 2, b"{}", 1)


def test_the_same_head_again_is_the_same_object_whatever_its_length_and_trace() -> None:
    reader, owner, _ = _fed(PLAIN, PLAIN.replace(b"Length: 2", b"Length: 4").replace(b": t", b": u") + b"  ")
    assert owner.heads[0][0] is owner.heads[1][0]
    assert [size for _, size, _ in owner.heads] == [2, 4]
    assert reader.traceparent == b"u"
    reader.feed(PLAIN.replace(b"Bearer k", b"Bearer l"), MAX)
    assert owner.heads[2][0] is not owner.heads[0][0]


def known() -> tuple[RequestReader, Listening]:
    """A reader that knows SMALL by its bytes."""
    reader, owner, _ = _fed(SMALL, SMALL)
    assert owner.wholes == []
    return reader, owner


def test_a_head_that_came_twice_is_known_by_its_bytes() -> None:
    reader, owner = known()
    assert reader.feed(SMALL.replace(b"2\r\n\r\n{}", b"3\r\n\r\n{ }"), MAX) is Fault.NONE
    assert owner.wholes == [(owner.heads[0][0], b"{ }")]
    assert (reader.in_head, reader.keep_alive, reader.traceparent) == (False, True, b"")


def test_a_known_head_is_parsed_all_the_same_inside_of_a_request() -> None:
    reader, owner = known()
    reader.feed(SMALL.replace(b": 2", b": %d" % (2 + len(SMALL))), MAX)
    reader.feed(SMALL, MAX)
    assert (owner.wholes, owner.complete) == ([], 3)
    assert owner.body.endswith(SMALL)


def test_behind_a_request_that_ends_the_connection_nothing_is_known() -> None:
    reader, owner = known()
    reader.feed(SMALL.replace(b"Host", b"Connection: close\r\nHost"), MAX)
    assert reader.feed(SMALL, MAX) is Fault.MALFORMED
    assert (owner.wholes, len(owner.heads)) == ([], 3)


def test_another_head_takes_the_place_of_the_one_that_is_known() -> None:
    reader, owner = known()
    other = SMALL.replace(b"Bearer k", b"Bearer l")
    for data in (other, other, other, SMALL, SMALL):
        reader.feed(data, MAX)
    assert [head.key_digest for head, _ in owner.wholes] == [digest(b"l")]


@pytest.mark.parametrize("line", [b"traceparent: t", b"Connection: close", b"Connection: Upgrade\r\nUpgrade: h2c"])
def test_heads_with_a_trace_or_an_end_are_never_known(line: bytes) -> None:
    data = SMALL.replace(b"Host", line + b"\r\nHost")
    _, owner, _ = _fed(*[data] * (1 if b"close" in line else 3))
    assert owner.wholes == []


def test_a_deaf_reader_knows_nothing() -> None:
    reader, owner = known()
    reader.deafen()
    reader.feed(SMALL, MAX)
    assert (owner.wholes, len(owner.heads)) == ([], 2)


def test_a_defect_behind_a_known_head_is_ours() -> None:
    class Broken(Listening):
        def whole_read(self, *_: object) -> None:
            raise RuntimeError("ours")

    reader = RequestReader(Broken())
    assert [reader.feed(SMALL, MAX) for _ in range(3)] == [Fault.NONE, Fault.NONE, Fault.CRASHED]
    assert isinstance(reader.error, RuntimeError)


def test_trailers_do_not_change_the_head_that_is_remembered() -> None:
    _, owner, _ = _fed(CHUNKED, CHUNKED)
    assert owner.heads[0][0] is owner.heads[1][0]


def test_whose_fault_it_is() -> None:
    reader, _, faults = _fed(b"NOT HTTP\r\n\r\n")
    assert faults == [Fault.MALFORMED]
    assert reader.error is not None

    class Broken(Listening):
        def request_read(self) -> None:
            raise RuntimeError("ours")

    assert RequestReader(Broken()).feed(PLAIN, MAX) is Fault.CRASHED


def test_a_head_above_the_limit_is_told_with_its_error() -> None:
    _, owner, _ = _fed(HEAD + b"x-large: " + b"y" * MAX + b"\r\n\r\n")
    assert isinstance(owner.heads[0][2], HeadersTooLarge)
    assert str(MAX) in head_too_large(MAX).message


def test_what_never_ends_is_bounded() -> None:
    reader, _, _ = _fed(HEAD + b"x-endless: ")
    faults = []
    for _ in range(MAX // 100 + 2):
        reader.feed(b"y" * 100, MAX)
        faults.append(reader.bound(100, between=True))
    assert faults[0] is Fault.NONE
    assert faults[-1] is Fault.TOO_LARGE


def test_a_deaf_reader_tells_of_no_further_head() -> None:
    reader, owner, _ = _fed(PLAIN)
    reader.deafen()
    reader.feed(PLAIN, MAX)
    assert len(owner.heads) == 1


def test_an_offer_to_upgrade_keeps_the_body_and_what_follows() -> None:
    offer = PLAIN.replace(b"Host: gw", b"Host: gw\r\nConnection: Upgrade\r\nUpgrade: h2c")
    for at in range(1, len(offer)):
        _, owner, faults = _fed(offer[:at], offer[at:] + PLAIN)
        assert set(faults) == {Fault.NONE}
        assert (owner.body, owner.complete, len(owner.heads)) == (b"{}{}", 2, 2)


def test_another_protocol_is_told_apart() -> None:
    offer = b"GET /v1/models HTTP/1.1\r\nHost: gw\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    _, _, faults = _fed(offer)
    assert faults == [Fault.UPGRADE]
