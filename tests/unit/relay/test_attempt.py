"""One attempt: how each kind of answer is taken, and what the transfer is told of it, once."""

import gzip
from typing import Any

import pytest

from gateway.errors import (
    ProviderConfiguration,
    UpstreamEmpty,
    UpstreamError,
    UpstreamFailedInside,
    UpstreamProtocolError,
    UpstreamReset,
    UpstreamStatus,
    UpstreamTimeout,
)
from gateway.providers.headers import caller_lines
from gateway.record import Usage
from gateway.relay.attempt import PRECONTENT_BYTES, REFUSAL_BYTES, WHOLE_BYTES, AttemptRun, Taking
from gateway.relay.decode import READ_BYTES, READ_LINES
from gateway.relay.outgoing import Outgoing
from gateway.relay.stream import Transfer
from gateway.relay.upstream import Connection, ResponseHead
from gateway.units import MIB
from gateway.wheel import Wheel
from tests.fakes.provider import (
    DONE,
    JSON,
    ROLE,
    SSE,
    STOP,
    STREAMED,
    TERMS,
    TEXT,
    USAGE,
    USED,
    WHOLE,
    FakeProvider,
    ask,
)
from tests.fakes.reply import FakeReply

PLAIN = b'{"model":"gpt","messages":[]}'
COMMENT = b": ping\n\n"


class NotedTransfer(Transfer):
    """Writes down what an attempt tells it."""

    def __init__(self, out: Outgoing) -> None:
        super().__init__(out, FakeReply(), TERMS, Wheel())
        self.told: list[str] = []
        self.sent = b""
        self.failure: UpstreamError | None = None
        self.streaming = False
        self.said_usage: Usage | None = None

    def content(self, attempt: AttemptRun) -> None:  # noqa: ARG002 - as told
        self.told.append("content")
        self.streaming = True

    def forward(self, data: bytes) -> None:
        self.sent += data

    def completion_seen(self) -> None:
        self.told.append("done")

    def whole(self, attempt: AttemptRun, body: bytes, usage: Usage | None, cause: str) -> None:  # noqa: ARG002 - as told
        self.told.append(f"whole {cause}")
        self.sent, self.said_usage = body, usage

    def finished(self, attempt: AttemptRun, usage: Usage | None) -> None:  # noqa: ARG002 - as told
        self.told.append("finished")
        self.said_usage = usage

    def cut(self, attempt: AttemptRun, cause: str) -> None:  # noqa: ARG002 - as told
        self.told.append(f"cut {cause}")

    def attempt_failed(self, attempt: AttemptRun, error: UpstreamError) -> None:  # noqa: ARG002 - as told
        self.told.append("failed")
        self.failure = error


class NotedConnection:
    """What an attempt may do with a connection."""

    def __init__(self) -> None:
        self.request_bytes = 7
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


class Try:
    """One attempt, and both of its sides."""

    def __init__(self, out: Outgoing, provider: FakeProvider | None = None, **target: Any) -> None:
        self.transfer = NotedTransfer(out)
        self.connection = NotedConnection()
        connection: Any = self.connection
        assert not isinstance(connection, Connection)
        self.run = AttemptRun(self.transfer, (provider or FakeProvider()).target(**target), connection)

    def head(
        self, status: int = 200, content_type: bytes = JSON, *headers: tuple[bytes, bytes], length: int = -1
    ) -> None:
        pairs = [(b"content-type", content_type), *headers] if content_type else list(headers)
        first = dict(reversed(pairs))
        lines = caller_lines(pairs)
        self.run.on_head(ResponseHead(status, keep_alive=True, content_length=length, first=first, to_caller=lines))

    def answer(self, body: bytes, *args: Any) -> None:
        self.head(*args)
        if body:
            self.run.on_body(body)
        self.run.on_end()

    @property
    def told(self) -> list[str]:
        return self.transfer.told

    @property
    def sent(self) -> bytes:
        return self.transfer.sent

    def failed(self) -> UpstreamError:
        """What it failed of, once, and with its connection given up."""
        assert self.told.count("failed") == 1
        assert self.transfer.failure is not None
        assert self.run.conn is None
        return self.transfer.failure


def try_stream(**target: Any) -> Try:
    one = Try(ask(STREAMED), **target)
    one.head(200, SSE + b"; charset=utf-8")
    return one


