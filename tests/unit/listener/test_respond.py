"""Answers as bytes: heads, framing for every kind of caller, errors before and behind the first byte."""

import re
from typing import Any, cast

import orjson
import pytest

from gateway.dialects.registry import find
from gateway.errors import GatewayError, InvalidRequest, MalformedHTTP, Overloaded, RateLimited, StreamTruncated
from gateway.exchange import Exchange
from gateway.listener.head import Head
from gateway.listener.respond import MAX_NAMED_BYTES, DateLine, Responder, full_answer, listed, status_line
from gateway.record import Attempt
from gateway.relay.reply import AnswerHead
from gateway.units import NS_PER_MS, NS_PER_S
from tests.fakes.provider import surface

TYPE = b"content-type: text/plain\r\n"


class Wire:
    """A connection that writes down."""

    def __init__(self) -> None:
        self.paused = False
        self.sent = b""
        self.kept: list[bool] = []

    def write(self, data: bytes) -> None:
        self.sent += data

    def answered(self, *, keep: bool) -> None:
        self.kept.append(keep)

    @property
    def head(self) -> str:
        return self.sent.partition(b"\r\n\r\n")[0].decode() + "\r\n"

    @property
    def body(self) -> bytes:
        return self.sent.partition(b"\r\n\r\n")[2]

    def header(self, name: str) -> str | None:
        found = re.findall(rf"\r\n{name}: (.*)\r\n", self.head)
        assert len(found) <= 1
        return found[0] if found else None


class Case:
    """One answer. `streams` is how many event streams are open."""

    def __init__(
        self,
        *,
        method: str = "POST",
        version_11: bool = True,
        keep_alive: bool = True,
        name: str = "chat.completions",
    ) -> None:
        head = Head(method, version_11=version_11)
        head.surface = surface(name)
        head.dialect = find(head.surface.dialect)
        self.ex = Exchange("req_1", head, "1.2.3.4", keep_alive=keep_alive)
        self.wire = Wire()
        self.streams = 0
        self.responder = Responder(self.ex, self.wire, head.dialect, self._on_stream)

    def _on_stream(self, change: int) -> None:
        self.streams += change


def head(status: int = 200, length: int = -1, **fields: Any) -> AnswerHead:
    given: dict[str, Any] = {"target": "", "attempts": (), "changed": (), "upstream_ns": 0}
    return AnswerHead(status, TYPE, length, **{**given, **fields})


# --- whole answers --------------------------------------------------------------------------------------------------


