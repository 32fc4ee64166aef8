"""Errors as OpenAI says them: `{"error": {message, type, param, code}}`, whole and inside a stream.

Types follow OpenAI's answers: `invalid_request_error` for what the caller can fix (a bad key included, told apart by
its code), `rate_limit_error` for 429, `server_error` for the rest; `code` is the gateway's own error code. A chat
stream carries the same object as data; typed streams carry an event of type `error` that holds the published fields
and the object, because official SDKs raise on the latter only.
"""

from typing import Final

import msgspec

from gateway.dialects.base import Surface
from gateway.errors import GatewayError

_TOO_MANY: Final = 429
_FIRST_SERVER_ERROR: Final = 500
_PLAIN_STREAMS: Final = frozenset({"chat.completions", "completions"})


def body(error: GatewayError) -> bytes:
    """The error as a JSON answer."""
    return msgspec.json.encode({"error": _object(error)})


def event(surface: Surface, error: GatewayError) -> bytes:
    """The error as an SSE event of this surface's stream, with its blank line."""
    if surface.name in _PLAIN_STREAMS:
        return b"data: %b\n\n" % body(error)
    said = _object(error)
    fields = {"type": "error", "code": error.code, "message": error.message, "param": error.param}
    return b"event: error\ndata: %b\n\n" % msgspec.json.encode({**fields, "sequence_number": 0, "error": said})


def _object(error: GatewayError) -> dict[str, str | None]:
    return {"message": error.message, "type": _type(error.status), "param": error.param, "code": error.code}


def _type(status: int) -> str:
    if status == _TOO_MANY:
        return "rate_limit_error"
    return "server_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error"