# --- how it is taken ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers", "taking"),
    [
        (200, [(b"content-type", b"application/json")], Taking.WHOLE),
        (201, [(b"content-type", b"text/plain")], Taking.WHOLE),
        (200, [], Taking.WHOLE),
        (200, [(b"content-type", b"text/event-stream; charset=utf-8")], Taking.EVENTS),
        (200, [(b"content-type", b"audio/mpeg")], Taking.OPAQUE),
        (200, [(b"content-type", b"application/octet-stream")], Taking.OPAQUE),
        (200, [(b"content-type", b"application/json"), (b"content-encoding", b"br")], Taking.OPAQUE),
        (200, [(b"content-type", b"application/json"), (b"content-encoding", b"gzip")], Taking.WHOLE),
        (200, [(b"content-type", b"application/json"), (b"content-encoding", b"identity")], Taking.WHOLE),
        (400, [(b"content-type", b"text/event-stream")], Taking.REFUSAL),
        (302, [], Taking.REFUSAL),
        (500, [(b"content-type", b"text/html")], Taking.REFUSAL),
    ],
)
def test_the_head_decides_how_an_answer_is_taken(
    status: int, headers: list[tuple[bytes, bytes]], taking: Taking
) -> None:
    one = Try(ask(PLAIN))
    one.head(status, b"", *headers)
    assert one.run.taking is taking
    assert one.run.head is not None


def test_a_raw_request_takes_any_answer_unread() -> None:
    one = Try(ask(PLAIN, "passthrough", path="/x"))
    one.head(500, SSE, (b"content-encoding", b"gzip"))
    assert one.run.taking is Taking.OPAQUE
    one.run.on_body(b"\x1f\x8b")
    one.run.on_end()
    assert (one.told, one.sent) == (["content", "finished"], b"\x1f\x8b")
    assert b"content-encoding: gzip\r\n" in one.run.header_lines()


# --- whole answers --------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_told_when_it_is_complete() -> None:
    one = Try(ask(PLAIN))
    one.head()
    for byte in WHOLE:
        one.run.on_body(bytes([byte]))
    assert one.told == []
    one.run.on_end()
    assert (one.told, one.sent, one.transfer.said_usage) == (["whole ok"], WHOLE, USED)
    assert (one.run.request_bytes, one.connection.aborted) == (7, 0)


def test_an_error_in_the_clothes_of_a_success() -> None:
    one = Try(ask(PLAIN))
    one.answer(b'{"error":{"message":"overloaded"}}')
    error = one.failed()
    assert isinstance(error, UpstreamFailedInside)
    assert error.message == "overloaded"


def test_a_whole_answer_that_is_too_long_to_keep_is_forwarded_from_there() -> None:
    one = Try(ask(PLAIN))
    one.head(200, JSON, length=WHOLE_BYTES + 100)
    half = b'{"data":"' + b"x" * (WHOLE_BYTES // 2)
    one.run.on_body(half)
    assert one.told == []
    one.run.on_body(half)
    assert (one.told, one.sent) == (["content"], half + half)
    tail = b'","usage":{"prompt_tokens":3,"completion_tokens":2}}'
    for byte in tail:
        one.run.on_body(bytes([byte]))
    one.run.on_end()
    assert (one.told, one.sent) == (["content", "finished"], half + half + tail)
    assert one.transfer.said_usage == USED


def test_a_whole_answer_that_breaks_off_can_be_had_elsewhere() -> None:
    one = Try(ask(PLAIN))
    one.head()
    one.run.on_body(WHOLE[:10])
    one.run.on_lost(UpstreamReset("gone"), stale=False)
    assert isinstance(one.failed(), UpstreamReset)
    assert (one.sent, one.run.stale) == (b"", False)


def test_an_answer_without_body() -> None:
    one = Try(ask(b"", "passthrough", path="/x", method="DELETE"))
    one.answer(b"", 204, b"")
    assert (one.told, one.sent) == (["whole ok"], b"")


# --- opaque answers -------------------------------------------------------------------------------------------------


def test_an_opaque_answer_is_forwarded_as_it_comes() -> None:
    one = Try(ask(b'{"model":"gpt","input":"x","voice":"y"}', "audio.speech"))
    one.head(200, b"audio/mpeg", length=6)
    assert one.told == []
    one.run.on_body(b"abc")
    assert (one.told, one.sent, one.run.length) == (["content"], b"abc", 6)
    one.run.on_body(b"def")
    one.run.on_end()
    assert (one.told, one.sent) == (["content", "finished"], b"abcdef")


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 409, 413, 422, 451])
def test_the_callers_trouble_is_handed_on(status: int) -> None:
    one = Try(ask(PLAIN))
    one.answer(b'{"error":{"message":"no"}}', status)
    assert (one.told, one.sent) == ([f"whole status_{status}"], b'{"error":{"message":"no"}}')