def test_a_whole_answer() -> None:
    case = Case()
    case.responder.whole(head(length=5), b"hello")
    assert case.wire.sent.startswith(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n")
    assert case.wire.body == b"hello"
    assert case.wire.kept == [True]
    assert case.wire.header("x-request-id") == "req_1"
    assert case.wire.header("connection") is None
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", case.wire.header("date") or "")
    assert re.fullmatch(r"gw;dur=\d+\.\d{3}, upstream;dur=0\.000", case.wire.header("server-timing") or "")
    assert case.ex.answered_status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body_have_no_length(status: int) -> None:
    case = Case()
    case.responder.whole(head(status, 5), b"")
    assert (case.wire.header("content-length"), case.wire.body) == (None, b"")


def test_an_answer_to_head_says_the_length_and_sends_no_body() -> None:
    case = Case(method="HEAD")
    case.responder.whole(head(length=5), b"hello")
    assert (case.wire.header("content-length"), case.wire.body) == ("5", b"")
    unknown = Case(method="HEAD")
    unknown.responder.whole(head(length=-1), b"")
    assert unknown.wire.header("content-length") is None


def test_the_gateways_own_answer() -> None:
    case = Case()
    case.responder.answer(200, b"{}")
    assert (case.wire.header("content-type"), case.wire.body) == ("application/json", b"{}")


def test_time_is_split_into_ours_and_the_providers() -> None:
    case = Case()
    case.ex.started_ns -= 30 * NS_PER_MS
    case.responder.whole(head(length=0, upstream_ns=20 * NS_PER_MS), b"")
    timing = re.fullmatch(r"gw;dur=([\d.]+), upstream;dur=20\.000", case.wire.header("server-timing") or "")
    assert timing is not None
    assert 10 <= float(timing[1]) < 1000


# --- streamed answers -----------------------------------------------------------------------------------------------


def test_a_body_of_known_length_is_sent_as_it_is() -> None:
    case = Case()
    case.responder.start(head(length=6))
    case.responder.data(b"abc")
    case.responder.data(b"def")
    case.responder.end()
    assert (case.wire.header("content-length"), case.wire.body, case.wire.kept) == ("6", b"abcdef", [True])


def test_a_body_of_unknown_length_is_chunked() -> None:
    case = Case()
    case.responder.start(head())
    case.responder.data(b"hello")
    case.responder.data(b"")
    assert case.wire.kept == []
    case.responder.end()
    assert case.wire.header("transfer-encoding") == "chunked"
    assert (case.wire.body, case.wire.kept) == (b"5\r\nhello\r\n0\r\n\r\n", [True])


def test_for_http_10_the_end_of_the_connection_is_the_end_of_the_body() -> None:
    case = Case(version_11=False)
    case.responder.start(head())
    case.responder.data(b"hello")
    case.responder.end()
    assert (case.wire.header("transfer-encoding"), case.wire.header("connection")) == (None, "close")
    assert (case.wire.body, case.wire.kept) == (b"hello", [False])


def test_http_10_is_told_that_the_connection_stays() -> None:
    case = Case(version_11=False)
    case.responder.whole(head(length=0), b"")
    assert (case.wire.header("connection"), case.wire.kept) == ("keep-alive", [True])


def test_a_caller_who_wants_to_close_is_told_so() -> None:
    case = Case(keep_alive=False)
    case.responder.whole(head(length=0), b"")
    assert (case.wire.header("connection"), case.wire.kept) == ("close", [False])


def test_a_cut_body_lacks_the_last_chunk() -> None:
    case = Case()
    case.responder.start(head())
    case.responder.data(b"hello")
    case.responder.cut()
    assert (case.wire.body, case.wire.kept) == (b"5\r\nhello\r\n", [False])


def test_event_streams_are_counted_while_they_are_open() -> None:
    for end in ("end", "cut", "forget"):
        case = Case()
        case.responder.start(head(sse=True))
        assert case.streams == 1
        getattr(case.responder, end)()
        getattr(case.responder, end)()
        assert case.streams == 0


def test_slowness_of_the_caller_is_told() -> None:
    case = Case()
    case.wire.paused = True
    assert case.responder.paused


# --- the story ------------------------------------------------------------------------------------------------------


def test_how_the_answer_came_about() -> None:
    case = Case()
    attempts = [
        Attempt("a/m", "upstream_status", 503, 7),
        Attempt("b/m", "upstream_connect_error", 0, 2),
        Attempt("c/m", "ok", 200, 40),
    ]
    case.responder.whole(head(length=0, target="c/m", attempts=attempts, changed=("model", "header:x")), b"")
    assert case.wire.header("x-gateway-target") == "c/m"
    assert case.wire.header("x-gateway-attempts") == (
        "3; a/m=upstream_status(503) 7ms, b/m=upstream_connect_error 2ms, c/m=ok 40ms"
    )
    assert case.wire.header("x-gateway-changed") == "model, header:x"


@pytest.mark.parametrize("took_ms", [0, 5, 1234])
def test_one_good_attempt_is_told_with_its_own_time(took_ms: int) -> None:
    case = Case()
    case.responder.whole(head(length=0, target="c/m", attempts=[Attempt("c/m", "ok", 200, took_ms)]), b"")
    assert case.wire.header("x-gateway-attempts") == f"1; c/m=ok {took_ms}ms"
    assert case.wire.header("x-gateway-changed") is None


def test_stories_are_remembered_in_a_bounded_number_and_told_right() -> None:
    for number in range(1500):
        case = Case()
        target = f"c/{number}"
        case.responder.whole(head(length=0, target=target, attempts=[Attempt(target, "ok", 200, number)]), b"")
        assert case.wire.header("x-gateway-attempts") == f"1; {target}=ok {number}ms"


def test_names_that_no_header_can_carry_are_replaced() -> None:
    case = Case()
    case.responder.whole(head(length=0, target="c/模型", attempts=[Attempt("c/模型", "ok", 200, 1)]), b"")
    assert case.wire.header("x-gateway-target") == "c/??"


def test_long_lists_are_cut_and_counted() -> None:
    names = [f"field_{number}" for number in range(200)]
    shown = listed(names)
    assert len(shown) <= MAX_NAMED_BYTES
    *first, last = shown.split(", ")
    assert first == names[: len(first)]
    assert last == f"+{200 - len(first)} more"
    assert listed(["x" * 600, "y"]) == "+2 more"
    assert listed([]) == ""


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"), [("chat.completions", ("error", "message")), ("messages", ("error", "message"))]
)
def test_an_error_is_said_in_the_callers_dialect(name: str, message: tuple[str, str]) -> None:
    case = Case(name=name)
    case.responder.fail(InvalidRequest("say less", param="messages"), (), 0)
    said = orjson.loads(case.wire.body)
    assert said[message[0]][message[1]] == "say less"
    assert ("type" in said) == (name == "messages")
    assert case.wire.header("content-length") == str(len(case.wire.body))
    assert (case.wire.kept, case.ex.error, case.ex.answered_status) == ([True], case.ex.error, 400)
    assert isinstance(case.ex.error, InvalidRequest)


def test_an_error_may_say_when_to_come_back_and_what_was_tried() -> None:
    case = Case()
    case.responder.fail(Overloaded("later", retry_after_s=3), [Attempt("a/m", "overloaded", 0, 1)], 5 * NS_PER_MS)
    assert case.wire.header("retry-after") == "3"
    assert case.wire.header("x-gateway-attempts") == "1; a/m=overloaded 1ms"
    assert (case.wire.header("server-timing") or "").endswith("upstream;dur=5.000")


