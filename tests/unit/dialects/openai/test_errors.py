"""Errors in OpenAI's words, whole and in streams."""

import json

import pytest

from gateway.dialects.openai.errors import body, event
from gateway.dialects.surfaces import SURFACES
from gateway.errors import GatewayError, InvalidCredential, InvalidRequest, ModelNotFound, Overloaded, UpstreamError

SURFACE = {surface.name: surface for surface in SURFACES}


class TooMany(GatewayError):
    code, status = "rate_limit_exceeded", 429


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (InvalidRequest("m", param="model"), "invalid_request_error"),
        (InvalidCredential("m"), "invalid_request_error"),
        (ModelNotFound("m"), "invalid_request_error"),
        (TooMany("m"), "rate_limit_error"),
        (Overloaded("m"), "server_error"),
        (UpstreamError("m"), "server_error"),
    ],
)
def test_body(error: GatewayError, kind: str) -> None:
    wanted = {"error": {"message": "m", "type": kind, "param": error.param, "code": error.code}}
    assert json.loads(body(error)) == wanted


@pytest.mark.parametrize("name", ["chat.completions", "completions"])
def test_plain_streams_carry_the_body_as_data(name: str) -> None:
    error = Overloaded("full\nand wide")
    assert event(SURFACE[name], error) == b"data: " + body(error) + b"\n\n"


@pytest.mark.parametrize("name", ["responses", "audio.speech", "images.generations"])
def test_typed_streams_carry_an_error_event(name: str) -> None:
    first, second, *rest = event(SURFACE[name], Overloaded("full")).split(b"\n")
    assert (first, rest) == (b"event: error", [b"", b""])
    said = json.loads(second.removeprefix(b"data: "))
    assert said["error"] == {"message": "full", "type": "server_error", "param": None, "code": "overloaded"}
    assert {name: said[name] for name in ("type", "code", "message", "param", "sequence_number")} == {
        "type": "error",
        "code": "overloaded",
        "message": "full",
        "param": None,
        "sequence_number": 0,
    }