@pytest.mark.parametrize("status", [301, 401, 402, 403, 404])
def test_our_trouble_is_told_without_the_providers_words(status: int) -> None:
    one = Try(ask(PLAIN))
    one.answer(b'{"error":{"message":"key sk-own is bad"}}', status)
    error = one.failed()
    assert isinstance(error, ProviderConfiguration)
    assert "sk-own" not in error.message
    assert str(status) in error.detail
    assert "'fake'" in error.message


@pytest.mark.parametrize("status", [408, 429, 500, 529])
def test_the_providers_trouble_is_told_in_its_words(status: int) -> None:
    one = Try(ask(PLAIN))
    one.answer(b'{"error":{"message":"busy"}}', status)
    error = one.failed()
    assert isinstance(error, UpstreamStatus)
    assert error.message == "busy"
    assert one.run.body == b'{"error":{"message":"busy"}}'


def test_a_refusal_without_words() -> None:
    one = Try(ask(PLAIN))
    one.answer(b"", 503)
    assert one.failed().message == "the provider answered 503"


def test_a_refusal_that_never_ends_is_judged_without_its_body() -> None:
    one = Try(ask(PLAIN))
    one.head(500)
    for _ in range(REFUSAL_BYTES // 1024):
        one.run.on_body(b"x" * 1024)
    assert one.told == []
    one.run.on_body(b"x")
    assert isinstance(one.failed(), UpstreamStatus)
    assert (one.connection.aborted, one.run.body) == (1, b"")
    one.run.on_body(b"late")
    assert one.told == ["failed"]


def test_a_refusal_of_the_caller_that_never_ends_is_handed_on_without_its_body() -> None:
    one = Try(ask(PLAIN))
    one.head(400)
    one.run.on_body(b"x" * (REFUSAL_BYTES + 1))
    assert (one.told, one.sent, one.connection.aborted) == (["whole status_400"], b"", 1)
    one.run.on_body(b"late")
    one.run.on_lost(UpstreamReset("late"), stale=False)
    assert one.told == ["whole status_400"]


def test_a_vendor_may_know_better() -> None:
    body = b'{"type":"error","error":{"message":"Your credit balance is too low to access the API."}}'
    one = Try(ask(b'{"model":"c","messages":[],"max_tokens":1}', "messages"), FakeProvider(kind="anthropic"))
    one.answer(body, 400)
    assert isinstance(one.failed(), ProviderConfiguration)


# --- event streams --------------------------------------------------------------------------------------------------


def test_events_wait_for_content_and_then_pass_as_they_came() -> None:
    one = try_stream()
    one.run.on_body(COMMENT + ROLE)
    assert (one.told, one.sent, one.run.length) == ([], b"", -1)
    one.run.on_body(TEXT[:10])
    one.run.on_body(TEXT[10:])
    assert (one.told, one.sent) == (["content"], COMMENT + ROLE + TEXT)
    one.run.on_body(STOP + DONE)
    assert one.told == ["content", "done"]
    one.run.on_end()
    assert (one.told, one.sent) == (["content", "done", "finished"], COMMENT + ROLE + TEXT + STOP + DONE)


def test_usage_that_only_we_asked_for_is_withheld() -> None:
    one = try_stream(ask_usage=True)
    for event in (ROLE, TEXT, STOP, USAGE, DONE):
        one.run.on_body(event)
    one.run.on_end()
    assert one.sent == ROLE + TEXT + STOP + DONE
    assert one.transfer.said_usage == USED


def test_what_is_left_at_the_end_is_sent_too() -> None:
    one = try_stream(ask_usage=True)
    one.run.on_body(ROLE + TEXT + STOP + b"data: [DONE]")
    one.run.on_end()
    assert one.sent == ROLE + TEXT + STOP + b"data: [DONE]"
    assert one.told[-1] == "finished"


@pytest.mark.parametrize("events", [b"", COMMENT, ROLE, COMMENT + ROLE])
def test_a_stream_without_content_fails(events: bytes) -> None:
    one = try_stream()
    if events:
        one.run.on_body(events)
    one.run.on_end()
    assert isinstance(one.failed(), UpstreamEmpty)
    assert one.sent == b""


def test_a_stream_whose_choices_are_finished_needs_no_mark() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT + STOP)
    one.run.on_end()
    assert one.told == ["content", "finished"]