def test_an_error_that_loses_the_framing_closes() -> None:
    case = Case()
    case.responder.fail(MalformedHTTP("no"), (), 0)
    assert (case.wire.header("connection"), case.wire.kept) == ("close", [False])


def test_an_error_answer_to_head_has_no_body() -> None:
    case = Case(method="HEAD")
    case.responder.fail(InvalidRequest("no"), (), 0)
    assert case.wire.body == b""
    assert int(case.wire.header("content-length") or 0) > 0


def test_behind_a_started_event_stream_an_error_is_an_event_of_its_own() -> None:
    case = Case()
    case.responder.start(head(sse=True))
    case.responder.data(b"data: half an ev")
    case.responder.fail(StreamTruncated("it broke off"), (), 0)
    events = b"".join(re.findall(rb"[0-9a-f]+\r\n(.*?)\r\n(?=[0-9a-f]|$)", case.wire.body, re.DOTALL)).split(b"\n\n")
    assert events[0] == b"data: half an ev"
    assert orjson.loads(events[1].removeprefix(b"data: "))["error"]["code"] == "upstream_truncated"
    assert not case.wire.body.endswith(b"0\r\n\r\n")
    assert (case.wire.kept, case.streams) == ([False], 0)


def test_behind_any_other_body_an_error_is_a_cut() -> None:
    case = Case()
    case.responder.start(head(length=10))
    case.responder.data(b"12345")
    case.responder.fail(StreamTruncated("it broke off"), (), 0)
    assert (case.wire.body, case.wire.kept) == (b"12345", [False])


# --- once only ------------------------------------------------------------------------------------------------------


def everything(case: Case) -> None:
    error: GatewayError = InvalidRequest("no")
    case.responder.start(head(sse=True))
    case.responder.data(b"late")
    case.responder.end()
    case.responder.cut()
    case.responder.whole(head(length=1), b"x")
    case.responder.answer(200, b"{}")
    case.responder.fail(error, (), 0)
    case.responder.forget()


def test_after_an_answer_nothing_more_is_said() -> None:
    case = Case()
    case.responder.whole(head(length=0), b"")
    sent = case.wire.sent
    everything(case)
    assert (case.wire.sent, case.wire.kept, case.streams) == (sent, [True], 0)
    assert case.ex.answered_status == 200
    assert case.ex.error is None


def test_to_a_caller_who_has_gone_nothing_is_said() -> None:
    case = Case()
    case.responder.forget()
    everything(case)
    assert (case.wire.sent, case.wire.kept, case.streams) == (b"", [], 0)


# --- lines ----------------------------------------------------------------------------------------------------------


def test_status_lines() -> None:
    assert status_line(404) == b"HTTP/1.1 404 Not Found\r\n"
    assert status_line(529) == b"HTTP/1.1 529 Status\r\n"


def test_the_date_is_made_once_a_second() -> None:
    date = DateLine()
    first = date.get(5 * NS_PER_S)
    assert date.get(6 * NS_PER_S - 1) is first
    assert date.get(6 * NS_PER_S).startswith(b"date: ")


def test_the_answer_to_one_connection_too_many_is_whole() -> None:
    head_, _, body = full_answer().partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head_ + b"\r\n"
    assert orjson.loads(body)["error"]["code"] == "overloaded"


# --- limits ---------------------------------------------------------------------------------------------------------


class Held:
    """A hold, as an answer needs it."""

    def header_lines(self, dialect: str) -> bytes:
        return b"x-ratelimit-of: %b\r\n" % dialect.encode()


@pytest.mark.parametrize(("name", "dialect"), [("chat.completions", "openai"), ("messages", "anthropic")])
def test_what_is_left_of_the_callers_limits_is_told_with_the_answer(name: str, dialect: str) -> None:
    case = Case(name=name)
    case.ex.hold = cast("Any", Held())
    case.responder.start(head(length=-1, sse=True))
    case.responder.end()
    assert case.wire.header("x-ratelimit-of") == dialect
    assert case.wire.header("retry-after-ms") is None


def test_a_refusal_tells_when_to_come_back_exactly() -> None:
    case = Case()
    error = RateLimited("used up", rule="rpm", retry_after_ms=1_234)
    error.header_lines = lambda dialect: b"x-ratelimit-of: %b\r\n" % dialect.encode()
    case.responder.fail(error, (), 0)
    assert (case.wire.header("retry-after"), case.wire.header("retry-after-ms")) == ("2", "1234")
    assert case.wire.header("x-ratelimit-of") == "openai"


def test_other_errors_tell_nothing_of_limits() -> None:
    case = Case()
    case.responder.fail(InvalidRequest("no"), (), 0)
    assert "ratelimit" not in case.wire.head
    assert case.wire.header("retry-after-ms") is None
