"""A provider's answer out of bytes: one `AnswerParser` per connection, fed one socket read at a time.

llhttp does the parsing. This module collects what one read brought (head, body pieces, the end), so that nothing
runs inside the parser: whoever feeds it looks at the result afterwards and may do anything, also close the connection.

Invariants
- After `feed`, `head` is the final head or None; interim 1xx heads are dropped. `pieces` are the body bytes of that
  read, without chunk framing. `ended` is true once the body is complete, and no byte after that is ever looked at.
- What cannot be framed beyond doubt is refused: llhttp refuses Content-Length twice or beside Transfer-Encoding, we
  refuse every transfer coding but one `chunked` (what it leaves coded nobody would decode), 101 and unknown versions.
- Memory is bounded: reads that bring neither a body byte nor the end (heads, chunk extensions, trailers) may not
  add up to more than 64 KiB in a row.

One parser serves all answers of a connection: llhttp begins anew by itself, which saves 1.5 us of set-up an answer.
An answer that is all there behind a head with the bytes of an earlier one is not given to llhttp at all
(`gateway.familiar`): a provider repeats its head until its `date` changes, or for good.
Left out: trailers (read, then dropped), and telling llhttp that a HEAD answer has no body, for which httptools has no
way; such a parser is stopped after the head and must not be used again.
"""

from collections.abc import Callable
from typing import Final

import msgspec
from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpResponseParser

from gateway.familiar import Familiar, learn
from gateway.providers.headers import caller_lines

MAX_OVERHEAD_BYTES: Final = 64 * 1024
_MAX_DIGITS: Final = 20  # of a number of 64 bits
_MAX_KNOWN_NAMES: Final = 1024
_MAX_KNOWN_NAME_BYTES: Final = 64
_VERSIONS: Final = ("1.0", "1.1")

_known_names: Final[dict[bytes, bytes]] = {}  # header names as sent -> lower case; filled up to _MAX_KNOWN_NAMES


class _Refused(Exception):
    """Raised inside a parser callback: stop reading this connection, for the reason given."""


class ResponseHead(msgspec.Struct, gc=False):
    """Status and headers of a final answer.

    `first` has the first value of each header, by its lower-cased name, as received, trailing blanks and all;
    `to_caller` the lines of those that go on, in order. `content_length` stands apart, -1 without one; for an answer to
    HEAD, a 204 or a 304 it says nothing about a body. `keep_alive`: the provider would go on.
    """

    status: int
    keep_alive: bool
    content_length: int
    first: dict[bytes, bytes]
    to_caller: bytes

    def get(self, name: bytes) -> bytes:
        """The first value of a header, by its lower-cased name; empty when absent."""
        return self.first.get(name, b"")


