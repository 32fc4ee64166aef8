"""The Anthropic dialect as a whole; what the official SDK makes of its errors."""

import json

import anthropic
import httpx2
import pytest

from gateway.dialects.anthropic.dialect import ANTHROPIC
from gateway.dialects.surfaces import SURFACES
from gateway.errors import Overloaded
from gateway.record import Usage

SURFACE = {surface.name: surface for surface in SURFACES}
MESSAGES = SURFACE["messages"]


def test_models() -> None:
    model = {"type": "model", "id": "c", "display_name": "c", "created_at": "1970-01-01T00:00:07Z"}
    assert json.loads(ANTHROPIC.model_body("c", 7)) == model
    wanted = {"data": [model], "has_more": False, "first_id": "c", "last_id": "c"}
    assert json.loads(ANTHROPIC.models_body(("c",), 7)) == wanted
    assert json.loads(ANTHROPIC.models_body((), 7))["first_id"] is None


def test_it_reads_requests_usage_and_errors() -> None:
    assert ANTHROPIC.read_request(MESSAGES, b'{"model":"c"}').model == "c"
    assert ANTHROPIC.read_usage(MESSAGES, b'{"usage":{"input_tokens":3,"output_tokens":1}}') == Usage(3, 1)
    assert ANTHROPIC.read_error(b'{"type":"error","error":{"message":"no"}}') == "no"
    assert json.loads(ANTHROPIC.error_body(Overloaded("full"), "r"))["request_id"] == "r"


def test_the_sdk_raises_on_our_event() -> None:
    events = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{}}}\n\n'
    events += ANTHROPIC.error_event(MESSAGES, Overloaded("the node is full"), "r")

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=events)

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    client = anthropic.Anthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)
    stream = client.messages.create(model="c", max_tokens=1, messages=[], stream=True)
    with pytest.raises(anthropic.APIStatusError, match="the node is full"):
        list(stream)
