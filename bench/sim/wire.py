"""The three nouns of an exchange: the Request that came, the Reply to give, the Events a reply is made of.

A Reply's body is either whole bytes or an iterator of events. An event is what one SSE event (or one piece of
binary) is to a client; faults count in events, never in bytes or TCP segments. Its kind says what a client may
conclude from it, which is what "before content" and "without the last event" mean in the behaviours.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Kind(enum.IntEnum):
    """What an event tells a client."""

    OPENING = 0  # the stream exists: role chunk, message_start, response.created, pings
    CONTENT = 1  # something the model said
    CLOSING = 2  # finish reason, usage
    DONE = 3  # the terminator: [DONE], message_stop, response.completed


class Event(NamedTuple):
    """One event, as its bytes go on the wire."""

    kind: Kind
    data: bytes


Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Request:
    """One request, read to its end. `headers` keep their order, names lower-cased, values latin-1."""

    method: str
    target: str
    headers: Headers
    http10: bool = False
    body: bytes = b""
    body_len: int = 0
    body_sha256: str = ""
    started_s: float = 0.0

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def query(self) -> str:
        """What follows the question mark, undecoded."""
        return self.target.partition("?")[2]

    def header(self, name: str) -> str:
        """The first header of that (lower-case) name, or ""."""
        return next((value for key, value in self.headers if key == name), "")


@dataclass(slots=True)
class Reply:
    """An answer before it meets a socket.

    `error_event` stands in for event N under `error=N`; `ping` and `ping_at` are the dialect's way of saying
    nothing. `raw` replies carry their own status line and framing: the body goes out as it is, then FIN.
    """

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes | Iterator[Event] = b""
    sse: bool = False
    ping: bytes = b": ping\n\n"
    ping_at: int = 0
    error_event: bytes = b""
    raw: bool = False
    exact: bool = False  # bytes given by a script: not to be reshaped


class Refused(Exception):
    """The request deserves an error answer: a status and the fields of the dialect's error object.

    Without a message or a code, the dialect's usual ones for that status are given.
    """

    def __init__(self, status: int, message: str | None, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param


class Dialect(NamedTuple):
    """What the rest of the sim needs of a wire format, beside its endpoints.

    `error_body(status, message, code, param, request_id)`, `error_event(path, message, code, request_id)` and
    `headers(request_id, remaining, limit, processing_ms)`; a ping is put before event number `ping_at`.
    """

    error_body: Callable[[int, str | None, str | None, str | None, str], bytes]
    error_event: Callable[[str, str | None, str | None, str], bytes]
    headers: Callable[[str, int, int, int], Headers]
    models: Callable[[], dict[str, object]]
    model: Callable[[str], dict[str, object]]
    ping: bytes
    ping_at: int


REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}


def head(status: int, headers: Headers, *, http10: bool = False) -> bytes:
    """Status line and headers, with the empty line that ends them."""
    lines = [f"HTTP/1.{0 if http10 else 1} {status} {REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def sse(payload: object, name: str = "") -> bytes:
    """One server-sent event carrying `payload` as JSON, named if `name` is given."""
    prefix = b"event: " + name.encode() + b"\n" if name else b""
    return prefix + b"data: " + orjson.dumps(payload) + b"\n\n"


def json_reply(payload: object, status: int = 200) -> Reply:
    """A whole JSON answer."""
    return Reply(status, [("content-type", "application/json")], orjson.dumps(payload))


def sse_reply(events: Iterator[Event]) -> Reply:
    """A streamed answer."""
    headers = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")]
    return Reply(200, headers, events, sse=True)