def test_a_stream_that_ends_too_early_is_truncated() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT)
    one.run.on_end()
    assert one.failed().code == "upstream_truncated"


def test_a_stream_that_breaks_off_behind_its_mark_is_complete() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT + DONE)
    one.run.on_lost(UpstreamReset("gone"), stale=False)
    assert one.told == ["content", "done", "finished"]


def test_a_stream_that_does_not_end_behind_its_mark_is_ended() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT + DONE)
    one.run.grace_over()
    one.run.grace_over()
    assert (one.told, one.connection.aborted) == (["content", "done", "finished"], 1)


def test_an_error_before_content_fails_and_after_it_is_the_last_word() -> None:
    said = b'data: {"error":{"message":"gone"}}\n\n'
    before = try_stream()
    before.run.on_body(ROLE + said)
    error = before.failed()
    assert isinstance(error, UpstreamFailedInside)
    assert (error.message, before.sent) == ("gone", b"")
    after = try_stream()
    after.run.on_body(ROLE + TEXT)
    after.run.on_body(said)
    after.run.on_end()
    assert (after.told, after.sent) == (["content", "cut upstream_error_in_stream"], ROLE + TEXT + said)


def test_noise_before_content_is_bounded() -> None:
    one = try_stream()
    noise = b": " + b"x" * 1020 + b"\n\n"
    for _ in range(PRECONTENT_BYTES // len(noise) + 1):
        one.run.on_body(noise)
    assert one.told == ["content"]
    assert len(one.sent) > PRECONTENT_BYTES


def test_an_event_without_end_fails() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT)
    with_no_end = b"data: " + b"x" * (1024 * 1024)
    for _ in range(17):
        one.run.on_body(with_no_end)
    assert one.failed().code == "upstream_protocol_error"
    assert one.connection.aborted == 1


def test_usage_so_far_is_known_at_any_time() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT + USAGE)
    assert one.run.usage == USED
    assert try_stream().run.usage is None
    assert Try(ask(PLAIN)).run.usage is None


# --- encoded answers ------------------------------------------------------------------------------------------------


def test_an_encoded_answer_is_decoded_on_the_way() -> None:
    one = Try(ask(PLAIN))
    packed = gzip.compress(WHOLE)
    one.head(200, JSON, (b"content-encoding", b"gzip"), length=len(packed))
    for byte in packed:
        one.run.on_body(bytes([byte]))
    one.run.on_end()
    assert (one.told, one.sent, one.transfer.said_usage) == (["whole ok"], WHOLE, USED)
    assert one.run.length == -1
    assert b"content-encoding" not in one.run.header_lines()


def test_an_encoded_stream_is_decoded_on_the_way() -> None:
    one = Try(ask(STREAMED))
    one.head(200, SSE, (b"content-encoding", b"gzip"))
    one.run.on_body(gzip.compress(ROLE + TEXT + STOP + DONE))
    one.run.on_end()
    assert (one.told[-1], one.sent) == ("finished", ROLE + TEXT + STOP + DONE)


def test_a_stream_in_an_encoding_we_do_not_read_fails() -> None:
    one = Try(ask(STREAMED))
    one.head(200, SSE, (b"content-encoding", b"br"))
    assert isinstance(one.failed(), UpstreamProtocolError)
    assert one.connection.aborted == 1


def test_another_answer_in_an_encoding_we_do_not_read_passes_with_its_name() -> None:
    one = Try(ask(PLAIN))
    one.answer(b"packed", 200, JSON, (b"content-encoding", b"br"))
    assert (one.told, one.sent) == (["content", "finished"], b"packed")
    assert b"content-encoding: br\r\n" in one.run.header_lines()


@pytest.mark.parametrize("packed", [b"this is not gzip at all", gzip.compress(WHOLE)[:-3]], ids=["garbage", "cut"])
def test_an_encoded_answer_that_cannot_be_decoded_fails(packed: bytes) -> None:
    one = Try(ask(PLAIN))
    one.answer(packed, 200, JSON, (b"content-encoding", b"gzip"))
    assert isinstance(one.failed(), UpstreamProtocolError)


