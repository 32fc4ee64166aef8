"""Answers as bytes: the one place that writes to a caller, and the one that says an error in the caller's dialect.

A `Responder` is the caller's side of one exchange: it implements the relay's `Reply`, and the pipeline uses it for
answers the gateway gives by itself. It frames by what the caller can read (chunked for HTTP/1.1, close-delimited for
HTTP/1.0), adds the gateway's own headers, and ends an incomplete answer so that the caller can tell: never with the
last zero chunk.

Invariants: nothing is written to a transport that is closing (uvloop raises there, and inside a callback of the
upstream that would kill the wrong connection); header values from outside are checked for line breaks by the parser
that produced them, and values of ours come from the config or are numbers.
"""

import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, Protocol

from gateway.dialects.base import Dialect
from gateway.errors import GatewayError, Overloaded, RateLimited
from gateway.exchange import Exchange
from gateway.record import Attempt
from gateway.relay.reply import AnswerHead
from gateway.units import NS_PER_MS, NS_PER_S

MAX_NAMED_BYTES: Final = 512  # of any x-gateway-* value that lists names
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}
_STATUS_LINES: Final = {
    status: f"HTTP/1.1 {status} {phrase}\r\n".encode()
    for status, phrase in _REASONS.items()
    if status >= 200  # noqa: PLR2004
}
_BODYLESS: Final = frozenset({204, 304})
_TYPE_JSON: Final = b"content-type: application/json\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class DateLine:
    """The Date header, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._line = b""

    def get(self, now_ns: int) -> bytes:
        """The line for a moment of the monotonic clock."""
        second = now_ns // NS_PER_S
        if second != self._second:
            self._second = second
            self._line = f"date: {formatdate(usegmt=True)}\r\n".encode()
        return self._line


_date: Final = DateLine()
_OK: Final = "ok"
_MAX_STORIES: Final = 1024
_plain_stories: Final[dict[tuple[str, str, tuple[str, ...]], bytes]] = {}


def status_line(status: int) -> bytes:
    """The first line of an answer; unknown codes get a phrase of their class."""
    known = _STATUS_LINES.get(status)
    return known if known is not None else f"HTTP/1.1 {status} Status\r\n".encode()


class Wire(Protocol):
    """What a responder needs of a connection."""

    paused: bool

    def write(self, data: bytes) -> None:
        """Send, unless the connection is closing."""

    def answered(self, *, keep: bool) -> None:
        """The answer is out; `keep` says whether the connection may serve another request."""


class _Nowhere:
    """Where an answer goes that is over: its provider may still speak until it hears of it."""

    paused = False

    def write(self, data: bytes) -> None:
        """Drop it."""

    def answered(self, *, keep: bool) -> None:
        """It has been."""


_NOWHERE: Final = _Nowhere()


class Responder:
    """The answer of one exchange; implements `relay.reply.Reply`."""

    __slots__ = ("_chunked", "_dialect", "_ex", "_on_stream", "_sse", "_wire", "closing", "finished", "started")

    def __init__(self, ex: Exchange, wire: Wire, dialect: Dialect, on_stream: Callable[[int], None]) -> None:
        self._ex = ex
        self._wire: Wire = wire
        self._dialect = dialect
        self._on_stream = on_stream
        self._chunked = False
        self._sse = False
        self.started = False
        self.finished = False
        self.closing = not ex.keep_alive

    @property
    def paused(self) -> bool:
        """Whether the caller has stopped reading."""
        return self._wire.paused

    # --- relay.reply.Reply ------------------------------------------------------------------------------------------

    def start(self, head: AnswerHead) -> None:
        """Send the head; a body follows."""
        if self.finished:
            return
        self.started = True
        self._sse = head.sse
        if head.sse:
            self._on_stream(1)
        framing = self._framing(head.length)
        self._wire.write(self._head(head, framing))

    def data(self, data: bytes) -> None:
        """Send body bytes."""
        if data:
            self._wire.write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def end(self) -> None:
        """The body is complete."""
        if self._chunked:
            self._wire.write(LAST_CHUNK)
        self._finish()

    def cut(self) -> None:
        """Close without the last chunk, so that the caller can tell that the body is incomplete."""
        self.closing = True
        self._finish()

    def whole(self, head: AnswerHead, body: bytes) -> None:
        """Send a complete answer."""
        if self.finished:
            return
        self.started = True
        framing = b"content-length: %d\r\n" % head.length
        if head.status in _BODYLESS or self._ex.head.method == "HEAD":
            body = b""
            framing = b"" if head.status in _BODYLESS or head.length < 0 else framing
        self._wire.write(self._head(head, framing) + body)
        self._finish()

    def fail(self, error: GatewayError, attempts: Sequence[Attempt], upstream_ns: int) -> None:
        """Say the error: as an answer when nothing went out, as an event on a stream, else by a cut."""
        if self.finished:
            return
        self._ex.error = error
        if not self.started:
            self.closing = self.closing or error.close
            self.whole(self._error_head(error, attempts, upstream_ns), self._error_body(error))
            return
        if self._sse:
            self.data(b"\n\n" + self._error_event(error))
        self.cut()

    def answer(self, status: int, body: bytes) -> None:
        """Send a complete JSON answer of the gateway's own."""
        self.whole(AnswerHead(status, _TYPE_JSON, len(body), "", (), (), 0), body)

    # --- bytes ------------------------------------------------------------------------------------------------------

    def _framing(self, length: int) -> bytes:
        if length >= 0:
            return b"content-length: %d\r\n" % length
        if self._ex.head.version_11:
            self._chunked = True
            return b"transfer-encoding: chunked\r\n"
        self.closing = True  # HTTP/1.0 knows no chunks: the end of the connection is the end of the body
        return b""

    def _head(self, head: AnswerHead, framing: bytes) -> bytes:
        ex = self._ex
        now_ns = time.monotonic_ns()
        ex.answered_status = head.status
        own_ms = (now_ns - ex.started_ns - head.upstream_ns) / NS_PER_MS
        return b"%b%b%b%bx-request-id: %b\r\nserver-timing: gw;dur=%.3f, upstream;dur=%.3f\r\n%b%b%b\r\n" % (
            _STATUS_LINES.get(head.status) or status_line(head.status),
            head.lines,
            framing,
            _date.get(now_ns),
            ex.exchange_id.encode(),
            own_ms if own_ms > 0 else 0.0,
            head.upstream_ns / NS_PER_MS,
            _story(ex.route.name if ex.route is not None else "", head),
            b"" if ex.hold is None and ex.error is None else self._limit_lines(),
            b"" if ex.head.version_11 and not self.closing else self._connection_line(),
        )

    def _limit_lines(self) -> bytes:
        """What is left of the caller's limits, if it has any."""
        hold, error = self._ex.hold, self._ex.error
        if hold is not None:
            return hold.header_lines(self._dialect.name)
        if not isinstance(error, RateLimited):
            return b""
        return b"retry-after-ms: %d\r\n%b" % (error.retry_after_ms, error.header_lines(self._dialect.name))

    def _connection_line(self) -> bytes:
        if self.closing:
            return b"connection: close\r\n"
        return b"" if self._ex.head.version_11 else b"connection: keep-alive\r\n"

    def _error_head(self, error: GatewayError, attempts: Sequence[Attempt], upstream_ns: int) -> AnswerHead:
        lines = _TYPE_JSON
        if error.retry_after_s is not None:
            lines += b"retry-after: %d\r\n" % error.retry_after_s
        length = len(self._error_body(error))
        return AnswerHead(error.status, lines, length, "", attempts, (), upstream_ns)

    def _error_event(self, error: GatewayError) -> bytes:
        surface = self._ex.head.surface
        return self._dialect.error_event(surface, error, self._ex.exchange_id) if surface is not None else b""

    def _error_body(self, error: GatewayError) -> bytes:
        return self._dialect.error_body(error, self._ex.exchange_id)

    def _finish(self) -> None:
        if self.finished:
            return
        wire = self._wire
        self.forget()
        wire.answered(keep=not self.closing)

    def forget(self) -> None:
        """Nothing more is said, or can be: the caller may have gone."""
        if not self.finished:
            self.finished = True
            del self._ex  # exchange and reply hold each other: the collector would have to part them
            self._wire = _NOWHERE
            if self._sse:
                self._on_stream(-1)


