"""The OpenAI dialect as a whole; what the official SDK makes of its errors."""

import json

import httpx2
import openai
import pytest

from gateway.dialects.openai.dialect import OPENAI
from gateway.dialects.surfaces import SURFACES
from gateway.errors import UpstreamTimeout
from gateway.record import Usage

SURFACE = {surface.name: surface for surface in SURFACES}
ERROR = UpstreamTimeout("the provider was too slow", which="idle")


def test_models() -> None:
    model = {"id": "a/b", "object": "model", "created": 7, "owned_by": "gateway"}
    assert json.loads(OPENAI.model_body("a/b", 7)) == model
    assert json.loads(OPENAI.models_body(("a/b",), 7)) == {"object": "list", "data": [model]}
    assert json.loads(OPENAI.models_body((), 7))["data"] == []


def test_it_reads_requests_usage_and_errors() -> None:
    assert OPENAI.read_request(SURFACE["embeddings"], b'{"model":"m","input":"x"}').model == "m"
    assert OPENAI.read_usage(SURFACE["embeddings"], b'{"usage":{"prompt_tokens":3}}') == Usage(3)
    assert OPENAI.read_error(b'{"error":{"message":"no"}}') == "no"
    assert json.loads(OPENAI.error_body(ERROR, "r"))["error"]["code"] == "upstream_timeout"


def sdk_answering(events: bytes) -> openai.OpenAI:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=events)

    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=client, max_retries=0)


def test_the_sdk_raises_on_our_event_in_a_chat_stream() -> None:
    text = b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    client = sdk_answering(text + OPENAI.error_event(SURFACE["chat.completions"], ERROR, "r"))
    stream = client.chat.completions.create(model="m", messages=[], stream=True)
    with pytest.raises(openai.APIError, match="too slow"):
        list(stream)


def test_the_sdk_raises_on_our_event_in_a_response_stream() -> None:
    created = b'event: response.created\ndata: {"type":"response.created","response":{}}\n\n'
    client = sdk_answering(created + OPENAI.error_event(SURFACE["responses"], ERROR, "r"))
    stream = client.responses.create(model="m", input="x", stream=True)
    with pytest.raises(openai.APIError, match="too slow"):
        list(stream)