@pytest.mark.parametrize("kind", [JSON, SSE])
def test_an_answer_that_unfolds_to_a_flood_fails(kind: bytes) -> None:
    one = Try(ask(STREAMED if kind == SSE else PLAIN))
    one.head(200, kind, (b"content-encoding", b"gzip"))
    packed = gzip.compress(bytes(64 * MIB))
    one.run.on_body(packed)
    error = one.failed()
    assert isinstance(error, UpstreamProtocolError)
    assert error.detail == f"{len(packed)} bytes unfold to more than {READ_BYTES}"
    assert (one.sent, one.connection.aborted) == (b"", 1)


@pytest.mark.parametrize("line", [b"\n", b"\r", b"data:\n"])
def test_an_answer_that_unfolds_to_a_flood_of_lines_fails(line: bytes) -> None:
    one = Try(ask(STREAMED))
    one.head(200, SSE, (b"content-encoding", b"gzip"))
    packed = gzip.compress(ROLE + TEXT + line * READ_LINES)
    one.run.on_body(packed)
    error = one.failed()
    assert isinstance(error, UpstreamProtocolError)
    assert error.detail == f"{len(packed)} bytes unfold to more than {READ_LINES} lines"
    assert (one.sent, one.connection.aborted) == (b"", 1)


def test_lines_are_counted_in_events_alone() -> None:
    one = Try(ask(PLAIN))
    body = WHOLE + b"\n" * (READ_LINES + 1)
    one.answer(gzip.compress(body), 200, JSON, (b"content-encoding", b"gzip"))
    assert one.sent == body


# --- once only ------------------------------------------------------------------------------------------------------


def test_a_stale_connection_is_told_as_such() -> None:
    one = Try(ask(PLAIN))
    one.run.on_lost(UpstreamReset("gone"), stale=True)
    one.failed()
    assert one.run.stale


def test_after_its_verdict_an_attempt_says_nothing() -> None:
    one = try_stream()
    one.run.on_body(ROLE + TEXT)
    timeout = UpstreamTimeout("late", which="idle")
    one.run.fail(timeout)
    one.run.fail(UpstreamReset("again"))
    one.run.on_body(TEXT)
    one.run.on_end()
    one.run.on_lost(UpstreamReset("late"), stale=False)
    one.run.drop()
    assert (one.failed(), one.told, one.sent) == (timeout, ["content", "failed"], ROLE + TEXT)
    assert (one.connection.aborted, one.run.request_bytes) == (1, 7)


def test_a_dropped_attempt_says_nothing() -> None:
    one = try_stream()
    one.run.drop()
    one.run.on_body(ROLE + TEXT)
    one.run.on_end()
    assert (one.told, one.sent, one.connection.aborted) == ([], b"", 1)


# --- telling of it --------------------------------------------------------------------------------------------------


def test_how_it_is_told() -> None:
    one = Try(ask(PLAIN, star="x"), model="m-*")
    assert one.run.row("upstream_reset", 5_999_999) == one.run.row("upstream_reset", 5_000_000)
    one.head(200, JSON, (b"x-request-id", b"up-1"), (b"set-cookie", b"a=1"), (b"retry-after", b"3"))
    row = one.run.row("ok", 7_000_000)
    assert (row.target, row.cause, row.status, row.took_ms, row.upstream_request_id) == (
        "fake/m-x",
        "ok",
        200,
        7,
        "up-1",
    )
    assert one.run.header_lines() == (
        b"content-type: %b\r\nretry-after: 3\r\nx-gateway-upstream-request-id: up-1\r\n" % JSON
    )


def test_before_a_head_there_is_nothing_to_tell() -> None:
    one = Try(ask(PLAIN))
    assert (one.run.header_lines(), one.run.length, one.run.row("x", 0).status) == (b"", -1, 0)


def test_the_providers_flow_control_reaches_the_upload() -> None:
    class Upload:
        def __init__(self) -> None:
            self.calls: list[str] = []

        def attach(self, sink: object) -> None:
            raise AssertionError(sink)

        def pause(self) -> None:
            self.calls.append("pause")

        def resume(self) -> None:
            self.calls.append("resume")

    upload = Upload()
    one = Try(ask(b"", "passthrough", length=-1, upload=upload))
    for writable in (False, True):
        one.run.on_writable(writable)
        Try(ask(PLAIN)).run.on_writable(writable)
    assert upload.calls == ["pause", "resume"]