class AnswerParser:
    """Parses the answers of one connection, one after the other; `begin` before each, then `feed` until `ended`."""

    __slots__ = (
        "_between",
        "_bodiless",
        "_familiar",
        "_headers",
        "_last",
        "_llhttp",
        "_overhead",
        "ended",
        "head",
        "on_body",
        "on_header",
        "pieces",
    )

    def __init__(self) -> None:
        self.head: ResponseHead | None = None
        self.pieces: list[bytes] = []
        self.ended = False
        self.on_body = self.pieces.append  # straight into C: no Python frame per chunk
        self._headers: list[tuple[bytes, bytes]] = []
        self.on_header = _collector(self._headers)
        self._overhead = 0
        self._bodiless = False
        self._between = False  # nothing of the answer has arrived
        self._last: ResponseHead | None = None  # of the answer before
        self._familiar: Familiar[ResponseHead] | None = None
        self._llhttp: HttpResponseParser | None = HttpResponseParser(self)

    def begin(self, *, bodiless: bool) -> None:
        """Expect the next answer; `bodiless` when it answers a HEAD, whatever its headers promise."""
        self._last, self.head = self.head, None
        self.ended = False
        self._overhead = 0
        self._bodiless = bodiless
        self._between = not bodiless
        if self._headers:  # the answer before, and its trailers
            self._headers.clear()

    def feed(self, data: bytes) -> str:
        """Parse one read into `head`, `pieces` and `ended`; returns what is wrong, or an empty string.

        What came before the fault is kept: an answer may have ended, and surplus bytes after it be the fault.
        """
        if self._llhttp is None:
            return "bytes after the connection was given up"
        between, self._between = self._between, False
        if between and self._familiar is not None:
            known, body = self._familiar.head, self._familiar.body_of(data)
            if body is not None:
                self.head = ResponseHead(known.status, known.keep_alive, len(body), known.first, known.to_caller)
                self.ended = True
                if body:
                    self.pieces.append(body)
                return ""
        waiting = self.head is None
        try:
            self._llhttp.feed_data(data)
        except HttpParserError as error:
            return _reason(error)
        if between and self.ended:
            self._learn(data)
        if waiting or not (self.pieces or self.ended):
            self._overhead += len(data)
            if self._overhead > MAX_OVERHEAD_BYTES:
                return self._weighed(waiting=waiting)
        return ""

    def take(self) -> bytes:
        """The body bytes of the last read, joined, which the parser then forgets."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._overhead = 0
        return data

    @property
    def ends_at_eof(self) -> bool:
        """Whether the body has begun and only the end of the connection can end it."""
        head = self.head
        return head is not None and head.content_length < 0 and b"transfer-encoding" not in head.first

    def drop(self) -> None:
        """Let go of llhttp; its callbacks and this object hold each other, which would wait for the collector."""
        self._llhttp = None

    # --- called by llhttp -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """First byte of an answer; of a second one if we still hold the first."""
        if self.ended:
            raise _Refused("bytes after the end of the answer")

    def on_headers_complete(self) -> None:
        """The empty line after the headers: make the head, or refuse it."""
        llhttp = self._llhttp
        assert llhttp is not None  # noqa: S101 - it is the caller
        headers = self._headers
        status = llhttp.get_status_code()
        if status < 200:  # noqa: PLR2004 - final answers begin here
            _check_interim(status)
            headers.clear()
            return
        first = dict(headers)
        if len(first) != len(headers):  # a repeated name; the first value counts
            first = dict(reversed(headers))
        coding = first.get(b"transfer-encoding")
        if coding is not None and (coding != b"chunked" or len(first) != len(headers)):
            _check_coding(headers)
        length = first.pop(b"content-length", None)
        keep_alive = llhttp.should_keep_alive()
        if not keep_alive and llhttp.get_http_version() not in _VERSIONS:
            raise _Refused("the answer is not HTTP/1.0 or HTTP/1.1")
        size = -1 if length is None else int(length.strip()[-_MAX_DIGITS:])  # llhttp has read it as one: more are zeros
        self.head = ResponseHead(status, keep_alive, size, first, caller_lines(headers))
        if self._bodiless:
            self.ended = True
            raise _Refused("bytes after the end of the answer")

    def on_message_complete(self) -> None:
        """The last byte of an answer."""
        if self.head is not None:  # else it was an interim answer
            self.ended = True

    def _learn(self, data: bytes) -> None:
        """An answer was one read: if its head is like the one before, know it by its bytes from now on."""
        head, last, pieces = self.head, self._last, self.pieces
        if head is None or last is None or not (pieces and head.keep_alive and head.content_length > 0):
            return
        if head.first == last.first and head.status == last.status:
            self._familiar = learn(data, head, head.content_length)

    def _weighed(self, *, waiting: bool) -> str:
        """A read took us over the limit: refuse, unless it was body bytes behind an honest head that did so."""
        head = self.head
        if waiting and head is not None:
            if sum(len(name) + len(value) + 4 for name, value in self._headers) <= MAX_OVERHEAD_BYTES:
                return ""
            self.head = None
            self.ended = False
            self.pieces.clear()
        return "the head, or what stands between body bytes, is larger than 64 KiB"


def _collector(headers: list[tuple[bytes, bytes]]) -> Callable[[bytes, bytes], None]:
    """What llhttp calls with each header or trailer: a closure, because it runs more often than anything else here."""
    append, known = headers.append, _known_names.get

    def on_header(name: bytes, value: bytes) -> None:
        append((known(name) or _lowered(name), value))

    return on_header


def _check_interim(status: int) -> None:
    if status == 101:  # noqa: PLR2004
        raise _Refused("the provider changed protocols without being asked")
    if status < 100:  # noqa: PLR2004
        raise _Refused("the answer has no valid status")


def _check_coding(headers: list[tuple[bytes, bytes]]) -> None:
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    if codings != [b"chunked"]:
        raise _Refused("the answer has a transfer coding other than chunked")


def _lowered(name: bytes) -> bytes:
    lower = name.lower()
    if len(_known_names) < _MAX_KNOWN_NAMES and len(name) <= _MAX_KNOWN_NAME_BYTES:
        _known_names[name] = lower
    return lower


def _reason(error: HttpParserError) -> str:
    """Say what llhttp objected to; its own words are fixed phrases and quote nothing of the answer."""
    if isinstance(error, HttpParserUpgrade):
        return "the provider changed protocols without being asked"
    if isinstance(error, HttpParserCallbackError) and isinstance(error.__context__, _Refused):
        return str(error.__context__)
    return str(error)
