"""Errors as Anthropic says them: `{"type": "error", "error": {type, message}, "request_id"}`, whole and as an event.

The type follows from the status alone, by Anthropic's published table; statuses it does not list take the type of
their class. The gateway's own error code and the field at fault have no place here: the message names them.
"""

from typing import Final

import msgspec

from gateway.errors import GatewayError

_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_FIRST_SERVER_ERROR: Final = 500


def body(error: GatewayError, request_id: str) -> bytes:
    """The error as a JSON answer."""
    said = {"type": _type(error.status), "message": error.message}
    return msgspec.json.encode({"type": "error", "error": said, "request_id": request_id})


def event(error: GatewayError, request_id: str) -> bytes:
    """The error as an SSE event, with its blank line."""
    return b"event: error\ndata: %b\n\n" % body(error, request_id)


def _type(status: int) -> str:
    return _TYPES.get(status) or ("api_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error")
