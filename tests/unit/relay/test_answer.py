"""Any split of an answer's bytes gives the same answer; what has two readings is refused; memory stays bounded."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay import answer as answer_module
from gateway.relay.answer import MAX_OVERHEAD_BYTES, AnswerParser, ResponseHead

LINE = b"HTTP/1.1 200 OK\r\n"
Answer = tuple[ResponseHead | None, bytes, bool, str]

# name → bytes, status, body, ended
GOOD = {
    "length": (LINE + b"Content-Length: 5\r\nX-A: b\r\n\r\nhello", 200, b"hello", True),
    "length at length": (LINE + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nhello", 200, b"hello", True),
    "empty": (LINE + b"Content-Length: 0\r\n\r\n", 200, b"", True),
    "chunked": (LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n", 200, b"hello", True),
    "chunked, oddly spelt": (LINE + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nhe\r\n0\r\n\r\n", 200, b"he", True),
    "trailers": (LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n0\r\nX-T: 1\r\n\r\n", 200, b"he", True),
    "until the end": (LINE + b"\r\nhello", 200, b"hello", False),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b"", True),
    "interim first": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + LINE
        + b"Content-Length: 2\r\n\r\nok",
        200,
        b"ok",
        True,
    ),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, b"ok", True),
    "no reason": (b"HTTP/1.1 529\r\nContent-Length: 2\r\n\r\nok", 529, b"ok", True),
}

# name → bytes, a word of the reason
BAD = {
    "length and chunked": (LINE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "Content-Length"),
    "chunked and length": (LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "Transfer-Encoding"),
    "two lengths": (LINE + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", "Content-Length"),
    "two equal lengths": (LINE + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "Content-Length"),
    "list of lengths": (LINE + b"Content-Length: 5, 5\r\n\r\n", "Content-Length"),
    "negative length": (LINE + b"Content-Length: -1\r\n\r\n", "Content-Length"),
    "huge length": (LINE + b"Content-Length: 99999999999999999999\r\n\r\n", "overflow"),
    "space before colon": (LINE + b"Content-Length : 5\r\n\r\n", "header"),
    "gzip coding": (LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "transfer coding"),
    "coding after chunked": (LINE + b"Transfer-Encoding: chunked, gzip\r\n\r\n", "transfer coding"),
    "identity coding": (LINE + b"Transfer-Encoding: identity\r\n\r\n", "transfer coding"),
    "chunked twice": (LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer coding"),
    "chunk size": (LINE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "chunk size"),
    "chunk without end": (LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", "chunk"),
    "folded header": (LINE + b"A: b\r\n c\r\n\r\n", "whitespace"),
    "bare line feed": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "CR"),
    "NUL": (LINE + b"A: b\0\r\n\r\n", "header value"),
    "not HTTP": (b"SSH-2.0-OpenSSH\r\n", "HTTP"),
    "HTTP/2": (b"\0\0\x12\x04\0\0\0\0\0", "HTTP"),
    "later version": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1"),
    "first version": (b"HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n", "HTTP/1"),
    "no status": (b"HTTP/1.1 000 Hm\r\nContent-Length: 0\r\n\r\n", "status"),
    "upgrade": (b"HTTP/1.1 101 Hm\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "protocols"),
    "bare upgrade": (b"HTTP/1.1 101 Hm\r\n\r\n", "protocols"),
}


def parse(*reads: bytes, bodiless: bool = False) -> Answer:
    parser = AnswerParser()
    parser.begin(bodiless=bodiless)
    body, fault = b"", ""
    for read in reads:
        fault = parser.feed(read)
        body += parser.take()
        if fault:
            break
    return parser.head, body, parser.ended, fault


@pytest.mark.parametrize("name", GOOD)
def test_an_answer_is_the_same_however_it_is_split(name: str) -> None:
    data, status, body, ended = GOOD[name]
    whole = parse(data)
    assert whole[0] is not None
    assert (whole[0].status, *whole[1:]) == (status, body, ended, "")
    assert parse(*(data[i : i + 1] for i in range(len(data)))) == whole
    for cut in range(1, len(data)):
        assert parse(data[:cut], data[cut:]) == whole


@given(st.sampled_from(sorted(GOOD)), st.lists(st.integers(0, 200), max_size=6))
def test_an_answer_is_the_same_under_any_cuts(name: str, cuts: list[int]) -> None:
    data = GOOD[name][0]
    at = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    assert parse(*(data[a:b] for a, b in itertools.pairwise(at) if a < b)) == parse(data)


@pytest.mark.parametrize("name", BAD)
def test_what_has_no_single_reading_is_refused_however_it_is_split(name: str) -> None:
    data, word = BAD[name]
    for reads in ([data], [data[i : i + 1] for i in range(len(data))]):
        fault = parse(*reads)[3]
        assert word.lower() in fault.lower()
        assert not parse(*reads)[2]


def test_headers_are_known_by_their_first_value_and_lose_their_case() -> None:
    head, *_ = parse(LINE + b"Set-Cookie: A\r\nX-Empty:\r\nSET-COOKIE:  B \r\nContent-Length: 0\r\n\r\n")
    assert head is not None
    assert head.first == {b"set-cookie": b"A", b"x-empty": b""}
    assert (head.get(b"set-cookie"), head.get(b"x-empty"), head.get(b"absent")) == (b"A", b"", b"")
    assert head.content_length == 0


def test_headers_for_the_caller_keep_order_repetition_and_value() -> None:
    head, *_ = parse(LINE + b"Cache-Control: A\r\nServer: x\r\nRetry-After:\r\nCACHE-CONTROL:  B \r\n\r\n")
    assert head is not None
    assert head.to_caller == b"cache-control: A\r\nretry-after: \r\ncache-control: B \r\n"


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (GOOD["length"][0], True),
        (GOOD["chunked"][0], True),
        (GOOD["old"][0], False),
        (GOOD["until the end"][0], False),
        (LINE + b"Connection: close\r\nContent-Length: 0\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", True),
    ],
)
def test_the_provider_says_whether_it_would_go_on(data: bytes, keep_alive: bool) -> None:
    head = parse(data)[0]
    assert head is not None
    assert head.keep_alive is keep_alive


def test_only_an_answer_without_any_length_ends_with_the_connection() -> None:
    for name, expected in (("until the end", True), ("length", False), ("chunked", False)):
        parser = AnswerParser()
        assert not parser.ends_at_eof
        parser.feed(GOOD[name][0])
        assert parser.ends_at_eof is expected


def test_nothing_after_the_end_is_looked_at() -> None:
    second = LINE + b"Content-Length: 4\r\n\r\nevil"
    for name in ("length", "chunked", "no content"):
        data, _, body, _ = GOOD[name]
        head, got, ended, fault = parse(data + second)
        assert (got, ended) == (body, True)
        assert head == parse(data)[0]
        assert "after the end" in fault


def test_an_answer_to_head_has_no_body_whatever_it_promises() -> None:
    for headers in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b""):
        head, body, ended, _ = parse(LINE + headers + b"\r\nhello", bodiless=True)
        assert head is not None
        assert (head.status, body, ended) == (200, b"", True)


def test_one_parser_serves_answer_after_answer() -> None:
    parser = AnswerParser()
    for name, (data, status, body, ended) in GOOD.items():
        if not ended or name == "old":
            continue
        parser.begin(bodiless=False)
        assert parser.feed(data) == ""
        assert parser.head is not None
        assert (parser.head.status, parser.take(), parser.ended) == (status, body, True)
        assert b"x-t" not in parser.head.first


# --- heads that are known by their bytes ----------------------------------------------------------------------------

KNOWN = LINE + b"Content-Type: application/json\r\nContent-Length: %d\r\nDate: now\r\n\r\n"


class Fed:
    """A parser that has read two answers alike; `parsed` counts what is given to llhttp."""

    def __init__(self) -> None:
        self.parser = AnswerParser()
        self.llhttp = self.parser._llhttp
        self.parsed = 0
        for _ in range(2):
            self.next(KNOWN % 2 + b"ok")
        self.parser._llhttp = self  # type: ignore[assignment] # so that what it is given is seen
        self.parsed = 0

    def feed_data(self, data: bytes) -> None:
        self.parsed += len(data)
        assert self.llhttp is not None
        self.llhttp.feed_data(data)

    def __getattr__(self, name: str) -> object:
        return getattr(self.llhttp, name)

    def next(self, *reads: bytes, bodiless: bool = False) -> Answer:
        self.parser.begin(bodiless=bodiless)
        body, fault = b"", ""
        for read in reads:
            fault = self.parser.feed(read)
            body += self.parser.take()
        return self.parser.head, body, self.parser.ended, fault


@pytest.mark.parametrize("body", [b"ok", b"", b"x" * 123_456])
def test_an_answer_behind_a_known_head_is_the_same_without_being_parsed(body: bytes) -> None:
    fed, data = Fed(), KNOWN % len(body) + body
    assert fed.next(data) == parse(data)
    assert fed.parsed == 0


@pytest.mark.parametrize(
    "reads",
    [
        (KNOWN % 2 + b"o", b"k"),
        ((KNOWN % 2)[:9], (KNOWN % 2)[9:] + b"ok"),
        (KNOWN % 2 + b"ok!",),
        (KNOWN.replace(b"200 OK", b"429 No") % 2 + b"ok",),
        (KNOWN.replace(b"now", b"then") % 2 + b"ok",),
        (KNOWN.replace(b"%d", b"+2") + b"ok",),
        (b"HTTP/1.1 100 Go on\r\n\r\n", KNOWN % 2 + b"ok"),
    ],
)
def test_whatever_else_comes_is_parsed(reads: tuple[bytes, ...]) -> None:
    fed = Fed()
    assert fed.next(*reads) == parse(*reads)
    assert fed.parsed == sum(map(len, reads))


def test_a_known_head_that_answers_a_head_request_has_no_body() -> None:
    fed = Fed()
    head, body, ended, _ = fed.next(KNOWN % 5, bodiless=True)
    assert (head is not None and head.content_length, body, ended) == (5, b"", True)


def test_an_answer_that_was_known_may_be_followed_by_any_other() -> None:
    fed = Fed()
    fed.next(KNOWN % 2 + b"ok")
    for name in ("chunked", "no content", "interim first", "length"):
        assert fed.next(GOOD[name][0]) == parse(GOOD[name][0])
    assert fed.next(KNOWN % 2 + b"ok")[1] == b"ok"


@pytest.mark.parametrize(
    "data",
    [
        LINE + b"Connection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n",
        LINE + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        LINE + b"Content-Length: 0\r\n\r\n",
    ],
)
def test_what_could_be_read_otherwise_the_next_time_is_not_remembered(data: bytes) -> None:
    parser = AnswerParser()
    for _ in range(3):
        parser.begin(bodiless=False)
        parser.feed(data)
    assert parser._familiar is None


FLOODS = {
    "one endless header": [LINE + b"A: " + b"a" * 1000] + [b"a" * 1000] * 100,
    "endless headers": [LINE] + [b"A: " + b"a" * 996 + b"\r\n"] * 100,
    "one endless header name": [LINE + b"a" * 1000] + [b"a" * 1000] * 100,
    "interim heads": [b"HTTP/1.1 103 Early Hints\r\nA: " + b"a" * 900 + b"\r\n\r\n"] * 100,
    "chunk extensions": [LINE + b"Transfer-Encoding: chunked\r\n\r\n5;"] + [b"a" * 1000] * 100,
    "trailers": [LINE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"] + [b"A: " + b"a" * 996 + b"\r\n"] * 100,
    "all at once": [LINE + (b"A: " + b"a" * 996 + b"\r\n") * 100 + b"Content-Length: 2\r\n\r\nok"],
}


@pytest.mark.parametrize("name", FLOODS)
def test_what_is_not_body_is_bounded(name: str) -> None:
    parser = AnswerParser()
    fed, fault = 0, ""
    for read in FLOODS[name]:
        fault = parser.feed(read)
        fed += len(read)
        if fault:
            break
    assert "64 KiB" in fault
    assert fed <= MAX_OVERHEAD_BYTES + max(map(len, FLOODS[name]))
    assert not parser.pieces


def test_a_large_body_behind_a_small_head_in_one_read_is_no_large_head() -> None:
    body = b"x" * 200_000
    head, got, ended, fault = parse(LINE + b"Content-Length: 200000\r\n\r\n" + body)
    assert head is not None
    assert (got, ended, fault) == (body, True, "")


def test_a_long_answer_in_small_reads_is_no_overhead() -> None:
    parser = AnswerParser()
    parser.feed(LINE + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(MAX_OVERHEAD_BYTES // 2):
        assert parser.feed(b"5\r\n") == ""
        assert parser.feed(b"hello\r\n") == ""
        assert parser.take() == b"hello"


def test_the_names_a_provider_can_make_us_remember_are_few() -> None:
    for batch in range(30):
        names = b"".join(b"X-%d-%d: 1\r\n" % (batch, i) for i in range(50))
        assert parse(LINE + names + b"Content-Length: 0\r\n\r\n")[3] == ""
    assert parse(LINE + b"Y" * 500 + b": 1\r\nContent-Length: 0\r\n\r\n")[3] == ""
    known = answer_module._known_names
    assert len(known) <= answer_module._MAX_KNOWN_NAMES
    assert max(map(len, known)) <= answer_module._MAX_KNOWN_NAME_BYTES


def test_a_dropped_parser_reads_nothing() -> None:
    parser = AnswerParser()
    parser.drop()
    assert parser.feed(GOOD["length"][0]) != ""
    assert parser.head is None