def listed(names: Sequence[str]) -> str:
    """Names for a header value, at most 512 bytes; what does not fit is counted as `+N more`."""
    shown: list[str] = []
    room = MAX_NAMED_BYTES - len(", +999 more")
    for index, name in enumerate(names):
        room -= len(name) + 2
        if room < 0:
            return ", ".join([*shown, f"+{len(names) - index} more"])
        shown.append(name)
    return ", ".join(shown)


def _story(route: str, head: AnswerHead) -> bytes:
    """The header lines that tell how the answer came about."""
    attempts = head.attempts
    if len(attempts) == 1 and attempts[0].cause == _OK:  # what nearly every answer tells, but for the time it took
        key = (route, head.target, head.changed)
        known = _plain_stories.get(key)
        if known is None:
            if len(_plain_stories) >= _MAX_STORIES:
                _plain_stories.clear()
            known = _plain_stories[key] = _lines(route, head, f"1; {head.target}=ok ").removesuffix(b"\r\n")
        return b"%b%dms\r\n" % (known, attempts[0].took_ms)
    told = f"{len(attempts)}; {listed([_told(attempt) for attempt in attempts])}" if attempts else ""
    return _lines(route, head, told)


def _lines(route: str, head: AnswerHead, told: str) -> bytes:
    lines = f"x-gateway-route: {route}\r\n" if route else ""
    if head.target:
        lines += f"x-gateway-target: {head.target}\r\n"
    if head.changed:
        lines += f"x-gateway-changed: {listed(head.changed)}\r\n"
    if told:
        lines += f"x-gateway-attempts: {told}\r\n"
    return lines.encode("latin-1", "replace")


def _told(attempt: Attempt) -> str:
    cause = f"{attempt.cause}({attempt.status})" if attempt.cause != "ok" and attempt.status else attempt.cause
    return f"{attempt.target}={cause} {attempt.took_ms}ms"


def full_answer() -> bytes:
    """What a connection above `max_connections` is told before it is closed."""
    error = Overloaded("this gateway has no room for another connection: retry in a moment")
    body = b'{"error":{"message":"%b","type":"server_error","param":null,"code":"%b"}}' % (
        error.message.encode(),
        error.code.encode(),
    )
    head = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    return head + b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
