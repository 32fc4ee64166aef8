"""Errors in Anthropic's words, whole and in streams."""

import json

import pytest

from gateway.dialects.anthropic.errors import body, event
from gateway.errors import GatewayError

TYPES = [
    (400, "invalid_request_error"),
    (401, "authentication_error"),
    (403, "permission_error"),
    (404, "not_found_error"),
    (405, "invalid_request_error"),
    (408, "timeout_error"),
    (413, "request_too_large"),
    (415, "invalid_request_error"),
    (429, "rate_limit_error"),
    (431, "invalid_request_error"),
    (500, "api_error"),
    (502, "api_error"),
    (503, "overloaded_error"),
    (504, "timeout_error"),
]


@pytest.mark.parametrize(("status", "kind"), TYPES)
def test_types_follow_the_status(status: int, kind: str) -> None:
    error = type("Error", (GatewayError,), {"status": status})("what happened")
    wanted = {"type": "error", "error": {"type": kind, "message": "what happened"}, "request_id": "req-1"}
    assert json.loads(body(error, "req-1")) == wanted
    assert event(error, "req-1") == b"event: error\ndata: " + body(error, "req-1") + b"\n\n"
