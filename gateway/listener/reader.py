"""Bytes into requests: llhttp's callbacks, and what must be bounded or remembered around them.

A `RequestReader` is fed what one connection receives and tells its owner three things, in order: a head is complete
(judged, or with the error to answer it with), here is a piece of its body, the request is complete. Callers send the
same head again and again, so the last good one is compared before it is read anew, and a request that is all there
behind a head with the same bytes is not parsed at all (`gateway.familiar`): it is told in one word.

Invariants: what the parser keeps or steps over without a word (unfinished lines, chunk extensions, trailers) is
bounded like the head itself; after `deafen` nothing more is told; a defect of ours is told apart from malformed bytes.
Left out: whose turn it is, and what is answered (`connection.py`).
"""

import time
from enum import Enum
from typing import Final, Protocol

import httptools

from gateway.errors import GatewayError, HeadersTooLarge, MalformedHTTP
from gateway.familiar import Familiar, learn
from gateway.listener.detour import parser_of_body
from gateway.listener.head import Head, Headers, read_head

_LINE_SIZE: Final = len(b":\r\n") + 1  # what a header takes besides its name and value
_LENGTH_SIZE: Final = len(b"content-length")
_MAX_DIGITS: Final = 20  # of a number of 64 bits
_TRACE_SIZE: Final = len(b"traceparent")
_VERSIONS: Final = frozenset({"1.1", "1.0"})


class Fault(Enum):
    """Why a read ended before all of it was parsed."""

    NONE = 0
    MALFORMED = 1  # the caller's bytes
    CRASHED = 2  # a callback of ours
    UPGRADE = 3  # another protocol follows, which we do not speak
    TOO_LARGE = 4


_NO_FAULT: Final = Fault.NONE  # a member looked up in its enum takes 50 ns, a global 2


class Owner(Protocol):
    """Who is told."""

    def head_read(self, head: Head, length: int, error: GatewayError | None) -> None:
        """A head is complete; `length` is its body's, -1 for a chunked one."""

    def body_read(self, data: bytes) -> None:
        """A piece of the body, without transfer coding."""

    def request_read(self) -> None:
        """The request is complete."""

    def whole_read(self, head: Head, body: bytes) -> None:
        """All three at once."""


