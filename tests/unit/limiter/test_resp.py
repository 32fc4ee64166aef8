"""RESP2: every kind of reply at every split, and what is no reply ends the connection."""

import random

import pytest

from gateway.limiter.resp import MAX_DEPTH, MAX_REPLY_BYTES, Parser, ProtocolViolation, ReplyError, bulk, command

STREAM = (
    b"+OK\r\n:-42\r\n$5\r\nhello\r\n$0\r\n\r\n$-1\r\n*-1\r\n*0\r\n"
    b"*3\r\n:1\r\n*2\r\n$2\r\n\r\n\r\n$-1\r\n+x\r\n$9\r\n1 -1 0 50\r\n"
)
REPLIES = [b"OK", -42, b"hello", b"", None, None, [], [1, [b"\r\n", None], b"x"], b"1 -1 0 50"]


def test_commands_are_arrays_of_bulk_strings() -> None:
    assert bulk(b"") == b"$0\r\n\r\n"
    assert command(b"SET", b"k", b"a\r\nb") == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\na\r\nb\r\n"


def test_a_parser_reads_back_what_a_client_writes() -> None:
    assert Parser().feed(command(b"A", b"b c")) == [[b"A", b"b c"]]


def test_all_at_once() -> None:
    assert Parser().feed(STREAM) == REPLIES


def test_byte_by_byte() -> None:
    parser = Parser()
    assert [reply for at in range(len(STREAM)) for reply in parser.feed(STREAM[at : at + 1])] == REPLIES


def test_any_split() -> None:
    chance = random.Random(3)
    for _ in range(300):
        parser, replies, at = Parser(), list[object](), 0
        while at < len(STREAM):
            size = chance.randint(1, 12)
            replies += parser.feed(STREAM[at : at + size])
            at += size
        assert replies == REPLIES


def test_an_error_answers_one_command() -> None:
    first, second = Parser().feed(b"-NOSCRIPT No matching script.\r\n+OK\r\n")
    assert isinstance(first, ReplyError)
    assert first.code == "NOSCRIPT"
    assert str(first) == "NOSCRIPT No matching script."
    assert second == b"OK"


def test_an_error_within_an_array_is_a_value() -> None:
    (replies,) = Parser().feed(b"*2\r\n+OK\r\n-ERR no\r\n")
    assert isinstance(replies, list)
    assert replies[0] == b"OK"
    assert isinstance(replies[1], ReplyError)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"$x\r\n",
        b"$ \r\n",
        b"$5\r\nhelloo\r\n",
        b":one\r\n",
        b"*%d\r\n" % (MAX_REPLY_BYTES + 1),
        b"$%d\r\n" % (MAX_REPLY_BYTES + 1),
        b"*1\r\n" * (MAX_DEPTH + 1),
        b"+" + b"x" * 70_000,
        b"*2\r\n" + b"$900000\r\n" + b"x" * 900_000 + b"\r\n$900000\r\n" + b"x" * 200_000,
    ],
    ids=range(11),
)
def test_what_is_no_reply_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        Parser().feed(data)


@pytest.mark.parametrize(
    "strings",
    [
        [b"[1,2]"] * 40,
        [b"", b"", b"a"],
        [b"\r\n"],
        [b"a\r\nb", b"c"],
        [b"c", b"$1\r\nx"],
        [b"x" * 511, b"x" * 512],
        [b"$3", b"abc"],
    ],
)
def test_strings_alone_are_read_the_short_way_and_mean_the_same(strings: list[bytes]) -> None:
    data = b"".join(map(bulk, strings))
    assert Parser().feed(data) == strings
    parser = Parser()
    assert parser.feed(data[:-1]) + parser.feed(data[-1:]) == strings
    assert parser.feed(data + b":1\r\n") == [*strings, 1]


def test_a_string_that_is_shorter_than_it_says_swallows_no_other() -> None:
    assert Parser().feed(b"$3\r\nab\r\n$1\r\nx\r\n"[:8]) == []
    with pytest.raises(ProtocolViolation):
        Parser().feed(b"$3\r\nab\r\n$1\r\nx\r\n")


def test_whole_replies_before_a_torn_one_are_given() -> None:
    parser = Parser()
    assert parser.feed(b"+A\r\n$3\r\nab") == [b"A"]
    assert parser.feed(b"c\r") == []
    assert parser.feed(b"\n+B\r\n") == [b"abc", b"B"]