class RequestReader:
    """One connection's reader. `since_ns`: when the current request began; `in_head`: its head is not complete.

    `keep_alive`: whether the caller wants the connection kept, as far as the request just read says.
    """

    __slots__ = (
        "_between",
        "_deaf",
        "_detour",
        "_familiar",
        "_fresh",
        "_head",
        "_head_bytes",
        "_head_key",
        "_headers",
        "_length",
        "_max_bytes",
        "_owner",
        "_parser",
        "_repeated",
        "_uncounted",
        "_url",
        "asked",
        "error",
        "in_head",
        "keep_alive",
        "since_ns",
        "traceparent",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpRequestParser(self)
        self._deaf = False
        self._detour = False  # the parser skips this request's body: see detour.py
        self._url = b""
        self._headers: Headers = []
        self._length = 0
        self._max_bytes = 0
        self._head_bytes = 0
        self._uncounted = 0  # read since a request last moved on: unfinished lines, chunk extensions, trailers
        self._fresh = False
        self._head: Head | None = None  # the last good one, and what it was read from
        self._head_key: tuple[bytes, bytes, str, Headers] | None = None
        self._familiar: Familiar[Head] | None = None  # the same, by its bytes
        self._between = True  # two requests, or before the first
        self._repeated = False  # the last head read was the same as the one before
        self.traceparent = b""
        self.in_head = False
        self.keep_alive = False
        self.asked = False  # a request has begun on this connection
        self.since_ns = 0
        self.error: Exception | None = None  # behind the last fault

    def feed(self, data: bytes, max_bytes: int) -> Fault:
        """Parse one read; `max_bytes` bounds a head. Told faults are final: feed nothing more."""
        familiar, between = self._familiar, self._between
        if familiar is not None and between:
            body = familiar.body_of(data)
            if body is not None:
                return self._tell_whole(familiar.head, body)
        self._max_bytes = max_bytes
        try:
            self._parser.feed_data(data)
            if self._repeated and between and self._between:
                self._learn(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._detour or self._deaf:
                return Fault.UPGRADE
            return self._take_detour(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as crash:
            self.error = crash
            return Fault.CRASHED
        except httptools.HttpParserError as error:
            self.error = error
            return Fault.MALFORMED
        return Fault.NONE

    def bound(self, size: int, *, between: bool) -> Fault:
        """A read of `size` bytes has ended inside of a request, `between` exchanges or not: is it still in bounds?"""
        if not self._fresh:
            self._uncounted += size
        else:
            self._fresh = False
            self._uncounted = size if self.in_head and between else 0
        return Fault.TOO_LARGE if max(self._head_bytes, self._uncounted) > self._max_bytes else Fault.NONE

    def deafen(self) -> None:
        """Tell nothing more: the connection is about to close."""
        self._deaf = True
        self._familiar = None

    # --- llhttp's side ----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._between = False
        self._url = self.traceparent = b""
        self._headers = []
        self._length = self._head_bytes = 0
        self.in_head = self.asked = self._fresh = True
        self.since_ns = time.monotonic_ns()

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self._url += url
        self._head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header. Length and trace differ from request to request: they stay apart from the rest."""
        size = len(name)
        self._head_bytes += size + len(value) + _LINE_SIZE
        if size == _LENGTH_SIZE and name.lower() == b"content-length":
            self._length = int(value.strip()[-_MAX_DIGITS:])  # llhttp has read it as one number: more are zeros
        elif size == _TRACE_SIZE and name.lower() == b"traceparent":
            self.traceparent = self.traceparent + b"," + value if self.traceparent else value
        else:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is complete: judge it and tell."""
        self.in_head = False
        if self._deaf:
            return  # behind an answer that closes
        head, error = self._judge()
        length = -1 if head.chunked else self._length
        self.keep_alive = self._parser.should_keep_alive()
        if head.chunked:
            self._headers = []  # trailers would else be added to the head that is remembered
        if head.connection and length and self._parser.should_upgrade():
            self._detour = True
            self._length = length
        self._owner.head_read(head, length, error)

    def on_body(self, data: bytes) -> None:
        """A piece of the body, without transfer coding."""
        self._fresh = True
        self._owner.body_read(data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        if not self._detour:
            self._between = self.keep_alive  # else the parser expects no other
            self._owner.request_read()

    # --- inside -----------------------------------------------------------------------------------------------------

    def _judge(self) -> tuple[Head, GatewayError | None]:
        parser = self._parser
        key = (parser.get_method(), self._url, parser.get_http_version(), self._headers)
        self._repeated = key == self._head_key
        if self._repeated and self._head is not None:
            return self._head, None
        head = Head(key[0].decode("ascii"), version_11=key[2] == "1.1")
        try:
            if self._head_bytes > self._max_bytes:
                raise head_too_large(self._max_bytes)
            if key[2] not in _VERSIONS:
                raise MalformedHTTP("only HTTP/1.1 and HTTP/1.0 are spoken here")
            read_head(head, self._url, self._headers)
        except GatewayError as error:
            return head, error
        self._head, self._head_key = head, key
        return head, None

    def _learn(self, data: bytes) -> None:
        """A head has come a second time: know it by its bytes from now on, unless it has a trace, which differs."""
        head, familiar = self._head, self._familiar
        new = familiar is None or familiar.head is not head
        if new and head is not None and self._length and self.keep_alive and not self.traceparent:
            self._familiar = learn(data, head, self._length)

    def _tell_whole(self, head: Head, body: bytes) -> Fault:
        self.traceparent = b""
        self.since_ns = time.monotonic_ns()
        try:
            self._owner.whole_read(head, body)
        except Exception as error:  # noqa: BLE001 - as the parser does with its callbacks
            self.error = error
            return Fault.CRASHED
        return _NO_FAULT

    def _take_detour(self, rest: bytes) -> Fault:
        self._deaf = True  # to the head that is made up
        self._parser = parser_of_body(self, self._length)
        self._deaf = self._detour = False
        self._length = 0
        return self.feed(rest, self._max_bytes) if rest else Fault.NONE


def head_too_large(limit: int) -> HeadersTooLarge:
    """What to say of a head, or of what is not body behind it, above its limit."""
    return HeadersTooLarge(f"the request's head, or what is not body behind it, is larger than {limit} bytes")
